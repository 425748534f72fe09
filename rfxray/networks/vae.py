"""AutoencoderKL: a convolutional autoencoder with a Gaussian posterior (arXiv 2112.10752).

The autoencoders of Stable Diffusion 1, 2, XL and 3, of FLUX.1 and of FLUX.2 are such networks.
Parameters have the names that diffusers gives their tensors, in JAX's layout (a convolution is
[height, width, in, out], a linear layer [in, out]), so published weights load by name.

Each level has a width; between two levels the sides are halved on the way in and doubled on the way
out, so the factor follows from the number of levels. The network is fully convolutional except for
the attention in the middle, which takes any number of cells as well.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from einops import rearrange
from flax import nnx
from flax.traverse_util import unflatten_dict
from jaxtyping import Array, Float, Key

from rfxray.arrays import AnyArray, Params
from rfxray.errors import ConfigError
from rfxray.networks import torch_weights, vae_blocks
from rfxray.networks.network import Network
from rfxray.networks.torch_weights import Weights
from rfxray.networks.vae_layers import Down, GroupNorm, Linear, Middle, Up, convolution, silu_norm
from rfxray.networks.vae_shape import PATCH, Vae, check, of_section
from rfxray.runtime.sharding import constrain

# Constant of the statistics of FLUX.2's latents.
LATENT_EPSILON = 1e-4
# Bounds of a log-variance, as published: e⁻³⁰ is 0 and at e²⁰ nothing is known.
LOG_VARIANCE = (-30.0, 20.0)
# What a log-variance begins at beside a linear path: a noise of .05, and the weakest of 16 cosines
# of films of 128² has a deviation of .06. After training it is -12 to -16.
_FRESH_LOG_VARIANCE = -6.0
# What the backward pass computes again. Of an image of 512² at a width of 128 in float32, 20 GiB
# are kept for it with none, and 1.6 GiB with level, besides one level at a time.
REMAT = ("none", "level")


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


class Encoder(nnx.Module):
    """Images → the states that a posterior is made of, and the linear path beside them."""

    def __init__(self, vae: Vae, rngs: nnx.Rngs):
        widths = vae.widths
        self.conv_in = convolution(vae.channels * vae.fold**2, widths[0], rngs)
        levels = (Down(vae, of, to, last, rngs) for of, to, last in _levels(widths))
        self.down_blocks = nnx.List(levels)
        self.mid_block = Middle(vae, widths[-1], rngs)
        self.conv_norm_out = GroupNorm(vae, widths[-1])
        self.conv_out = convolution(widths[-1], 2 * vae.z, rngs)
        self.linear = Linear(vae) if vae.linear else None


class Decoder(nnx.Module):
    """Cells of latents → blocks of pixels, and the linear path beside them."""

    def __init__(self, vae: Vae, rngs: nnx.Rngs):
        widths = vae.decoder_widths[::-1]
        self.conv_in = convolution(vae.z, widths[0], rngs)
        self.mid_block = Middle(vae, widths[0], rngs)
        levels = (Up(vae, of, to, last, rngs) for of, to, last in _levels(widths))
        self.up_blocks = nnx.List(levels)
        self.conv_norm_out = GroupNorm(vae, widths[-1])
        self.conv_out = convolution(widths[-1], vae.channels * vae.fold**2, rngs)
        self.linear = Linear(vae) if vae.linear else None


def _levels(widths: tuple[int, ...]) -> Iterator[tuple[int, int, bool]]:
    """Width before and of each level, and whether it is the last."""
    for i, to in enumerate(widths):
        yield widths[max(0, i - 1)], to, i == len(widths) - 1


class Statistics(nnx.Module):
    """Mean and variance of folded latents; they are measured, and no gradient changes them."""

    def __init__(self, channels: int):
        self.running_mean = nnx.BatchStat(jnp.zeros(channels))
        self.running_var = nnx.BatchStat(jnp.ones(channels))

    def __call__(self) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
        mean, variance = self.running_mean[...], self.running_var[...]
        return jax.lax.stop_gradient(mean), jax.lax.stop_gradient(variance) + LATENT_EPSILON


class AutoencoderKL(nnx.Module):
    """Encoder, decoder, and what is between them."""

    def __init__(self, vae: Vae, rngs: nnx.Rngs):
        self.vae = vae
        self.encoder = Encoder(vae, rngs)
        self.decoder = Decoder(vae, rngs)
        quant = vae.quant_convs
        self.quant_conv = convolution(2 * vae.z, 2 * vae.z, rngs, side=1) if quant else None
        self.post_quant_conv = convolution(vae.z, vae.z, rngs, side=1) if quant else None
        self.bn = Statistics(vae.latent_channels) if vae.patchify else None

    def encode(self, images: Float[AnyArray, "n height width c"], remat: str) -> Posterior:
        """See `encode` below."""
        pixels = seen(self.vae, images)
        x = self.encoder.conv_in(vae_blocks.fold(pixels, self.vae.fold)).astype(self.vae.dtype)
        for level in (*self.encoder.down_blocks, self.encoder.mid_block):
            x = _run(level, x, remat)
        return self.posterior(x, pixels)

    def posterior(
        self,
        x: Float[Array, "n rows columns states"],
        pixels: Float[Array, "n height width channels"],
    ) -> Posterior:
        """The posterior of the states that leave the middle, and of the linear path."""
        encoder = self.encoder
        x = encoder.conv_out(silu_norm(encoder.conv_norm_out, x).astype(jnp.float32))
        if self.quant_conv is not None:
            x = self.quant_conv(x)
        mean, log_variance = jnp.split(x, 2, axis=-1)
        if encoder.linear is not None:
            mean = mean + encoder.linear.to_latents(pixels)
        log_variance = jnp.clip(log_variance, *LOG_VARIANCE)
        if self.bn is not None:
            centre, variance = self.bn()
            mean = (_fold(mean) - centre) * jax.lax.rsqrt(variance)
            log_variance = _fold(log_variance) - jnp.log(variance)
        return Posterior(mean, log_variance)

    def decode(
        self, latents: Float[AnyArray, "n rows columns z"], remat: str
    ) -> Float[Array, "n height width c"]:
        """See `decode` below."""
        cells = self.cells(latents)
        x = self.begin(cells)
        for level in (self.decoder.mid_block, *self.decoder.up_blocks):
            x = _run(level, x, remat)
        x = silu_norm(self.decoder.conv_norm_out, x).astype(jnp.float32)
        return self.images(self.decoder.conv_out(x), cells)

    def cells(self, latents: Float[AnyArray, "n rows columns z"]) -> Float[Array, "n _ _ cells"]:
        """Latents as the decoder reads them; refuses what `decode` refuses."""
        if latents.shape[-1] != self.vae.latent_channels:
            raise ConfigError(
                f"latents must have the {self.vae.latent_channels} channels of the autoencoder "
                f"(got {latents.shape[-1]})"
            )
        x = jnp.asarray(latents, jnp.float32)
        if self.bn is not None:
            centre, variance = self.bn()
            x = _unfold(x * jnp.sqrt(variance) + centre)
        return x

    def begin(self, cells: Float[Array, "n y x cells"]) -> Float[Array, "n y x width"]:
        """What enters the middle of the decoder."""
        if self.post_quant_conv is not None:
            cells = self.post_quant_conv(cells)
        return self.decoder.conv_in(cells).astype(self.vae.dtype)

    def images(
        self, x: Float[AnyArray, "n y x channels"], cells: Float[Array, "n _ _ cells"]
    ) -> Float[Array, "n height width c"]:
        """Images of the last map of the decoder, and of its linear path."""
        images = vae_blocks.unfold(x, self.vae.fold)
        if self.decoder.linear is not None:
            images = images + self.decoder.linear.to_images(cells)
        return images


def _run(level: Down | Up | Middle, x: Array, remat: str) -> Array:
    graph, state = nnx.split(level)

    def run(params: Params, x: Array) -> Array:
        return nnx.merge(graph, params)(x)

    if remat == "level":
        run = jax.checkpoint(run)
    return constrain(run(nnx.to_pure_dict(state), x), "batch", "tokens", None, None)


def _fold(x: Array) -> Array:
    return rearrange(x, "n (y p) (x q) c -> n y x (c p q)", p=PATCH, q=PATCH)


def _unfold(x: Array) -> Array:
    return rearrange(x, "n y x (c p q) -> n (y p) (x q) c", p=PATCH, q=PATCH)


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


# ---------------------------------------------------------------------------------------------
# Pure functions of parameters by name


@functools.cache
def _abstract(vae: Vae) -> tuple[nnx.GraphDef, dict[str, tuple], dict[str, tuple[int, ...]]]:
    """The network without values, and path and shape of each parameter by name."""
    model = nnx.eval_shape(lambda: AutoencoderKL(vae, nnx.Rngs(params=0)))
    graph, state = nnx.split(model)
    flat = dict(nnx.to_flat_state(state))
    paths = {_name(path): path for path in flat}
    return graph, paths, {name: flat[path].shape for name, path in paths.items()}


def _name(path: tuple[Any, ...]) -> str:
    """The name of diffusers, which has weight where Flax has kernel."""
    *modules, last = map(str, path)
    return ".".join([*modules, "weight" if last == "kernel" else last])


def bind(vae: Vae, params: Mapping[str, Any]) -> AutoencoderKL:
    """The network with these parameters by name, arrays or only their shapes."""
    graph, paths, _ = _abstract(vae)
    return nnx.merge(graph, unflatten_dict({path: params[name] for name, path in paths.items()}))


def layout(vae: Vae) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters by name."""
    return dict(_abstract(vae)[2])


def shapes(vae: Vae) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters by name in PyTorch's layout, that of published weights."""
    return torch_weights.in_torch(layout(vae))


def init(vae: Vae, key: Key[Array, ""]) -> dict[str, Array]:
    """Fresh parameters, float32. Trace it under jit to place them.

    Kernels are normal with a variance of 1 / fan-in, norms are the identity, the statistics of
    latents are those of N(0, 1). With a linear path that is cosines, and all else adds 0 to it.
    """
    state = nnx.state(AutoencoderKL(vae, nnx.Rngs(params=key)))
    fresh = {_name(path): leaf[...] for path, leaf in nnx.to_flat_state(state)}
    kernels = {name: value.shape for name, value in fresh.items() if value.ndim > 1}
    sizes = [math.prod(shape) for shape in kernels.values()]
    # One draw for all of them: as many as there are kernels take minutes to compile.
    drawn = jnp.split(jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
    for (name, shape), part in zip(kernels.items(), drawn, strict=True):
        fresh[name] = part.reshape(shape) * math.prod(shape[:-1]) ** -0.5
    if vae.linear:
        ends = {"encoder": "quant_conv" if vae.quant_convs else "encoder.conv_out"}
        for part, last in (ends | {"decoder": "decoder.conv_out"}).items():
            kernel = f"{part}.linear.weight"
            fresh[kernel] = jnp.asarray(vae_blocks.cosines(kernels[kernel]))
            fresh[f"{last}.weight"] = jnp.zeros(kernels[f"{last}.weight"])
        bias = f"{ends['encoder']}.bias"
        fresh[bias] = fresh[bias].at[vae.z :].set(_FRESH_LOG_VARIANCE)
    return fresh


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
    with precision(vae):
        return bind(vae, params).encode(images, remat)


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
        return bind(vae, params).decode(latents, remat)


def precision(vae: Vae):
    """The precision of products of a network."""
    # Or a TPU multiplies float32 as bfloat16 and a GPU as TF32.
    return jax.default_matmul_precision("highest" if vae.dtype == "float32" else "default")


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
    sizes = layout(vae)
    return Network(
        init=functools.partial(init, vae),
        apply=functools.partial(apply, vae, section.remat),
        shapes={name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in sizes.items()},
        axes={name: _axes(shape) for name, shape in sizes.items()},
        input_shape=(vae.size, vae.size, 1),
        sizes={"tokens": vae.size // vae.factor},
    )


def _axes(shape: tuple[int, ...]) -> tuple[str | None, ...]:
    return (None,) * (len(shape) - 1) + (("embed",) if len(shape) > 1 else (None,))
