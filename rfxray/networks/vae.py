"""AutoencoderKL: a convolutional autoencoder with a Gaussian posterior (arXiv 2112.10752).

The autoencoders of Stable Diffusion 1, 2, XL and 3, of FLUX.1 and of FLUX.2 are such networks.
Parameters have the names that diffusers gives their tensors, in JAX's layout (a convolution is
[height, width, in, out], a linear layer [in, out]), so published weights load by name.

Each level has a width; between two levels the sides are halved on the way in and doubled on the way
out, so the factor follows from the number of levels. The network is fully convolutional except for
the attention in the middle, which takes any number of cells as well.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import ml_collections
from einops import rearrange
from jaxtyping import Array, Float

from rfxray.arrays import AnyArray, Params
from rfxray.errors import ConfigError
from rfxray.networks import torch_weights, vae_blocks
from rfxray.networks.attention import attention
from rfxray.networks.network import Network
from rfxray.networks.torch_weights import Weights
from rfxray.networks.vae_shape import PATCH, Vae, check, init, of_section, shapes
from rfxray.runtime.sharding import constrain

# Constant of the group norms, and of the statistics of FLUX.2's latents.
EPSILON, LATENT_EPSILON = 1e-6, 1e-4
# Bounds of a log-variance, as published: e⁻³⁰ is 0 and e²⁰ is no information.
LOG_VARIANCE = (-30.0, 20.0)
# What the backward pass computes again. Of an image of 512² at a width of 128 in float32, 20 GiB
# are kept for it with none, and 1.6 GiB with level, besides one level at a time.
REMAT = ("none", "level")

# Logits of the attention in the middle that are computed at once, of an image: 64 MB in float32,
# those of all cells up to 512² at factor 8. At 1024² all of them are 1 GB, and so is their softmax.
LOGITS = 2**24

# `(vae, params, name of a norm, map) → map`
SiluNorm: TypeAlias = Callable[[Vae, Weights, str, Array], Array]


class Posterior(NamedTuple):
    """The Gaussian of the latents of images.

    Attributes:
      mean: Means [n, height / factor, width / factor, channels] float32.
      log_variance: Logarithms of the variances, like the means.
    """

    mean: Float[Array, "n rows columns channels"]
    log_variance: Float[Array, "n rows columns channels"]


# ---------------------------------------------------------------------------------------------
# The network


def encode(
    vae: Vae,
    params: Weights,
    images: Float[AnyArray, "n height width c"],
    remat: str = "none",
) -> Posterior:
    """The posterior of the latents of images.

    Args:
      vae: Shape of the network.
      params: Parameters by name.
      images: Images [n, height, width, c] float32 in [-1, 1]. With one channel, a network of three
        gets it three times.
      remat: What the backward pass computes again, one of `REMAT`.

    Returns:
      Posterior, [n, height / factor, width / factor, latent_channels] float32 each. With
      `patchify`, cells are folded 2 × 2 into channels (channel, row, column) and normalised by the
      stored statistics, which is the form that FLUX.2 keeps its latents in.

    Raises:
      ConfigError: If the factor does not divide a side, or the channels are others.
    """
    pixels = seen(vae, images)
    with precision(vae):
        x = vae_blocks.fold(pixels, vae.fold)
        x = conv(params, "encoder.conv_in", x).astype(vae.dtype)
        for i in range(len(vae.widths)):
            x = _run(vae, remat, _down, params, x, f"encoder.down_blocks.{i}")
        x = _run(vae, remat, middle, params, x, "encoder.mid_block")
        return posterior(vae, params, x, pixels)


def seen(
    vae: Vae, images: Float[AnyArray, "n height width c"]
) -> Float[Array, "n height width channels"]:
    """Images with the channels of a network; refuses what `encode` refuses."""
    n, height, width, channels = images.shape
    if height % vae.factor or width % vae.factor:
        raise ConfigError(
            f"sides of the images must be multiples of the autoencoder's factor {vae.factor} (got "
            f"{height} × {width}); crop or pad them"
        )
    if channels not in (1, vae.channels):
        raise ConfigError(
            f"images must have 1 channel, or the {vae.channels} of the autoencoder (got {channels})"
        )
    return jnp.broadcast_to(images, (n, height, width, vae.channels)).astype(jnp.float32)


def posterior(
    vae: Vae,
    params: Weights,
    x: Float[Array, "n rows columns states"],
    pixels: Float[Array, "n height width channels"],
) -> Posterior:
    """The posterior of the states that leave the middle of the encoder, and of its linear path."""
    x = silu_norm(vae, params, "encoder.conv_norm_out", x).astype(jnp.float32)
    x = conv(params, "encoder.conv_out", x)
    if vae.quant_convs:
        x = conv(params, "quant_conv", x)
    mean, log_variance = jnp.split(x, 2, axis=-1)
    if vae.linear:
        mean = mean + vae_blocks.to_latents(params["encoder.linear.weight"], pixels)
    log_variance = jnp.clip(log_variance, *LOG_VARIANCE)
    if vae.patchify:
        centre, variance = _statistics(params)
        mean = (_fold(mean) - centre) * jax.lax.rsqrt(variance)
        log_variance = _fold(log_variance) - jnp.log(variance)
    return Posterior(mean, log_variance)


def decode(
    vae: Vae,
    params: Weights,
    latents: Float[AnyArray, "n rows columns z"],
    remat: str = "none",
) -> Float[Array, "n height width c"]:
    """The images of latents.

    Args:
      vae: Shape of the network.
      params: Parameters by name.
      latents: Latents [n, rows, columns, latent_channels] float32, in the form that `encode`
        returns.
      remat: What the backward pass computes again, one of `REMAT`.

    Returns:
      Images [n, rows · factor, columns · factor, channels] float32, about [-1, 1] and not clipped.

    Raises:
      ConfigError: If the latents have another number of channels.
    """
    with precision(vae):
        cells = unstored(vae, params, latents)
        x = _run(vae, remat, middle, params, begin(vae, params, cells), "decoder.mid_block")
        for i in range(len(vae.widths)):
            x = _run(vae, remat, _up, params, x, f"decoder.up_blocks.{i}")
        x = silu_norm(vae, params, "decoder.conv_norm_out", x).astype(jnp.float32)
        return made(vae, params, conv(params, "decoder.conv_out", x), cells)


def unstored(
    vae: Vae, params: Weights, latents: Float[AnyArray, "n rows columns z"]
) -> Float[Array, "n _ _ cells"]:
    """Latents as the decoder reads them; refuses what `decode` refuses."""
    if latents.shape[-1] != vae.latent_channels:
        raise ConfigError(
            f"latents must have the {vae.latent_channels} channels of the autoencoder (got "
            f"{latents.shape[-1]})"
        )
    x = jnp.asarray(latents, jnp.float32)
    if vae.patchify:
        centre, variance = _statistics(params)
        x = _unfold(x * jnp.sqrt(variance) + centre)
    return x


def begin(
    vae: Vae, params: Weights, cells: Float[Array, "n rows columns cells"]
) -> Float[Array, "n rows columns width"]:
    """What enters the middle of the decoder."""
    if vae.quant_convs:
        cells = conv(params, "post_quant_conv", cells)
    return conv(params, "decoder.conv_in", cells).astype(vae.dtype)


def made(
    vae: Vae,
    params: Weights,
    x: Float[AnyArray, "n rows columns channels"],
    cells: Float[Array, "n _ _ cells"],
) -> Float[Array, "n height width c"]:
    """Images of the last map of the decoder, and of its linear path."""
    images = vae_blocks.unfold(x, vae.fold)
    if vae.linear:
        images = images + vae_blocks.to_images(params["decoder.linear.weight"], cells)
    return images


def precision(vae: Vae):
    """The precision of products of a network."""
    # Or a TPU multiplies float32 as bfloat16 and a GPU as TF32.
    return jax.default_matmul_precision("highest" if vae.dtype == "float32" else "default")


def _run(vae: Vae, remat: str, level, params: Weights, x: Array, name: str) -> Array:
    run = functools.partial(level, vae, name=name)
    if remat == "level":
        run = jax.checkpoint(run)
    return constrain(run(params, x), "batch", "tokens", None, None)


def _down(vae: Vae, params: Weights, x: Array, name: str) -> Array:
    for j in range(vae.blocks):
        x = resnet(vae, params, x, f"{name}.resnets.{j}")
    if f"{name}.downsamplers.0.conv.weight" in params:
        x = downsample(params, f"{name}.downsamplers.0.conv", x)
    return x


def _up(vae: Vae, params: Weights, x: Array, name: str) -> Array:
    for j in range(vae.blocks + 1):
        x = resnet(vae, params, x, f"{name}.resnets.{j}")
    if f"{name}.upsamplers.0.conv.weight" in params:
        x = upsample(params, f"{name}.upsamplers.0.conv", x)
    return x


def downsample(params: Weights, name: str, x: Array) -> Array:
    """A map of half the sides."""
    # A border at the right and the bottom only, as published.
    return conv(params, name, x, 2, (0, 1))


def upsample(params: Weights, name: str, x: Array) -> Array:
    """A map of twice the sides."""
    return conv(params, name, jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2))


def middle(vae: Vae, params: Weights, x: Array, name: str) -> Array:
    """Two residual blocks, with the attention of every cell to all between them."""
    x = resnet(vae, params, x, f"{name}.resnets.0")
    if vae.mid_attention:
        x = _attend(vae, params, x, f"{name}.attentions.0")
    return resnet(vae, params, x, f"{name}.resnets.1")


def silu_norm(vae: Vae, params: Weights, name: str, x: Array) -> Array:
    """A group norm over the whole map, and SiLU."""
    return jax.nn.silu(group_norm(vae, params, name, x))


def resnet(
    vae: Vae, params: Weights, x: Array, name: str, silu_norm: SiluNorm = silu_norm
) -> Array:
    """A residual block; `silu_norm` comes before each of its two convolutions."""
    h = conv(params, f"{name}.conv1", silu_norm(vae, params, f"{name}.norm1", x))
    h = conv(params, f"{name}.conv2", silu_norm(vae, params, f"{name}.norm2", h))
    if f"{name}.conv_shortcut.weight" in params:
        x = conv(params, f"{name}.conv_shortcut", x)
    return x + h


def _attend(vae: Vae, params: Weights, x: Array, name: str) -> Array:
    """Adds the attention of every cell to all, with one head."""
    rows = x.shape[1]
    h = rearrange(group_norm(vae, params, f"{name}.group_norm", x), "n y x c -> n (y x) 1 c")
    query, key, value = (_linear(params, f"{name}.to_{part}", h) for part in "qkv")
    h = _linear(params, f"{name}.to_out.0", _attention(query, key, value))
    return x + rearrange(h, "n (y x) 1 c -> n y x c", y=rows)


def _attention(query: Array, key: Array, value: Array) -> Array:
    """Attention with at most `LOGITS` logits of an image at a time."""
    cells = query.shape[1]
    if cells * cells <= LOGITS:
        return attention(query, key, value, "xla")
    size = max(1, LOGITS // cells)
    padded = jnp.pad(query, ((0, 0), (0, -cells % size), (0, 0), (0, 0)))
    some = jax.checkpoint(lambda queries: attention(queries, key, value, "xla"))
    found = jax.lax.map(some, rearrange(padded, "n (b q) 1 c -> b n q 1 c", q=size))
    return rearrange(found, "b n q 1 c -> n (b q) 1 c")[:, :cells]


def conv(
    params: Weights, name: str, x: Array, stride: int = 1, border: tuple[int, int] | None = None
) -> Array:
    """A convolution; its border of zeros keeps the sides, unless another one is given."""
    kernel = jnp.asarray(params[f"{name}.weight"], x.dtype)
    side = kernel.shape[0] // 2
    borders = [border or (side, side)] * 2
    x = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), borders, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return x + jnp.asarray(params[f"{name}.bias"], x.dtype)


def _linear(params: Weights, name: str, x: Array) -> Array:
    kernel, bias = (jnp.asarray(params[f"{name}.{part}"], x.dtype) for part in ("weight", "bias"))
    return x @ kernel + bias


def group_norm(
    vae: Vae,
    params: Weights,
    name: str,
    x: Array,
    moments: tuple[Array, Array] | None = None,
) -> Array:
    """Group norm (arXiv 1803.08494), in float32.

    Args:
      vae: Shape of the network.
      params: Parameters by name.
      name: Name of the norm.
      x: Map [n, rows, columns, width].
      moments: Mean and variance of each group, [groups] each; those of `x` when None.
    """
    y = grouped(vae, x)
    if moments is None:
        mean = y.mean((1, 2, 4), keepdims=True)
        variance = jnp.square(y - mean).mean((1, 2, 4), keepdims=True)
    else:
        mean, variance = (moment[:, None] for moment in moments)
    y = ((y - mean) * jax.lax.rsqrt(variance + EPSILON)).reshape(x.shape)
    return (y * params[f"{name}.weight"] + params[f"{name}.bias"]).astype(x.dtype)


def grouped(vae: Vae, x: Array) -> Array:
    """A map with its channels in groups, [n, rows, columns, groups, channels] float32."""
    return rearrange(x.astype(jnp.float32), "n y x (g c) -> n y x g c", g=vae.groups)


def _fold(x: Array) -> Array:
    return rearrange(x, "n (y p) (x q) c -> n y x (c p q)", p=PATCH, q=PATCH)


def _unfold(x: Array) -> Array:
    return rearrange(x, "n y x (c p q) -> n (y p) (x q) c", p=PATCH, q=PATCH)


def _statistics(params: Weights) -> tuple[Array, Array]:
    """Mean and variance of the folded latents; they are measured, and no gradient changes them."""
    mean, variance = (jnp.asarray(params[f"bn.running_{part}"]) for part in ("mean", "var"))
    return jax.lax.stop_gradient(mean), jax.lax.stop_gradient(variance) + LATENT_EPSILON


# ---------------------------------------------------------------------------------------------
# From a config


def apply(
    vae: Vae, remat: str, params: Params, x: Float[AnyArray, "n _ _ _"], method: str
) -> Posterior | Array:
    """Encodes or decodes grey images [n, height, width, 1] float32 in [-1, 1].

    A network of three channels gets each image three times, and the mean of its output is returned.

    Args:
      vae: Shape of the network.
      remat: What the backward pass computes again, one of `REMAT`.
      params: Parameters by name.
      x: Images for `encode`, latents for `decode`.
      method: `encode`, which returns a `Posterior`, or `decode`, which returns images.

    Raises:
      ConfigError: If there is no such method; as in `encode` and `decode`.
    """
    if method == "encode":
        return encode(vae, params, x, remat)
    if method == "decode":
        return decode(vae, params, x, remat).mean(-1, keepdims=True)
    raise ConfigError(f"method must be encode or decode (got {method!r})")


def build(section: ml_collections.ConfigDict) -> Network:
    """The network of a config's `model` section.

    Raises:
      ConfigError: If the factor does not divide the size, the groups a width, or the levels of
        encoder and decoder differ in number.
    """
    vae = of_section(section)
    check(vae)
    layout = torch_weights.laid_out(shapes(vae))
    return Network(
        init=functools.partial(init, vae),
        apply=functools.partial(apply, vae, section.remat),
        shapes={name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in layout.items()},
        axes={name: _axes(shape) for name, shape in layout.items()},
        input_shape=(vae.size, vae.size, 1),
        sizes={"tokens": vae.size // vae.factor},
    )


def _axes(shape: tuple[int, ...]) -> tuple[str | None, ...]:
    return (None,) * (len(shape) - 1) + (("embed",) if len(shape) > 1 else (None,))
