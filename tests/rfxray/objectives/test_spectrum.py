"""Amplitudes of windows, beside PyTorch's short-time transform and known signals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfxray.errors import ConfigError
from rfxray.objectives import spectrum


def noise(shape=(2, 32, 48, 1), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_distance_is_that_of_windows_that_torch_cuts_and_transforms():
    torch = pytest.importorskip("torch", reason="no torch; extra peers has it")
    made, image = noise(), noise(seed=1)
    hann = torch.hann_window(16, periodic=True, dtype=torch.float64)
    window = torch.outer(hann, hann) / torch.outer(hann, hann).square().mean().sqrt()
    places = torch.fft.fftfreq(16, 1 / 16, dtype=torch.float64)
    frequency = torch.hypot(places[:, None], places[None])
    ends = (1, 2, 4, 8, 99)

    def amplitudes(x):
        cut = torch.tensor(x[..., 0], dtype=torch.float64).unfold(1, 16, 8).unfold(2, 16, 8)
        power = torch.fft.fft2(cut * window, norm="ortho").abs().square()
        octaves = [(frequency >= ends[n]) & (frequency < ends[n + 1]) for n in range(4)]
        return torch.stack([power[..., inside].mean(-1).sqrt() for inside in octaves], -1)

    expected = (amplitudes(made) - amplitudes(image)).abs().mean((1, 2, 3))
    np.testing.assert_allclose(spectrum.distance(made, image), expected, rtol=1e-4)


def test_unit_is_that_of_pixels_in_every_octave():
    found = spectrum.amplitudes(noise((8, 64, 64, 1)))
    np.testing.assert_allclose(jnp.square(found).mean((0, 1, 2)), 1, atol=0.1)


def test_stronger_copy_of_weak_detail_is_nearer():
    image = noise()
    weak = 0.5 * image + 0.5 * noise(seed=1)
    assert (spectrum.distance(2**0.5 * weak, image) < 0.6 * spectrum.distance(weak, image)).all()


def test_place_within_a_window_costs_less_than_absence():
    places = np.arange(64)
    wave = np.broadcast_to(np.sin(2 * np.pi * places / 4), (1, 64, 64))[..., None]
    moved = np.roll(wave, 1, 2)
    image, other, none = (jnp.asarray(x, jnp.float32) for x in (wave, moved, 0 * wave))
    assert spectrum.distance(other, image)[0] < 0.01 * spectrum.distance(none, image)[0]
    assert jnp.abs(other - image).mean() > jnp.abs(none - image).mean()


def test_same_images_have_no_distance_and_a_finite_slope():
    image = jnp.zeros((1, 16, 16, 1))
    assert spectrum.distance(image, image)[0] == 0
    slope = jax.grad(lambda x: spectrum.distance(x, image).sum())(image)
    assert jnp.isfinite(slope).all()


@pytest.mark.parametrize("shape", [(1, 20, 16, 1), (1, 8, 8, 1)])
def test_side_that_windows_do_not_cover_is_refused(shape):
    with pytest.raises(ConfigError, match=r"objective\.spectrum_weight needs sides"):
        spectrum.amplitudes(np.zeros(shape, np.float32))
