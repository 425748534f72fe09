"""A perceptual distance: how differently a frozen transformer sees two images."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfxray.arrays import AnyArray

_EPSILON = 1e-12  # of a squared norm: a state of zeros has no direction


def distance(
    states: Float[AnyArray, "depth batch tokens width"],
    target: Float[AnyArray, "depth batch tokens width"],
) -> Float[Array, " batch"]:
    """Mean squared difference of the directions of all tokens after all blocks.

    Each token's state is divided by its norm, so the distance lies in [0, 4 / width]: blocks with
    large states do not outweigh the others.

    Args:
      states: States of an image after every block, before the last norm.
      target: States of the image that it should look like; it gets no gradient.
    """
    fixed = jax.lax.stop_gradient(_direction(jnp.asarray(target)))
    apart = _direction(jnp.asarray(states)) - fixed
    return jnp.square(apart).mean((0, 2, 3))


def _direction(states: jax.Array) -> jax.Array:
    squares = jnp.square(states).sum(-1, keepdims=True)
    return states * jax.lax.rsqrt(squares + _EPSILON)
