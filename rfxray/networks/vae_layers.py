"""The layers of an autoencoder of latent diffusion; see vae.py.

Attributes have the names that diffusers gives its modules. `silu_norm` is an argument where a norm
is: tiles know the moments of a whole map (see vae_tiles.py).
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from rfxray.networks import vae_blocks
from rfxray.networks.attention import attention
from rfxray.networks.vae_shape import Vae

EPSILON = 1e-6  # of the group norms

# Logits of the attention in the middle that are computed at once, of an image: 64 MB in float32,
# those of all cells up to 512² at factor 8. At 1024² all of them are 1 GB, and so is their softmax.
LOGITS = 2**24


class GroupNorm(nnx.Module):
    """Group norm (arXiv 1803.08494) in float32."""

    def __init__(self, vae: Vae, width: int):
        self.groups = vae.groups
        self.weight = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(
        self, x: Float[Array, "n y x c"], moments: tuple[Array, Array] | None = None
    ) -> Float[Array, "n y x c"]:
        """Normalises by the mean and variance of each group, [groups] each; None: those of `x`."""
        y = self.grouped(x)
        if moments is None:
            mean = y.mean((1, 2, 4), keepdims=True)
            variance = jnp.square(y - mean).mean((1, 2, 4), keepdims=True)
        else:
            mean, variance = (moment[:, None] for moment in moments)
        y = ((y - mean) * jax.lax.rsqrt(variance + EPSILON)).reshape(x.shape)
        return (y * self.weight[...] + self.bias[...]).astype(x.dtype)

    def grouped(self, x: Float[Array, "n y x c"]) -> Float[Array, "n y x groups _"]:
        """A map with its channels in groups, float32."""
        return rearrange(x.astype(jnp.float32), "n y x (g c) -> n y x g c", g=self.groups)


SiluNorm: TypeAlias = Callable[[GroupNorm, Array], Array]


def silu_norm(norm: GroupNorm, x: Float[Array, "n y x c"]) -> Float[Array, "n y x c"]:
    """A group norm over the whole map, and SiLU."""
    return jax.nn.silu(norm(x))


def convolution(
    of: int,
    to: int,
    rngs: nnx.Rngs,
    dtype: str = "float32",
    side: int = 3,
    stride: int = 1,
    border: tuple[int, int] | None = None,
) -> nnx.Conv:
    """A convolution; its border of zeros keeps the sides, unless another one is given."""
    pair = border or (side // 2, side // 2)
    return nnx.Conv(
        of,
        to,
        (side, side),
        strides=stride,
        padding=(pair, pair),
        dtype=jnp.dtype(dtype),
        kernel_init=nnx.initializers.zeros,  # `vae.init` draws all kernels at once
        rngs=rngs,
    )


class Resnet(nnx.Module):
    """A residual block: two convolutions, each after a group norm and SiLU."""

    def __init__(self, vae: Vae, of: int, to: int, rngs: nnx.Rngs):
        self.dtype = jnp.dtype(vae.dtype)
        self.norm1 = GroupNorm(vae, of)
        self.conv1 = convolution(of, to, rngs, vae.dtype)
        self.norm2 = GroupNorm(vae, to)
        self.conv2 = convolution(to, to, rngs, vae.dtype)
        self.conv_shortcut = None if of == to else convolution(of, to, rngs, vae.dtype, side=1)

    def __call__(
        self, x: Float[Array, "n y x of"], silu_norm: SiluNorm = silu_norm
    ) -> Float[Array, "n y x to"]:
        x = x.astype(self.dtype)
        h = self.conv1(silu_norm(self.norm1, x))
        h = self.conv2(silu_norm(self.norm2, h))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + h


class Attention(nnx.Module):
    """Adds the attention of every cell to all, with one head."""

    def __init__(self, vae: Vae, width: int, rngs: nnx.Rngs):
        def linear() -> nnx.Linear:
            zeros = nnx.initializers.zeros
            dtype = jnp.dtype(vae.dtype)
            return nnx.Linear(width, width, dtype=dtype, kernel_init=zeros, rngs=rngs)

        self.group_norm = GroupNorm(vae, width)
        self.to_q, self.to_k, self.to_v = linear(), linear(), linear()
        self.to_out = nnx.List([linear()])

    def __call__(self, x: Float[Array, "n y x c"]) -> Float[Array, "n y x c"]:
        h = rearrange(self.group_norm(x), "n y x c -> n (y x) 1 c")
        h = self.to_out[0](in_blocks(self.to_q(h), self.to_k(h), self.to_v(h)))
        return x + rearrange(h, "n (y x) 1 c -> n y x c", y=x.shape[1])


def in_blocks(query: Array, key: Array, value: Array) -> Array:
    """Attention, [n, cells, 1, c] each, with at most `LOGITS` logits of an image at a time."""
    cells = query.shape[1]
    if cells * cells <= LOGITS:
        return attention(query, key, value, "xla")
    size = max(1, LOGITS // cells)
    padded = jnp.pad(query, ((0, 0), (0, -cells % size), (0, 0), (0, 0)))
    some = jax.checkpoint(lambda queries: attention(queries, key, value, "xla"))
    found = jax.lax.map(some, rearrange(padded, "n (b q) 1 c -> b n q 1 c", q=size))
    return rearrange(found, "b n q 1 c -> n (b q) 1 c")[:, :cells]


class Downsample(nnx.Module):
    """A map of half the sides."""

    def __init__(self, vae: Vae, width: int, rngs: nnx.Rngs):
        # A border at the right and the bottom only, as published.
        self.conv = convolution(width, width, rngs, vae.dtype, stride=2, border=(0, 1))

    def __call__(self, x: Float[Array, "n y x c"]) -> Float[Array, "n _ _ c"]:
        return self.conv(x)


class Upsample(nnx.Module):
    """A map of twice the sides."""

    def __init__(self, vae: Vae, width: int, rngs: nnx.Rngs):
        self.conv = convolution(width, width, rngs, vae.dtype)

    def __call__(self, x: Float[Array, "n y x c"]) -> Float[Array, "n _ _ c"]:
        return self.conv(jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2))


class Down(nnx.Module):
    """A level of the encoder: residual blocks, and then half the sides except at the last."""

    def __init__(self, vae: Vae, of: int, to: int, last: bool, rngs: nnx.Rngs):
        first = [Resnet(vae, of, to, rngs)]
        self.resnets = nnx.List(first + [Resnet(vae, to, to, rngs) for _ in range(vae.blocks - 1)])
        self.downsamplers = nnx.List([] if last else [Downsample(vae, to, rngs)])

    def __call__(self, x: Float[Array, "n y x of"]) -> Float[Array, "n _ _ to"]:
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class Up(nnx.Module):
    """A level of the decoder: residual blocks, and then twice the sides except at the last."""

    def __init__(self, vae: Vae, of: int, to: int, last: bool, rngs: nnx.Rngs):
        first = [Resnet(vae, of, to, rngs)]
        self.resnets = nnx.List(first + [Resnet(vae, to, to, rngs) for _ in range(vae.blocks)])
        self.upsamplers = nnx.List([] if last else [Upsample(vae, to, rngs)])

    def __call__(self, x: Float[Array, "n y x of"]) -> Float[Array, "n _ _ to"]:
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class Middle(nnx.Module):
    """Two residual blocks, with the attention of every cell to all between them."""

    def __init__(self, vae: Vae, width: int, rngs: nnx.Rngs):
        self.resnets = nnx.List([Resnet(vae, width, width, rngs) for _ in range(2)])
        self.attentions = nnx.List([Attention(vae, width, rngs)] if vae.mid_attention else [])

    def __call__(self, x: Float[Array, "n y x c"]) -> Float[Array, "n y x c"]:
        first, second = self.resnets
        for layer in (first, *self.attentions, second):
            x = layer(x)
        return x


class Linear(nnx.Module):
    """The kernels of a path between images and latents that is linear; see vae_blocks.py."""

    def __init__(self, vae: Vae):
        self.weight = nnx.Param(jnp.zeros((vae.block, vae.block, vae.channels, vae.z)))

    def to_latents(self, images: Float[Array, "n height width c"]) -> Float[Array, "n y x z"]:
        return vae_blocks.to_latents(self.weight[...], images)

    def to_images(self, latents: Float[Array, "n y x z"]) -> Float[Array, "n height width c"]:
        return vae_blocks.to_images(self.weight[...], latents)
