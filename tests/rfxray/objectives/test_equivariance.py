"""Latents and images that shrink together."""

import jax
import numpy as np
import pytest

from rfxray.objectives import equivariance

SIDE = 32


def noise(n: int, side: int = SIDE, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, side, side, channels)).astype(np.float32)


def full(value: float, n: int) -> np.ndarray:
    return np.full(n, value, np.float32)


def test_scale_of_one_changes_no_bit():
    x = noise(3, channels=2)
    np.testing.assert_array_equal(equivariance.shrink(x, full(1, 3)), x)
    assert np.asarray(equivariance.inside(full(1, 3), SIDE, SIDE)).all()


@pytest.mark.parametrize("side", [8, 16, 20, 24])
def test_shrunk_image_is_the_interpolation_of_pytorch(side):
    torch = pytest.importorskip("torch", reason="no torch; it comes with the extra peers")
    x = noise(2)
    size = (side, side)
    peer = torch.nn.functional.interpolate(
        torch.from_numpy(x.transpose(0, 3, 1, 2)), size, mode="bilinear", align_corners=False
    )
    edge = (SIDE - side) // 2
    ours = np.asarray(equivariance.shrink(x, full(side / SIDE, 2)))
    inner = ours[:, edge : edge + side, edge : edge + side]
    np.testing.assert_allclose(inner, peer.numpy().transpose(0, 2, 3, 1), atol=1e-5)
    inside = np.asarray(equivariance.inside(full(side / SIDE, 2), SIDE, SIDE))
    assert inside.sum() == 2 * side**2
    assert inside[:, edge : edge + side, edge : edge + side].all()


@pytest.mark.parametrize("scale", [1.0, 0.7, 0.5, 0.25])
def test_box_shrinks_with_its_image(scale):
    """As a picture of the box does: white within, and cut at one half."""
    box = np.array([[4, 2, 20, 26]], np.int32)
    picture = np.zeros((1, SIDE, SIDE, 1), np.float32)
    picture[:, 4:24, 2:28] = 1
    found = np.asarray(equivariance.inside(full(scale, 1), SIDE, SIDE, box))
    whole = np.asarray(equivariance.inside(full(scale, 1), SIDE, SIDE))
    shrunk = np.asarray(equivariance.shrink(picture, full(scale, 1)))
    clear = np.abs(shrunk - 0.5) > 1e-3
    np.testing.assert_array_equal(found[clear], (whole & (shrunk > 0.5))[clear])
    assert found.sum() == pytest.approx(scale**2 * 20 * 26, rel=0.15)


def test_shrinking_never_mirrors():
    ramp = np.broadcast_to(np.linspace(-1, 1, SIDE, dtype=np.float32)[:, None], (SIDE, SIDE))
    for x in (ramp, ramp.T):
        axis = 0 if x is ramp else 1
        for scale in (0.25, 0.4, 0.7, 0.99):
            found = np.asarray(equivariance.shrink(x[None, ..., None], full(scale, 1)))[0, ..., 0]
            assert (np.diff(found, axis=axis) >= -1e-6).all()


def test_scales_are_uniform_for_a_share_and_follow_from_each_key():
    keys = jax.random.split(jax.random.key(0), 4000)
    scale = np.asarray(equivariance.sample_scale(keys, 0.5))
    shrunk = scale[scale < 1]
    assert len(shrunk) / len(scale) == pytest.approx(0.5, abs=0.03)
    assert shrunk.min() >= equivariance.LEAST
    quartiles = np.quantile(shrunk, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [0.4375, 0.625, 0.8125], atol=0.03)
    np.testing.assert_array_equal(equivariance.sample_scale(keys[7:9], 0.5), scale[7:9])
    assert (np.asarray(equivariance.sample_scale(keys[:100], 0.0)) == 1).all()
