"""Models of latents: trained on what `rfxray encode` wrote, sampled to images."""

import dataclasses
import functools
import json
import re
import shutil
import sys

import hypothesis
import jax
import numpy as np
import pytest
import scipy.stats
from hypothesis import strategies as st
from PIL import Image

from rfxray import edit, posthoc_ema, sample, sampling
from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import Attributes
from rfxray.checkpoints import exported
from rfxray.checkpoints.store import Store
from rfxray.data.dataset import Records, open_dataset
from rfxray.data.pixels import to_float
from rfxray.errors import ConfigError, DataError
from rfxray.outputs.files import read_png, save_png
from rfxray.sampling import editing
from rfxray.sampling.autoencoder import open_autoencoder
from rfxray.sampling.encoding import EncodeRequest, encode
from rfxray.sampling.exporting import ExportRequest, export
from rfxray.sampling.sampler import make_sampler
from rfxray.sampling.settings import Settings
from tests.rfxray.test_train_autoencoder import killed_and_resumed, rows

OVERRIDES = ("model.size=8", "model.channels=2", "model.patch=2", "steps=6")
SETTINGS = Settings(seed=3, steps=3, solver="euler", guidance=1.0, batch_size=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_config, tiny_latents, run_training):
    """Workdir of a run on latents."""
    grid = ("evaluators.sample_grid.every=6", "evaluators.sample_grid.n=2")
    config = make_config(f"data.dirs={tiny_latents}", *OVERRIDES, *grid, "ema_every=2")
    return run_training(config, tmp_path_factory.mktemp("latent_run") / "run")


def test_run_keeps_its_autoencoder_and_statistics(run, tiny_latents):
    about = open_dataset(tiny_latents, latents=True).latents
    assert json.loads((run / "config.json").read_text())["latents"] == json.loads(
        json.dumps(about.entry())
    )
    assert open_autoencoder(run / "vae").weights == about.vae


def test_latent_training_resumes_bitwise(run, make_config, tiny_latents, run_training, tmp_path):
    """From the checkpoint of step 3, on another copy of the data."""
    shutil.copytree(tiny_latents, tmp_path / "data")
    keys = (f"data.dirs={tmp_path / 'data'}", *OVERRIDES, "ema_every=2", "checkpoint_every=3")
    config = make_config(*keys)
    out = run_training(config, tmp_path / "run")
    whole = sampling.load(out).params
    shutil.rmtree(out / "checkpoints" / "6")
    assert sampling.load(out).source["step"] == 3
    run_training(config, out)
    for found in (sampling.load(out), sampling.load(run)):
        assert found.source["step"] == 6
        jax.tree.map(np.testing.assert_array_equal, found.params, whole)


def test_sample_grid_shows_images(run):
    with Image.open(run / "samples" / "step_00000006.png") as grid:
        assert min(grid.size) >= 32


def test_samples_are_decoded_latents(run):
    model = sampling.load(run)
    assert (model.size, model.shape) == (32, (8, 8, 2))
    drawn = sampling.generate(model, {"view": "PA"}, n=3, settings=SETTINGS)
    assert drawn.images.shape == (3, 32, 32)
    program = SETTINGS.program()
    attributes = Attributes(*(np.repeat(np.asarray(a)[:1], 3, 0) for a in drawn.attributes))
    draw = make_sampler(model.velocity, model.shape, program)
    weights = SETTINGS.traced_weights()
    latents = np.asarray(draw(model.params, 3, weights, np.arange(3), attributes))
    about = model.space.latents.statistics
    images = open_autoencoder(run / "vae").decode(latents * about.std + np.array(about.mean))
    expected = np.clip(np.asarray(images)[..., 0], -1, 1)
    np.testing.assert_allclose(drawn.images, expected, atol=1e-4)


def test_number_of_samples_drawn_together_changes_nothing(run):
    model = sampling.load(run)
    drawn = sampling.generate(model, {"view": "PA"}, n=7, settings=SETTINGS)
    one = sampling.generate(model, {"view": "PA"}, indices=[6], settings=SETTINGS)
    np.testing.assert_allclose(one.images[0], drawn.images[6], atol=1e-4)


def test_average_that_was_reconstructed_afterwards_is_sampled(run):
    posthoc_ema.main(["--workdir", str(run), "--sigma", "0.08"])
    wide, kept = sampling.load(run, ema=0.08), sampling.load(run)
    assert (wide.source["ema"], wide.size, wide.shape) == (0.08, 32, (8, 8, 2))
    assert wide.space.latents == kept.space.latents
    one, other = (sampling.generate(m, {}, n=2, settings=SETTINGS).images for m in (wide, kept))
    assert one.shape == (2, 32, 32)
    assert 1e-6 < np.abs(one - other).max() < 0.5


def test_likelihood_is_that_of_the_latents(run, images):
    """Under the exact flow of cells ~ N(0, 1.5²)."""

    def gaussian(params, x, t, attributes):
        t = t[:, None, None, None]
        return x * (t - (1 - t) * 1.5**2) / ((1 - t) ** 2 * 1.5**2 + t**2)

    model = dataclasses.replace(sampling.load(run), velocity=gaussian)
    cells = model.cells(images)
    times = np.linspace(0, 1, 33)
    found, noise = sampling.log_likelihood(
        model.under({"view": "PA"}), cells, times, jax.random.key(0), "rk4"
    )
    values = cells.reshape(len(cells), -1)
    exact = scipy.stats.norm(0, 1.5).logpdf(values).sum(1)
    np.testing.assert_allclose(found, exact, rtol=1e-4)
    np.testing.assert_allclose(noise, cells / 1.5, atol=1e-3)


def test_export_is_the_same_model(run, tmp_path):
    facts = export(ExportRequest(run, tmp_path / "export"))
    there, here = sampling.load(tmp_path / "export"), sampling.load(run)
    assert there.source["weights"] == here.source["weights"] == facts.weights
    images = [sampling.generate(m, {}, n=1, settings=SETTINGS).images for m in (there, here)]
    np.testing.assert_array_equal(*images)


def test_autoencoder_is_found_elsewhere_or_refused(run, tiny_vae, make_vae, trained, tmp_path):
    bare = tmp_path / "bare"
    export(ExportRequest(run, bare))
    shutil.rmtree(bare / exported.VAE)
    with pytest.raises(DataError, match="has no folder vae; give the export of the autoencoder"):
        sampling.load(bare)
    assert sampling.load(bare, vae=tiny_vae).size == 32
    with pytest.raises(ConfigError, match="absent is not an export of an autoencoder; make one"):
        sampling.load(run, vae=tmp_path / "absent")
    with pytest.raises(ConfigError, match=f"not an export of an autoencoder; give {run / 'vae'}"):
        sampling.load(run, vae=run)
    with pytest.raises(ConfigError, match="is another autoencoder"):
        sampling.load(bare, vae=make_vae(tmp_path / "other", seed=1))
    with pytest.raises(ConfigError, match="is not a model of latents and reads no --vae"):
        sampling.load(trained, vae=tiny_vae)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"statistics": {"mean": [0, 0], "std": [1, 1, 1]}}, "are not finite statistics of 2"),
        ({"statistics": {"mean": [0, 0], "std": [1, 10**400]}}, "are not finite statistics of 2"),
        ({"statistics": {"mean": [0, 0], "std": [1, True]}}, "True is not a number"),
        ({"statistics": {"mean": "00", "std": [1, 1]}}, "'0' is not a number"),
        ({"shape": [-8, 8, 2]}, "-8 is not a whole number above 0"),
        ({"shape": [4, 4, 2]}, "says latents of 4 × 4 × 2 and a network of 8 × 8 × 2"),
        ({"size": "32"}, "'32' is not a whole number above 0"),
        ({"size": 64}, "said to be of images of 64², which the autoencoder in"),
        (None, "does not say its latents, and its network draws 8 × 8 × 2"),
    ],
)
def test_latents_that_do_not_fit_are_refused(run, tmp_path, changes, line):
    out = tmp_path / "run"
    out.mkdir()
    text = json.loads((run / "config.json").read_text())
    text["latents"] |= changes or {}
    if changes is None:
        del text["latents"]
    (out / "config.json").write_text(json.dumps(text))
    shutil.copytree(run / "vae", out / "vae")
    with pytest.raises(DataError) as caught:
        sampling.load(out)
    assert line in str(caught.value)


@pytest.mark.parametrize("other", ["autoencoder", "data set"])
def test_other_latents_do_not_resume_a_run(
    run, tiny_data, other_data, tiny_vae, make_vae, make_config, run_training, tmp_path, other
):
    data, vae = (other_data, tiny_vae)
    if other == "autoencoder":
        data, vae = tiny_data, make_vae(tmp_path / "vae", seed=1)
    encode(EncodeRequest(data, vae, tmp_path / "data"), lambda total, done: lambda: None)
    config = make_config(f"data.dirs={tmp_path / 'data'}", *OVERRIDES)
    with pytest.raises(ConfigError, match=r"another run \(data\.fingerprint: ") as caught:
        run_training(config, run)
    assert "\n" not in str(caught.value)


def test_flipped_byte_of_a_latent_stops_a_run_in_one_line(
    tiny_latents, damage_record, make_config, run_training, tmp_path
):
    shutil.copytree(tiny_latents, tmp_path / "data")
    damage_record(tmp_path / "data", 5, shard=1)
    with pytest.raises(DataError, match=r"record 5 of .*train.* is damaged") as caught:
        run_training(make_config(f"data.dirs={tmp_path / 'data'}", *OVERRIDES), tmp_path / "run")
    assert "\n" not in str(caught.value)


FAST = sampling.EditSettings(steps=3, solver="euler", corrections=4, batch_size=2)
BEFORE, AFTER = {"view": "PA"}, {"view": "AP"}


@pytest.fixture(scope="module")
def images(tiny_data):
    records = Records(open_dataset(tiny_data), "validation")
    return np.stack([to_float(records[k]["image"]) for k in range(3)])


def untouched(model, images):
    """Images after the autoencoder."""
    return np.asarray(model.images(model.cells(images)))[..., 0]


@pytest.mark.parametrize("method", ["invert", "flow"])
def test_edit_without_a_change_returns_the_image_that_no_decoder_draws(run, images, method):
    model = sampling.load(run)
    how = dataclasses.replace(FAST, method=method)
    same = sampling.edit(model, images, BEFORE, BEFORE, how)
    assert np.abs(untouched(model, images) - images).mean() > 0.1  # it was not trained
    np.testing.assert_allclose(same, images, atol=1e-3)


def test_change_is_what_decoding_changes(run, images):
    model = sampling.load(run)
    edited = sampling.edit(model, images, BEFORE, AFTER, FAST)
    path = sampling.abduct(model, images, vocabulary.stack([vocabulary.encode(BEFORE)] * 3), FAST)
    np.testing.assert_allclose(path.states[:, -1], model.cells(images), atol=1e-6)
    assert np.abs(edited - images).max() > 1e-4
    assert np.abs(edited - images).mean() < np.abs(untouched(model, images) - images).mean()


def test_redrawn_image_gets_nothing_of_the_old_one(run, images):
    """The far end of `noise` is a sample: what the decoder left out of the image is not its own."""
    model = sampling.load(run)
    how = dataclasses.replace(FAST, method="noise")
    one, other = (sampling.edit(model, x, BEFORE, AFTER, how) for x in (images, images[::-1]))
    np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("method", editing.METHODS)
def test_kept_pixels_are_equal_to_the_last_bit(run, images, method):
    model = sampling.load(run)
    keep = np.zeros((32, 32), bool)
    keep[5, 7] = keep[11:14, 3] = keep[17:27, 9:29] = True
    how = dataclasses.replace(FAST, method=method)
    edited = sampling.edit(model, images, BEFORE, AFTER, how, keep=keep)
    np.testing.assert_array_equal(edited[:, keep], images[:, keep])
    assert (edited[:, ~keep] != images[:, ~keep]).mean() > 0.5


@pytest.mark.parametrize(
    "where", [np.s_[5, 7], np.s_[11:14, 3], np.s_[31, 31], np.s_[0, 0], np.s_[3:5, 3:5]]
)
def test_masks_of_few_pixels_survive_the_way_to_cells(run, where):
    """Of 4 × 4 pixels a cell: an edit takes every cell that it touches, also through a keep mask
    of all else; what is kept is kept as pixels."""
    model = sampling.load(run)
    small = np.zeros((32, 32), bool)
    small[where] = True
    cells = np.zeros((8, 8), bool)
    rows, columns = np.nonzero(small)
    cells[rows // 4, columns // 4] = True
    edited, kept = editing._masks(model, 1, small, ~small)
    np.testing.assert_array_equal(edited[0] > 0, cells)
    np.testing.assert_array_equal(kept[0] > 0.5, ~cells)


of_run = functools.lru_cache(sampling.load)


@hypothesis.settings(max_examples=60)
@hypothesis.given(st.data())
def test_masks_of_any_place_survive_the_way_to_cells(run, data):
    """A line of one to three pixels, in cells of any factor."""
    factor, rows = data.draw(st.sampled_from([2, 4, 8, 16])), data.draw(st.integers(1, 6))
    about = of_run(run)
    size = factor * rows
    space = dataclasses.replace(
        about.space, latents=dataclasses.replace(about.space.latents, size=size)
    )
    model = dataclasses.replace(about, space=space, shape=(rows, rows, 2))
    small = np.zeros((size, size), bool)
    top, left = (data.draw(st.integers(0, size - 1)) for _ in range(2))
    long = data.draw(st.integers(1, 3))
    small[
        (top, slice(left, left + long))
        if data.draw(st.booleans())
        else (slice(top, top + long), left)
    ] = True
    edited, kept = editing._masks(model, 1, small, ~small)
    touched = [
        [small[y : y + factor, x : x + factor].any() for x in range(0, size, factor)]
        for y in range(0, size, factor)
    ]
    np.testing.assert_array_equal(edited[0] > 0, touched)
    np.testing.assert_array_equal(kept[0] < 0.5, touched)


def test_data_with_another_autoencoder_beside_them_are_refused_at_the_start(
    tiny_latents, make_vae, make_config, run_training, tmp_path
):
    shutil.copytree(tiny_latents, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / exported.VAE)
    make_vae(tmp_path / "data" / exported.VAE, seed=1)
    config = make_config(f"data.dirs={tmp_path / 'data'}", *OVERRIDES)
    with pytest.raises(ConfigError, match="is another autoencoder"):
        run_training(config, tmp_path / "run")
    # It does not stay where the right one belongs.
    shutil.rmtree(tmp_path / "data" / exported.VAE)
    shutil.copytree(tiny_latents / exported.VAE, tmp_path / "data" / exported.VAE)
    run_training(config, tmp_path / "run")


def test_command_edits_a_radiograph(run, images, tmp_path):
    image = np.round((images[0] + 1) * 32767.5).astype(np.uint16)
    save_png(tmp_path / "film.png", image)
    words = ["--checkpoint", str(run), "--image", str(tmp_path / "film.png"), "--set", "view=AP"]
    words += ["--from", "view=PA", "--steps", "2", "--method", "flow"]
    edit.main([*words, "--out", str(tmp_path / "out")])
    assert list((tmp_path / "out").rglob("*.png"))


def test_data_without_their_autoencoder_say_what_is_missing(
    tiny_latents, make_config, run_training, tmp_path
):
    shutil.copytree(tiny_latents, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / exported.VAE)
    config = make_config(f"data.dirs={tmp_path / 'data'}", *OVERRIDES)
    with pytest.raises(DataError, match=r"there is no export .*vae; copy it there"):
        run_training(config, tmp_path / "run")


def test_native_edit_of_a_film_that_is_not_square(run, tmp_path):
    y, x = np.mgrid[:150, :120] / 150
    grey = 0.3 + 0.4 * y + 0.2 * np.sin(7 * x) + np.random.default_rng(0).normal(0, 0.02, y.shape)
    film = np.clip(np.rint(grey * 40000), 0, 65535).astype(np.uint16)
    save_png(tmp_path / "film.png", film)
    keep = np.zeros(film.shape, np.uint8)
    keep[31:90, 17:41] = 255
    save_png(tmp_path / "keep.png", keep)
    words = ["--checkpoint", str(run), "--image", str(tmp_path / "film.png"), "--native"]
    words += ["--from", "view=PA", "--set", "view=AP", "--steps", "2", "--method", "flow"]
    edit.main([*words, "--keep", str(tmp_path / "keep.png"), "--out", str(tmp_path / "out")])
    native = read_png(tmp_path / "out" / "native.png")
    assert (native.shape, native.dtype) == (film.shape, film.dtype)
    np.testing.assert_array_equal(native[keep > 0], film[keep > 0])
    assert (native != film).mean() > 0.1


def test_command_writes_images(run, tiny_latents, tmp_path, capsys):
    words = ["--checkpoint", str(run), "--n", "2", "--steps", "2", "--solver", "euler"]
    words += ["--like", f"{tiny_latents}:validation"]  # labels are enough
    words += ["--out", str(tmp_path / "out"), "--vae", str(run / "vae")]
    sample.main(words)
    (rate,) = re.findall(r"latents are decoded at (\S+) samples/s", capsys.readouterr().out)
    assert float(rate) > 0
    sample.main(words)  # nothing is left to draw
    assert "decoded at" not in capsys.readouterr().out
    names = sorted((tmp_path / "out").glob("sample_*.png"))
    assert len(names) == 2
    with Image.open(names[0]) as image:
        assert image.size == (32, 32)


# ---------------------------------------------------------------------------------------------
# Processes of their own


@pytest.mark.drill
def test_latent_training_resumes_bitwise_after_a_kill(
    tiny_arguments, tiny_latents, environment, run_module, tmp_path
):
    keys = (f"data.dirs={tiny_latents}", *OVERRIDES, "checkpoint_every=3", "log_every=1")
    prints = []
    for name in ("whole", "killed"):
        flags = tiny_arguments(tmp_path / name, *keys, "steps=40", "checkpoint_keep=40")
        if name == "whole":
            assert run_module("rfxray.train", *flags).returncode == 0
        else:
            line = [sys.executable, "-m", "rfxray.train", *flags]
            killed_and_resumed(line, tmp_path / name, environment)
        meta = Store(tmp_path / name / "checkpoints", ("state", "ema_0.050")).meta(40)
        prints.append(meta["fingerprints"])
    assert prints[0] == prints[1]  # of every array: parameters, optimizer, averages, metrics


@pytest.mark.drill
def test_eight_devices_train_on_latents_like_one(
    tiny_arguments, tiny_latents, run_module, tmp_path
):
    losses = []
    for name, devices, mesh in (("one", 1, []), ("eight", 8, ["mesh.data=2", "mesh.fsdp=4"])):
        keys = (f"data.dirs={tiny_latents}", *OVERRIDES, "steps=60", "log_every=5", *mesh)
        flags = tiny_arguments(tmp_path / name, *keys)
        done = run_module("rfxray.train", *flags, devices=devices)
        assert done.returncode == 0, done.stderr[-2000:]
        losses.append([row["loss"] for row in rows(tmp_path / name) if "loss" in row])
    assert len(losses[0]) == 12
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
