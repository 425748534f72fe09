"""What several tests share: tiny data, tiny configs, one finished training, fresh processes."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Every call of these rooms is checked against its annotations, shapes included. The hook works on
# later imports only, so nothing of rfxray may be imported above it, and not in the processes that a
# test starts. An int counts as a float, as it does for type checkers.
install_import_hook(
    [
        "rfxray.attributes.conditioning",
        "rfxray.objectives",
        "rfxray.networks",
        "rfxray.sampling",
    ],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

# The suite is for CPUs. With libtpu installed for its compiler, JAX would look for a TPU first.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

pytest_plugins = ("tests.skips",)

ROOT = Path(__file__).resolve().parents[1]

# Derandomised: a failure is the same on every machine. No deadline: the first call compiles.
settings.register_profile(
    "suite", derandomize=True, deadline=None, database=None, max_examples=50, print_blob=False
)
settings.load_profile("suite")

SIZE = 32  # of the pictures of the tiny data set
TRAIN, VALIDATION = 50, 20

# A network that compiles in seconds; every dimension that a mesh may split is a multiple of 8 or 2.
TINY = (
    "model.size=32",
    "model.patch=8",
    "model.width=32",
    "model.depth=2",
    "model.heads=2",
    "model.mlp_width=48",
    "model.adaln_rank=4",
    "model.unroll=1",
    "batch_size=8",
    "steps=12",
    "optim.schedule=constant",
    "optim.warmup=2",
    "optim.decay=0",
    "optim.learning_rate=2e-3",
    "log_every=4",
    "checkpoint_every=6",
    "evaluators.validation_loss.every=0",
    "evaluators.sample_grid.every=0",
)


def draw(numbers):
    """Records with their number as the first pixel, so that a test can tell each example."""
    from rfxray.attributes import vocabulary
    from rfxray.attributes.states import State

    for i in numbers:
        rng = np.random.default_rng(i)
        view, big = i % 3, i % 2
        y, x = np.mgrid[:SIZE, :SIZE]
        disc = (x - 16) ** 2 + (y - 10 - 6 * view) ** 2 < (5 + 4 * big) ** 2
        image = np.clip(disc * 40000 + rng.normal(8000, 1500, (SIZE, SIZE)), 0, 65535)
        image = image.astype(np.uint16)
        image[0, 0] = i
        attributes, known = vocabulary.encode(
            {
                "view": vocabulary.lookup("view").values[view],
                "age": float(i % 90),
                "source": "phantom",
                "cardiomegaly": vocabulary.PRESENCE[big],
                # Uncertain keeps the value that was read, closed vocabulary is a silent absence.
                "pneumonia": "present",
                "edema": "absent",
            }
        )
        states = np.where(known, State.STATED, State.UNLABELLED).astype(np.int8)
        states[vocabulary.INDEX["cardiomegaly"]] = State.POSITIVE if big else State.NEGATIVE
        states[vocabulary.INDEX["pneumonia"]] = State.UNCERTAIN
        states[vocabulary.INDEX["edema"]] = State.NEGATIVE_CLOSED_VOCABULARY
        yield {
            "image": image,
            "content_box": [0, 0, SIZE, SIZE],
            "original_size": [SIZE, SIZE],
            "original_bits": 16,
            "pixel_spacing": [0.0, 0.0],
            "laterality": "",
            "attributes": attributes,
            "states": states,
            "key": f"phantom/p{i}/s/i",
            "patient": f"phantom/p{i}",
        }


def write(out: Path, **splits: range) -> Path:
    from rfxray.data import writing
    from rfxray.data.plan import make_plan

    plan = make_plan(splits, name="tiny", size=SIZE, shard_examples=16)
    writing.write_dataset(plan, draw, out)
    return out


@pytest.fixture(scope="session", autouse=True)
def compilation_cache():
    """Compiling is most of the suite's time, and many tests run the same program."""
    from rfxray.runtime import distributed

    distributed.start()


@pytest.fixture(scope="session")
def tiny_records():
    """The function `numbers → records` that the tiny data sets are made of."""
    return draw


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A data set of 32² pictures: examples 0 … 49 to train on, 50 … 69 held out."""
    return write(
        tmp_path_factory.mktemp("data") / "tiny",
        train=range(TRAIN),
        validation=range(TRAIN, TRAIN + VALIDATION),
    )


@pytest.fixture(scope="session")
def damage_record():
    """`damage_record(folder, record, shard)`: flips a bit of one training record's picture."""

    def damage(folder: Path, number: int, shard: int = 0) -> None:
        from rfxray.data.dataset import Records, open_dataset

        data = Records(open_dataset(folder, latents=True), "train")._source[16 * shard + number]
        file = sorted(folder.glob("*train*"))[shard]
        content = bytearray(file.read_bytes())
        # A picture is stored as it is, so the middle of its PNG is found in the file.
        at = content.find(data[len(data) // 2 : len(data) // 2 + 64])
        assert at > 0
        content[at] ^= 0x10
        file.write_bytes(content)

    return damage


@pytest.fixture(scope="session")
def other_data(tmp_path_factory) -> Path:
    """A second data set, with another fingerprint: examples 1000 … 1029, nothing held out."""
    return write(tmp_path_factory.mktemp("data") / "other", train=range(1000, 1030))


@pytest.fixture(scope="session")
def make_config():
    """`make_config("data.dirs=…", "steps=3")`: the checked config of a tiny run."""
    from rfxray.config import load as configuration

    return lambda *overrides: configuration.load_config(
        str(ROOT / "configs/smoke.py"), [*TINY, *overrides]
    )


@pytest.fixture(scope="session")
def tiny_arguments():
    """`tiny_arguments(workdir, "steps=3")`: the flags of `rfxray.train` for a tiny run."""

    def arguments(workdir, *overrides):
        flags = [f"--config.{override}" for override in (*TINY, *overrides)]
        return ["--config", str(ROOT / "configs/smoke.py"), "--workdir", str(workdir), *flags]

    return arguments


@pytest.fixture(scope="session")
def run_training():
    """`train.train`, with the handlers of signals put back afterwards."""
    from rfxray import train

    def run(config, workdir: Path) -> Path:
        with keep_signal_handlers():
            train.train(config, workdir)
        return workdir

    return run


@contextlib.contextmanager
def keep_signal_handlers():
    from rfxray import stop_signals

    try:
        yield
    finally:
        stop_signals.hear(None)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, make_config, tiny_data, run_training) -> Path:
    """The workdir of an uninterrupted run of 12 steps, with checkpoints 6 and 12. Do not write."""
    config = make_config(
        f"data.dirs={tiny_data}",
        "evaluators.validation_loss.every=12",
        "evaluators.validation_loss.batches=2",
        "evaluators.sample_grid.every=12",
        "evaluators.sample_grid.n=4",
        "evaluators.sample_grid.steps=2",
    )
    return run_training(config, tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture(scope="session")
def make_vae():
    """`make_vae(out, seed)`: the export of an untrained autoencoder for 32²: 8 × 8 × 2 cells; its
    keys may be others."""
    import jax

    from rfxray import __version__
    from rfxray.checkpoints import exported, weights
    from rfxray.config.load import check_config
    from rfxray.config.schema import defaults
    from rfxray.networks import kinds

    def make(out: Path, seed: int = 0, kind: str = "vae", **keys: object) -> Path:
        config = defaults(model=kind)
        if kind == "vae":
            config.model.update(size=32, width=8, multipliers=(1, 1, 2), blocks=1, z=2, groups=4)
        config.model.update(keys)
        config = check_config(config)
        network = kinds.build(config.model)
        params = {"model": jax.jit(network.init)(jax.random.key(seed))}
        digest = weights.digest_of(params)
        facts = exported.Facts(
            step=1,
            ema=0.05,
            dtype="float32",
            parameters=network.parameters,
            weights=digest,
            source_weights=digest,
            data_fingerprint="none",
            trained_on=("phantom",),
            synthetic_only=True,
            licence="not stated",
            flow_loss_limit=None,
            rfxray=__version__,
        )
        exported.write(out, config, params, facts)
        return out

    return make


@pytest.fixture(scope="session")
def tiny_vae(tmp_path_factory, make_vae) -> Path:
    """The export of an untrained autoencoder."""
    return make_vae(tmp_path_factory.mktemp("vae") / "export")


@pytest.fixture(scope="session")
def tiny_latents(tmp_path_factory, tiny_data, tiny_vae) -> Path:
    """The latents of `tiny_data` by `tiny_vae`."""
    from rfxray.sampling.encoding import EncodeRequest, encode

    out = tmp_path_factory.mktemp("latents") / "tiny"
    request = EncodeRequest(tiny_data, tiny_vae, out, batch_size=12, shard_examples=16)
    encode(request, lambda total, done: lambda: None)
    return out


@pytest.fixture(scope="session")
def randomise():
    """`randomise(tree, seed, scale)`: every array plus normal noise, so that no gate is zero."""
    import jax

    def randomised(tree, seed: int = 0, scale: float = 0.1):
        rng = np.random.default_rng(seed)
        return jax.tree.map(
            lambda x: (np.asarray(x) + scale * rng.normal(size=x.shape)).astype(x.dtype), tree
        )

    return randomised


@pytest.fixture(scope="session")
def assert_bitwise():
    """`assert_bitwise(a, b)`: two trees of arrays are the same to the last bit."""
    import jax

    def check(a, b):
        assert jax.tree.structure(a) == jax.tree.structure(b)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            x, y = np.asarray(x), np.asarray(y)
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)

    return check


@pytest.fixture(scope="session")
def environment():
    """`environment(devices)`: of a process that sees that many CPU devices."""

    def variables(devices: int = 1) -> dict[str, str]:
        flags = ""
        if devices > 1:
            # Compiling for many devices is the longest part of the suite; without LLVM's
            # optimizations it takes half of the time, and tiny steps are as quick.
            flags = f"--xla_force_host_platform_device_count={devices}"
            flags += " --xla_backend_optimization_level=0"
        return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}

    return variables


@pytest.fixture(scope="session")
def run_module(environment):
    """`run_module("rfxray.train", *flags)`: the finished process of a command."""

    def run(name: str, *arguments: str, devices: int = 1) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", name, *arguments],
            cwd=ROOT,
            env=environment(devices),
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def refusal(capsys):
    """`refusal(main, argv)`: (exit code, the line on stderr) of a command that must fail."""

    def call(main, argv) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stopped, keep_signal_handlers():
            main([str(a) for a in argv])
        (line,) = capsys.readouterr().err.strip().splitlines()
        return stopped.value.code, line

    return call
