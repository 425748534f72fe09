import warnings

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logit

from rfxray.errors import ConfigError
from rfxray.sampling import solvers

MEAN, WIDTH = 0.7, 0.2


def spread(t):
    """σ_t of x_t = (1 − t)·x + t·ε for x ~ N(MEAN, WIDTH²)."""
    return np.sqrt((1 - t) ** 2 * WIDTH**2 + t**2)


def gaussian(x, t):
    """The exact velocity E[ε − x | x_t] of that flow."""
    slope = (t - (1 - t) * WIDTH**2) / ((1 - t) ** 2 * WIDTH**2 + t**2)
    return -MEAN + slope * (x - (1 - t) * MEAN)


def curved(x, s):
    """The same flow under t = s²."""
    return 2 * s * gaussian(x, s**2)


def moved(x, start, end):
    """Where the flow takes x: (x_t − (1 − t)·MEAN) / σ_t stays as it is."""
    return (1 - end) * MEAN + spread(end) / spread(start) * (x - (1 - start) * MEAN)


# Errors then lie between 1 and 1e-6: in the asymptotic range, above the rounding of float32.
COUNTS = {
    "euler": (32, 64, 128),
    "heun": (32, 64, 128),
    "midpoint": (32, 64, 128),
    "rk4": (6, 8, 12),
}
X = np.linspace(-3, 3, 13, dtype=np.float32)


def falls_with(solver, velocity, start, end, exact) -> float:
    """The exponent p of error ~ steps⁻ᵖ, fitted over the step counts."""
    counts = COUNTS[solver]
    found = [solvers.integrate(velocity, X, np.linspace(start, end, n + 1), solver) for n in counts]
    errors = [np.abs(x - exact).max() for x in found]
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


@pytest.mark.parametrize(("start", "end"), [(1.0, 0.5), (0.5, 1.0)], ids=["to data", "to noise"])
@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_the_error_falls_with_the_order_of_the_solver(solver, start, end):
    # On the straight clock σ_t² is a parabola and the midpoint rule gains an order by luck.
    exact = moved(X.astype(np.float64), start**2, end**2)
    found = falls_with(solver, curved, start, end, exact)
    assert found == pytest.approx(solvers.ORDER[solver], abs=0.15)


@pytest.mark.parametrize(("start", "end"), [(1.0, 0.0), (0.0, 1.0)], ids=["to data", "to noise"])
@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_the_whole_path_is_walked_at_no_lower_order(solver, start, end):
    """Including Heun's last step, an Euler step, whose error counts once and not in every step."""
    exact = moved(X.astype(np.float64), start, end)
    assert falls_with(solver, gaussian, start, end, exact) > solvers.ORDER[solver] - 0.15


def test_every_solver_has_an_order_and_a_cost():
    assert solvers.SOLVERS.keys() == solvers.ORDER.keys() == solvers.EVALUATIONS.keys()


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_the_stated_number_of_evaluations_is_made(solver):
    seen = []

    def counting(x, t):
        seen.append(t)
        return -x

    solvers.SOLVERS[solver](counting, jnp.ones(1), jnp.float32(0.5), jnp.float32(-0.1))
    assert len(seen) == solvers.EVALUATIONS[solver]


def two_modes(x, t):
    """The velocity of a mixture of two Gaussians: no closed path, curved where they part."""
    means = jnp.array([-1.5, 1.5])[:, None]
    var = (1 - t) ** 2 * 0.3**2 + t**2
    at = (1 - t) * means
    weight = jax.nn.softmax(-((x - at) ** 2) / (2 * var), axis=0)
    slope = (t - (1 - t) * 0.3**2) / var
    return (weight * (-means + slope * (x - at))).sum(0)


@pytest.mark.parametrize(("solver", "steps", "tolerance"), [("rk4", 64, 2e-5), ("heun", 512, 2e-4)])
def test_diffrax_agrees(solver, steps, tolerance):
    x = jnp.linspace(-2.5, 2.5, 11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, _: two_modes(y, t)),
            diffrax.Dopri8(),
            t0=1.0,
            t1=0.0,
            dt0=-0.01,
            y0=x,
            stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
        )
    found = solvers.integrate(two_modes, x, solvers.time_grid(steps), solver)
    np.testing.assert_allclose(found, solution.ys[-1], atol=tolerance)


def test_the_last_step_of_heun_is_euler():
    def blind_at_data(x, t):
        return jnp.where(t == 0, jnp.nan, gaussian(x, t))

    x = jnp.linspace(-1, 1, 5)
    last = np.array([0.25, 0.0], np.float32)
    np.testing.assert_array_equal(
        solvers.integrate(blind_at_data, x, last, "heun"),
        solvers.integrate(gaussian, x, last, "euler"),
    )
    times = solvers.time_grid(7)
    assert np.isfinite(solvers.integrate(blind_at_data, x, times, "heun")).all()
    inner = np.array([0.5, 0.25], np.float32)
    heun, euler = (solvers.integrate(gaussian, x, inner, name) for name in ("heun", "euler"))
    assert np.abs(heun - euler).max() > 1e-3


def test_the_result_is_float32_whatever_comes_in():
    half = solvers.integrate(
        lambda x, t: (-x).astype(jnp.bfloat16), jnp.ones(3, jnp.bfloat16), [1.0, 0.5, 0.0], "euler"
    )
    assert half.dtype == jnp.float32


def test_an_unknown_solver_is_refused():
    with pytest.raises(ConfigError, match=r"'ddim'.*heun"):
        solvers.integrate(gaussian, jnp.ones(1), [1.0, 0.0], "ddim")


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_the_time_grid_runs_from_noise_to_data(steps, shift):
    times = solvers.time_grid(steps, shift)
    assert (times.shape, times.dtype) == ((steps + 1,), np.float32)
    assert (times[0], times[-1]) == (1.0, 0.0)
    assert (np.diff(times) < 0).all()
    even = np.linspace(1, 0, steps + 1)[1:-1]
    np.testing.assert_allclose(logit(times[1:-1]), logit(even) + np.log(shift), atol=1e-5)


def test_no_steps_are_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        solvers.time_grid(0)
