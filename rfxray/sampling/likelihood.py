"""The likelihood of an image under a model: the instantaneous change of variables along the ODE."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from rfxray.arrays import AnyArray
from rfxray.sampling import solvers
from rfxray.sampling.solvers import Velocity


def log_likelihood(
    velocity: Velocity,
    x: Float[AnyArray, " batch *shape"],
    times: Float[AnyArray, " times"],
    key: Key[Array, ""],
    solver: str = "midpoint",
    probes: int = 1,
) -> tuple[Float[Array, " batch"], Float[Array, " batch *shape"]]:
    """log p(x) = log N(x₁; 0, I) + ∫ div v dt from t = 0 to 1 (Chen et al. 2018, arXiv 1806.07366).

    The divergence is Hutchinson's estimate, E[zᵀ(∂v/∂x)z] over random signs z (FFJORD, Grathwohl et
    al. 2019, arXiv 1810.01367): unbiased for the log-likelihood, exact if the Jacobian is
    diagonal. It is a density of the continuous pixels in [−1, 1], not a probability of 16-bit ones.

    Args:
      velocity: Function of (x [batch, ...], t scalar); differentiated backwards in x.
      x: Data, [batch, ...].
      times: Times [steps + 1], rising to 1 from 0, or from a small time for a network that was not
        trained at 0 (then it is the density at that time).
      key: PRNG key of the probes.
      solver: Key of `solvers.SOLVERS`.
      probes: Number of probes that the estimate is averaged over; each costs an evaluation or two.

    Returns:
      Natural log-likelihood [batch] float32, and the noise x₁ [batch, ...].
    """
    batch, shape = len(x), x.shape[1:]
    signs = jax.random.rademacher(key, (probes, *x.shape), jnp.float32)

    # The images and their running integral are one array, so that any solver can be used.
    def joint(state, t):
        pixels = state[:, :-1].reshape(batch, *shape)

        def along(z):
            # Backwards, zᵀ(∂v/∂x): an attention kernel has no forward derivative.
            value, pull = jax.vjp(lambda p: velocity(p, t), pixels)
            return value, (z * pull(z)[0]).reshape(batch, -1).sum(-1)

        values, divergence = jax.lax.map(along, signs)
        flat = values[0].reshape(batch, -1)
        return jnp.concatenate([flat, divergence.mean(0)[:, None]], axis=1)

    start = jnp.concatenate([x.reshape(batch, -1), jnp.zeros((batch, 1))], axis=1)
    end = solvers.integrate(joint, start, times, solver)
    noise, integral = end[:, :-1], end[:, -1]
    normal = -0.5 * (noise**2).sum(-1) - 0.5 * noise.shape[1] * math.log(2 * math.pi)
    return normal + integral, noise.reshape(batch, *shape)
