"""The stochastic sampler: the same marginals as the ODE, with noise put in and taken out again."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from rfxray.arrays import AnyArray
from rfxray.sampling.solvers import Velocity


def integrate(
    velocity: Velocity,
    x: Float[AnyArray, " batch *shape"],
    times: Float[AnyArray, " times"],
    keys: Key[Array, " batch"],
    churn: float,
) -> Float[Array, " batch *shape"]:
    """Euler–Maruyama from noise to data, for SiT's reverse SDE (arXiv 2401.08740, eq. 6).

    dx = [v − ½·w·s] dt + √w dW̄ with the score s = −ε̂/t, ε̂ = x + (1 − t)·v, and the diffusion
    w = churn·t: then w·s = −churn·ε̂ is finite everywhere. The last step adds no noise. Churn 1 is
    w = σ_t in that equation. SiT's public integrator adds √(2·diffusion) dW, so that its defaults
    (diffusion form sigma, norm 1) are w = 2σ_t, which is churn 2.

    Args:
      velocity: Function of (x [batch, ...] float32, t scalar float32).
      x: State at times[0], [batch, ...].
      times: Falling times, [steps + 1].
      keys: Typed PRNG keys, one for each image, [batch].
      churn: Diffusion w in units of σ_t = t; 0 is the ODE.

    Returns:
      State at the last time, [batch, ...] float32.
    """
    times = jnp.asarray(times, jnp.float32)

    def step(x, interval):
        t, dt, k = interval
        v = velocity(x, t)
        noise = x + (1 - t) * v
        drift = v + 0.5 * churn * noise
        each = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, k), x.shape[1:]))
        spread = jnp.where(t + dt > 0, jnp.sqrt(churn * t * -dt), 0.0)
        return (x + dt * drift + spread * each(keys)).astype(jnp.float32), None

    intervals = (times[:-1], jnp.diff(times), jnp.arange(1, len(times)))
    return jax.lax.scan(step, jnp.asarray(x, jnp.float32), intervals)[0]
