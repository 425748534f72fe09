"""Unbiased distances E k(x, x') + E k(y, y') − 2 E k(x, y) of two sets, with clustered intervals.

KID and the energy distance are such distances. All pairs are used, in blocks. Two rows of one
patient are alike whatever their set is, so a pair of one patient is left out of every mean: with
correlated films only such a mean is unbiased. With one row for each patient it is the usual
U-statistic (Gretton et al. 2012, eq. 3).

A statistic of pairs is a linear part and a part of second order (Hoeffding 1948). If both sets come
from one distribution there is only the second one, and its variance is estimated from the centred
kernel: the jackknife over patients gives twice that (Efron and Stein 1981). What the jackknife has
beyond it grows with the distance.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from rfxray.errors import DataError
from rfxray.evaluate import intervals
from rfxray.evaluate.feature_pair import Patients, check_pair
from rfxray.evaluate.figure import Figure, not_estimable

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]

_NOTHING = 1e-150  # a distance with which one cannot divide
BLOCK = 2000  # rows: a block of pairs in float64 has 32 MB


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
        squares *= 2 * (c - 1) / max(c - 3, 1)  # a pair stands twice; freedom of the centring
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
      DataError: For features that are not finite or of different widths.
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
    without = sum(weight * _without(sums, a, b) for sums, a, b, weight in parts)
    variance = _jackknife(np.asarray(without), [x, y])
    second = sum(weight**2 * _second_order(sums, a, b) for sums, a, b, weight in parts)
    # Near 0 the slope is unknown; two deviations of 0 away it is not.
    known = max(value, 2 * np.sqrt(second))
    if patients.shared or known < _NOTHING:
        return intervals.student(name, value, variance, least, n, m)
    slope = max(variance - second, 0.0) / known
    return intervals.squared_distance(name, value, second, float(slope), least, n, m)


def difference(
    name: str,
    kernel: Kernel,
    real: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    codes: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Figure:
    """Distance of a first set of samples less that of a second, to one real set, paired.

    The real set is the same, so its spread mostly cancels, and its own term wholly. Samples of one
    request have one cluster, and their spread cancels too. The jackknife has the part of second
    order twice, so that is taken off once, if each request has a sample of both sets or none of
    both; otherwise the interval is a little wide where all three distributions are alike.

    Args:
      name: Name of the figure.
      kernel: Function of blocks `[a, width]` and `[b, width]` float64 to `[a, b]` float64.
      real: Real features, `[n, width] float32 or float64`.
      first: Features of the first samples, `[m, width]`.
      second: Features of the second samples, `[l, width]`.
      codes: Cluster of each row of the three sets in one numbering (`feature_pair.number`).

    Raises:
      DataError: For features that are not finite or of different widths.
    """
    check_pair(real, first)
    check_pair(real, second)
    n, m = len(real), min(len(first), len(second))
    count = 1 + max(int(of.max()) for of in codes)
    sides = [Side(*side, count) for side in zip((real, first, second), codes, strict=True)]
    least = min(side.patients for side in sides)
    if least < 2:
        return not_estimable(name, n, m, "a set has a single patient; give at least 2")
    x, y, z = sides
    pairs = _pairs(first, second, codes)
    if pairs is None:
        parts = [(kernel, y, y, 1), (kernel, z, z, -1), (kernel, x, y, -2), (kernel, x, z, 2)]
    else:
        both = Side(pairs, np.unique(codes[1]), count)
        width = real.shape[1]

        def within(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return kernel(a[:, :width], b[:, :width]) - kernel(a[:, width:], b[:, width:])

        def across(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return kernel(a, b[:, :width]) - kernel(a, b[:, width:])

        parts = [(within, both, both, 1), (across, x, both, -2)]
    value, second_order, without = 0.0, 0.0, np.zeros(count)
    for of_rows, a, b, weight in parts:
        sums = _sums(of_rows, a, b, count)
        value += weight * sums.mean
        without += weight * _without(sums, a, b)
        second_order += weight**2 * _second_order(sums, a, b)
    variance = _jackknife(without, sides)
    names = [np.unique(of) for of in codes]
    apart = len(np.unique(np.concatenate(names))) == sum(map(len, names))
    if pairs is not None or apart:
        variance = max(variance - second_order, second_order)
    return intervals.student(name, value, variance, least, n, m)


def _pairs(
    first: np.ndarray, second: np.ndarray, codes: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> np.ndarray | None:
    """Features of both samples of each request, side by side, in the order of the requests; None
    unless each request has one of both."""
    requests = [np.unique(of, return_index=True) for of in codes[1:]]
    one_each = all(
        len(of) == len(names) for of, (names, _) in zip(codes[1:], requests, strict=True)
    )
    if not one_each or not np.array_equal(requests[0][0], requests[1][0]):
        return None
    rows = [which for _, which in requests]
    return np.concatenate([first[rows[0]], second[rows[1]]], axis=1)
