import warnings

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logit
from scipy.stats import multivariate_normal

from rfxray.config import schema
from rfxray.errors import ConfigError
from rfxray.sampling import adaptive, likelihood, solvers, stochastic

# A mixture of three Gaussians in the plane: its flow has no closed form and is curved.
MEANS = np.array([[-0.8, 0.3], [0.7, -0.6], [0.4, 0.9]], np.float32)
SHARES = np.array([0.5, 0.3, 0.2], np.float32)
WIDTH = 0.6
X = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)


def mixture(x, t):
    """The exact velocity E[ε − x | x_t] of the mixture, in the dtype of x."""
    means, shares = MEANS.astype(x.dtype), SHARES.astype(x.dtype)
    var = (1 - t) ** 2 * WIDTH**2 + t**2
    apart = x[:, None] - (1 - t) * means
    weight = jax.nn.softmax(jnp.log(shares) - (apart**2).sum(-1) / (2 * var), axis=-1)
    slope = (t - (1 - t) * WIDTH**2) / var
    return (weight[..., None] * (-means + slope * apart)).sum(1)


@pytest.fixture(scope="module")
def exact():
    """`exact(start, end)`: X moved by the flow, with Dopri8 in float64 at a tolerance of 1e-11."""
    found = {}

    def solve(start, end):
        if (start, end) not in found:
            with jax.enable_x64(True), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                solution = diffrax.diffeqsolve(
                    diffrax.ODETerm(lambda t, x, _: mixture(x, t)),
                    diffrax.Dopri8(),
                    t0=start,
                    t1=end,
                    dt0=None,
                    y0=jnp.asarray(X, jnp.float64),
                    stepsize_controller=diffrax.PIDController(rtol=1e-11, atol=1e-11),
                )
                found[start, end] = np.asarray(solution.ys[-1])
        return found[start, end]

    return solve


GRIDS = {
    "uniform": solvers.time_grid,
    "shifted": lambda n: solvers.time_grid(n, 2.0),
    "quadratic": lambda n: solvers.time_grid(n, spacing="quadratic"),
    "given": lambda n: solvers.given_grid(
        [*(1 - np.sin(np.linspace(0, np.pi / 3, n + 1))[:-1] / np.sin(np.pi / 3)), 0]
    ),
}
# Steps that give errors between 0.1 and 3e-6: asymptotic, yet above float32 rounding.
COUNTS = {1: (128, 512), 2: (64, 256), 4: (10, 20)}


def error(solver, times, target) -> float:
    walk = jax.jit(lambda x: solvers.integrate(mixture, x, times, solver))
    return np.abs(np.asarray(walk(X)) - target).max()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_solver_converges_at_its_order_on_every_grid(exact, solver, grid):
    few, many = COUNTS[solvers.ORDER[solver]]
    errors = [error(solver, GRIDS[grid](n), exact(1.0, 0.0)) for n in (few, many)]
    found = np.log(errors[0] / errors[1]) / np.log(many / few)
    assert found > solvers.ORDER[solver] - 0.25


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_solver_keeps_its_order_from_data_to_noise(exact, solver):
    few, many = COUNTS[solvers.ORDER[solver]]
    errors = [error(solver, GRIDS["uniform"](n)[::-1], exact(0.0, 1.0)) for n in (few, many)]
    found = np.log(errors[0] / errors[1]) / np.log(many / few)
    assert found > solvers.ORDER[solver] - 0.25


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_solver_agrees_with_dopri8(exact, solver):
    steps = {1: 4096, 2: 1024, 4: 64}[solvers.ORDER[solver]]
    # Euler's error at 4096 steps; the other solvers are close to float32 rounding.
    tolerance = 1e-3 if solvers.ORDER[solver] == 1 else 4e-5
    assert error(solver, solvers.time_grid(steps), exact(1.0, 0.0)) < tolerance


def test_exponential_is_exact_if_the_data_estimate_is_linear_in_time():
    """If x̂ is linear in t, every step except the first is exact, whatever its length."""

    def linear(x, t):  # x̂ = (0.5 + t)·(1, 2): v = (x − x̂)/t
        return (x - (0.5 + t) * jnp.array([1.0, 2.0])) / t

    times = np.array([1.0, 0.6, 0.3, 0.05, 0.0], np.float32)
    x = X[:1].astype(np.float64)
    first = x + (times[1] - 1) * (x - 1.5 * np.array([1.0, 2.0]))  # Euler step; the rest is exact
    # x(t)/t = x(s)/s + ∫_t^s x̂/r² dr with x̂ = a + b·r
    ratio = np.log(times[1] / times[3])
    exact = times[3] * (
        first / times[1] + np.array([1.0, 2.0]) * (0.5 * (1 / times[3] - 1 / times[1]) + ratio)
    )
    found = solvers.integrate(linear, X[:1], times[:4], "exponential")
    np.testing.assert_allclose(found, exact, atol=2e-5)


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_step_makes_the_stated_number_of_evaluations(solver):
    seen = []

    def counting(x, t):
        seen.append(t)
        return -x

    take = solvers.SOLVERS[solver]
    memory = take.memory(jnp.ones(1)) if take.memory else ()
    take.step(counting, jnp.ones(1), jnp.float32(0.5), jnp.float32(-0.1), memory)
    assert len(seen) == solvers.EVALUATIONS[solver]


def test_last_step_of_heun_is_euler():
    def blind_at_data(x, t):
        return jnp.where(t == 0, jnp.nan, mixture(x, t))

    last = np.array([0.25, 0.0], np.float32)
    np.testing.assert_array_equal(
        solvers.integrate(blind_at_data, X, last, "heun"),
        solvers.integrate(mixture, X, last, "euler"),
    )
    times = solvers.time_grid(7)
    assert np.isfinite(solvers.integrate(blind_at_data, X, times, "heun")).all()
    inner = np.array([0.5, 0.25], np.float32)
    heun, euler = (solvers.integrate(mixture, X, inner, name) for name in ("heun", "euler"))
    assert np.abs(heun - euler).max() > 1e-3


def test_config_schema_lists_the_same_solvers():
    assert tuple(solvers.SOLVERS) == schema.SOLVERS


def test_result_is_float32_for_bfloat16_input():
    for solver in solvers.SOLVERS:
        half = solvers.integrate(
            lambda x, t: (-x).astype(jnp.bfloat16),
            jnp.ones((3, 2), jnp.bfloat16),
            np.array([1, 0.5, 0]),
            solver,
        )
        assert half.dtype == jnp.float32


def test_arrive_replaces_the_state():
    path = np.arange(5 * 4, dtype=np.float32).reshape(5, 2, 2)
    times = solvers.time_grid(4)
    end = solvers.integrate(mixture, X[:2], times, "heun", arrive=lambda x, k: jnp.asarray(path)[k])
    np.testing.assert_array_equal(end, path[-1])


# ---------------------------------------------------------------------------------------------
# Inversion


@pytest.mark.parametrize("solver", [n for n, s in solvers.SOLVERS.items() if not s.memory])
def test_integration_undoes_inversion(solver):
    # On so coarse a grid even the error of RK4 is about 100 times float32 rounding.
    times = solvers.time_grid(6)

    @jax.jit
    def there_and_back(x):
        exact = solvers.invert(mixture, x, times, solver, corrections=24)
        plain = solvers.invert(mixture, x, times, solver, corrections=0)
        ends = [solvers.integrate(mixture, path[0], times, solver) for path in (exact, plain)]
        return exact, solvers.integrate(mixture, exact[0], times[:4], solver), *ends

    path, halfway, back, roughly_back = there_and_back(X)
    assert path.shape == (7, 16, 2)
    np.testing.assert_array_equal(path[-1], X)
    np.testing.assert_allclose(halfway, path[3], atol=2e-5)  # same states on the way
    np.testing.assert_allclose(back, X, atol=2e-5)
    # Without corrections the inversion is off by the error of the solver.
    assert np.abs(roughly_back - X).max() > 5 * np.abs(back - X).max()


def test_multistep_solver_cannot_be_inverted():
    with pytest.raises(ConfigError, match=r"ab2 is a multistep solver.*heun"):
        solvers.invert(mixture, X, solvers.time_grid(4), "ab2")


# ---------------------------------------------------------------------------------------------
# Grids


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_time_grid_runs_from_noise_to_data(steps, shift):
    times = solvers.time_grid(steps, shift)
    assert (times.shape, times.dtype) == ((steps + 1,), np.float32)
    assert (times[0], times[-1]) == (1.0, 0.0)
    assert (np.diff(times) < 0).all()
    even = np.linspace(1, 0, steps + 1)[1:-1]
    np.testing.assert_allclose(logit(times[1:-1]), logit(even) + np.log(shift), atol=1e-5)
    quadratic = solvers.time_grid(steps, spacing="quadratic")
    np.testing.assert_allclose(np.sqrt(quadratic), np.linspace(1, 0, steps + 1), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: solvers.time_grid(0), "at least 1"),
        (lambda: solvers.time_grid(4, spacing="cubic"), "'cubic'.*quadratic"),
        (lambda: solvers.given_grid([1.0, 0.5]), "from 1 to 0"),
        (lambda: solvers.given_grid([1.0, 0.5, 0.5, 0.0]), "from 1 to 0"),
        (lambda: solvers.given_grid([1.0]), "from 1 to 0"),
        (lambda: solvers.given_grid([1.0, float("nan"), 0.0]), "from 1 to 0"),
        *(
            (lambda shift=shift: solvers.time_grid(50, shift), "shift=1e.*not distinct")
            for shift in (1e9, 1e38, 1e39, 1e-45)
        ),
        (lambda: solvers.integrate(mixture, X, np.array([1.0, 0.0]), "ddim"), "'ddim'.*heun"),
    ],
)
def test_invalid_grid_or_solver_is_rejected(make, part):
    with pytest.raises(ConfigError, match=part):
        make()


# ---------------------------------------------------------------------------------------------
# Adaptive, stochastic, likelihood


@pytest.mark.parametrize(("start", "end"), [(1.0, 0.0), (0.0, 1.0)])
def test_adaptive_solver_keeps_its_tolerance(exact, start, end):
    counts = []
    for tolerance in (1e-3, 1e-5):
        found, steps = adaptive.integrate(mixture, X, start, end, tolerance)
        # The tolerance bounds the root mean square error of one step; about ten steps add up.
        assert np.sqrt(np.mean((found - exact(start, end)) ** 2)) < 10 * tolerance
        counts.append(int(steps))
    assert counts[0] < counts[1] < 100


def test_stochastic_sampler_draws_from_the_mixture():
    n = 4000
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(n))
    noise = jax.vmap(lambda k: jax.random.normal(k, (2,)))(keys)
    times = solvers.time_grid(100)
    drawn = {
        churn: np.asarray(
            jax.jit(lambda x, c=churn: stochastic.integrate(mixture, x, times, keys, c))(noise)
        )
        for churn in (0.0, 1.0)
    }
    ode = jax.jit(lambda x: solvers.integrate(mixture, x, times, "euler"))(noise)
    np.testing.assert_allclose(drawn[0.0], ode, atol=1e-5)  # churn 0 is the ODE
    assert np.abs(drawn[1.0] - drawn[0.0]).mean() > 0.2  # churn 1 is not
    mean = SHARES @ MEANS
    spread = (SHARES[:, None] * (WIDTH**2 + (MEANS - mean) ** 2)).sum(0) ** 0.5
    # Four standard errors of 4,000 draws, plus the discretisation error of 100 Euler steps.
    np.testing.assert_allclose(drawn[1.0].mean(0), mean, atol=4 * 0.9 / n**0.5 + 0.01)
    np.testing.assert_allclose(drawn[1.0].std(0), spread, rtol=0.06)


def test_likelihood_is_that_of_the_mixture():
    x = X[:8] * 0.7
    density = sum(
        share * multivariate_normal(mean, WIDTH**2 * np.eye(2)).pdf(x)
        for share, mean in zip(SHARES, MEANS, strict=True)
    )
    times = solvers.time_grid(40)[::-1]

    @jax.jit
    def estimate(key):
        return likelihood.log_likelihood(mixture, x, times, key, "rk4", probes=256)[0]

    found = estimate(jax.random.key(0))
    # 256 probes of an off-diagonal Jacobian of order 1, along a path of length 1.
    np.testing.assert_allclose(found, np.log(density), atol=0.1)
    assert np.abs(found - np.log(density)).mean() < 0.04


def test_likelihood_is_exact_for_a_diagonal_jacobian():
    def gaussian(x, t):  # x ~ N(0, WIDTH²): coordinates flow independently
        return x * (t - (1 - t) * WIDTH**2) / ((1 - t) ** 2 * WIDTH**2 + t**2)

    times = solvers.time_grid(32)[::-1]
    found, noise = likelihood.log_likelihood(gaussian, X, times, jax.random.key(0), "rk4")
    exact = multivariate_normal(np.zeros(2), WIDTH**2 * np.eye(2)).logpdf(X)
    np.testing.assert_allclose(found, exact, atol=2e-4)
    np.testing.assert_allclose(noise, X / WIDTH, atol=1e-4)
