"""Steps of adaptive length by error control: diffrax's Tsit5 (pip install -e '.[ode]')."""

import warnings

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rfxray.arrays import AnyArray
from rfxray.errors import ConfigError
from rfxray.sampling.solvers import Velocity

MOST_STEPS = 4096  # of which a rectified flow at a tolerance of 1e-5 needs some dozens


def integrate(
    velocity: Velocity,
    x: Float[AnyArray, " batch *shape"],
    start: float,
    end: float,
    tolerance: float,
) -> tuple[Float[Array, " batch *shape"], Int[Array, ""]]:
    """x at time `end`, from x at time `start`, for dx/dt = velocity(x, t).

    One length of step serves the whole batch; the sampler therefore maps over single images.

    Args:
      velocity: Function of (x [batch, ...] float32, t scalar float32).
      x: State at `start`, [batch, ...].
      start, end: Times in [0, 1].
      tolerance: Tolerance of a step's error, absolute and relative, as a root mean square over the
        batch.

    Returns:
      State at `end`, [batch, ...] float32, NaN if `MOST_STEPS` do not reach it; and the number of
      steps that were tried, of six evaluations each.

    Raises:
      ConfigError: If diffrax is not installed.
    """
    try:
        import diffrax
    except ModuleNotFoundError as error:
        raise ConfigError("the adaptive solver needs diffrax: pip install -e '.[ode]'") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # diffrax 0.7.2 under jax 0.10
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, x, _: velocity(x, jnp.asarray(t))),
            diffrax.Tsit5(),
            t0=start,
            t1=end,
            dt0=None,
            y0=x.astype(jnp.float32),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            max_steps=MOST_STEPS,
            throw=False,  # which would be a page of tracebacks
        )
    assert solution.ys is not None  # it is saved at t1
    arrived = solution.result == diffrax.RESULTS.successful
    return jnp.where(arrived, solution.ys[-1], jnp.nan), solution.stats["num_steps"]
