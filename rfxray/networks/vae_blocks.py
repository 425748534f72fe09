"""An image as blocks of pixels, and an autoencoder of blocks that is linear.

On a CPU the maps of full size are most of the time of a convolutional autoencoder, though they know
the least. So the pixels of a block may be the channels of one position before the first
convolution, and come from one after the last (as in Shi et al. 2016, arXiv 1609.05158).

A path without norms and nonlinearities runs from the image to the latents, and another back: one
convolution of a block each, with a step of a block. Both begin as the lowest cosines of a block,
the transform of JPEG, so a network that has learned nothing keeps what they keep, and learns the
rest.
"""

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float
from scipy.fft import dct

from rfxray.arrays import AnyArray


def fold(
    images: Float[AnyArray, "n height width c"], side: int
) -> Float[Array, "n rows columns channels"]:
    """Blocks of side × side pixels as positions, with (row, column, c) in the channels."""
    return rearrange(jnp.asarray(images), "n (y p) (x q) c -> n y x (p q c)", p=side, q=side)


def unfold(
    blocks: Float[AnyArray, "n rows columns channels"], side: int
) -> Float[Array, "n height width c"]:
    """Images of blocks, as `fold` orders them."""
    return rearrange(jnp.asarray(blocks), "n y x (p q c) -> n (y p) (x q) c", p=side, q=side)


def to_latents(
    kernel: Float[AnyArray, "side side c z"], images: Float[AnyArray, "n height width c"]
) -> Float[Array, "n rows columns z"]:
    """The products of each block with z kernels."""
    blocks = fold(images, kernel.shape[0])
    return blocks @ kernel.reshape(-1, kernel.shape[-1])


def to_images(
    kernel: Float[AnyArray, "side side c z"], latents: Float[AnyArray, "n rows columns z"]
) -> Float[Array, "n height width c"]:
    """Blocks that are sums of z kernels, weighted by latents."""
    return unfold(jnp.asarray(latents) @ kernel.reshape(-1, kernel.shape[-1]).T, kernel.shape[0])


def cosines(shape: tuple[int, ...]) -> Float[np.ndarray, "side side c z"]:
    """The z lowest cosines of a block, orthonormal, float32; channels share them.

    Args:
      shape: Side, side, c and z; z is at most side².
    """
    side, _, channels, z = shape
    waves = dct(np.eye(side), axis=0, norm="ortho")
    places = np.stack(np.divmod(np.arange(side * side), side), 1)
    # By frequency, and by row where it is the same.
    order = np.argsort(np.square(places).sum(1), kind="stable")[:z]
    kernels = np.einsum("zp,zq->pqz", waves[places[order, 0]], waves[places[order, 1]])
    shared = np.broadcast_to(kernels[:, :, None], shape) / np.sqrt(channels)
    return shared.astype(np.float32)
