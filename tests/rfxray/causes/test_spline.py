import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfxray.causes.spline import Spline, through


def drawn(seed, bins=7, rows=50):
    rng = np.random.default_rng(seed)
    knots = np.concatenate([[0], np.cumsum(rng.random(bins) + 0.05)])
    heights = np.cumsum(rng.random((rows, bins)) ** 3 + 1e-4, 1)
    heights = np.concatenate([np.zeros((rows, 1)), heights / heights[:, -1:]], 1)
    slopes = np.exp(rng.normal(size=(rows, bins + 1)))
    return Spline(knots, heights, slopes), rng


def durkan(torch, spline, x):
    """Equations 4 and 5 of the paper, for one row at a time, in PyTorch; slope by autograd."""
    knots = torch.tensor(spline.knots)
    found = []
    for row, value in enumerate(x):
        y, d = torch.tensor(spline.heights[row]), torch.tensor(spline.slopes[row])
        value = torch.tensor(float(value), dtype=torch.float64, requires_grad=True)
        k = int((value.detach() >= knots[1:-1]).sum())
        xi = (value - knots[k]) / (knots[k + 1] - knots[k])
        s = (y[k + 1] - y[k]) / (knots[k + 1] - knots[k])
        top = (y[k + 1] - y[k]) * (s * xi**2 + d[k] * xi * (1 - xi))
        height = y[k] + top / (s + (d[k + 1] + d[k] - 2 * s) * xi * (1 - xi))
        height.backward()
        found.append((height.item(), value.grad.item()))
    return np.array(found).T


def test_height_and_slope_are_those_of_the_published_spline():
    torch = pytest.importorskip("torch", reason="the twin is PyTorch's, of the extra peers")
    spline, rng = drawn(0)
    x = rng.random(50) * spline.knots[-1]
    height, slope = spline.height(x)
    expected = durkan(torch, spline, x)
    np.testing.assert_allclose(height, expected[0], rtol=1e-12)
    np.testing.assert_allclose(slope, expected[1], rtol=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_the_inverse_is_exact_and_the_spline_increases(seed):
    spline, rng = drawn(seed, bins=int(2 + seed % 9))
    x = rng.random(50) * spline.knots[-1]
    np.testing.assert_allclose(spline.at(spline.height(x)[0]), x, atol=1e-9)
    further = np.minimum(x + 1e-3, spline.knots[-1])
    assert (spline.height(further)[0] >= spline.height(x)[0]).all()
    assert (spline.height(x)[1] > 0).all()


def test_a_spline_through_a_straight_line_is_straight():
    knots = np.array([0.0, 1.0, 3.0, 4.0])
    spline = through(knots, np.tile(knots / 4, (3, 1)))
    x = np.array([0.3, 2.9, 3.5])
    np.testing.assert_allclose(spline.height(x)[0], x / 4, rtol=1e-12)
    np.testing.assert_allclose(spline.height(x)[1], 0.25, rtol=1e-12)


def test_the_ends_are_met():
    spline, _ = drawn(1)
    low, high = np.zeros(50), np.full(50, spline.knots[-1])
    np.testing.assert_allclose(spline.height(low)[0], 0, atol=1e-15)
    np.testing.assert_allclose(spline.height(high)[0], 1)
    np.testing.assert_allclose(spline.at(np.ones(50)), high)
