"""Unbiased distances E k(x, x') + E k(y, y') − 2 E k(x, y) of two sets, with clustered intervals.

KID and the energy distance are such distances. All pairs are used, in blocks. Two rows of one
patient are alike whatever their set is, so a pair of one patient is left out of every mean: with
correlated films only such a mean is unbiased. With one row for each patient it is the usual
U-statistic (Gretton et al. 2012, eq. 3).

The variance is that of the jackknife over patients, less what it counts twice: a statistic of pairs
is a linear part and a part of second order (Hoeffding 1948), and the jackknife gives the second one
with twice its variance (Efron and Stein 1981). When both sets come from one distribution there is
nothing else, and the plain jackknife's intervals would be too wide by √2.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from scipy import stats

from rfxray.errors import DataError
from rfxray.evaluate.feature_pair import Patients, check_pair
from rfxray.evaluate.figure import Figure, not_estimable

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]

BLOCK = 2000  # rows: a block of pairs in float64 has 32 MB
LEAST = 10  # patients of each set, below which a variance between patients says little


@dataclasses.dataclass(frozen=True)
class _Sums:
    """Sums of a kernel over the pairs of rows of different patients; W is summed for each patient.

    Attributes:
      left: Sums of a patient's rows of the left set with all of the right set, `[patients]`.
      right: The same for the right set, `[patients]`.
      left_weighted: Sums of W times the rows of the other patient, `[patients]`.
      right_weighted: The same for the right set, `[patients]`.
      squares: Sum of W².
      pairs: Number of pairs.
    """

    left: np.ndarray
    right: np.ndarray
    left_weighted: np.ndarray
    right_weighted: np.ndarray
    squares: float
    pairs: float

    @property
    def mean(self) -> float:
        return float(self.left.sum() / self.pairs)


class Side:
    """A set of features, sorted by patient."""

    def __init__(self, features: np.ndarray, codes: np.ndarray, count: int):
        self.features = features
        self.order = np.argsort(codes, kind="stable")
        self.codes = codes[self.order]
        self.rows = np.bincount(codes, minlength=count).astype(np.float64)

    @property
    def patients(self) -> int:
        """Number of patients of this set."""
        return int((self.rows > 0).sum())

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Blocks of whole patients: features float64, the patients in order, where each begins."""
        starts = np.flatnonzero(np.diff(self.codes, prepend=-1))
        ends = np.append(starts[1:], len(self.codes))
        first = 0
        while first < len(starts):
            last = int(np.searchsorted(ends, starts[first] + BLOCK, side="right"))
            last = max(last, first + 1)
            rows = self.order[starts[first] : ends[last - 1]]
            inside = starts[first:last]
            yield self.features[rows].astype(np.float64), self.codes[inside], inside - inside[0]
            first = last


def _sums(kernel: Kernel, left: Side, right: Side, count: int) -> _Sums:
    same = left is right
    sums = np.zeros((4, count))
    squares = 0.0
    for i, (x, x_codes, x_starts) in enumerate(left.blocks()):
        for j, (y, y_codes, y_starts) in enumerate(right.blocks()):
            if same and j < i:
                continue
            w = kernel(x, y)
            if len(x_codes) < len(x):
                w = np.add.reduceat(w, x_starts, axis=0)
            if len(y_codes) < len(y):
                w = np.add.reduceat(w, y_starts, axis=1)
            _, rows, columns = np.intersect1d(
                x_codes, y_codes, assume_unique=True, return_indices=True
            )
            w[rows, columns] = 0
            by_left, by_right = w.sum(1), w.sum(0)
            left_weighted, right_weighted = w @ right.rows[y_codes], left.rows[x_codes] @ w
            square = float(np.vdot(w, w))
            sums[0, x_codes] += by_left
            sums[1, y_codes] += by_right
            sums[2, x_codes] += left_weighted
            sums[3, y_codes] += right_weighted
            squares += square
            if same and j > i:  # the mirrored block
                sums[0, y_codes] += by_right
                sums[1, x_codes] += by_left
                sums[2, y_codes] += right_weighted
                sums[3, x_codes] += left_weighted
                squares += square
    pairs = left.rows.sum() * right.rows.sum() - float(left.rows @ right.rows)
    return _Sums(sums[0], sums[1], sums[2], sums[3], squares, pairs)


def _without(sums: _Sums, left: Side, right: Side) -> np.ndarray:
    """Mean of the kernel without each patient, `[patients]`."""
    n, m = left.rows.sum(), right.rows.sum()
    pairs = (n - left.rows) * (m - right.rows) - (left.rows @ right.rows - left.rows * right.rows)
    return (sums.left.sum() - sums.left - sums.right) / np.maximum(pairs, 1)


def _second_order(sums: _Sums, left: Side, right: Side) -> float:
    """Estimated variance of the part of second order of the mean of a kernel."""
    n, m, same = left.rows, right.rows, left is right
    center = sums.mean / 2
    a = sums.left / np.maximum(m.sum() - (m if same else 0), 1) - n * center
    b = sums.right / np.maximum(n.sum() - (n if same else 0), 1) - m * center
    squares = sums.squares + (a @ a) * (m @ m) + (n @ n) * (b @ b) + 2 * (a @ n) * (m @ b)
    squares -= 2 * (a @ sums.left_weighted + b @ sums.right_weighted)
    c, e = left.patients, right.patients
    if same:
        squares -= 4 * float((a * n) @ (a * n))
        squares *= 2 * (c - 1) / (c - 3)  # a pair stands twice; freedom of the centring
    else:
        squares *= c * e / ((c - 1) * (e - 1))
    return max(squares, 0.0) / sums.pairs**2


def _jackknife(without: np.ndarray, sides: list[Side]) -> float:
    """Variance from the statistic without each patient, the patients stratified by their sets."""
    kinds = sum((side.rows > 0).astype(int) << i for i, side in enumerate(sides))
    variance = 0.0
    for kind in np.unique(kinds):
        left_out = without[kinds == kind]
        if len(left_out) > 1:
            spread = left_out - left_out.mean()
            variance += float(spread @ spread) * (len(left_out) - 1) / len(left_out)
    return variance


def _sides(real: np.ndarray, synthetic: np.ndarray, patients: Patients) -> tuple[Side, Side]:
    check_pair(real, synthetic)
    sides = (
        Side(real, patients.real, patients.count),
        Side(synthetic, patients.synthetic, patients.count),
    )
    for side, name in zip(sides, ("real", "synthetic"), strict=True):
        if side.patients < 2:
            raise DataError(f"the {name} set has a single patient; give at least 2")
    return sides


def distance(
    name: str, kernel: Kernel, real: np.ndarray, synthetic: np.ndarray, patients: Patients
) -> Figure:
    """Distance of two sets with its 95% interval.

    Args:
      name: Name of the distance.
      kernel: Function of blocks `[a, width]` and `[b, width]` float64 to `[a, b]` float64.
      real: Real features, `[n, width] float32 or float64`.
      synthetic: Synthetic features, `[m, width]`.
      patients: Patient of each row.

    Raises:
      DataError: for features that are not finite or of different widths.
    """
    check_pair(real, synthetic)
    n, m = len(real), len(synthetic)
    try:
        x, y = _sides(real, synthetic, patients)
    except DataError as error:
        return not_estimable(name, n, m, error)
    count = patients.count
    parts = [(_sums(kernel, x, x, count), x, x, 1), (_sums(kernel, y, y, count), y, y, 1)]
    parts.append((_sums(kernel, x, y, count), x, y, -2))
    value = sum(weight * sums.mean for sums, _, _, weight in parts)
    least = min(x.patients, y.patients)
    if least < LEAST:
        why = f"an interval needs {LEAST} patients or samples of each set (got {least})"
        return Figure(name, value, None, None, n, m, why)
    without = sum(weight * _without(sums, a, b) for sums, a, b, weight in parts)
    variance = _jackknife(np.asarray(without), [x, y])
    if not patients.shared:
        second = sum(weight**2 * _second_order(sums, a, b) for sums, a, b, weight in parts)
        variance = max(variance - 2 * second, 0.0) + second
    return with_interval(name, value, variance, least, n, m)


def with_interval(
    name: str, value: float, variance: float, clusters: int, n_real: int, n_synthetic: int
) -> Figure:
    """A figure with the 95% interval of Student's t for a variance between clusters."""
    half = float(stats.t.ppf(0.975, clusters - 1) * np.sqrt(variance))
    if not value - half < value + half:
        why = "the images do not differ from each other, so their spread is unknown"
        return Figure(name, value, None, None, n_real, n_synthetic, why)
    return Figure(name, value, value - half, value + half, n_real, n_synthetic)
