"""Rectified flow: the path, its timesteps, what the network predicts, and the loss.

Time runs from data to noise: t = 0 is data, t = 1 is noise, x_t = (1 − t)·x + t·ε and the velocity
is dx_t/dt = ε − x (Liu et al. 2023, arXiv 2209.03003; Lipman et al. 2023, arXiv 2210.02747).
Sampling integrates from t = 1 to t = 0. Everything here is a pure function of arrays.
"""

import jax
import jax.numpy as jnp

# An x-prediction is divided by t to become a velocity; below this t the division is by the floor.
T_FLOOR = 0.05


def _per_example(t: jax.Array, like: jax.Array) -> jax.Array:
    return t.reshape(t.shape + (1,) * (like.ndim - t.ndim))


def interpolate(x: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
    """x_t = (1 − t)·x + t·ε for x, ε [batch, ...] and t [batch] in [0, 1]."""
    t = _per_example(t, x)
    return (1 - t) * x + t * noise


def shift_timestep(t: jax.Array, shift: float) -> jax.Array:
    """t' = s·t / (1 + (s − 1)·t): more of the path at high noise for s > 1.

    Larger pictures need it because noise hides them less (Esser et al. 2024, arXiv 2403.03206,
    eq. 23).
    """
    return shift * t / (1 + (shift - 1) * t)


def sample_timestep(keys: jax.Array, mean: float, std: float, shift: float) -> jax.Array:
    """Logit-normal timesteps, shifted (arXiv 2403.03206, §3.1): [batch] float32 in (0, 1).

    Args:
      keys: [batch] typed PRNG keys, one per example.
      mean, std: of logit(t) before the shift.
      shift: as in `shift_timestep`.
    """
    normal = jax.vmap(jax.random.normal)(keys)
    return shift_timestep(jax.nn.sigmoid(mean + std * normal), shift)


def velocity(output: jax.Array, x_t: jax.Array, t: jax.Array, prediction: str) -> jax.Array:
    """The velocity that a network output stands for, float32 like x_t.

    Args:
      output: [batch, ...], the velocity itself (`v`) or an estimate of the data (`x`).
      x_t: [batch, ...] where the network was asked.
      t: [batch] timesteps.
      prediction: `v` or `x`. For `x`, v̂ = (x_t − x̂) / max(t, 0.05) (Li and He 2025,
        arXiv 2511.13720).
    """
    output = output.astype(jnp.float32)
    if prediction == "v":
        return output
    return (x_t - output) / jnp.maximum(_per_example(t, x_t), T_FLOOR)


def loss(velocity: jax.Array, x: jax.Array, noise: jax.Array) -> jax.Array:
    """Mean squared error of a velocity against ε − x, one number per example: [batch] float32."""
    error = velocity - (noise - x)
    return jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))
