"""Fréchet distance of two sets of features, in float64, from moments that stream and merge.

FD = |μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁^½ Σ₂ Σ₁^½)^½ (Dowson and Landau 1982, Heusel et al.
2017). The last term is the sum of the roots of the eigenvalues of a symmetric matrix, so it is real
whatever the rank. Its bias grows with width²/N: N of each set must be at least twice the width.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from rfxray.errors import DataError
from rfxray.evaluate import basis as bases
from rfxray.evaluate import feature_pair

_PER_WIDTH = 2  # rows per column, below which the covariances say more of N than of the images


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and scatter of a set of features.

    Attributes:
      count: Number of rows.
      mean: Mean row, `[width] float64`.
      scatter: Sum of the outer products of the rows less their mean, `[width, width] float64`.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """Covariance with n − 1, `[width, width] float64`.

        Raises:
          DataError: For a single row.
        """
        if self.count < 2:
            raise DataError("a single row of features has no covariance; give at least 2 images")
        return self.scatter / (self.count - 1)

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets together (Chan, Golub and LeVeque 1983).

        Raises:
          DataError: For sets of different widths.
        """
        if self.mean.shape != other.mean.shape:
            raise DataError(
                f"moments of {len(self.mean)} and {len(other.mean)} columns cannot be merged; "
                "extract all features with one extractor"
            )
        count = self.count + other.count
        gap = other.mean - self.mean
        scatter = self.scatter + other.scatter
        scatter += np.outer(gap, gap) * (self.count * other.count / count)
        return Moments(count, self.mean + gap * (other.count / count), scatter)


def moments(features: np.ndarray, what: str = "the") -> Moments:
    """Moments of features `[n, width] float32 or float64`, read in blocks.

    Args:
      features: Features; a memory map is read once, and never held whole.
      what: Name of the set, for a message.

    Raises:
      DataError: If a row is not finite, or there are no rows.
    """
    feature_pair.check(features, what)
    rows = feature_pair.ROWS
    return merged(_of(features[start : start + rows]) for start in range(0, len(features), rows))


def moments_of(features: np.ndarray, rows: np.ndarray) -> Moments:
    """Moments of some rows of features that were checked, `rows` `[k] int`."""
    step = feature_pair.ROWS
    return merged(_of(features[rows[i : i + step]]) for i in range(0, len(rows), step))


def merged(parts: Iterable[Moments]) -> Moments:
    """Moments of all parts together.

    Raises:
      DataError: Without a part.
    """
    total = None
    for part in parts:
        total = part if total is None else total.merge(part)
    if total is None:
        raise DataError("no features; give at least 2 images")
    return total


def _of(block: np.ndarray) -> Moments:
    block = block.astype(np.float64)
    mean = block.mean(0)
    block -= mean
    return Moments(len(block), mean, block.T @ block)


def distance(real: Moments, synthetic: Moments) -> float:
    """Fréchet distance in full width.

    Raises:
      DataError: If a set has fewer than 2 rows per column.
    """
    _check_widths(real, synthetic)
    least, width = min(real.count, synthetic.count), len(real.mean)
    if least < _PER_WIDTH * width:
        raise DataError(
            f"FD in {width} dimensions needs {_PER_WIDTH * width} images of each set (got "
            f"{least}); use FD64 (from {bases.LEAST} images on) or KID"
        )
    return of_moments(real, synthetic)


def principal(real: Moments, synthetic: Moments, basis: bases.Basis) -> float:
    """FD64: Fréchet distance on the principal components of a committed basis.

    Raises:
      DataError: If a set has fewer rows than 5 per component, or the basis is of another width.
    """
    _check_widths(real, synthetic)
    basis.check(len(real.mean))
    least = min(real.count, synthetic.count)
    if least < bases.LEAST:
        raise DataError(
            f"{basis.name} needs {bases.LEAST} images of each set (got {least}); use KID"
        )
    return of_moments(*(_projected(side, basis) for side in (real, synthetic)))


def _projected(side: Moments, basis: bases.Basis) -> Moments:
    scatter = basis.components.T @ side.scatter @ basis.components
    return Moments(side.count, (side.mean - basis.mean) @ basis.components, scatter)


def of_moments(real: Moments, synthetic: Moments) -> float:
    """Fréchet distance of two sets of at least 2 rows, however few they are."""
    covariances = real.covariance, synthetic.covariance
    return of_gaussians(real.mean, covariances[0], synthetic.mean, covariances[1])


def of_gaussians(
    mean_1: np.ndarray, covariance_1: np.ndarray, mean_2: np.ndarray, covariance_2: np.ndarray
) -> float:
    """Fréchet distance of two Gaussians: means `[width]`, covariances `[width, width]`, float64."""
    root = square_root(covariance_1)
    values = np.linalg.eigvalsh(root @ covariance_2 @ root)
    trace = np.sqrt(np.maximum(values, 0)).sum()
    gap = mean_1 - mean_2
    return float(gap @ gap + np.trace(covariance_1) + np.trace(covariance_2) - 2 * trace)


def square_root(matrix: np.ndarray) -> np.ndarray:
    """Symmetric root of a covariance `[width, width] float64`; rounding below 0 counts as 0."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _check_widths(real: Moments, synthetic: Moments) -> None:
    if real.mean.shape != synthetic.mean.shape:
        raise DataError(
            f"real features have {len(real.mean)} columns and synthetic ones "
            f"{len(synthetic.mean)}; extract both with one extractor"
        )
