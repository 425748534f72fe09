"""Inception-v3 as the Fréchet Inception distance uses it (arXiv 1512.00567, 1706.08500).

The network of the file `pt_inception-2015-12-05-6726825d.pth` of pytorch-fid: 1,008 classes, mean
pools that leave out the border, and a maximum instead of a mean in the pool of the last block. It
has torchvision's names and another function: torchvision's own weights give other distances.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfxray.arrays import AnyArray
from rfxray.networks import interpolation, torch_weights
from rfxray.networks.convnets import layers
from rfxray.networks.convnets.layers import Maps
from rfxray.networks.torch_weights import Weights

SIZE = 299  # pixels
WIDTH = 2048
_EPSILON = 1e-3

# The classifier. Distances do not read it; its 1,008 classes tell the file from torchvision's.
# The Inception score reads its matrix.
_CLASSIFIER = {"fc.weight": (1008, WIDTH), "fc.bias": (1008,)}


class _Unit(NamedTuple):
    """A convolution with BatchNorm and ReLU: channels, sides of the kernel, stride, and whether
    zeros of half a kernel keep the sides."""

    inputs: int
    outputs: int
    height: int = 1
    width: int = 1
    stride: int = 1
    padded: bool = True


class _Branch(NamedTuple):
    """A way through a block: a pool, then units in a chain, then units side by side."""

    chain: dict[str, _Unit]
    fork: dict[str, _Unit] = {}  # noqa: RUF012
    pool: Literal["mean", "max", "halve"] | None = None


_STEM = {
    "Conv2d_1a_3x3": _Unit(3, 32, 3, 3, 2, False),
    "Conv2d_2a_3x3": _Unit(32, 32, 3, 3, 1, False),
    "Conv2d_2b_3x3": _Unit(32, 64, 3, 3),
    "Conv2d_3b_1x1": _Unit(64, 80),
    "Conv2d_4a_3x3": _Unit(80, 192, 3, 3, 1, False),
}
_POOLED_AFTER = ("Conv2d_2b_3x3", "Conv2d_4a_3x3")


def _block_a(inputs: int, pooled: int) -> list[_Branch]:
    return [
        _Branch({"branch1x1": _Unit(inputs, 64)}),
        _Branch({"branch5x5_1": _Unit(inputs, 48), "branch5x5_2": _Unit(48, 64, 5, 5)}),
        _Branch(
            {
                "branch3x3dbl_1": _Unit(inputs, 64),
                "branch3x3dbl_2": _Unit(64, 96, 3, 3),
                "branch3x3dbl_3": _Unit(96, 96, 3, 3),
            }
        ),
        _Branch({"branch_pool": _Unit(inputs, pooled)}, pool="mean"),
    ]


def _block_b(inputs: int) -> list[_Branch]:
    return [
        _Branch({"branch3x3": _Unit(inputs, 384, 3, 3, 2, False)}),
        _Branch(
            {
                "branch3x3dbl_1": _Unit(inputs, 64),
                "branch3x3dbl_2": _Unit(64, 96, 3, 3),
                "branch3x3dbl_3": _Unit(96, 96, 3, 3, 2, False),
            }
        ),
        _Branch({}, pool="halve"),
    ]


def _block_c(inputs: int, inner: int) -> list[_Branch]:
    return [
        _Branch({"branch1x1": _Unit(inputs, 192)}),
        _Branch(
            {
                "branch7x7_1": _Unit(inputs, inner),
                "branch7x7_2": _Unit(inner, inner, 1, 7),
                "branch7x7_3": _Unit(inner, 192, 7, 1),
            }
        ),
        _Branch(
            {
                "branch7x7dbl_1": _Unit(inputs, inner),
                "branch7x7dbl_2": _Unit(inner, inner, 7, 1),
                "branch7x7dbl_3": _Unit(inner, inner, 1, 7),
                "branch7x7dbl_4": _Unit(inner, inner, 7, 1),
                "branch7x7dbl_5": _Unit(inner, 192, 1, 7),
            }
        ),
        _Branch({"branch_pool": _Unit(inputs, 192)}, pool="mean"),
    ]


def _block_d(inputs: int) -> list[_Branch]:
    return [
        _Branch(
            {"branch3x3_1": _Unit(inputs, 192), "branch3x3_2": _Unit(192, 320, 3, 3, 2, False)}
        ),
        _Branch(
            {
                "branch7x7x3_1": _Unit(inputs, 192),
                "branch7x7x3_2": _Unit(192, 192, 1, 7),
                "branch7x7x3_3": _Unit(192, 192, 7, 1),
                "branch7x7x3_4": _Unit(192, 192, 3, 3, 2, False),
            }
        ),
        _Branch({}, pool="halve"),
    ]


def _block_e(inputs: int, pool: Literal["mean", "max"]) -> list[_Branch]:
    return [
        _Branch({"branch1x1": _Unit(inputs, 320)}),
        _Branch(
            {"branch3x3_1": _Unit(inputs, 384)},
            {"branch3x3_2a": _Unit(384, 384, 1, 3), "branch3x3_2b": _Unit(384, 384, 3, 1)},
        ),
        _Branch(
            {"branch3x3dbl_1": _Unit(inputs, 448), "branch3x3dbl_2": _Unit(448, 384, 3, 3)},
            {"branch3x3dbl_3a": _Unit(384, 384, 1, 3), "branch3x3dbl_3b": _Unit(384, 384, 3, 1)},
        ),
        _Branch({"branch_pool": _Unit(inputs, 192)}, pool=pool),
    ]


_BLOCKS = {
    "Mixed_5b": _block_a(192, 32),
    "Mixed_5c": _block_a(256, 64),
    "Mixed_5d": _block_a(288, 64),
    "Mixed_6a": _block_b(288),
    "Mixed_6b": _block_c(768, 128),
    "Mixed_6c": _block_c(768, 160),
    "Mixed_6d": _block_c(768, 160),
    "Mixed_6e": _block_c(768, 192),
    "Mixed_7a": _block_d(768),
    "Mixed_7b": _block_e(1280, "mean"),
    "Mixed_7c": _block_e(2048, "max"),
}


def _units() -> dict[str, _Unit]:
    found = dict(_STEM)
    for block, branches in _BLOCKS.items():
        for branch in branches:
            found |= {
                f"{block}.{name}": unit for name, unit in (branch.chain | branch.fork).items()
            }
    return found


def shapes() -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that `apply` reads, in PyTorch's layout."""
    found: dict[str, tuple[int, ...]] = {}
    for name, unit in _units().items():
        found[f"{name}.conv.weight"] = (unit.outputs, unit.inputs, unit.height, unit.width)
        found |= layers.norm_shapes(f"{name}.bn", unit.outputs)
    return found


def convert(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a file as the weights that `apply` reads, float32.

    Raises:
      DataError: If they are of another network.
    """
    whole = torch_weights.convert(tensors, shapes() | _CLASSIFIER, "the Inception-v3 of FID")
    return {name: tensor for name, tensor in whole.items() if name not in _CLASSIFIER}


def classes(tensors: Mapping[str, np.ndarray]) -> Float[np.ndarray, "2048 1008"]:
    """The matrix from features to the logits of the Inception score, which have no bias.

    Args:
      tensors: Tensors of a file that `convert` accepts.
    """
    return np.ascontiguousarray(tensors["fc.weight"].T, np.float32)


def apply(
    weights: Weights, images: Float[AnyArray, "n height width 3"], resize: bool = True
) -> Float[Array, "n 2048"]:
    """Runs the network in float32 up to the mean of its last maps; trace it under jit.

    Args:
      weights: Weights from `convert`.
      images: Images [n, height, width, 3] float32 in [−1, 1]: 2x − 1 of x in [0, 1].
      resize: Whether images of another size than 299² are resampled to it, bilinearly and without
        antialiasing as pytorch-fid does. Otherwise sides must be at least 75 pixels.

    Returns:
      Features [n, 2048] float32.
    """
    with jax.default_matmul_precision("highest"):  # or a TPU multiplies bfloat16 and a GPU TF32
        if resize and images.shape[1:3] != (SIZE, SIZE):
            images = interpolation.resize(images, SIZE, SIZE, "bilinear")
        x = jnp.asarray(images)
        for name, unit in _STEM.items():
            x = _unit(weights, name, unit, x)
            if name in _POOLED_AFTER:
                x = layers.max_pool(x, 3, 2)
        for block, branches in _BLOCKS.items():
            found = [_branch(weights, block, branch, x) for branch in branches]
            x = jnp.concatenate(found, axis=-1)
        return x.mean((1, 2))


def _branch(weights: Weights, block: str, branch: _Branch, x: Maps) -> Maps:
    if branch.pool == "mean":
        x = layers.mean_pool(x, 3, 1, 1)
    elif branch.pool:
        x = layers.max_pool(x, 3, *((2, 0) if branch.pool == "halve" else (1, 1)))
    for name, unit in branch.chain.items():
        x = _unit(weights, f"{block}.{name}", unit, x)
    if not branch.fork:
        return x
    found = [_unit(weights, f"{block}.{n}", unit, x) for n, unit in branch.fork.items()]
    return jnp.concatenate(found, axis=-1)


def _unit(weights: Weights, name: str, unit: _Unit, x: Maps) -> Maps:
    padding = (unit.height // 2, unit.width // 2) if unit.padded else (0, 0)
    x = layers.convolution(weights, f"{name}.conv", x, unit.stride, padding)
    return jax.nn.relu(layers.batch_norm(weights, f"{name}.bn", x, _EPSILON))
