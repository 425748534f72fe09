"""An autoencoder with every term of its loss, under the one trainer."""

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

from rfxray.checkpoints import exported, tensor_files, weights
from rfxray.checkpoints.store import Store
from rfxray.commands import export
from rfxray.config.load import from_json, load_config
from rfxray.errors import ConfigError
from rfxray.networks import kinds as networks
from rfxray.runtime import sharding
from rfxray.sampling.autoencoder import open_autoencoder
from rfxray.training import frozen, state
from rfxray.training import recipe as recipes
from tests.conftest import keep_signal_handlers
from tests.rfxray.training.frozen_weights import published

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "tests/rfxray/autoencoder.py")


@pytest.fixture(scope="module")
def eye(tmp_path_factory) -> Path:
    """Published weights of the frozen network. Do not write."""
    model = load_config(CONFIG).parts.perceptual.model
    return published(tmp_path_factory.mktemp("eye") / "dinov2", model, 0)


@pytest.fixture(scope="module")
def settings(eye, tiny_data):
    """`settings("steps=3")`: overrides of a run on the tiny data with the frozen weights."""

    def overrides(*others: str) -> list[str]:
        return [f"data.dirs={tiny_data}", f"parts.perceptual.weights=dinov2={eye}", *others]

    return overrides


@pytest.fixture(scope="module")
def whole(tmp_path_factory, settings, run_training) -> Path:
    """Workdir of an uninterrupted run of 12 steps. Do not write."""
    return run_training(load_config(CONFIG, settings()), tmp_path_factory.mktemp("vae") / "whole")


def saved(workdir: Path, step: int = 12) -> dict[str, np.ndarray]:
    """The train state of a checkpoint, flat."""
    recipe = recipes.build(load_config(CONFIG))
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    abstract = state.abstract(recipe, mesh)
    store = Store(workdir / "checkpoints", ("state",))
    wanted = {key: abstract[key] for key in ("params", "optimizer", "guard", "step")}
    wanted["params"] = {name: wanted["params"][name] for name in recipe.optimizers}
    place = sharding.replicated(mesh)
    wanted["metrics"] = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
        serialization.to_state_dict(jax.eval_shape(recipe.metrics.empty)),
    )
    found = store.restore(step, {"state": wanted}, store.meta(step))["state"]
    store.close()
    leaves, _ = jax.tree_util.tree_flatten_with_path(found)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------------------------------------
# A run


def test_every_term_is_logged_and_the_distance_falls(whole):
    logged = [row for row in rows(whole) if "loss" in row]
    terms = {"distance", "psnr", "kl", "latent_std", "perceptual", "adversarial", "adaptive_weight"}
    assert terms | {"discriminator_loss", "discriminator_grad_norm"} <= set(logged[-1])
    assert logged[-1]["distance"] < logged[0]["distance"]
    assert logged[0]["discriminator_loss"] == 0  # steps 1 to 4 are before the start
    assert logged[-1]["discriminator_loss"] > 0.1
    assert all(row["skipped"] == 0 for row in logged)
    (evaluated,) = [row for row in rows(whole) if "validation_loss/ema" in row]
    assert 0 < evaluated["validation_loss/params"] < 2


def test_sample_grid_has_image_reconstruction_and_difference(whole):
    with Image.open(whole / "samples" / "step_00000012.png") as image:
        grid = np.asarray(image)
    assert grid.shape[1] >= 3 * 32
    assert np.ptp(grid) > 50


def test_frozen_part_is_named_by_a_hash_and_stored_in_no_checkpoint(whole, settings):
    meta = Store(whole / "checkpoints", ("state", "ema_0.050")).meta(12)
    parts = {tuple(key.split("/")[:3]) for key in meta["dtypes"]}
    assert ("state", "optimizer", "discriminator") in parts
    assert ("ema_0.050", "model") in {part[:2] for part in parts}
    assert not {("state", of, "perceptual") for of in ("params", "optimizer")} & parts
    given = frozen.open_weights(load_config(CONFIG, settings()))["perceptual"]
    assert meta["identity"]["parts.perceptual.weights"] == given.hash


def test_other_frozen_weights_belong_to_another_run(whole, settings, run_training, tmp_path):
    other = published(tmp_path / "other", load_config(CONFIG).parts.perceptual.model, 1)
    config = load_config(CONFIG, settings(f"parts.perceptual.weights=dinov2={other}"))
    with pytest.raises(ConfigError, match=r"belongs to another run \(parts\.perceptual\.weights"):
        run_training(config, whole)


def test_export_is_the_autoencoder_and_names_no_path(whole, eye, tmp_path):
    out = tmp_path / "exported"
    with keep_signal_handlers():
        export.main(["--checkpoint", str(whole), "--out", str(out)])
    tree, facts = exported.read(out)
    assert tree["parts"]["perceptual"]["weights"] == "dinov2"
    identity = Store(whole / "checkpoints", ("state",)).meta(12)["identity"]
    sha256 = identity["parts.perceptual.weights"]
    assert facts.frozen == {
        "perceptual": {"weights": "dinov2", "sha256": sha256, "licence": "Apache-2.0"}
    }
    assert open_autoencoder(out).weights == facts.weights
    assert str(eye) not in (out / exported.CONFIG).read_text()
    model = networks.build(from_json(tree).model)
    tensors = tensor_files.read(out / exported.MODEL)[0]
    params = {name.removeprefix("model."): value for name, value in tensors.items()}
    assert facts.parameters == model.parameters
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = {
        "model": {
            name: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place)
            for name, s in model.shapes.items()
        }
    }
    average = weights.restore_ema(whole, shapes, "0.050").params["model"]
    for name, value in average.items():
        np.testing.assert_array_equal(params[name], value)
    image = np.zeros((1, 32, 32, 1), np.float32)
    latents = model.apply(params, image, method="encode").mean
    assert model.apply(params, latents, method="decode").shape == image.shape


# ---------------------------------------------------------------------------------------------
# Processes of their own


def command(workdir: Path, overrides: list[str]) -> list[str]:
    flags = [f"--config.{each}" for each in overrides]
    return [
        *(sys.executable, "-m", "rfxray.train"),
        *("--config", CONFIG, "--workdir", str(workdir), *flags),
    ]


def killed_and_resumed(line: list[str], workdir: Path, environment) -> None:
    """Kills a run when its checkpoint of step 3 is there, and runs the command again."""
    process = subprocess.Popen(
        line, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    end = time.monotonic() + 300
    while not (workdir / "checkpoints" / "3").is_dir():
        assert process.poll() is None, process.stdout.read().decode()[-2000:]
        assert time.monotonic() < end, "no checkpoint"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resumed at step" in done.stdout


@pytest.mark.drill
def test_run_resumes_bitwise_after_a_kill(whole, settings, environment, tmp_path):
    line = command(tmp_path / "killed", settings("checkpoint_every=3", "log_every=1"))
    killed_and_resumed(line, tmp_path / "killed", environment)
    found = saved(tmp_path / "killed")
    for key, value in saved(whole).items():
        if "metrics" not in key:  # accumulated since the last log line
            np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.mark.drill
def test_eight_devices_train_like_one(settings, environment, tmp_path):
    # Until step 55 the discriminator waits. A game of two networks doubles a difference of rounding
    # with every step (1e-7 became 5e-5 in eight), so its steps agree only if they are few.
    common = ("steps=60", "log_every=20", "objective.adversarial_start=440")
    runs = [
        (
            name,
            subprocess.Popen(
                command(tmp_path / name, settings(*common, *mesh)),
                cwd=ROOT,
                env=environment(devices),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            ),
        )
        for name, devices, mesh in (("one", 1, []), ("eight", 8, ["mesh.data=2", "mesh.fsdp=4"]))
    ]
    losses = []
    for name, process in runs:
        _, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors[-2000:]
        logged = [row for row in rows(tmp_path / name) if "loss" in row]
        assert [row["discriminator_loss"] > 0 for row in logged] == [False, False, True]
        losses.append([row["loss"] for row in logged])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
