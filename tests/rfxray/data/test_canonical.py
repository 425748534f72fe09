import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfxray.data import canonical
from tests.rfxray.data.radiographs import eight

# ---------------------------------------------------------------------------------------------
# Geometry


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(32, 400),
    aspect=st.floats(0.25, 4.0),
    size=st.integers(16, 300),
    seed=st.integers(0, 9),
)
def test_aspect_ratio_is_kept_and_padding_is_black(height, aspect, size, seed):
    width = min(max(32, round(height * aspect)), 4 * height)
    image = np.random.default_rng(seed).uniform(0.5, 1, (height, width)).astype(np.float32)
    square, (top, left, new_height, new_width) = canonical.to_square(image, size)
    assert square.shape == (size, size)
    assert max(new_height, new_width) == size
    # the shorter side is within half a pixel of its exact length
    shorter, longer = sorted((height, width))
    assert abs(min(new_height, new_width) - size * shorter / longer) <= 0.5
    assert (new_height <= new_width) == (height <= width) or new_height == new_width
    inside = np.zeros((size, size), bool)
    inside[top : top + new_height, left : left + new_width] = True
    assert inside.sum() == new_height * new_width
    assert (square[~inside] == 0).all()
    assert (square[inside] >= 0.49).all()
    assert abs(top - (size - top - new_height)) <= 1
    assert abs(left - (size - left - new_width)) <= 1
    # area averaging keeps the mean, and linear enlargement nearly does
    assert abs(square[inside].mean() - image.mean()) < 0.02


def test_downscaling_is_antialiased():
    stripes = np.tile(np.array([0, 1], np.float32), (512, 256))
    square, _ = canonical.to_square(stripes, 64)
    np.testing.assert_allclose(square, 0.5, atol=1e-6)


# ---------------------------------------------------------------------------------------------
# Intensity


def test_normalisation_is_monotone_and_uses_the_full_range(chest):
    image = canonical.normalise(chest.astype(np.float32))
    order = np.argsort(chest, axis=None)
    assert (np.diff(image.ravel()[order]) >= 0).all()
    assert image.min() == 0
    assert image.max() == 1
    assert 0.005 < (image == 0).mean() < 0.03
    assert 0.005 < (image == 1).mean() < 0.03


@pytest.mark.parametrize("gain", [1.0, 0.25, 7.0])
@pytest.mark.parametrize("offset", [0.0, -1024.0, 9000.0])
def test_normalisation_ignores_gain_and_offset(chest, gain, offset):
    plain = canonical.normalise(chest.astype(np.float32))
    np.testing.assert_allclose(
        canonical.normalise(chest * np.float32(gain) + offset), plain, atol=1e-4
    )


def test_markers_and_padding_do_not_change_the_contrast(chest):
    plain = canonical.normalise(chest.astype(np.float32))
    dressed = np.zeros((300, 160), np.float32)
    dressed[50:250] = chest
    dressed[60:75, 5:20] = 65535.0  # a burned-in letter, much brighter than tissue
    image = canonical.normalise(dressed)[50:250]
    tissue = np.ones_like(plain, bool)
    tissue[10:25, 5:20] = False
    assert np.abs(image - plain)[tissue].max() < 0.05


@pytest.mark.parametrize("shift", [0, 2])  # 12 bits, 10 bits
@pytest.mark.parametrize("value", [65535, 16383])
@pytest.mark.parametrize("stamp", [np.s_[100, 80], np.s_[10:25, 5:20]])
def test_outlier_pixels_do_not_change_the_rest_of_the_image(chest, shift, value, stamp):
    film = (chest >> shift).astype(np.float32)
    stamped = film.copy()
    stamped[stamp] = value
    tissue = stamped == film
    difference = np.abs(canonical.normalise(stamped) - canonical.normalise(film))
    assert difference[tissue].max() < 0.02
    assert difference[tissue].mean() < 0.002
    cold = film + 30_000
    cold[stamp] = 0
    difference = np.abs(canonical.normalise(cold) - canonical.normalise(film))
    assert difference[tissue].max() < 0.02


def test_image_without_outliers_keeps_its_range(chest):
    for picture in (chest, eight(chest), np.pad(chest, 60), 4095 - np.pad(chest, 60)):
        pixels = picture.astype(np.float32)
        reach = float(pixels.min()), float(pixels.max())
        assert canonical._reach(pixels, *reach) == reach


# ---------------------------------------------------------------------------------------------
# A film on a noisy plate


def plate(film, share, base, spread):
    """A film on `share` of a noisy plate, and the place that it has there."""
    side = round((film.size / share) ** 0.5)
    noise = np.random.default_rng(0).normal(base, spread, (side, side))
    picture = noise.round().clip(0, 4095).astype(np.float32)
    place = np.s_[side // 3 : side // 3 + film.shape[0], side // 4 : side // 4 + film.shape[1]]
    picture[place] = film
    return picture, place


@pytest.mark.parametrize("share", [0.005, 0.01, 0.03, 0.049])
@pytest.mark.parametrize(("base", "spread"), [(100, 5), (100, 20), (300, 40), (4000, 20)])
def test_film_on_a_small_part_of_a_noisy_plate_looks_as_it_does_without_it(
    chest, share, base, spread
):
    film = chest.astype(np.float32)
    picture, place = plate(film, share, base, spread)
    difference = np.abs(canonical.normalise(picture)[place] - canonical.normalise(film))
    assert difference.mean() < 0.03
    assert difference.max() < 0.1


def test_film_on_a_noisy_plate_keeps_its_order(chest):
    picture, _ = plate(chest.astype(np.float32), 0.02, 100, 20)
    order = np.argsort(picture, axis=None)
    assert (np.diff(canonical.normalise(picture).ravel()[order]) >= 0).all()


def test_large_marker_is_not_a_film(chest):
    picture = np.tile(chest, (2, 2)).astype(np.float32)
    plain = canonical.normalise(picture)
    picture[10:60, 10:60] = np.random.default_rng(0).integers(59_000, 60_000, (50, 50))
    kept = np.ones(picture.shape, bool)
    kept[10:60, 10:60] = False
    assert np.abs(canonical.normalise(picture) - plain)[kept].max() < 0.02
