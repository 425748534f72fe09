"""Convolution, BatchNorm and pooling, as PyTorch computes them when it does not train."""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfxray.networks.torch_weights import Weights

# Maps of features, [n, height, width, channels].
Maps: TypeAlias = Float[Array, "n _ _ _"]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def convolution(
    weights: Weights, name: str, x: Maps, stride: int = 1, padding: Sequence[int] = (0, 0)
) -> Maps:
    """The convolution `name` without a bias; `padding` is the number of zero rows and columns that
    each border gets."""
    kernel = jnp.asarray(weights[f"{name}.weight"])
    borders = [(p, p) for p in padding]
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), borders, dimension_numbers=_DIMENSIONS
    )


def batch_norm(weights: Weights, name: str, x: Maps, epsilon: float) -> Maps:
    """The BatchNorm `name` with the mean and variance of its training (arXiv 1502.03167)."""
    scale = weights[f"{name}.weight"] * jax.lax.rsqrt(weights[f"{name}.running_var"] + epsilon)
    return x * scale + (weights[f"{name}.bias"] - weights[f"{name}.running_mean"] * scale)


def norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of the BatchNorm `name`."""
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts}


def max_pool(x: Maps, size: int, stride: int, padding: int = 0) -> Maps:
    """The largest value of each window; nothing of the border counts."""
    return _windows(x, -jnp.inf, jax.lax.max, size, stride, padding)


def mean_pool(x: Maps, size: int, stride: int, padding: int = 0) -> Maps:
    """The mean of each window over what lies inside the maps, without the border."""
    inside = jnp.ones((1, *x.shape[1:3], 1))
    counts = _windows(inside, 0.0, jax.lax.add, size, stride, padding)
    return _windows(x, 0.0, jax.lax.add, size, stride, padding) / counts


def _windows(x: Maps, start: float, combine, size: int, stride: int, padding: int) -> Maps:
    borders = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    return jax.lax.reduce_window(x, start, combine, window, strides, borders)
