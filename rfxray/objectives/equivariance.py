"""Latents that shrink as their image does (EQ-VAE, Kouzelis et al. 2025, arXiv 2502.09509).

An autoencoder has no reason to keep a latent space in which scaling means something. So some
latents are shrunk before they are decoded, and the result is compared with the image shrunk in the
same way. There are neither turns nor flips: a radiograph has a left and a right.

Published code makes smaller arrays. Here the shrunk image keeps its square, centred, and what lies
outside of it is left out of the loss: every image has a scale of its own, and one program serves
all.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from rfxray.arrays import AnyArray

LEAST = 0.25  # smallest scale, as published


def sample_scale(keys: Key[Array, " batch"], share: float) -> Float[Array, " batch"]:
    """Scales, uniform in [0.25, 1) for a share of the examples and 1 for the others."""

    def one(key: Key[Array, ""]) -> Float[Array, ""]:
        for_share, for_scale = jax.random.split(key)
        scale = jax.random.uniform(for_scale, minval=LEAST)
        return jnp.where(jax.random.uniform(for_share) < share, scale, 1.0)

    return jax.vmap(one)(keys)


def shrink(
    x: Float[AnyArray, "batch height width channels"], scale: Float[AnyArray, " batch"]
) -> Float[Array, "batch height width channels"]:
    """Shrinks arrays to their centre, bilinearly; with a scale of 1 each stays as it is.

    A point at distance d from the centre comes from d / scale; from beyond the border comes the
    nearest value within. As in PyTorch's `interpolate`, nothing is averaged beforehand.
    """
    rows, columns = (_weights(scale, side) for side in x.shape[1:3])
    x = jnp.einsum("nuy,nyxc->nuxc", rows, x, precision=jax.lax.Precision.HIGHEST)
    return jnp.einsum("nvx,nuxc->nuvc", columns, x, precision=jax.lax.Precision.HIGHEST)


def inside(
    scale: Float[AnyArray, " batch"],
    height: int,
    width: int,
    box: Int[AnyArray, "batch 4"] | None = None,
) -> Bool[Array, "batch {height} {width} 1"]:
    """Which pixels a shrunk image of that size covers, or a box of it.

    Args:
      scale: Scales [batch].
      height: Height of the images, pixels.
      width: Width of the images, pixels.
      box: Top, left, height and width of a box in each image before it is shrunk, pixels; None for
        the whole image.
    """
    if box is None:
        box = jnp.broadcast_to(jnp.array([0, 0, height, width]), (len(scale), 4))
    top, left, rows, columns = jnp.asarray(box).T
    down = _covered(_places(scale, height), top, rows)
    across = _covered(_places(scale, width), left, columns)
    return (down[:, :, None] & across[:, None, :])[..., None]


def _places(scale: Float[AnyArray, " batch"], side: int) -> Float[Array, "batch {side}"]:
    """Points of the array that each point of the shrunk one comes from, in cells."""
    from_centre = jnp.arange(side) + 0.5 - side / 2
    return from_centre / scale[:, None] + side / 2 - 0.5


def _covered(
    places: Float[Array, "batch side"], first: Int[Array, " batch"], count: Int[Array, " batch"]
) -> Bool[Array, "batch side"]:
    """Which of these points lie in the cells from a first one on."""
    begin = first[:, None] - 0.5
    return (places > begin) & (places < begin + count[:, None])


def _weights(scale: Float[AnyArray, " batch"], side: int) -> Float[Array, "batch {side} {side}"]:
    places = jnp.clip(_places(scale, side), 0, side - 1)
    return jax.nn.relu(1 - jnp.abs(places[:, :, None] - jnp.arange(side)))
