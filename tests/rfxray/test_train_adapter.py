"""An adapter of a published autoencoder's decoder, under the one trainer, and its exports."""

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from rfxray import sampling
from rfxray.checkpoints import exported, weights
from rfxray.checkpoints.store import Store
from rfxray.commands import export
from rfxray.config.load import load_config, to_json
from rfxray.data.dataset import Records, open_dataset
from rfxray.data.pixels import to_float
from rfxray.errors import ConfigError, DataError
from rfxray.networks import lora, vae
from rfxray.runtime import sharding
from rfxray.sampling import adapter
from rfxray.sampling.autoencoder import open_autoencoder
from rfxray.sampling.encoding import EncodeRequest, encode
from rfxray.training import recipe as recipes
from rfxray.training import state
from tests.conftest import keep_signal_handlers
from tests.peers import import_peer
from tests.rfxray.networks.parity import draw, relative
from tests.rfxray.networks.vae_layouts import LAYOUTS, answers, peer, publish
from tests.rfxray.test_train_autoencoder import command, killed_and_resumed, rows

NETWORK = dataclasses.replace(LAYOUTS["flux2"], multipliers=(1,), z=4)
SHAPES = {k: v for k, v in dataclasses.asdict(NETWORK).items() if k != "dtype"}


def overrides() -> list[str]:
    """Those that make FLUX.2's autoencoder tiny."""
    text = {k: ",".join(map(str, v)) if isinstance(v, tuple) else v for k, v in SHAPES.items()}
    few = ["batch_size=8", "steps=12", "log_every=4", "checkpoint_every=6"]
    few += ["optim.learning_rate=3e-2", "optim.warmup=0", "model.dtype=float32"]
    few += ["model.rank=2", "model.alpha=8", "ema_sigmas=0.1", "model.remat=none"]
    few += ["evaluators.validation_loss.every=12", "evaluators.validation_loss.batches=1"]
    few += ["evaluators.sample_grid.every=12", "evaluators.sample_grid.n=2"]
    return [f"model.{key}={value}" for key, value in text.items()] + few


def run(*words) -> None:
    with keep_signal_handlers():
        export.main([str(word) for word in words])


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> Path:
    """The folder of a published autoencoder. Do not write."""
    folder = tmp_path_factory.mktemp("foreign")
    publish(NETWORK, draw(vae.shapes(NETWORK), 0.15), folder)
    return folder


@pytest.fixture(scope="module")
def base(foreign, tmp_path_factory) -> Path:
    """Its export. Do not write."""
    out = tmp_path_factory.mktemp("base") / "export"
    run("--weights", foreign, "--licence", "Terms of the base", "--out", out)
    return out


@pytest.fixture(scope="module")
def settings(base, tiny_data):
    def found(*others: str) -> list[str]:
        return [*overrides(), f"data.dirs={tiny_data}", f"model.base={base}", *others]

    return found


CONFIG = "rad_vae_flux2:perceptual=no"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, settings, run_training) -> Path:
    """Workdir of an uninterrupted run of 12 steps. Do not write."""
    config = load_config(CONFIG, settings())
    return run_training(config, tmp_path_factory.mktemp("adapter") / "whole")


@pytest.fixture(scope="module")
def merged(whole, tmp_path_factory) -> Path:
    """The export of the run. Do not write."""
    out = tmp_path_factory.mktemp("merged") / "export"
    run("--checkpoint", whole, "--ema", 0.1, "--out", out)
    return out


def averaged(workdir: Path) -> dict[str, np.ndarray]:
    """The adapter of the run, by name."""
    shapes = sampling.pretrained.averaged(load_config(CONFIG, overrides()))
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes
    )
    found = weights.restore_ema(workdir, abstract, "0.100").params["model"]
    return {name: np.asarray(value) for name, value in found.items()}


# ---------------------------------------------------------------------------------------------
# A run


def test_the_adapter_learns(whole):
    logged = [row for row in rows(whole) if "loss" in row]
    assert logged[-1]["loss"] < 0.95 * logged[0]["loss"]
    assert all(row["skipped"] == 0 for row in logged)
    assert all(np.abs(value).max() > 0 for value in averaged(whole).values())
    assert (whole / "samples" / "step_00000012.png").exists()
    (evaluated,) = [row for row in rows(whole) if "validation_loss/ema" in row]
    assert evaluated["validation_loss/params"] < logged[0]["loss"]


def test_state_and_checkpoints_are_those_of_the_adapter_only(whole):
    recipe = recipes.build(load_config(CONFIG, overrides()))
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])

    def count(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    abstract = state.abstract(recipe, mesh)
    own, of_base = recipe.model.parameters, recipe.networks["base"].parameters
    assert own < 0.2 * of_base
    # Two moments of AdamW, and the counts of its chain.
    assert 2 * own < count(abstract["optimizer"]) < 2 * own + 10
    assert count(abstract["ema"]) == own
    meta = Store(whole / "checkpoints", ("state", "ema_0.100")).meta(12)
    parts = {name.split("/")[2] for name in meta["dtypes"] if name.startswith("state/params/")}
    assert parts == {"model"}
    assert meta["identity"]["model.base"] == open_autoencoder(whole / "base").weights


def test_resume_continues_bitwise(whole, settings, run_training, tmp_path):
    out = tmp_path / "cut"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "checkpoints" / "12")
    run_training(load_config(CONFIG, settings()), out)
    found = averaged(out)
    for name, value in averaged(whole).items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize(
    ("others", "line"),
    [
        (["model.base="], "model.base must be the folder of the autoencoder that is adapted"),
        (["model.base=absent"], "absent is not an export of an autoencoder; make one"),
        (
            ["model.multipliers=1,2"],
            "model.multipliers=1,2, but the network in",
        ),
        (["model.base={other}"], "belongs to another run (model.base: "),
    ],
)
def test_another_base_is_refused_in_one_line(
    others, line, whole, settings, run_training, foreign, tmp_path
):
    if "other" in others[0]:
        folder = tmp_path / "other"
        shutil.copytree(foreign, folder)
        publish(NETWORK, draw(vae.shapes(NETWORK), 0.15, seed=1), folder)
        run("--weights", folder, "--licence", "x", "--out", tmp_path / "export")
    others = [each.format(other=tmp_path / "export") for each in others]
    with pytest.raises(ConfigError) as caught:
        run_training(load_config(CONFIG, settings(*others)), whole)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------
# Exports


def test_export_is_the_base_with_another_decoder(whole, base, merged):
    tuned, plain = open_autoencoder(merged), open_autoencoder(base)
    tree, facts = exported.read(merged)
    assert tree["model"] == exported.read(base)[0]["model"]
    assert facts.weights == tuned.weights != plain.weights
    assert facts.encoder == tuned.encoder == plain.encoder
    assert facts.licence == exported.UNSTATED
    assert facts.published["licence"] == "Terms of the base"
    assert facts.published["weights"] == plain.weights
    assert "sha256" in facts.published
    changed = [n for n, v in plain.params.items() if not np.array_equal(v, tuned.params[n])]
    assert changed
    assert all(name.startswith("decoder.") for name in changed)
    # Two narrow convolutions beside each layer give what the wide one gives.
    narrow = averaged(whole)
    rng = np.random.default_rng(0)
    module = "decoder.mid_block.resnets.0.conv1"
    x = rng.normal(size=(1, 8, 8, plain.params[f"{module}.weight"].shape[2])).astype(np.float32)

    def convolve(x, kernel):
        with jax.default_matmul_precision("highest"):
            return jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

    path = convolve(convolve(x, narrow[module + lora.A]), narrow[module + lora.B])
    beside = convolve(x, plain.params[f"{module}.weight"]) + 8 / 2 * path  # alpha / rank
    assert relative(convolve(x, tuned.params[f"{module}.weight"]), beside) < 1e-5


def test_latents_of_the_base_are_decoded_by_the_adapted_decoder(
    base, merged, make_vae, tiny_data, tmp_path
):
    request = EncodeRequest(tiny_data, base, tmp_path / "latents", batch_size=10)
    encode(request, lambda total, done: lambda: None)
    about = open_dataset(tmp_path / "latents", latents=True).latents
    entry = json.loads((tmp_path / "latents" / "manifest.json").read_text())["latents"]
    assert entry["encoder"] == exported.read(merged)[1].encoder
    tuned = open_autoencoder(merged, about)
    image = to_float(Records(open_dataset(tiny_data), "train")[0]["image"])[None, ..., None]
    np.testing.assert_array_equal(tuned.encode(image)[0], open_autoencoder(base).encode(image)[0])
    other = make_vae(tmp_path / "other")
    with pytest.raises(ConfigError, match="and has another encoder"):
        open_autoencoder(other, about)
    older = dataclasses.replace(about, encoder=None)  # a manifest that does not say it
    open_autoencoder(base, older)
    with pytest.raises(ConfigError, match="and has another encoder"):
        open_autoencoder(merged, older)


def test_adapter_is_loaded_by_peft_and_read_back(whole, foreign, merged, tmp_path, capsys):
    out = tmp_path / "adapter"
    run("--checkpoint", whole, "--ema", 0.1, "--adapter-only", "--out", out)
    assert "adapter_model.safetensors and adapter_config.json in" in capsys.readouterr().out
    assert sorted(file.name for file in out.iterdir()) == [adapter.CONFIG, adapter.TENSORS]
    assert b"Terms of the base" in (out / adapter.TENSORS).read_bytes()
    assert str(whole).encode() not in (out / adapter.TENSORS).read_bytes()
    again = tmp_path / "again"
    run("--weights", foreign, "--adapter", out, "--licence", "x", "--out", again)
    tuned = open_autoencoder(merged)
    for name, value in open_autoencoder(again).params.items():
        np.testing.assert_array_equal(value, tuned.params[name], err_msg=name)
    import_peer("torchvision")  # peft imports transformers, which imports it
    peft = import_peer("peft")
    model = peft.PeftModel.from_pretrained(peer(NETWORK, str(foreign)), out)
    image = np.zeros((1, 8, 8, 3), np.float32)
    latents = np.random.default_rng(1).normal(size=(1, 4, 4, 16)).astype(np.float32)
    theirs = answers(model.base_model.model, image, latents)[2]
    ours = tuned.decode(latents)
    assert relative(ours, theirs.mean(-1, keepdims=True)) < 1e-5
    bare = answers(peer(NETWORK, str(foreign)), image, latents)[2]
    assert relative(ours, bare.mean(-1, keepdims=True)) > 0.01


def test_what_has_no_adapter_or_did_not_train_is_refused(
    whole, make_config, refusal, monkeypatch, tmp_path
):
    (tmp_path / "config.json").write_text(to_json(make_config(), {}))
    words = ["--checkpoint", tmp_path, "--adapter-only", "--out", tmp_path / "out"]
    code, line = refusal(export.main, words)
    assert code == 78
    assert "trains a radit network, not an adapter" in line
    restore = weights.restore_ema

    def fresh(*arguments):
        found = restore(*arguments)
        own = {n: v * (not n.endswith(lora.B)) for n, v in found.params["model"].items()}
        return found._replace(params={"model": own})

    monkeypatch.setattr(weights, "restore_ema", fresh)
    words = ["--checkpoint", whole, "--ema", "0.1", "--out", tmp_path / "out"]
    code, line = refusal(export.main, words)
    assert code == DataError.exit_code
    assert "the adapter changes no parameter" in line
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------
# Processes of their own


@pytest.mark.drill
def test_run_resumes_bitwise_after_a_kill(whole, settings, environment, tmp_path):
    line = command(tmp_path / "killed", settings("checkpoint_every=3", "log_every=1"))
    line[line.index("--config") + 1] = CONFIG
    killed_and_resumed(line, tmp_path / "killed", environment)
    found = averaged(tmp_path / "killed")
    for name, value in averaged(whole).items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.drill
def test_eight_devices_train_like_one(settings, environment, tmp_path):
    losses = []
    for name, devices, mesh in (("one", 1, []), ("eight", 8, ["mesh.data=2", "mesh.fsdp=4"])):
        words = command(tmp_path / name, settings("log_every=12", *mesh))
        words[words.index("--config") + 1] = CONFIG
        done = subprocess.run(
            words, env=environment(devices), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        losses.append([row["loss"] for row in rows(tmp_path / name) if "loss" in row])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
