"""FD, FD64 and FD∞ with intervals.

The spread of a Fréchet distance comes from the influence of each row on it, summed for each patient
(the infinitesimal jackknife of Jaeckel 1972). With T = Σ₁^-½ (Σ₁^½ Σ₂ Σ₁^½)^½ Σ₁^-½, a row x of the
first set adds 2 (μ₁ − μ₂)·(x − μ₁) + (x − μ₁)ᵀ (1 − T) (x − μ₁), less the mean of that.

FD and FD64 are too large by about width²/N of whatever scale the features have, and their interval
is of the distance at this N. FD∞ removes this bias, and its interval is of the true distance.
"""

import numpy as np

from rfxray.errors import DataError
from rfxray.evaluate import frechet, intervals
from rfxray.evaluate.basis import Basis
from rfxray.evaluate.feature_pair import ROWS, Patients, check_pair
from rfxray.evaluate.figure import Figure, not_estimable

SIZES = 15  # subsets of FD∞
_LARGEST_FIRST = 5000  # rows of the first subset of FD∞, at most
_PER_WIDTH = 5  # rows per column of the smallest subset
_SINGULAR = 1e-10  # of the largest eigenvalue: below it a direction has no variance


def full(real: np.ndarray, synthetic: np.ndarray, of: Patients) -> Figure:
    """FD in full width.

    Args:
      real: Real features, `[n, width] float32 or float64`.
      synthetic: Synthetic features, `[m, width]`.
      of: Patient of each row.

    Raises:
      DataError: For features that are not finite or of different widths.
    """
    check_pair(real, synthetic)
    n, m = len(real), len(synthetic)
    sides = frechet.moments(real), frechet.moments(synthetic)
    try:
        value = frechet.distance(*sides)
    except DataError as error:
        return not_estimable("FD", n, m, error)
    return _figure("FD", value, _pulls(real, synthetic), of)


def principal(real: np.ndarray, synthetic: np.ndarray, of: Patients, basis: Basis) -> Figure:
    """FD64 on a committed basis.

    Args:
      real: Real features, `[n, width] float32 or float64`.
      synthetic: Synthetic features, `[m, width]`.
      of: Patient of each row.
      basis: Principal components.

    Raises:
      DataError: For features that are not finite or of another width than the basis.
    """
    check_pair(real, synthetic)
    basis.check(real.shape[1])
    n, m = len(real), len(synthetic)
    try:
        value = frechet.principal(frechet.moments(real), frechet.moments(synthetic), basis)
    except DataError as error:
        return not_estimable(basis.name, n, m, error)
    projected = [(side - basis.mean) @ basis.components for side in (real, synthetic)]
    return _figure(basis.name, value, _pulls(projected[0], projected[1]), of)


def difference(
    real: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    codes: tuple[np.ndarray, np.ndarray, np.ndarray],
    basis: Basis | None = None,
) -> Figure:
    """FD (on a basis: FD64) of a first model less that of a second, to one real set, paired.

    Both distances are too large by a bias of their N. It cancels only for as many samples of both,
    and as far as their covariances are alike, so other numbers are refused. The influence of a real
    row is on both distances at once, and that of two samples of one request is summed.

    Args:
      real: Real features, `[n, width] float32 or float64`.
      first: Features of the samples of the first model, `[m, width]`.
      second: Features of the samples of the second model, `[m, width]`.
      codes: Cluster of each row of the three sets in one numbering (`feature_pair.number`).
      basis: Principal components of FD64; None for FD in full width.

    Raises:
      DataError: For features that are not finite or of another width.
    """
    check_pair(real, first)
    check_pair(real, second)
    name = f"{'FD' if basis is None else basis.name} difference"
    n, m = len(real), min(len(first), len(second))
    if len(first) != len(second):
        why = (
            f"a Fréchet distance depends on N, and the sets have {len(first)} and {len(second)} "
            "samples; give as many of each"
        )
        return not_estimable(name, n, m, why)
    sets = real, first, second
    try:
        moments = [frechet.moments(side) for side in sets]
        distances = [
            frechet.distance(moments[0], side)
            if basis is None
            else frechet.principal(moments[0], side, basis)
            for side in moments[1:]
        ]
    except DataError as error:
        return not_estimable(name, n, m, error)
    if basis is not None:
        sets = tuple((side - basis.mean) @ basis.components for side in sets)
    to_first, to_second = _pulls(sets[0], sets[1]), _pulls(sets[0], sets[2])
    rows = n + 2 * m
    pulls = ((to_first[0] - to_second[0]) / n, to_first[1] / m, -to_second[1] / m)
    variance, _ = intervals.cluster_variance(np.concatenate(pulls) * rows, np.concatenate(codes))
    clusters = min(len(np.unique(of)) for of in codes)
    return intervals.student(name, distances[0] - distances[1], variance, clusters, n, m)


def infinite(
    real: np.ndarray, synthetic: np.ndarray, of: Patients, both: bool = False, seed: int = 0
) -> Figure:
    """FD∞: the distance of ever more samples, by regression on 1/N (Chong and Forsyth 2020).

    Subsets of 15 sizes, evenly from min(5000, max(N/10, 2)) to N, are windows on the rows in a
    random order of the patients. All windows of a size together use each row equally often, so that
    the figure hardly depends on the order. The smallest has at least five rows per column: at two,
    the bias is not yet a line in 1/N (−.018 ± .006 where the distance is 0, in 16 dimensions).

    Args:
      real: Real features, `[n, width] float32 or float64`.
      synthetic: Synthetic features, `[m, width]`.
      of: Patient of each row.
      both: Whether subsets of the real set are taken too, of the same share: the distance of the
        distributions. Otherwise the real set is the reference as it is, all of it, which leaves the
        bias of its own N in the figure; its interval is of the distance to this reference.
      seed: Seed of the order of the patients.

    Raises:
      DataError: For features that are not finite or of different widths.
    """
    check_pair(real, synthetic)
    name = "FD∞ of both" if both else "FD∞"
    n, m, width = len(real), len(synthetic), real.shape[1]
    sizes = np.linspace(min(_LARGEST_FIRST, max(m // 10, 2)), m, SIZES).astype(int)
    shares = sizes / m
    smallest = min(sizes[0], int(n * shares[0])) if both else sizes[0]
    if smallest < _PER_WIDTH * width or n < _PER_WIDTH * width:
        return not_estimable(
            name,
            n,
            m,
            f"its smallest subset has {smallest} images and {width} dimensions need "
            f"{_PER_WIDTH * width}; use FD64 or KID",
        )
    orders = [intervals.patient_order(codes, seed) for codes in (of.real, of.synthetic)]
    whole = frechet.moments(real)
    pulls = _pulls(real, synthetic)
    values = []
    for share, size in zip(shares, sizes, strict=True):
        windows = _windows(orders[1], int(size))
        others = _windows(orders[0], round(n * float(share))) if both else [None]
        found = []
        for i, window in enumerate(windows):
            rows = others[i % len(others)]
            left = whole if rows is None else frechet.moments_of(real, rows)
            value = frechet.of_moments(left, frechet.moments_of(synthetic, window))
            # Less the part of first order, which is 0 for all rows: a third less spread.
            value -= pulls[1][window].mean() + (0 if rows is None else pulls[0][rows].mean())
            found.append(value)
        values.append(np.mean(found))
    value = float(np.polyfit(1 / shares, values, 1)[1])
    plain = frechet.of_moments(whole, frechet.moments(synthetic))
    variance, clusters = _spread(pulls, of, fixed=not both)
    # The variance is that of pulls at the plain distance, and grows with it.
    slope = variance / plain if variance > 0 else 0.0
    at_zero = slope * max(plain - value, 0.0)
    return intervals.squared_distance(name, value, at_zero, slope, clusters, n, m)


def _windows(order: np.ndarray, size: int) -> list[np.ndarray]:
    count = -(-len(order) // size)
    starts = [i * len(order) // count for i in range(count)]
    return [np.take(order, range(start, start + size), mode="wrap") for start in starts]


def _figure(name: str, value: float, pulls: tuple[np.ndarray, np.ndarray], of: Patients) -> Figure:
    variance, clusters = _spread(pulls, of)
    n, m = len(of.real), len(of.synthetic)
    return intervals.student(name, value, variance, clusters, n, m)


def _spread(
    pulls: tuple[np.ndarray, np.ndarray], of: Patients, fixed: bool = False
) -> tuple[float, int]:
    """Variance of what the rows pull together, and clusters behind it; of a fixed set, nothing."""
    n, m = len(of.real), len(of.synthetic)
    real, real_clusters = intervals.cluster_variance(pulls[0], of.real)
    variance, clusters = intervals.cluster_variance(pulls[1], of.synthetic)
    if fixed:
        return variance, clusters
    if of.shared:  # such a patient pulls from both sides at once
        both = np.concatenate([pulls[0] / n, pulls[1] / m]) * (n + m)
        variance = intervals.cluster_variance(both, np.concatenate([of.real, of.synthetic]))[0]
    else:
        variance += real
    return variance, min(clusters, real_clusters)


def _pulls(real: np.ndarray, synthetic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Influence of each row of both sets on their distance."""
    x, y = frechet.moments(real), frechet.moments(synthetic)
    return _influence(x, y, real), _influence(y, x, synthetic)


def _influence(own: frechet.Moments, other: frechet.Moments, features: np.ndarray) -> np.ndarray:
    """What each row of a set adds to the distance to another set, `[n] float64`, 0 on average."""
    root, inverse = _roots(own.covariance)
    transport = inverse @ frechet.square_root(root @ other.covariance @ root) @ inverse
    form = np.eye(len(own.mean)) - transport
    gap = 2 * (own.mean - other.mean)
    pulls = np.empty(len(features))
    for start in range(0, len(features), ROWS):
        block = features[start : start + ROWS] - own.mean
        pulls[start : start + ROWS] = block @ gap + np.einsum("ij,ij->i", block @ form, block)
    return pulls - pulls.mean()


def _roots(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root of a covariance and the pseudo-inverse of that root."""
    values, vectors = np.linalg.eigh(covariance)
    roots = np.sqrt(np.maximum(values, 0))
    kept = values > _SINGULAR * max(values[-1], 0)
    inverses = np.divide(1, roots, out=np.zeros_like(roots), where=kept)
    return (vectors * roots) @ vectors.T, (vectors * inverses) @ vectors.T
