"""Weights of published PyTorch networks: their names kept and checked, their layout that of JAX."""

from collections.abc import Collection, Mapping
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from einops import rearrange

from rfxray.arrays import AnyArray
from rfxray.errors import DataError

# Tensors of one network under their published names. A convolution is [height, width, in, out], a
# linear layer [in, out].
Weights: TypeAlias = Mapping[str, AnyArray]

# Axes in PyTorch's layout and in JAX's: of a kernel by its number of axes, and of all else.
_KERNELS = {4: ("o i h w", "h w i o"), 2: ("o i", "i o")}
_SAME = ("...", "...")

# A counter of BatchNorm's training, which no forward pass reads.
_COUNTER = ".num_batches_tracked"


def convert(
    tensors: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    network: str,
    unread: Collection[str] = (),
) -> dict[str, np.ndarray]:
    """Checks the tensors of a network and turns them into JAX's layout.

    Args:
      tensors: Tensors of a file under their published names, in PyTorch's layout, of any float.
      shapes: Shape of each tensor that the network reads, in PyTorch's layout.
      network: Name of the network, for the error.
      unread: Names that a file may have and the network does not read.

    Returns:
      The tensors of `shapes`, float32.

    Raises:
      DataError: If a tensor is missing, unexpected, of another shape, not a float or not finite.
    """
    kept = {n: t for n, t in tensors.items() if n not in unread and not n.endswith(_COUNTER)}
    missing = [name for name in shapes if name not in kept]
    unexpected = [name for name in kept if name not in shapes]
    both = [name for name in shapes if name in kept]
    misshapen = [name for name in both if tuple(kept[name].shape) != tuple(shapes[name])]
    whole = [name for name in both if not jnp.issubdtype(kept[name].dtype, jnp.floating)]
    faults = []
    if missing:
        faults.append(f"{len(missing)} of {len(shapes)} tensors are missing (first: {missing[0]})")
    if unexpected:
        faults.append(f"{len(unexpected)} are unexpected (first: {unexpected[0]})")
    if misshapen:
        first = misshapen[0]
        given, wanted = list(kept[first].shape), list(shapes[first])
        faults.append(
            f"{len(misshapen)} have another shape (first: {first} is {given}, not {wanted})"
        )
    if whole:  # as of a quantised network, which has scales beside them
        first = whole[0]
        faults.append(f"{len(whole)} are not floats (first: {first} is {kept[first].dtype})")
    if faults:
        raise DataError(f"these are not the weights of {network}: {'; '.join(faults)}")
    converted = {name: _in_jax(name, np.asarray(kept[name], np.float32)) for name in shapes}
    damaged = [name for name, tensor in converted.items() if not np.isfinite(tensor).all()]
    if damaged:
        raise DataError(
            f"these weights of {network} are damaged: {len(damaged)} of {len(shapes)} tensors hold "
            f"values that are not finite (first: {damaged[0]})"
        )
    return converted


def laid_out(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes, in JAX's layout, of tensors with these shapes in PyTorch's."""
    return {n: _in_jax(n, np.broadcast_to(0, shape)).shape for n, shape in shapes.items()}


def in_torch(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes, in PyTorch's layout, of tensors with these shapes in JAX's."""
    return {n: _in_torch(n, np.broadcast_to(0, shape)).shape for n, shape in shapes.items()}


def published(tensors: Weights) -> dict[str, np.ndarray]:
    """Tensors in PyTorch's layout, from those in JAX's."""
    return {
        n: np.ascontiguousarray(_in_torch(n, np.asarray(value))) for n, value in tensors.items()
    }


def _in_jax(name: str, tensor: np.ndarray) -> np.ndarray:
    torch, ours = _layouts(name, tensor)
    return rearrange(tensor, f"{torch} -> {ours}")


def _in_torch(name: str, tensor: np.ndarray) -> np.ndarray:
    torch, ours = _layouts(name, tensor)
    return rearrange(tensor, f"{ours} -> {torch}")


def _layouts(name: str, tensor: np.ndarray) -> tuple[str, str]:
    """The axes of a tensor in PyTorch's layout and in JAX's."""
    return _KERNELS.get(tensor.ndim, _SAME) if name.endswith(".weight") else _SAME
