"""From an image to the input of a network: one path, which a text names in full."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rfxray.errors import DataError
from rfxray.evaluate.extractors.extractor import Preprocessing, resize, weights_hash

PLAIN = Preprocessing(8, "pad", "bicubic", False, 1, (0.0,), (1.0,))
PILLOW = {"bicubic": Image.BICUBIC, "bilinear": Image.BILINEAR, "area": Image.BOX}


def film(height, width, seed=0):
    return np.random.default_rng(seed).random((height, width), np.float32)


@pytest.mark.parametrize("filter", PILLOW)
@pytest.mark.parametrize("size", [8, 21, 64, 100])
def test_resize_equals_pillow_on_float32(filter, size):
    image = film(64, 64)
    ours = resize(image, (size, size), filter, quantise=False)
    theirs = np.asarray(Image.fromarray(image, "F").resize((size, size), PILLOW[filter]))
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs.clip(0, 1))


@pytest.mark.parametrize("filter", PILLOW)
def test_a_resize_down_is_antialiased(filter):
    stripes = np.tile(np.float32([0, 1]), (64, 32))
    assert resize(stripes, (8, 8), filter, quantise=False) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("filter", PILLOW)
def test_quantised_resize_equals_pillow_on_8_bits(filter):
    image = film(50, 50)
    grey = Image.fromarray((image * 255).round().astype(np.uint8), "L")
    theirs = np.asarray(grey.resize((20, 20), PILLOW[filter]))
    ours = resize(image, (20, 20), filter, quantise=True)
    np.testing.assert_array_equal(np.round(ours * 255), theirs)
    assert np.unique(ours * 255 % 1 > 1e-3).tolist() == [False]


def test_area_filter_is_the_mean_of_whole_blocks():
    image = film(32, 32)
    means = image.reshape(8, 4, 8, 4).mean((1, 3))
    np.testing.assert_allclose(resize(image, (8, 8), "area", False), means, atol=1e-6)


def test_pad_centres_the_image_on_black():
    prepared = PLAIN.prepare(np.ones((8, 4), np.float32))[..., 0]
    np.testing.assert_array_equal(prepared, np.tile(np.float32([0, 0, 1, 1, 1, 1, 0, 0]), (8, 1)))


def test_crop_takes_the_centre_of_the_longer_side():
    image = np.tile(np.arange(16, dtype=np.float32) / 16, (8, 1))
    prepared = dataclasses.replace(PLAIN, fit="crop").prepare(image)[..., 0]
    np.testing.assert_array_equal(prepared, image[:, 4:12])


@pytest.mark.parametrize(("height", "width"), [(50, 37), (37, 50), (90, 11), (8, 30), (31, 31)])
def test_cover_resizes_the_shorter_side_and_takes_the_centre(height, width):
    image = film(height, width)
    prepared = dataclasses.replace(PLAIN, fit="cover").prepare(image)[..., 0]
    longer = 8 * max(height, width) // min(height, width)
    whole = (8, longer) if height > width else (longer, 8)
    resized = np.asarray(Image.fromarray(image, "F").resize(whole, Image.BICUBIC)).clip(0, 1)
    start = (longer - 8) // 2
    rows, columns = slice(start, start + 8), slice(None)
    theirs = resized[rows, columns] if height > width else resized[columns, rows]
    np.testing.assert_array_equal(prepared, theirs)


def test_squash_resizes_each_side():
    image = film(16, 8)
    theirs = np.asarray(Image.fromarray(image, "F").resize((8, 8), Image.BICUBIC)).clip(0, 1)
    prepared = dataclasses.replace(PLAIN, fit="squash").prepare(image)[..., 0]
    np.testing.assert_array_equal(prepared, theirs)


def test_padding_is_black_before_the_mean_is_subtracted():
    path = dataclasses.replace(PLAIN, channels=3, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3))
    prepared = path.prepare(np.ones((8, 2), np.float32))
    np.testing.assert_allclose(prepared[0, 0], [-4, -2.5, -2], rtol=1e-6)
    np.testing.assert_allclose(prepared[0, 4], [6, 2.5, 4 / 3], rtol=1e-6)
    assert prepared.dtype == np.float32


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["pad", "crop", "cover", "squash"]),
    st.sampled_from(list(PILLOW)),
    st.booleans(),
)
def test_every_path_gives_finite_values_of_its_size_in_range(height, width, fit, filter, quantise):
    path = Preprocessing(13, fit, filter, quantise, 3, (0.5,) * 3, (0.5,) * 3)
    prepared = path.prepare(film(height, width))
    assert prepared.shape == (13, 13, 3)
    assert prepared.dtype == np.float32
    assert prepared.min() >= -1
    assert prepared.max() <= 1


def test_a_constant_image_stays_constant():
    for fit in ("crop", "cover", "squash"):
        for filter in PILLOW:
            path = dataclasses.replace(PLAIN, fit=fit, filter=filter)
            assert path.prepare(np.full((31, 17), 0.25, np.float32)) == pytest.approx(0.25)


def test_text_names_every_field():
    changes = {
        "size": 9,
        "fit": "crop",
        "filter": "area",
        "quantise": True,
        "mean": (0.1,),
        "std": (0.7,),
    }
    texts = {str(dataclasses.replace(PLAIN, **{name: value})) for name, value in changes.items()}
    colour = dataclasses.replace(PLAIN, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    texts |= {str(dataclasses.replace(PLAIN, fit=fit)) for fit in ("squash", "cover")}
    texts |= {str(PLAIN), str(colour)}
    assert len(texts) == len(changes) + 4
    assert str(PLAIN) == (
        "padded to a square with black, 8x8 bicubic antialiased in float32, 1 channels, "
        "(x - [0.0]) / [1.0]"
    )


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((2, 4, 4), np.float32),
        np.zeros((0, 4), np.float32),
        np.full((4, 4), 1.5, np.float32),
        np.full((4, 4), -0.5, np.float32),
        np.full((4, 4), np.nan, np.float32),
    ],
    ids=["three dimensions", "empty", "above", "below", "nan"],
)
def test_what_is_not_an_image_in_range_is_refused(image):
    with pytest.raises(DataError, match="an extractor reads"):
        PLAIN.prepare(image)


def test_means_must_match_the_channels():
    with pytest.raises(ValueError, match="one value for each of 3 channels"):
        dataclasses.replace(PLAIN, channels=3)


def test_hash_of_weights_is_of_content_and_names_only():
    weights = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float32)}
    known = weights_hash(weights)
    assert weights_hash(dict(reversed(weights.items()))) == known
    assert weights_hash({**weights, "a": np.asfortranarray(weights["a"])}) == known
    assert weights_hash({**weights, "a": weights["a"].astype(">f4")}) == known
    others = [
        {**weights, "a": weights["a"].reshape(3, 2)},
        {**weights, "a": weights["a"].astype(np.float64)},
        {**weights, "a": weights["a"] + 1e-7},
        {"a": weights["a"], "c": weights["b"]},
        {"a": weights["a"]},
    ]
    hashes = {weights_hash(other) for other in others}
    assert len(hashes | {known}) == len(others) + 1
