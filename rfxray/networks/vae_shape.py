"""The shape of an autoencoder of latent diffusion, and of its parameters; see vae.py."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Key

from rfxray.errors import ConfigError
from rfxray.networks import torch_weights, vae_blocks

PATCH = 2  # side of the patches that FLUX.2 folds its latents by, cells
# What a log-variance begins at beside a linear path: a noise of .05, and the weakest of 16 cosines
# of films of 128² has a deviation of .06. After training it is -12 to -16.
_LOG_VARIANCE = -6.0


@dataclasses.dataclass(frozen=True)
class Vae:
    """The shape of the network; see rfxray/config/models.py for the meaning of each field."""

    size: int
    channels: int
    width: int
    multipliers: tuple[float, ...]
    decoder_multipliers: tuple[float, ...]
    blocks: int
    z: int
    groups: int
    mid_attention: bool
    quant_convs: bool
    patchify: bool
    dtype: str
    fold: int = 1
    linear: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level of the encoder, the largest maps first."""
        return tuple(round(self.width * m) for m in self.multipliers)

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Channels of each level of the decoder, the largest maps first."""
        if self.decoder_multipliers == (0,):
            return self.widths
        return tuple(round(self.width * m) for m in self.decoder_multipliers)

    @property
    def block(self) -> int:
        """Pixels of an image to a position of the smallest map, along one side."""
        return self.fold * 2 ** (len(self.multipliers) - 1)

    @property
    def factor(self) -> int:
        """Pixels of an image to a cell of its latents, along one side."""
        return self.block * (PATCH if self.patchify else 1)

    @property
    def latent_channels(self) -> int:
        """Channels of the latents as they are returned."""
        return self.z * (PATCH**2 if self.patchify else 1)


def of_section(section: ml_collections.ConfigDict) -> Vae:
    """The shape that a config's section of kind `vae` describes."""
    return Vae(**{field.name: section[field.name] for field in dataclasses.fields(Vae)})


def check(vae: Vae) -> None:
    """Raises a ConfigError if the shape of a network contradicts itself."""
    if not vae.multipliers:
        raise ConfigError("model.multipliers must have an entry for each level (got none)")
    if len(vae.decoder_widths) != len(vae.widths):
        raise ConfigError(
            f"model.decoder_multipliers must have the {len(vae.widths)} entries of "
            f"model.multipliers, or be 0 (got {len(vae.decoder_widths)})"
        )
    if vae.channels not in (1, 3):
        raise ConfigError(f"model.channels must be 1 or 3 (got {vae.channels})")
    own = () if vae.decoder_multipliers == (0,) else vae.decoder_multipliers
    for key, multipliers in (("multipliers", vae.multipliers), ("decoder_multipliers", own)):
        for width in (vae.width * multiplier for multiplier in multipliers):
            if width < 1 or abs(width - round(width)) > 1e-6 or round(width) % vae.groups:
                raise ConfigError(
                    f"model.{key} times model.width={vae.width} must be multiples of "
                    f"model.groups={vae.groups} (got {width:g})"
                )
    if vae.size % vae.factor:
        raise ConfigError(
            f"model.size must be a multiple of the factor {vae.factor} that "
            f"{len(vae.multipliers)} levels{f', fold={vae.fold}' if vae.fold > 1 else ''}"
            f"{' and patchify' if vae.patchify else ''} make (got {vae.size})"
        )
    if vae.linear and vae.z > vae.block**2:
        raise ConfigError(
            f"model.z must be at most the {vae.block**2} pixels of a block with model.linear=True "
            f"(got {vae.z})"
        )


def shapes(vae: Vae) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that a network reads, in PyTorch's layout."""
    wide, narrow = vae.widths, vae.decoder_widths
    pixels = vae.channels * vae.fold**2
    found = _convolution("encoder.conv_in", pixels, wide[0])
    last = len(wide) - 1
    before = wide[0]
    for i, width in enumerate(wide):
        level = f"encoder.down_blocks.{i}"
        found |= _resnets(level, vae.blocks, before, width)
        if i < last:
            found |= _convolution(f"{level}.downsamplers.0.conv", width, width)
        before = width
    found |= _middle("encoder.mid_block", wide[-1], vae.mid_attention)
    found |= _norm("encoder.conv_norm_out", wide[-1])
    found |= _convolution("encoder.conv_out", wide[-1], 2 * vae.z)
    if vae.quant_convs:
        found |= _convolution("quant_conv", 2 * vae.z, 2 * vae.z, 1)
        found |= _convolution("post_quant_conv", vae.z, vae.z, 1)
    if vae.patchify:
        found |= {f"bn.running_{part}": (vae.latent_channels,) for part in ("mean", "var")}
    found |= _convolution("decoder.conv_in", vae.z, narrow[-1])
    found |= _middle("decoder.mid_block", narrow[-1], vae.mid_attention)
    before = narrow[-1]
    for i, width in enumerate(reversed(narrow)):
        level = f"decoder.up_blocks.{i}"
        found |= _resnets(level, vae.blocks + 1, before, width)
        if i < last:
            found |= _convolution(f"{level}.upsamplers.0.conv", width, width)
        before = width
    found |= _norm("decoder.conv_norm_out", narrow[0])
    if vae.linear:
        kernel = (vae.z, vae.channels, vae.block, vae.block)
        found |= {f"{part}.linear.weight": kernel for part in ("encoder", "decoder")}
    return found | _convolution("decoder.conv_out", narrow[0], pixels)


def _convolution(name: str, of: int, to: int, side: int = 3) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (to, of, side, side), f"{name}.bias": (to,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _resnets(level: str, count: int, of: int, to: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for j in range(count):
        name = f"{level}.resnets.{j}"
        found |= _norm(f"{name}.norm1", of) | _convolution(f"{name}.conv1", of, to)
        found |= _norm(f"{name}.norm2", to) | _convolution(f"{name}.conv2", to, to)
        if of != to:
            found |= _convolution(f"{name}.conv_shortcut", of, to, 1)
        of = to
    return found


def _middle(name: str, width: int, attends: bool) -> dict[str, tuple[int, ...]]:
    found = _resnets(name, 2, width, width)
    if attends:
        found |= _norm(f"{name}.attentions.0.group_norm", width)
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            found[f"{name}.attentions.0.{part}.weight"] = (width, width)
            found[f"{name}.attentions.0.{part}.bias"] = (width,)
    return found


def init(vae: Vae, key: Key[Array, ""]) -> dict[str, Array]:
    """Fresh parameters, float32. Trace it under jit to place them.

    Kernels are normal with a variance of 1 / fan-in, norms are the identity, the statistics of
    latents are those of N(0, 1). With a linear path that is cosines, and all else adds 0 to it.
    """
    layout = torch_weights.laid_out(shapes(vae))
    kernels = {name: shape for name, shape in layout.items() if len(shape) > 1}
    sizes = [math.prod(shape) for shape in kernels.values()]
    # One draw for all of them: as many as there are kernels take minutes to compile.
    drawn = jnp.split(jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
    fresh = {
        name: part.reshape(shape) * math.prod(shape[:-1]) ** -0.5
        for (name, shape), part in zip(kernels.items(), drawn, strict=True)
    }
    ones = ("norm1.weight", "norm2.weight", "_norm.weight", "norm_out.weight", "running_var")
    for name, shape in layout.items():
        if name not in kernels:
            fresh[name] = jnp.full(shape, float(name.endswith(ones)))
    if vae.linear:
        ends = {"encoder": "quant_conv" if vae.quant_convs else "encoder.conv_out"}
        for part, last in (ends | {"decoder": "decoder.conv_out"}).items():
            kernel = f"{part}.linear.weight"
            fresh[kernel] = jnp.asarray(vae_blocks.cosines(layout[kernel]))
            fresh[f"{last}.weight"] = jnp.zeros_like(fresh[f"{last}.weight"])
        bias = f"{ends['encoder']}.bias"
        fresh[bias] = fresh[bias].at[vae.z :].set(_LOG_VARIANCE)
    return fresh
