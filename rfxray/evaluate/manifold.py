"""Precision, recall, density and coverage (PRDC), and AuthPct, in blocks.

Precision and recall: Kynkäänniemi et al. 2019; density and coverage: Naeem et al. 2020; AuthPct:
Alaa et al. 2022. The ball around a row reaches to its k-th neighbour, itself not counted, and what
lies on its surface is outside. Squared distances are of float64: only differences below 1e-10 of a
radius² count as ties, so that a row that is copied into the other set is on the surface whatever
the order of its sums.
"""

import dataclasses

import numpy as np

from rfxray.errors import DataError
from rfxray.evaluate import intervals
from rfxray.evaluate.feature_pair import Patients, check_pair
from rfxray.evaluate.figure import Figure, not_estimable

NEIGHBOURS = 5
BLOCK = 2000  # rows: a block of distances has 32 MB
_TIE = 1 - 1e-10
_COPY = 1e-13  # of the largest squared norm: what rounding leaves of the distance of two copies


@dataclasses.dataclass(frozen=True)
class Manifold:
    """What each row sees of the other set.

    Attributes:
      inside: Whether a synthetic row is in the ball of a real one, `[m] bool`: precision.
      balls: Number of real balls that a synthetic row is in, `[m] int`: density, times k.
      reached: Whether a real row is in the ball of a synthetic one, `[n] bool`: recall.
      covered: Whether a real row has a synthetic one in its ball, `[n] bool`: coverage.
      neighbours: Number k of neighbours.
    """

    inside: np.ndarray
    balls: np.ndarray
    reached: np.ndarray
    covered: np.ndarray
    neighbours: int

    @property
    def precision(self) -> float:
        return float(self.inside.mean())

    @property
    def recall(self) -> float:
        return float(self.reached.mean())

    @property
    def density(self) -> float:
        return float(self.balls.mean() / self.neighbours)

    @property
    def coverage(self) -> float:
        return float(self.covered.mean())


def prdc(real: np.ndarray, synthetic: np.ndarray, neighbours: int = NEIGHBOURS) -> Manifold:
    """PRDC of two sets.

    Args:
      real: Real features, `[n, width] float32 or float64`.
      synthetic: Synthetic features, `[m, width]`.
      neighbours: Number k of neighbours.

    Raises:
      DataError: For features that are not finite, of different widths, or not more than k.
    """
    check_pair(real, synthetic)
    if min(len(real), len(synthetic)) <= neighbours:
        raise DataError(
            f"PRDC of {neighbours} neighbours needs {neighbours + 1} images of each set (got "
            f"{min(len(real), len(synthetic))})"
        )
    real_radii = _radii(real, neighbours)[:, -1] * _TIE
    synthetic_radii = _radii(synthetic, neighbours)[:, -1] * _TIE
    balls = np.zeros(len(synthetic), np.int64)
    reached = np.zeros(len(real), bool)
    covered = np.zeros(len(real), bool)
    for rows in _blocks(len(real)):
        x = real[rows].astype(np.float64)
        for columns in _blocks(len(synthetic)):
            squares = squared_distances(x, synthetic[columns].astype(np.float64))
            within = squares < real_radii[rows, None]
            balls[columns] += within.sum(0)
            covered[rows] |= within.any(1)
            reached[rows] |= (squares < synthetic_radii[columns]).any(1)
    return Manifold(balls > 0, balls, reached, covered, neighbours)


def figures(
    real: np.ndarray, synthetic: np.ndarray, of: Patients, seen: Manifold | None = None
) -> list[Figure]:
    """Precision, recall, density and coverage with 95% intervals.

    The rows vary, in clusters of patients, and the balls are taken as they are: the spread of the
    set that makes the balls is not in the intervals.

    Args:
      real: Real features, `[n, width] float32 or float64`.
      synthetic: Synthetic features, `[m, width]`.
      of: Patient of each row.
      seen: PRDC of these sets, if it is there already.

    Raises:
      DataError: For features that are not finite or of different widths.
    """
    check_pair(real, synthetic)
    n, m = len(real), len(synthetic)
    try:
        found = seen or prdc(real, synthetic)
    except DataError as error:
        names = ("precision", "recall", "density", "coverage")
        return [not_estimable(name, n, m, error) for name in names]
    variance, clusters = intervals.cluster_variance(found.balls / found.neighbours, of.synthetic)
    return [
        intervals.proportion("precision", found.inside, of.synthetic, n, m),
        intervals.proportion("recall", found.reached, of.real, n, m),
        intervals.student("density", found.density, variance, clusters, n, m),
        intervals.proportion("coverage", found.covered, of.real, n, m),
    ]


def authenticity(
    training: np.ndarray, synthetic: np.ndarray, of: Patients, hits: np.ndarray | None = None
) -> Figure:
    """AuthPct, percent, with the 95% interval of a share of the synthetic rows.

    Args:
      training: Features of the training images, `[n, width] float32 or float64`.
      synthetic: Synthetic features, `[m, width]`.
      of: Patient of each row.
      hits: `authentic` of these sets, if it is there already.

    Raises:
      DataError: For features that are not finite or of different widths.
    """
    check_pair(training, synthetic)
    n, m = len(training), len(synthetic)
    try:
        hits = authentic(training, synthetic) if hits is None else hits
    except DataError as error:
        return not_estimable("AuthPct", n, m, error)
    share = intervals.proportion("AuthPct", hits, of.synthetic, n, m)
    scaled = [None if x is None else 100 * x for x in (share.value, share.low, share.high)]
    return Figure("AuthPct", scaled[0], scaled[1], scaled[2], n, m, share.reason)


def authentic(
    training: np.ndarray,
    synthetic: np.ndarray,
    share: float = 1.0,
    near: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Whether each synthetic row is farther from its nearest training row than that row's nearest.

    AuthPct is 100 times the mean: near 100 for what is new, 0 for copies.

    Args:
      training: Features of the training images, `[n, width] float32 or float64`.
      synthetic: Synthetic features, `[m, width]`.
      share: Share of the distance of that row to its nearest that is enough.
      near: `nearest` of these sets, if it is there already.

    Returns:
      `[m] bool`.

    Raises:
      DataError: For features that are not finite or of different widths, or one training row.
    """
    check_pair(training, synthetic)
    if len(training) < 2:
        raise DataError("AuthPct needs at least 2 training images (got 1)")
    own = _radii(training, 1)[:, -1]
    squares, which = near or nearest(training, synthetic)
    return own[which] * share**2 < squares * _TIE


def nearest(reference: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest reference row of each row: squared distance, and number of the reference row.

    Args:
      reference: Features, `[n, width] float32 or float64`.
      rows: Features, `[m, width]`.

    Returns:
      `[m] float64` and `[m] int64`.

    Raises:
      DataError: For features that are not finite or of different widths.
    """
    check_pair(reference, rows)
    distances = np.full(len(rows), np.inf)
    which = np.zeros(len(rows), np.int64)
    for block in _blocks(len(reference)):
        x = reference[block].astype(np.float64)
        for columns in _blocks(len(rows)):
            squares = squared_distances(x, rows[columns].astype(np.float64))
            first = squares.argmin(0)
            least = squares[first, np.arange(squares.shape[1])]
            closer = least < distances[columns]
            which[columns] = np.where(closer, first + block.start, which[columns])
            distances[columns] = np.minimum(least, distances[columns])
    return distances, which


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared distances of rows `[a, width]` and `[b, width]` float64: `[a, b]` float64."""
    x_norms, y_norms = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", y, y)
    squares = x @ y.T
    squares *= -2
    squares += x_norms[:, None]
    squares += y_norms
    squares[squares < _COPY * max(x_norms.max(), y_norms.max())] = 0
    return squares


def _radii(features: np.ndarray, neighbours: int) -> np.ndarray:
    """The least squared distances of each row in its own set, itself counted: `[n, k + 1]`."""
    least = np.full((len(features), neighbours + 1), np.inf)
    for rows in _blocks(len(features)):
        x = features[rows].astype(np.float64)
        for columns in _blocks(len(features)):
            if columns.start < rows.start:
                continue
            squares = squared_distances(x, features[columns].astype(np.float64))
            if rows.start == columns.start:
                np.fill_diagonal(squares, 0)
            else:
                _keep_least(least, columns, squares.T)
            _keep_least(least, rows, squares)
    return np.sort(least, 1)


def _keep_least(least: np.ndarray, rows: slice, squares: np.ndarray) -> None:
    count = least.shape[1]
    if squares.shape[1] > count:
        squares = np.partition(squares, count - 1, axis=1)[:, :count]
    both = np.concatenate([least[rows], squares], 1)
    least[rows] = np.partition(both, count - 1, axis=1)[:, :count]


def _blocks(count: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]
