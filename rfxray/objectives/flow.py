"""Rectified flow: the path, its timesteps, what the network predicts, and the loss.

Time runs from data to noise: t = 0 is data, t = 1 is noise, x_t = (1 − t)·x + t·ε and the velocity
is dx_t/dt = ε − x (Liu et al. 2023, arXiv 2209.03003; Lipman et al. 2023, arXiv 2210.02747).
Sampling integrates from t = 1 to t = 0. Everything here is a pure function of arrays.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from rfxray.arrays import AnyArray

Times = TypeVar("Times", jax.Array, np.ndarray, float)

# Smallest t that an x-prediction is divided by to become a velocity.
T_FLOOR = 0.05


def _per_example(t: Float[Array, " times"], ndim: int) -> Float[Array, "times ..."]:
    return t.reshape(t.shape + (1,) * (ndim - 1))


def interpolate(
    x: Float[AnyArray, " batch *shape"],
    noise: Float[AnyArray, " batch *shape"],
    t: Float[Array, "#batch"],
) -> Float[Array, " batch *shape"]:
    """x_t = (1 − t)·x + t·ε for x, ε [batch, ...] and t [batch], or one t [1], in [0, 1]."""
    t = _per_example(t, x.ndim)
    return (1 - t) * x + t * noise


def shift_timestep(t: Times, shift: float) -> Times:
    """t' = s·t / (1 + (s − 1)·t): more of the path at high noise for s > 1.

    Larger images need it because noise hides them less (Esser et al. 2024, arXiv 2403.03206,
    eq. 23).
    """
    return shift * t / (1 + (shift - 1) * t)


def sample_timestep(
    keys: Key[Array, " batch"], mean: float, std: float, shift: float
) -> Float[Array, " batch"]:
    """Logit-normal timesteps, shifted (arXiv 2403.03206, §3.1): [batch] float32 in (0, 1).

    Args:
      keys: Typed PRNG keys [batch], one per example.
      mean, std: Mean and standard deviation of logit(t) before the shift.
      shift: Shift s, as in `shift_timestep`.
    """
    normal = jax.vmap(jax.random.normal)(keys)
    return shift_timestep(jax.nn.sigmoid(mean + std * normal), shift)


def velocity(
    output: Float[AnyArray, " batch *shape"],
    x_t: Float[AnyArray, " batch *shape"],
    t: Float[Array, " batch"],
    prediction: str,
) -> Float[Array, " batch *shape"]:
    """Converts a network output to a velocity, float32 with the shape of x_t.

    Args:
      output: Output [batch, ...]: the velocity (`v`) or an estimate of the data (`x`).
      x_t: Input of the network [batch, ...].
      t: Timesteps [batch].
      prediction: One of `v` and `x`. For `x`, v̂ = (x_t − x̂) / max(t, 0.05) (Li and He 2025,
        arXiv 2511.13720); see `loss` for what that means below t = 0.05.
    """
    output, x_t = jnp.asarray(output, jnp.float32), jnp.asarray(x_t)
    if prediction == "v":
        return output
    return (x_t - output) / jnp.maximum(_per_example(t, x_t.ndim), T_FLOOR)


def loss(
    velocity: Float[AnyArray, " batch *shape"],
    x: Float[AnyArray, " batch *shape"],
    noise: Float[AnyArray, " batch *shape"],
) -> Float[Array, " batch"]:
    """Mean squared error of a velocity against ε − x, one number per example: [batch] float32.

    The target is never clipped. Below t = 0.05 an x-prediction is therefore compared as
    (x_t − x̂)/0.05 with ε − x, unlike in arXiv 2511.13720, which divides the target's x_t − x by the
    clipped t as well. The minimiser there is x̂ = x_t − 0.05·E[ε − x | x_t] instead of E[x | x_t]:
    v̂ is the velocity of the flow at every t, which solvers integrate, and x̂ is an estimate of the
    data only from t = 0.05 on. It concerns 0.16% of the timesteps of t_mean = 0, t_std = 1.
    """
    error = velocity - (noise - x)
    return jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))
