"""Near-copies: found whatever was done to them, and not where nothing was copied."""

import numpy as np
import pytest
from scipy import ndimage

from rfxray.evaluate.privacy import near, neighbours, registered, template
from rfxray.evaluate.privacy.neighbours import Nearest

SIDE = template.SIDE


def pictures(count: int, seed: int) -> np.ndarray:
    """Smooth textures that share one large shape, [count, SIDE, SIDE] in [0, 1]."""
    noise = np.random.default_rng(seed).normal(size=(count, SIDE, SIDE))
    texture = ndimage.gaussian_filter(noise, (0, 1.5, 1.5))
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    return np.clip(0.5 + 0.4 * texture / texture.std() * 0.3 - (x**2 + y**2) * 0.6, 0, 1)


def forms(images: np.ndarray) -> np.ndarray:
    return template.forms(np.clip(images, 0, 1).astype(np.float32)[..., None])


def find(train, synthetic, heldout, patients=None):
    rows = [{near.TEMPLATE: forms(images)} for images in (train, synthetic, heldout)]
    codes = np.arange(len(train)) if patients is None else patients
    others = np.arange(len(heldout)) + len(train)
    return near.find(rows[0], codes, rows[1], rows[2], others, 0, lambda line: None)


def test_nearest_is_that_of_brute_force_without_the_own_patient(monkeypatch):
    monkeypatch.setattr(neighbours, "_ROWS", 7)
    monkeypatch.setattr(neighbours, "_COLUMNS", 11)
    generator = np.random.default_rng(0)
    reference, rows = (generator.normal(size=(n, 5)).astype(np.float32) for n in (40, 20))
    patients, own = generator.integers(0, 15, 40), generator.integers(-1, 15, 20)
    found = neighbours.nearest(reference, patients, rows, own, 3)
    for number, row in enumerate(rows):
        distances = np.linalg.norm(reference - row, axis=1)
        distances[patients == own[number]] = np.inf
        order = np.argsort(distances)[:3]
        assert found.rows[number].tolist() == order.tolist()
        np.testing.assert_allclose(found.distances[number], distances[order], atol=1e-5)


def test_neighbours_that_are_not_there_are_no_numbers():
    reference = np.eye(3, dtype=np.float32)
    found = neighbours.nearest(reference, np.zeros(3, int), reference[:1], np.zeros(1, int), 2)
    assert (found.rows == -1).all()
    assert np.isinf(found.distances).all()
    assert neighbours.ratios(found, np.zeros(3, int)) == 1


@pytest.mark.parametrize(
    ("distances", "patients", "ratio"),
    [
        ([1, 2, 4], [0, 1, 2], 0.5),
        ([1, 2, 4], [0, 0, 2], 0.25),  # the second image of the same patient says nothing
        ([1, 2, 4], [0, 0, 0], 0.25),  # nor the third, which is the farthest that is known
        ([0, 0, 4], [0, 1, 2], 0),  # a picture that two patients have was copied all the same
    ],
)
def test_ratio_is_to_the_nearest_of_another_patient(distances, patients, ratio):
    near_rows = Nearest(np.array([[0, 1, 2]]), np.array([distances], np.float32))
    assert neighbours.ratios(near_rows, np.array(patients)) == pytest.approx(ratio)


def test_correlation_is_that_of_brute_force_over_all_shifts():
    a, b = (template.edges(forms(pictures(3, seed))) for seed in (0, 1))
    b[2] = template.edges(forms(np.roll(pictures(3, 0)[2:], (5, -7), (1, 2))))[0]
    pairs = np.array([[0, 0], [1, 2], [2, 2]])
    found = registered.correlations(a, b, pairs)
    for (i, j), value in zip(pairs, found, strict=True):
        first, second = a[i].reshape(SIDE, SIDE), b[j].reshape(SIDE, SIDE)
        best = -1.0
        for dy in range(-registered.REACH, registered.REACH + 1):
            for dx in range(-registered.REACH, registered.REACH + 1):
                over = first[max(dy, 0) : SIDE + min(dy, 0), max(dx, 0) : SIDE + min(dx, 0)]
                under = second[max(-dy, 0) : SIDE + min(-dy, 0), max(-dx, 0) : SIDE + min(-dx, 0)]
                best = max(best, np.corrcoef(over.ravel(), under.ravel())[0, 1])
        assert value == pytest.approx(best, abs=1e-4)
    assert found[2] > 0.9 > found[0]


def test_forms_do_not_depend_on_brightness_or_contrast_and_are_0_of_a_flat_image():
    images = 0.2 + 0.5 * pictures(2, 0)
    np.testing.assert_allclose(forms(images), forms(0.1 + 0.6 * images), atol=1e-4)
    assert not forms(np.full((1, SIDE, SIDE), 0.3)).any()


def test_copies_are_found_whatever_was_done_to_them_and_little_else():
    train, heldout, new = pictures(400, 0), pictures(300, 1), pictures(300, 2)
    generator = np.random.default_rng(3)
    copied = train[:40]
    ways = {
        "exact": copied,
        "blurred": ndimage.gaussian_filter(copied, (0, 1, 1)),
        "of less contrast": 0.5 + 0.6 * (copied - 0.5),
        "brighter": copied + 0.1,
        "shifted": np.stack([ndimage.shift(i, (3, -2), order=1, mode="nearest") for i in copied]),
        "noisy": copied + 0.03 * generator.normal(size=copied.shape),
    }
    found = find(train, np.concatenate([new, *ways.values()]), heldout)
    assert found.level == pytest.approx(near.LEVEL)
    # Of 300 at 1%, and the quantile of the null is known to half of that: at most 12.
    assert found.listed[:300].sum() <= 12
    assert found.heldout_listed.mean() < 0.02
    for number, name in enumerate(ways):
        part = slice(300 + 40 * number, 340 + 40 * number)
        assert found.listed[part].mean() >= 0.95, name
        assert (found.nearest[part] == np.arange(40)).mean() >= 0.95, name


def test_copies_of_held_out_images_are_not_listed():
    train, heldout = pictures(300, 0), pictures(200, 1)
    assert find(train, heldout, heldout).listed.mean() <= 0.02


def test_level_is_what_so_few_images_allow():
    found = find(pictures(20, 0), pictures(10, 2), pictures(10, 1))
    assert found.level == pytest.approx(2 / 31)  # two detectors, of 30 images one


def test_images_of_one_patient_are_no_copies_of_each_other():
    """Two films of each patient, nearly equal: among others' the second one does not count."""
    one = pictures(150, 0)
    train = np.concatenate([one, np.clip(one + 0.01, 0, 1)])
    found = find(train, pictures(50, 2), pictures(100, 1), np.tile(np.arange(150), 2))
    assert found.left_out.ratios["shades"].min() > 0.3
    assert found.listed.mean() <= 0.06
