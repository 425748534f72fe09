"""EfficientNet-Lite0 with its published weights.

EfficientNet (Tan & Le 2019, arXiv 1905.11946) without squeeze-and-excitation and with ReLU6 (the
Lite variants of the TensorFlow TPU repository, `efficientnet/lite`): a stem, 16 inverted
residual blocks, and a head of 1,280 maps. Names are those of the PyTorch port.
"""

from collections.abc import Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfxray.networks import torch_weights
from rfxray.networks.torch_weights import Weights

# Maps of features, [n, height, width, channels].
Maps: TypeAlias = Float[Array, "n _ _ _"]

SIZE = 224  # pixels: the side that it was trained at
WIDTH = 1280

_NAME = "EfficientNet-Lite0"
_STEM = 32
_EPSILON = 1e-3  # of BatchNorm, as in TensorFlow

# Blocks, side of the depthwise kernel, stride of the first block, expansion, channels out.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def from_torch(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights of the network from the tensors of its PyTorch port.

    Args:
      tensors: Tensors under their published names; the classifier (`_fc`) is not read.

    Returns:
      Weights in JAX's layout, float32.

    Raises:
      DataError: If a tensor is missing, unexpected, of another shape or not finite.
    """
    return torch_weights.convert(tensors, _shapes(), _NAME, unread=("_fc.weight", "_fc.bias"))


def apply(weights: Weights, images: Float[Array, "n height width 3"]) -> Float[Array, "n features"]:
    """Mean over each of the last 1,280 maps of images.

    Args:
      weights: Weights of `from_torch`.
      images: [n, height, width, 3] float32, (x - 127/255) / (128/255) of values in [0, 1].

    Returns:
      [n, 1280] float32.
    """
    stem = jax.lax.conv_general_dilated(
        images,
        jnp.asarray(weights["_conv_stem.weight"]),
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x = _relu6(_norm(weights, "_bn0", stem))
    for block, (kernel, stride, expansion, channels) in enumerate(_blocks()):
        x = _block(weights, f"_blocks.{block}", x, kernel, stride, expansion, channels)
    x = _relu6(_norm(weights, "_bn1", _pointwise(weights, "_conv_head", x)))
    return x.mean((1, 2))


def _block(
    weights: Weights, name: str, x: Maps, kernel: int, stride: int, expansion: int, channels: int
) -> Maps:
    inside = x
    if expansion > 1:
        wide = _pointwise(weights, f"{name}._expand_conv", x)
        inside = _relu6(_norm(weights, f"{name}._bn0", wide))
    inside = _depthwise(jnp.asarray(weights[f"{name}._depthwise_conv.weight"]), inside, stride)
    inside = _relu6(_norm(weights, f"{name}._bn1", inside))
    inside = _norm(weights, f"{name}._bn2", _pointwise(weights, f"{name}._project_conv", inside))
    return x + inside if stride == 1 and x.shape[-1] == channels else inside


def _depthwise(kernel: Float[Array, "k k 1 channels"], x: Maps, stride: int) -> Maps:
    """Convolution of each map on its own, as a sum of shifted maps.

    XLA's grouped convolution makes such a network slow on a CPU: 8 images/s of a core against 44
    this way (batches of 16 at 224²). Borders are TensorFlow's `SAME`: the odd row or column of
    zeros is the last.
    """
    side = kernel.shape[0]
    heights, widths = (_same(length, side, stride) for length in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), heights[1:], widths[1:], (0, 0)))
    total = jnp.zeros((), x.dtype)
    for row in range(side):
        for column in range(side):
            last = (row + (heights[0] - 1) * stride + 1, column + (widths[0] - 1) * stride + 1)
            shifted = padded[:, row : last[0] : stride, column : last[1] : stride]
            total = total + shifted * kernel[row, column, 0]
    return total


def _same(length: int, side: int, stride: int) -> tuple[int, int, int]:
    """Length of the output, and the zeros before and after the input."""
    out = -(-length // stride)
    zeros = max((out - 1) * stride + side - length, 0)
    return out, zeros // 2, zeros - zeros // 2


def _pointwise(weights: Weights, name: str, x: Maps) -> Maps:
    return jnp.einsum("nhwi,io->nhwo", x, weights[f"{name}.weight"][0, 0])


def _norm(weights: Weights, name: str, x: Maps) -> Maps:
    scale = weights[f"{name}.weight"] * jax.lax.rsqrt(weights[f"{name}.running_var"] + _EPSILON)
    return x * scale + (weights[f"{name}.bias"] - weights[f"{name}.running_mean"] * scale)


def _relu6(x: Maps) -> Maps:
    return jnp.clip(x, 0, 6)


def _blocks() -> list[tuple[int, int, int, int]]:
    """Kernel, stride, expansion and channels out of each block."""
    return [
        (kernel, stride if number == 0 else 1, expansion, channels)
        for count, kernel, stride, expansion, channels in _STAGES
        for number in range(count)
    ]


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"_conv_stem.weight": (_STEM, 3, 3, 3)}

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)

    norm("_bn0", _STEM)
    inside = _STEM
    for number, (kernel, _, expansion, channels) in enumerate(_blocks()):
        name, wide = f"_blocks.{number}", inside * expansion
        if expansion > 1:
            shapes[f"{name}._expand_conv.weight"] = (wide, inside, 1, 1)
            norm(f"{name}._bn0", wide)
        shapes[f"{name}._depthwise_conv.weight"] = (wide, 1, kernel, kernel)
        norm(f"{name}._bn1", wide)
        shapes[f"{name}._project_conv.weight"] = (channels, wide, 1, 1)
        norm(f"{name}._bn2", channels)
        inside = channels
    shapes["_conv_head.weight"] = (WIDTH, inside, 1, 1)
    norm("_bn1", WIDTH)
    return shapes
