import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from jaxtyping import TypeCheckError
from scipy.special import logit

from rfxray.objectives import flow

shifts = st.floats(0.1, 10.0)
times = st.floats(0.001, 0.999)


def pair(seed=0, shape=(5, 4, 4, 2)):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape).astype(np.float32) for _ in range(2))


def test_path_runs_from_data_to_noise():
    x, noise = pair()
    np.testing.assert_array_equal(flow.interpolate(x, noise, jnp.zeros(5)), x)
    np.testing.assert_array_equal(flow.interpolate(x, noise, jnp.ones(5)), noise)


def test_times_of_another_batch_are_refused():
    # By the import hook of conftest.py, which checks every call in the tests.
    x, noise = pair()
    with pytest.raises(TypeCheckError, match="parameter 't'"):
        flow.interpolate(x, noise, jnp.zeros(3))


def test_loss_of_the_derivative_of_the_path_is_zero():
    x, noise = pair()
    t = jnp.linspace(0.1, 0.9, 5)
    _, derivative = jax.jvp(lambda t: flow.interpolate(x, noise, t), (t,), (jnp.ones(5),))
    np.testing.assert_allclose(flow.loss(derivative, x, noise), np.zeros(5), atol=1e-12)


def test_loss_is_the_mean_squared_error_of_each_example():
    x, noise = pair()
    guess = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    expected = [np.mean((g - (n - a)) ** 2) for g, n, a in zip(guess, noise, x, strict=True)]
    np.testing.assert_allclose(flow.loss(guess, x, noise), expected, rtol=1e-6)


@given(times, shifts)
def test_shift_adds_log_s_to_the_log_odds_of_t(t, shift):
    assert logit(flow.shift_timestep(t, shift)) == pytest.approx(logit(t) + np.log(shift))


@given(shifts)
def test_shift_keeps_the_ends_and_the_order_of_t(shift):
    t = np.linspace(0, 1, 101)
    shifted = flow.shift_timestep(t, shift)
    assert (shifted[0], shifted[-1]) == (0, pytest.approx(1, abs=1e-15))
    assert (np.diff(shifted) > 0).all()


@pytest.mark.parametrize(("mean", "std", "shift"), [(0, 1, 1), (-0.5, 1.4, 1), (0.3, 0.8, 3)])
def test_timesteps_are_logit_normal(mean, std, shift):
    keys = jax.random.split(jax.random.key(0), 20_000)
    t = np.asarray(flow.sample_timestep(keys, mean, std, shift), np.float64)
    assert ((t > 0) & (t < 1)).all()
    expected = scipy.stats.norm(mean + np.log(shift), std)
    assert scipy.stats.kstest(logit(t), expected.cdf).pvalue > 1e-4


def test_timesteps_depend_only_on_the_key_of_the_example():
    keys = jax.random.split(jax.random.key(0), 8)
    t = flow.sample_timestep(keys, 0.0, 1.0, 1.0)
    np.testing.assert_array_equal(flow.sample_timestep(keys[::-1], 0.0, 1.0, 1.0), t[::-1])


def test_velocity_of_a_v_prediction_is_the_output():
    output, x_t = pair()
    np.testing.assert_array_equal(flow.velocity(output, x_t, jnp.full(5, 0.3), "v"), output)


def test_velocity_of_a_perfect_x_prediction_is_exact_above_the_floor():
    x, noise = pair()
    t = jnp.array([0.0, 0.01, 0.05, 0.5, 1.0])
    x_t = flow.interpolate(x, noise, t)
    velocity = flow.velocity(x, x_t, t, "x")
    # x_t − x = t·(ε − x); below the floor of 0.05 it is divided by the floor instead of t.
    share = np.array([0.0, 0.2, 1.0, 1.0, 1.0])[:, None, None, None]
    # x_t is rounded to 1.2e-7 of its size and then divided by 0.05: 2.4e-6 of numbers up to 4.
    np.testing.assert_allclose(velocity, share * (noise - x), atol=2e-5)


def test_velocity_of_bfloat16_outputs_is_float32():
    x, noise = pair()
    for prediction in ("v", "x"):
        output = jnp.asarray(x, jnp.bfloat16)
        assert flow.velocity(output, noise, jnp.ones(5), prediction).dtype == jnp.float32


def test_clipped_x_prediction_is_compared_with_the_velocity_that_is_not_clipped():
    """Below the floor the loss vanishes at x_t − 0.05·(ε − x), not at the data."""
    x, noise = pair()
    for t in (0.001, 0.02, 0.049):
        at = jnp.full(5, t)
        x_t = flow.interpolate(x, noise, at)
        best = x_t - flow.T_FLOOR * (noise - x)
        found = flow.loss(flow.velocity(best, x_t, at, "x"), x, noise)
        np.testing.assert_allclose(found, 0, atol=1e-9)
        found = flow.loss(flow.velocity(x, x_t, at, "x"), x, noise)
        expected = (1 - t / flow.T_FLOOR) ** 2 * np.square(noise - x).mean((1, 2, 3))
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    below = scipy.stats.norm.cdf(logit(flow.T_FLOOR))
    assert round(100 * below, 2) == 0.16  # the share in the docstring
