"""Resampling of grids as PyTorch's `interpolate(…, align_corners=False)` does it, as matrices."""

import functools
from typing import Literal, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfxray.arrays import AnyArray

Kind: TypeAlias = Literal["bilinear", "bicubic", "bicubic_antialias"]


def resize(
    x: Float[AnyArray, "*batch height width channels"], height: int, width: int, kind: Kind
) -> Float[Array, "*batch {height} {width} channels"]:
    """Resamples rows and columns of x [..., height, width, channels] float32.

    Args:
      x: Grid.
      height, width: Size of the result.
      kind: Name of the kernel: `bilinear`, `bicubic` (a = −.75, its width in pixels of x even when
        shrinking), or `bicubic_antialias` (a = −.5, widened when shrinking, as Pillow does).
    """
    rows = jnp.asarray(matrix(x.shape[-3], height, kind))
    columns = jnp.asarray(matrix(x.shape[-2], width, kind))
    return jnp.einsum("yi,xj,...ijc->...yxc", rows, columns, x)


@functools.cache
def matrix(old: int, new: int, kind: Kind) -> np.ndarray:
    """Weights [new, old] float32 of the old points in each new one; rows sum to 1.

    Point i lies at (i + ½)·old/new − ½ of the old grid. Beyond the border the plain kernels repeat
    the last point, and the widened one leaves out what is not there.
    """
    scale = old / new
    places = (np.arange(new) + 0.5) * scale - 0.5
    if kind == "bicubic_antialias":
        return _widened(places, old, max(scale, 1.0))
    reach, kernel = (
        (1, _triangle) if kind == "bilinear" else (2, functools.partial(_cubic, a=-0.75))
    )
    weights = np.zeros((new, old))
    for offset in range(1 - reach, reach + 1):
        points = np.floor(places) + offset
        inside = np.clip(points, 0, old - 1).astype(int)
        np.add.at(weights, (np.arange(new), inside), kernel(places - points))
    return weights.astype(np.float32)


def _widened(places: np.ndarray, old: int, widening: float) -> np.ndarray:
    distances = np.arange(old)[None, :] - places[:, None]
    weights = _cubic(distances / widening, a=-0.5)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel (IEEE TASSP 29, 1981, eq. 4 for a = −.5)."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
