"""Kinds from outside rfxray are trained without a change to the trainer."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import serialization
from PIL import Image

from rfxray.checkpoints.store import Store
from rfxray.config import load as configuration
from rfxray.runtime import sharding
from rfxray.training import recipe as recipes
from rfxray.training import state

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "tests/seams/config.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_data, environment):
    """`run(name, *overrides, devices=1)`: the workdir of a finished run of the config."""
    folder = tmp_path_factory.mktemp("seams")

    def go(name: str, *overrides: str, devices: int = 1) -> Path:
        done = subprocess.run(
            command(folder / name, tiny_data, *overrides),
            cwd=ROOT,
            env=environment(devices),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return folder / name

    return go


def command(workdir: Path, data: Path, *overrides: str) -> list[str]:
    flags = [f"--config.{o}" for o in (f"data.dirs={data}", *overrides)]
    return [
        *(sys.executable, "-m", "rfxray.train"),
        *("--config", CONFIG, "--workdir", str(workdir), *flags),
    ]


@pytest.fixture(scope="module")
def whole(run) -> Path:
    """Workdir of an uninterrupted run on one device."""
    return run("whole")


def saved(workdir: Path, step: int = 12) -> dict[str, np.ndarray]:
    """The train state of a checkpoint, flat."""
    config = configuration.load_config(str(ROOT / CONFIG))
    recipe = recipes.build(config)
    mesh = sharding.make_mesh(1, 1, 1)
    abstract = state.abstract(recipe, mesh)
    store = Store(workdir / "checkpoints", ("state",))
    meta = store.meta(step)
    wanted = {key: abstract[key] for key in ("params", "optimizer", "guard", "step")}
    metrics = jax.eval_shape(recipe.metrics.empty)
    whole = sharding.replicated(mesh)
    wanted["metrics"] = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=whole),
        serialization.to_state_dict(metrics),
    )
    found = store.restore(step, {"state": wanted}, meta)["state"]
    store.close()
    leaves, _ = jax.tree_util.tree_flatten_with_path(found)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def initial() -> dict[str, dict]:
    """Initial parameters of a run."""
    config = configuration.load_config(str(ROOT / CONFIG))
    return state.init(recipes.build(config), sharding.make_mesh(1, 1, 1))["params"]


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_both_parts_are_trained_and_logged(whole):
    last = [row for row in rows(whole) if "loss" in row][-1]
    assert {"loss", "grad_norm", "apart", "discriminator_loss", "discriminator_grad_norm"} <= set(
        last
    )
    first = next(row for row in rows(whole) if "loss" in row)
    assert last["apart"] < first["apart"]
    found = saved(whole)
    fresh = initial()
    for part in ("model", "discriminator"):
        for name, value in fresh[part].items():
            assert not np.array_equal(found[f"['params']['{part}']['{name}']"], value), (part, name)
        assert any(f"['optimizer']['{part}']" in key for key in found)


def test_each_part_has_its_own_optimizer(run, whole):
    still = run("still", "parts.discriminator.optim.learning_rate=1e-30")
    a, b = saved(whole), saved(still)
    fresh = initial()
    for name, value in fresh["discriminator"].items():
        np.testing.assert_allclose(
            b[f"['params']['discriminator']['{name}']"], value, rtol=1e-6
        )  # init, jitted again
    for name, value in fresh["model"].items():
        key = f"['params']['model']['{name}']"
        assert not np.array_equal(b[key], value)
        assert not np.array_equal(a[key], b[key])  # a different discriminator


def test_evaluators_run_at_their_intervals(whole):
    logged = rows(whole)
    assert [row["step"] for row in logged if "brightness" in row] == [4, 8, 12]
    assert [row["step"] for row in logged if "validation_loss/ema" in row] == [6, 12]
    for name, steps in (("brightness", (4, 8, 12)), ("samples", (6, 12))):
        for step in steps:
            with Image.open(whole / name / f"step_{step:08d}.png") as image:
                assert image.size[0] >= 32


def test_eight_devices_train_like_one(run, whole):
    eight = run("eight", "mesh.data=2", "mesh.fsdp=4", devices=8)
    single, shared = ([row["loss"] for row in rows(w) if "loss" in row] for w in (whole, eight))
    np.testing.assert_allclose(single, shared, rtol=1e-4)


def test_resume_continues_bitwise_after_a_kill(tmp_path, tiny_data, environment, whole):
    workdir = tmp_path / "killed"
    line = command(workdir, tiny_data, "checkpoint_every=3", "log_every=1")
    process = subprocess.Popen(
        line, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    end = time.monotonic() + 120
    while not (workdir / "checkpoints" / "3").is_dir():
        assert process.poll() is None, process.stdout.read().decode()[-2000:]
        assert time.monotonic() < end, "no checkpoint"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resumed at step" in done.stdout
    found, expected = saved(workdir), saved(whole)
    for key, value in expected.items():
        if "metrics" not in key:  # accumulated since the last log line
            np.testing.assert_array_equal(found[key], value, err_msg=key)


def test_ema_checkpoint_holds_only_the_averaged_part(whole):
    meta = Store(whole / "checkpoints", ("ema_0.050",)).meta(12)
    names = {key for key in meta["dtypes"] if key.startswith("ema_0.050")}
    assert names == {f"ema_0.050/model/{name}" for name in ("down", "mix", "out")}


def test_code_named_by_a_run_needs_allow_kind(run_module, whole):
    arguments = ["--checkpoint", str(whole), "--out", str(whole / "out"), "--n", "1"]
    done = run_module("rfxray.sample", *arguments)
    assert done.returncode == 78
    assert "--allow-kind tests.seams.plugins:autoencoder" in done.stderr
    kinds = ("autoencoder", "adversarial", "brightness", "discriminator")
    allowed = [flag for kind in kinds for flag in ("--allow-kind", f"tests.seams.plugins:{kind}")]
    done = run_module("rfxray.sample", *arguments, *allowed)
    assert done.returncode == 78
    assert "learns no velocity" in done.stderr


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, the TPU compiler, is not installed: pip install -e '.[test-tpu]'",
)
def test_the_config_compiles_for_a_pod(run_module):
    flags = ["--config", CONFIG, "--topology", "v5e:2x2", "--json", "--config.mesh.fsdp=4"]
    done = run_module("rfxray.compile_pod", *flags)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["chips"] == 4
    network, judge = (4 * 4 * 8 + 9 * 8 * 8 + 9 * 8), (4 * 4 * 8 + 9 * 8)
    assert found["parameters"] == network + judge
    assert found["flops"]["model"] > 0
