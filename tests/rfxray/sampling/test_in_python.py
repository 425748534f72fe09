"""The ways in from Python: lists of mappings, images of Pillow, a notebook, a folder."""

import base64
import dataclasses
import io
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rfxray import sample, sampling
from rfxray.attributes import vocabulary
from rfxray.data.dataset import open_dataset
from rfxray.data.pixels import to_float, to_uint16
from rfxray.errors import ConfigError
from rfxray.sampling.given import images_of, pair_of, rows_of
from rfxray.sampling.interventions import before_and_after
from rfxray.sampling.solvers import time_grid

FAST = sampling.Settings(steps=2, solver="euler", batch_size=2)
ROWS = [{"view": "PA", "sex": "Female"}, {"view": "lateral", "cardiomegaly": 1}]


@pytest.fixture(scope="module")
def model(trained):
    return sampling.load(trained)


@pytest.fixture(scope="module")
def pictures(model):
    return sampling.generate(model, ROWS, guidance=3, seed=7, settings=FAST)


def test_a_list_of_mappings_is_one_image_each_and_keywords_replace_settings(model, pictures):
    rows = vocabulary.stack([vocabulary.encode(row) for row in ROWS])
    settings = dataclasses.replace(FAST, guidance=3.0, seed=7)
    same = sampling.generate(model, rows, settings=settings)
    np.testing.assert_array_equal(pictures.images, same.images)
    assert pictures.settings == settings
    shown = [vocabulary.decode(pictures.attributes.rows(i)) for i in range(2)]
    assert shown[0] == {"view": "PA", "sex": "F"}
    assert shown[1] == {"view": "lateral", "cardiomegaly": "present", "no_finding": "absent"}


@pytest.mark.parametrize(
    ("attributes", "part"),
    [
        ([{}, {"veiw": "PA"}], "image 1: .*veiw"),
        ([{"age": float("nan")}], "image 0: age=nan"),
        ([{"age": float("inf")}], "image 0: age=inf"),
        ([], "list is empty"),
    ],
)
def test_wrong_attributes_of_a_list_are_refused_with_their_number(model, attributes, part):
    with pytest.raises(ConfigError, match=part):
        sampling.generate(model, attributes, settings=FAST)


def test_guidance_has_one_default_in_python_and_on_the_command_line():
    words = ["--checkpoint", "run", "--out", "out"]
    request = sample.request_of(sample.parser().parse_args(words))
    assert request.settings == sampling.Settings()
    assert request.settings.guidance == 2.0


def test_images_go_out_and_in_as_pillow_and_arrays(pictures):
    images = pictures.images
    eight = pictures.pil()
    assert [(p.mode, p.size) for p in eight] == [("L", (32, 32))] * 2
    np.testing.assert_allclose(images_of(eight, 32), images, atol=1 / 255 + 1e-6)
    sixteen = to_uint16(images)
    np.testing.assert_array_equal(images_of(sixteen, 32), to_float(sixteen))
    pillow = [Image.fromarray(image) for image in sixteen]
    assert pillow[0].mode == "I;16"
    np.testing.assert_array_equal(images_of(pillow, 32), to_float(sixteen))
    np.testing.assert_array_equal(images_of(images[0].astype(np.float64), 32), images[:1])
    white = Image.new("1", (32, 32), 1)
    assert (images_of([white, np.full((32, 32), 255, np.uint8)], 32) == 1).all()


@pytest.mark.parametrize(
    ("images", "part"),
    [
        (Image.new("RGB", (32, 32)), "mode RGB.*convert"),
        (Image.new("L", (32, 16)), "16 × 32 pixels for a model of 32 × 32"),
        (np.zeros((2, 8, 8), np.float32), "8 × 8"),
        (np.zeros((2, 32, 32, 1), np.float32), "32 × 32 × 1"),
        (np.full((32, 32), 1.5), "outside of"),
        (np.full((32, 32), np.nan), "not finite"),
        (np.zeros((32, 32), np.int64), "int64"),
        ([], "no images"),
    ],
)
def test_images_that_are_not_of_the_model_are_refused(images, part):
    with pytest.raises(ConfigError, match=part):
        images_of(images, 32)


def test_attributes_of_an_edit_follow_from_what_changes():
    shown, change = {"view": "AP", "no_finding": "present"}, {"cardiomegaly": "present"}
    before, after = before_and_after(shown, change)
    for given in (pair_of(shown, change, 2), pair_of([shown] * 2, [change] * 2, 2)):
        for found, expected in zip(given, (before, after), strict=True):
            np.testing.assert_array_equal(found.values, np.repeat(expected.values, 2, 0))
            np.testing.assert_array_equal(found.known, np.repeat(expected.known, 2, 0))
    rows = rows_of({"sex": "F"}, 2)
    assert pair_of(rows, rows, 2)[1].values is not None
    with pytest.raises(ConfigError, match="1 rows of attributes for 2 images"):
        pair_of([shown], change, 2)


def test_edit_takes_pillow_and_mappings(model, pictures):
    settings = sampling.EditSettings(steps=2, batch_size=2, corrections=1)
    eight = pictures.pil()
    source, target = pair_of({"view": "PA"}, {"sex": "M"}, 2)
    expected = sampling.edit(
        model, images_of(eight, 32), source, target, dataclasses.replace(settings, guidance=2.5)
    )
    found = sampling.edit(model, eight, {"view": "PA"}, {"sex": "male"}, settings, guidance=2.5)
    assert found.shape == (2, 32, 32)
    np.testing.assert_array_equal(found, expected)
    assert [image.size for image in sampling.to_pil(found)] == [(32, 32)] * 2


def test_representations_are_short_and_hold_no_arrays(model, pictures, tiny_data):
    shown = [model, pictures, pictures.attributes, open_dataset(tiny_data), FAST]
    for each in (*shown, sampling.Settings(), sampling.EditSettings(guidance=5.0)):
        assert "array" not in repr(each)
        assert "\n" not in repr(each)
        assert len(repr(each)) < 400
    assert repr(sampling.Settings()) == "Settings()"
    assert repr(FAST) == "Settings(steps=2, solver='euler', batch_size=2)"
    assert repr(sampling.EditSettings(guidance=5.0)) == "EditSettings(guidance=5.0)"
    assert "32 × 32" in repr(model)
    assert "step 12" in repr(model)
    assert repr(pictures.attributes) == "Attributes(2 × 19)"
    assert "train 50, validation 20" in repr(open_dataset(tiny_data))


def test_notebook_shows_the_images_and_says_that_they_are_synthetic(pictures):
    source = {**pictures.source, "checkpoint": "runs/<b>&co"}
    html = dataclasses.replace(pictures, source=source)._repr_html_()
    assert "Synthetic: 2 images" in html
    assert "<b>" not in html
    assert "runs/&lt;b&gt;&amp;co" in html
    png = base64.b64decode(re.search(r'src="data:image/png;base64,([^"]+)"', html)[1])
    with Image.open(io.BytesIO(png)) as sheet:
        assert min(sheet.size) >= 128


def test_a_folder_from_python_holds_what_generate_draws(model, tmp_path):
    seen = []
    out = sampling.generate_to(
        tmp_path / "out", model, ROWS, n=3, settings=FAST, seed=7, progress=seen.append
    )
    drawn = sampling.generate(model, [*ROWS, ROWS[0]], settings=FAST, seed=7)
    for i, image in enumerate(drawn.images):
        with Image.open(out / f"sample_{i:05d}.png") as picture:
            np.testing.assert_allclose(to_float(np.asarray(picture)), image, atol=1.6e-5)
    assert sum(seen) == 3
    assert {"grid.png", "gallery.html", "samples.json"} <= {file.name for file in out.iterdir()}
    before = (out / "samples.json").read_bytes()
    sampling.generate_to(out, model, ROWS, n=3, settings=FAST, seed=7)
    assert (out / "samples.json").read_bytes() == before
    with pytest.raises(ConfigError, match="different settings of: guidance"):
        sampling.generate_to(out, model, ROWS, n=3, settings=FAST, seed=7, guidance=4)
    assert [e["index"] for e in json.loads(before)["pictures"]] == [0, 1, 2]


def test_likelihood_of_a_loaded_model(model, pictures):
    x, times = jnp.asarray(pictures.images)[..., None], time_grid(2)[::-1].copy()
    key = jax.random.key(0)
    found, noise = sampling.log_likelihood(model.under({"view": "PA"}), x, times, key, "euler")
    assert found.shape == (2,)
    assert np.isfinite(np.asarray(found)).all()
    assert noise.shape == x.shape
    rows = rows_of([{"view": "PA"}] * 2)

    def velocity(x, t):
        return model.velocity(model.params, x, jnp.full(2, t), rows)

    again, _ = sampling.log_likelihood(velocity, x, times, key, "euler")
    np.testing.assert_array_equal(found, again)
