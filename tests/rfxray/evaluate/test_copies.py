"""Samples that look like real images are those that are near to one, beyond chance."""

import numpy as np
import pytest

from rfxray.evaluate import copies


def test_copies_are_found_and_others_are_not():
    rng = np.random.default_rng(0)
    real, other = rng.normal(size=(80, 40)), rng.normal(size=(60, 40))
    samples = np.concatenate([real[:20] + 0.1 * rng.normal(size=(20, 40)), other])
    assert copies.like(real, samples).tolist() == [True] * 20 + [False] * 60
    assert copies.by_chance(real, np.arange(80), 0) == 0


def test_where_features_are_few_chance_brings_samples_near():
    rng = np.random.default_rng(0)
    real, samples = rng.normal(size=(400, 2)), rng.normal(size=(400, 2))
    found = copies.like(real, samples).mean()
    assert found > 0.05
    assert copies.by_chance(real, np.arange(400), 0) > found


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_reals_have_an_answer(count):
    real = np.arange(count * 2, dtype=float).reshape(count, 2)
    assert copies.like(real, real[:1]).tolist() == [count > 1]
    assert copies.by_chance(real, np.zeros(count, int), 0) == 0
