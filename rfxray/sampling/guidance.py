"""Guidance: velocities of a conditional network combined into the one that is integrated."""

import jax
import jax.numpy as jnp

from rfxray.sampling.solvers import Velocity


def conditional(velocity, attributes: jax.Array, known: jax.Array) -> Velocity:
    """The velocity under a condition, as a function of (x, t) with a scalar t."""

    def guided(x, t):
        return velocity(x, jnp.full(x.shape[0], t), attributes, known)

    return guided


def classifier_free(
    velocity, attributes: jax.Array, known: jax.Array, weight: float | jax.Array
) -> Velocity:
    """v = v(∅) + w·(v(c) − v(∅)) (Ho and Salimans 2022, arXiv 2207.12598).

    Args:
      velocity: `(x, t [batch], attributes, known) → dx/dt`.
      attributes, known: [batch, 19], the condition c.
      weight: w; 1 is the plain conditional velocity, above 1 exaggerates the condition.

    Returns:
      a function of (x [batch, ...], t scalar). Both branches go through the network as one batch.
    """

    def guided(x, t):
        both = velocity(
            jnp.concatenate([x, x]),
            jnp.full(2 * x.shape[0], t),
            jnp.concatenate([attributes, attributes]),
            jnp.concatenate([known, jnp.zeros_like(known)]),
        )
        told, null = jnp.split(both, 2)
        return null + weight * (told - null)

    return guided
