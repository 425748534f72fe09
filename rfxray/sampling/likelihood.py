"""How likely a model holds a picture: the instantaneous change of variables along the ODE."""

import math

import jax
import jax.numpy as jnp

from rfxray.sampling import solvers
from rfxray.sampling.solvers import Velocity


def log_likelihood(
    velocity: Velocity,
    x: jax.Array,
    times: jax.Array,
    key: jax.Array,
    solver: str = "midpoint",
    probes: int = 1,
) -> tuple[jax.Array, jax.Array]:
    """log p(x) = log N(x₁; 0, I) + ∫ div v dt from t = 0 to 1 (Chen et al. 2018, arXiv 1806.07366).

    The divergence is Hutchinson's estimate, E[zᵀ(∂v/∂x)z] over random signs z (FFJORD, Grathwohl et
    al. 2019, arXiv 1810.01367): unbiased for the log-likelihood, exact where the Jacobian is
    diagonal. It is a density of the continuous pixels in [−1, 1], not a probability of 16-bit ones.

    Args:
      velocity: a function of (x [batch, ...], t scalar); differentiated forwards in x.
      x: [batch, ...] data.
      times: [steps + 1], rising to 1 from 0, or from a small time for a network that has not seen 0
        (then it is the density at that time).
      key: of the probes.
      solver: a key of `solvers.SOLVERS`.
      probes: that the estimate is averaged over, each the price of an evaluation or two.

    Returns:
      [batch] natural log-likelihood, float32, and the noise x₁ [batch, ...].
    """
    batch, shape = len(x), x.shape[1:]
    signs = jax.random.rademacher(key, (probes, *x.shape), jnp.float32)

    # The pictures and their running integral travel as one array, so that any solver serves.
    def joint(state, t):
        pixels = state[:, :-1].reshape(batch, *shape)

        def along(z):
            value, tangent = jax.jvp(lambda p: velocity(p, t), (pixels,), (z,))
            return value, (z * tangent).reshape(batch, -1).sum(-1)

        values, divergence = jax.lax.map(along, signs)
        flat = values[0].reshape(batch, -1)
        return jnp.concatenate([flat, divergence.mean(0)[:, None]], axis=1)

    start = jnp.concatenate([x.reshape(batch, -1), jnp.zeros((batch, 1))], axis=1)
    end = solvers.integrate(joint, start, times, solver)
    noise, integral = end[:, :-1], end[:, -1]
    normal = -0.5 * (noise**2).sum(-1) - 0.5 * noise.shape[1] * math.log(2 * math.pi)
    return normal + integral, noise.reshape(batch, *shape)
