"""Published weights of autoencoders: which network they are of, and their names as in diffusers.

Stable Diffusion 1, 2, XL and 3, FLUX.1 and FLUX.2 come under two namings: that of diffusers, and
the original one of latent-diffusion and Black Forest Labs, in which the levels of the decoder are
numbered the other way and attention consists of 1 × 1 convolutions. Both may stand behind a prefix
in a file that holds more than the autoencoder.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np

from rfxray.errors import ConfigError, DataError
from rfxray.networks import torch_weights
from rfxray.networks.vae import shapes
from rfxray.networks.vae_shape import Vae, check

GROUPS = 32  # of the group norms in all published networks
SIZE = 512  # side of the images that a config starts from; the network takes any

# What training leaves beside the network: its loss with a discriminator, and averages of the
# weights under names without dots, with their counters.
_COMPANIONS = ("loss.", "model_ema.")
_FIRST = "encoder.conv_in.weight"

# Original name → that of diffusers; the levels of the decoder are counted from the other end.
_ORIGINAL = (
    (r"encoder\.down\.(\d+)\.block\.(\d+)\.", r"encoder.down_blocks.\1.resnets.\2."),
    (r"encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"decoder\.up\.(\d+)\.block\.(\d+)\.", r"decoder.up_blocks.\1.resnets.\2."),
    (r"decoder\.up\.(\d+)\.upsample\.", r"decoder.up_blocks.\1.upsamplers.0."),
    (r"(\w+)\.mid\.block_1\.", r"\1.mid_block.resnets.0."),
    (r"(\w+)\.mid\.block_2\.", r"\1.mid_block.resnets.1."),
    (r"(\w+)\.mid\.attn_1\.", r"\1.mid_block.attentions.0."),
    (r"(\w+)\.norm_out\.", r"\1.conv_norm_out."),
    (r"encoder\.quant_conv\.", r"quant_conv."),
    (r"decoder\.post_quant_conv\.", r"post_quant_conv."),
)
# Names of parts of the attention: the original ones, and those of older versions of diffusers.
_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}


@dataclasses.dataclass(frozen=True)
class Published:
    """Weights of a file.

    Attributes:
      vae: Shape of the network.
      params: Parameters by name, float32.
      left_out: Names in the file that are not of the network: what training leaves beside it, and
        other networks.
    """

    vae: Vae
    params: Mapping[str, np.ndarray]
    left_out: tuple[str, ...]


def convert(tensors: Mapping[str, np.ndarray], groups: int = GROUPS) -> Published:
    """The network of the tensors of a file.

    Args:
      tensors: Tensors by their names in the file, in PyTorch's layout, of any float.
      groups: Groups of the group norms, which no shape says.

    Raises:
      DataError: If they are not all the tensors of one such network, with the first that is wrong.
    """
    prefix = _prefix(tensors)
    named, origin = {}, {}
    levels = _count((n.removeprefix(prefix) for n in tensors), r"decoder\.up\.(\d+)\.")
    for full, tensor in tensors.items():
        name = full.removeprefix(prefix)
        if not full.startswith(prefix) or name.startswith(_COMPANIONS):
            continue
        new = _renamed(name, levels)
        if new in named:
            raise DataError(
                f"these weights name one tensor twice: {origin[new]} and {full} are both {new}"
            )
        if ".attentions.0." in new and new.endswith(".weight") and tensor.shape[2:] == (1, 1):
            tensor = tensor[:, :, 0, 0]
        named[new], origin[new] = tensor, full
    vae = infer(named, groups)
    widths = ", ".join(map(str, vae.widths))
    network = f"an autoencoder of widths {widths} and z={vae.z} (names as in diffusers)"
    params = torch_weights.convert(named, shapes(vae), network)
    variance = params.get("bn.running_var")
    if variance is not None and not (variance >= 0).all():
        raise DataError(f"these weights of {network} are damaged: bn.running_var is below 0")
    read = {origin[name] for name in params}
    return Published(vae, params, tuple(name for name in tensors if name not in read))


def _prefix(tensors: Mapping[str, np.ndarray]) -> str:
    """What stands before the names of the autoencoder."""
    found = [name.removesuffix(_FIRST) for name in tensors if name.endswith(_FIRST)]
    prefixes = [prefix for prefix in found if not prefix or prefix.endswith(".")]
    if not prefixes:
        raise DataError(
            f"these are not the weights of an autoencoder of latent diffusion: {_FIRST} is missing "
            f"({len(tensors)} tensors are there)"
        )
    if len(prefixes) > 1:
        raise DataError(
            f"these weights hold {len(prefixes)} autoencoders, at "
            f"{' and '.join(repr(prefix) for prefix in prefixes)}; save one of them by itself"
        )
    return prefixes[0]


def _renamed(name: str, levels: int) -> str:
    """The name that diffusers gives a tensor; others are returned as they are."""
    for pattern, new in _ORIGINAL:
        name, changed = re.subn(f"^{pattern}", new, name)
        if changed and "up_blocks" in new:
            name = re.sub(r"(?<=up_blocks\.)\d+", lambda at: str(levels - 1 - int(at[0])), name)
    name = re.sub(r"\.nin_shortcut\.", ".conv_shortcut.", name)
    part = re.fullmatch(r"(.*\.attentions\.0\.)(\w+)(\.\w+)", name)
    if part and part[2] in _ATTENTION:
        name = part[1] + _ATTENTION[part[2]] + part[3]
    return name


def _count(names: Iterable[str], pattern: str) -> int:
    """How many numbers a pattern finds in names: no more than there are tensors."""
    found = (re.match(pattern, name) for name in names)
    return len({match[1] for match in found if match})


def infer(tensors: Mapping[str, np.ndarray], groups: int = GROUPS) -> Vae:
    """The network that tensors seem to be of; `torch_weights.convert` checks each against it.

    Args:
      tensors: Tensors by the names of diffusers.
      groups: Groups of the group norms.

    Raises:
      DataError: If a tensor that says the shape is missing, or the shape contradicts itself.
    """

    def kernel(name: str) -> tuple[int, ...]:
        found = tensors.get(f"{name}.weight")
        shape = () if found is None else found.shape
        if len(shape) != 4 or 0 in shape:
            odd = f"has the shape {list(shape)}, not that of a convolution"
            state = "is missing" if found is None else odd
            raise DataError(
                f"these are not the weights of an autoencoder of latent diffusion: {name}.weight "
                f"{state} ({len(tensors)} tensors are there)"
            )
        return shape

    levels = _count(tensors, r"encoder\.down_blocks\.(\d+)\.")
    if not levels:
        kernel("encoder.down_blocks.0.resnets.0.conv1")
    first = kernel("encoder.conv_in")
    wide = [kernel(f"encoder.down_blocks.{i}.resnets.0.conv1")[0] for i in range(levels)]
    narrow = [kernel(f"decoder.up_blocks.{i}.resnets.0.conv1")[0] for i in range(levels)][::-1]
    own = (0,) if narrow == wide else _multiples(narrow, first[0])
    vae = Vae(
        size=SIZE,
        channels=first[1],
        width=first[0],
        multipliers=_multiples(wide, first[0]),
        decoder_multipliers=own,
        blocks=_count(tensors, r"encoder\.down_blocks\.\d+\.resnets\.(\d+)\."),
        z=kernel("decoder.conv_in")[1],
        groups=groups,
        mid_attention=any(".attentions." in name for name in tensors),
        quant_convs=any(name.startswith(("quant_conv.", "post_quant_conv.")) for name in tensors),
        patchify=any(name.startswith("bn.") for name in tensors),
        dtype="float32",
    )
    try:
        check(vae)
    except ConfigError as error:
        raise DataError(
            f"these are not the weights of an autoencoder with {groups} groups ({error}); give the "
            "folder with its config.json"
        ) from None
    return vae


def _multiples(widths: list[int], unit: int) -> tuple[float, ...]:
    return tuple(width // unit if width % unit == 0 else width / unit for width in widths)
