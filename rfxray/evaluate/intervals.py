"""Intervals that know of patients, and floors between halves of the reals.

Nothing here resamples with replacement: a row that is drawn twice is its own neighbour, and makes
every distance of covariances larger (benchmarks/RESULTS.md has the coverage of a bootstrap).
"""

from collections.abc import Callable

import numpy as np
from scipy import stats

from rfxray.errors import DataError
from rfxray.evaluate.feature_pair import Patients, patients
from rfxray.evaluate.figure import Figure, not_estimable

LEAST = 10  # patients, below which a spread between patients says little
_ROUNDING = 1e-6  # of a value: a narrower interval is the rounding of sums, not a spread
SPLITS = 20  # of a floor: the deviation of splits is known to a sixth

Measure = Callable[[np.ndarray, np.ndarray, Patients], Figure]


def cluster_variance(values: np.ndarray, clusters: np.ndarray) -> tuple[float, int]:
    """Variance of the mean of rows that are correlated within clusters.

    Args:
      values: One value for each row, `[n]`.
      clusters: Cluster of each row, `[n] int`.

    Returns:
      The variance of the mean, and the number of clusters.
    """
    codes = np.unique(clusters, return_inverse=True)[1]
    sums = np.bincount(codes, values - values.mean())
    count = len(sums)
    return float(sums @ sums) * count / max(count - 1, 1) / len(values) ** 2, count


def student(
    name: str, value: float, variance: float, clusters: int, n_real: int, n_synthetic: int
) -> Figure:
    """A figure with the 95% interval of Student's t for a variance between clusters.

    Args:
      name: Name of the measure.
      value: Estimate.
      variance: Estimate of its variance.
      clusters: Number of clusters behind that estimate.
      n_real: Number of real rows.
      n_synthetic: Number of synthetic rows.
    """
    if clusters < LEAST:
        why = f"an interval needs {LEAST} patients or samples of each set (got {clusters})"
        return Figure(name, value, None, None, n_real, n_synthetic, why)
    half = float(stats.t.ppf(0.975, clusters - 1) * np.sqrt(variance))
    if not half > _ROUNDING * abs(value):
        why = "every image counts the same in it, so the spread is unknown"
        return Figure(name, value, None, None, n_real, n_synthetic, why)
    return Figure(name, value, value - half, value + half, n_real, n_synthetic)


def squared_distance(
    name: str,
    value: float,
    at_zero: float,
    slope: float,
    clusters: int,
    n_real: int,
    n_synthetic: int,
) -> Figure:
    """A squared distance with its 95% interval; its variance grows with the distance.

    A shift of δ makes a squared distance δ², and its spread is 2δ times that of the means. So an
    estimate that is too low looks too precise, and a constant variance misses the truth above it (a
    mixture: 6% above, 1% below). The interval holds all t from which the estimate is at most a
    quantile of Student's t away, by the variance at t, as that of a share does (Wilson 1927).

    Args:
      name: Name of the measure.
      value: Estimate without bias.
      at_zero: Variance if the true distance is 0.
      slope: Variance that a unit of true distance adds.
      clusters: Number of clusters behind these variances.
      n_real: Number of real rows.
      n_synthetic: Number of synthetic rows.
    """
    if clusters < LEAST:
        return student(name, value, at_zero, clusters, n_real, n_synthetic)
    quantile = float(stats.t.ppf(0.975, clusters - 1))
    middle = value + quantile**2 * slope / 2
    inside = middle**2 - value**2 + quantile**2 * at_zero
    half = float(np.sqrt(max(inside, 0)))
    # No distance is below 0, so there the variance is that of 0.
    below = quantile * at_zero**0.5
    low = middle - half if value > below else value - below
    high = max(value + below, middle + half) if inside >= 0 else value + below
    if not high - low > _ROUNDING * abs(value):
        return student(name, value, 0.0, clusters, n_real, n_synthetic)
    return Figure(name, value, low, high, n_real, n_synthetic)


def proportion(
    name: str, hits: np.ndarray, clusters: np.ndarray, n_real: int, n_synthetic: int
) -> Figure:
    """A share of rows with its 95% interval of Wilson (1927), which has a width at 0 and 1 too.

    The number of rows is the one that independent rows with this spread between clusters would have
    (Kish 1965); at exactly 0 or 1, where no spread shows, the number of clusters.

    Args:
      name: Name of the measure.
      hits: Whether a row counts, `[n] bool`.
      clusters: Patient of each row, `[n] int`.
      n_real: Number of real rows.
      n_synthetic: Number of synthetic rows.
    """
    share = float(hits.mean())
    variance, count = cluster_variance(hits.astype(float), clusters)
    if count < LEAST:
        why = f"an interval needs {LEAST} patients or samples (got {count})"
        return Figure(name, share, None, None, n_real, n_synthetic, why)
    effective = share * (1 - share) / variance if variance > 0 else count
    effective = min(effective, len(hits))
    quantile = float(stats.t.ppf(0.975, count - 1))
    ratio = quantile**2 / effective
    middle = (share + ratio / 2) / (1 + ratio)
    half = np.sqrt(share * (1 - share) * ratio + ratio**2 / 4) / (1 + ratio)
    # Wilson's interval holds the share and ends at 0 and 1, except for rounding.
    low, high = float(np.clip(middle - half, 0, share)), float(np.clip(middle + half, share, 1))
    return Figure(name, share, low, high, n_real, n_synthetic)


def halves(codes: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two sets of different patients, drawn at random.

    Args:
      codes: Patient of each row, `[n] int`.
      size: Number of rows of each set.
      seed: Seed of the split.

    Raises:
      DataError: If no half has so many rows.
    """
    order = patient_order(codes, seed)
    ends = np.flatnonzero(np.diff(codes[order])) + 1
    cut = ends[np.abs(ends - len(order) / 2).argmin()] if len(ends) else 0
    left, right = order[:cut], order[cut:]
    if min(len(left), len(right)) < size:
        raise DataError(
            f"a floor of {size} images needs two halves of different patients with so many each "
            f"(got {len(left)} and {len(right)}); ask for fewer"
        )
    return left[:size], right[:size]


def patient_order(codes: np.ndarray, seed: int) -> np.ndarray:
    """Rows in a random order of the patients, the rows of each together: `[n] int`."""
    names, which = np.unique(codes, return_inverse=True)
    return np.argsort(np.random.default_rng(seed).permutation(len(names))[which], kind="stable")


def floor(
    measure: Measure,
    real: np.ndarray,
    codes: np.ndarray,
    size: int,
    splits: int = SPLITS,
    seed: int = 0,
) -> Figure:
    """A distance between halves of the reals: what a perfect model would get at this N.

    Args:
      measure: Distance, such as `kernel.distance`.
      real: Real features, `[n, width] float32 or float64`.
      codes: Patient of each row, `[n] int`.
      size: Number of rows of each half.
      splits: Number of random splits by patient.
      seed: Seed of the first split; the next ones follow.

    Returns:
      The mean over the splits, and the range in which 95% of such splits lie.
    """
    found = []
    for split in range(splits):
        try:
            left, right = halves(codes, size, seed + split)
        except DataError as error:
            return not_estimable("floor", size, size, error)
        of = patients(size, size, codes[left], codes[right])
        found.append(measure(real[left], real[right], of))
        if found[-1].value is None:
            return found[-1]
    name, values = found[0].name, np.array([figure.value for figure in found])
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    half = float(stats.t.ppf(0.975, splits - 1)) * spread
    if not half > _ROUNDING * abs(mean):
        why = "all splits have the same value"
        return Figure(name, mean, None, None, size, size, why)
    return Figure(name, mean, mean - half, mean + half, size, size)
