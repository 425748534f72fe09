"""The distance of the states of two images."""

import jax
import numpy as np
import pytest

from rfxray.objectives import perceptual

WIDTH = 8


def states(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, 2, 5, WIDTH)).astype(np.float32)


def test_distance_is_the_mean_over_blocks_tokens_and_channels_of_unit_vectors():
    a, b = states(0), states(1)
    expected = []
    for n in range(2):
        per_block = []
        for block in range(3):
            unit = [x[block, n] / np.linalg.norm(x[block, n], axis=-1)[:, None] for x in (a, b)]
            per_block.append(np.mean((unit[0] - unit[1]) ** 2))
        expected.append(np.mean(per_block))
    np.testing.assert_allclose(perceptual.distance(a, b), expected, rtol=1e-5)


def test_only_the_direction_of_a_state_counts():
    a = states(0)
    large = np.random.default_rng(2).uniform(1, 9, (3, 2, 5, 1)).astype(np.float32)
    np.testing.assert_allclose(perceptual.distance(large * a, a), 0, atol=1e-9)
    np.testing.assert_allclose(perceptual.distance(-a, a), 4 / WIDTH, rtol=1e-5)


def test_target_gets_no_gradient_and_a_state_of_zeros_a_finite_one():
    a, b = states(0), states(1)
    to_made, to_target = jax.grad(lambda x, y: perceptual.distance(x, y).sum(), (0, 1))(a, b)
    assert float(abs(to_made).max()) > 0
    assert float(abs(to_target).max()) == 0
    gradient = jax.grad(lambda x: perceptual.distance(x, b).sum())(np.zeros_like(a))
    assert np.isfinite(gradient).all()
    assert float(perceptual.distance(a, a)[0]) == pytest.approx(0, abs=1e-12)
