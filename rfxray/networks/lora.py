"""Low-rank adapters of an autoencoder's decoder (LoRA, arXiv 2106.09685).

A layer with the kernel W becomes one with W + α/r · A·B, where A is as large as the kernel with r
channels out, and B mixes those r channels: what peft computes as a second, narrow path. Names are
those of peft, `MODULE.lora_A.weight` and `MODULE.lora_B.weight`, in JAX's layout. The encoder is
never adapted, so latents stay valid for everybody who has that autoencoder's.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from rfxray.arrays import AnyArray
from rfxray.errors import ConfigError, DataError
from rfxray.networks.torch_weights import Weights

A, B, KERNEL = ".lora_A.weight", ".lora_B.weight", ".weight"
# What stands between latents and image.
_DECODER = ("decoder.", "post_quant_conv.")


@dataclasses.dataclass(frozen=True)
class Lora:
    """The shape of an adapter.

    Attributes:
      rank: Channels of the narrow path.
      alpha: Numerator of its weight, alpha / rank.
      targets: Names of modules, or the last parts of them, such as `conv1`.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]

    @property
    def scale(self) -> float:
        """Weight of the narrow path."""
        return self.alpha / self.rank


def modules(lora: Lora, layout: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Names of the layers of the decoder that an adapter changes, in their order.

    Args:
      lora: Shape of the adapter.
      layout: Shapes of the network's tensors by name.

    Raises:
      ConfigError: If a target is not the name of such a layer, or the end of one.
    """
    kernels = [
        name.removesuffix(KERNEL)
        for name, shape in layout.items()
        if name.startswith(_DECODER) and name.endswith(KERNEL) and len(shape) > 1
    ]

    def fits(name: str, target: str) -> bool:
        return name == target or name.endswith(f".{target}")

    for target in lora.targets:
        if not any(fits(name, target) for name in kernels):
            ends = sorted({name.rpartition(".")[2] for name in kernels})
            raise ConfigError(
                f"no layer of the decoder is named {target!r}; targets are names of layers or "
                f"their last parts ({', '.join(ends)})"
            )
    return [name for name in kernels if any(fits(name, target) for target in lora.targets)]


def shapes(lora: Lora, layout: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of an adapter.

    Args:
      lora: Shape of the adapter.
      layout: Shapes of the network's tensors by name, in JAX's layout.

    Raises:
      ConfigError: As in `modules`.
    """
    found: dict[str, tuple[int, ...]] = {}
    for name in modules(lora, layout):
        *window, of, to = layout[name + KERNEL]
        found[name + A] = (*window, of, lora.rank)
        found[name + B] = (*(1 for _ in window), lora.rank, to)
    return found


def init(
    lora: Lora, layout: Mapping[str, tuple[int, ...]], key: Key[Array, ""]
) -> dict[str, Float[Array, "..."]]:
    """A fresh adapter, which changes nothing: B is zero, and A uniform within 1 / √fan-in.

    That is peft's draw, He's uniform one with a slope of √5. Trace it under jit to place it.
    """
    wanted = shapes(lora, layout)
    drawn = {name: shape for name, shape in wanted.items() if name.endswith(A)}
    sizes = [math.prod(shape) for shape in drawn.values()]
    parts = jnp.split(jax.random.uniform(key, (sum(sizes),), minval=-1), np.cumsum(sizes)[:-1])
    fresh = {
        name: part.reshape(shape) * math.prod(shape[:-1]) ** -0.5
        for (name, shape), part in zip(drawn.items(), parts, strict=True)
    }
    return {name: fresh.get(name, jnp.zeros(shape)) for name, shape in wanted.items()}


def merge(params: Weights, adapter: Weights, scale: float) -> dict[str, AnyArray]:
    """The parameters of a network with an adapter, as one network without it.

    Args:
      params: Parameters of the network by name.
      adapter: Tensors of the adapter by name.
      scale: Weight of the narrow path.
    """
    merged = dict(params)
    with jax.default_matmul_precision("highest"):
        for name in adapter:
            if name.endswith(A):
                module = name.removesuffix(A)
                narrow = adapter[module + B]
                change = adapter[name] @ narrow.reshape(narrow.shape[-2:])
                merged[module + KERNEL] = merged[module + KERNEL] + scale * change
    return merged


def check(adapter: Weights, layout: Mapping[str, tuple[int, ...]]) -> None:
    """Refuses an adapter that is not of a network's decoder.

    Args:
      adapter: Tensors of the adapter by name, in JAX's layout.
      layout: Shapes of the network's tensors by name, in JAX's layout.

    Raises:
      DataError: If it has no tensors, or a name or a shape does not fit.
    """
    found = {name.removesuffix(end) for name in adapter for end in (A, B) if name.endswith(end)}
    unknown = [name for name in adapter if not name.endswith((A, B))]
    unknown += [name for name in sorted(found) if name + KERNEL not in layout]
    if not adapter:
        raise DataError("the adapter has no tensors, so it changes nothing")
    if unknown:
        raise DataError(
            f"the adapter does not fit the autoencoder: {len(unknown)} of its {len(adapter)} names "
            f"are not of a layer with a kernel (first: {unknown[0]})"
        )
    for name in sorted(found):
        if not name.startswith(_DECODER):
            raise DataError(
                f"the adapter changes {name}, which is not of the decoder; latents would no longer "
                "be those of the autoencoder"
            )
        rank = adapter[name + A].shape[-1] if name + A in adapter else 0
        wanted = shapes(Lora(rank, 1.0, (name,)), layout)
        for tensor, shape in wanted.items():
            if tensor not in adapter or adapter[tensor].shape != shape:
                state = list(adapter[tensor].shape) if tensor in adapter else "missing"
                raise DataError(
                    f"the adapter does not fit the autoencoder: {tensor} is {state}, not "
                    f"{list(shape)} (height, width, in, out)"
                )
