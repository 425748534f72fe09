"""Simulated readers by Roe and Metz (1997, Acad Radiol 4:298), and what their model implies.

Score of reader j for case k of kind t: the separation if t is synthetic, plus normal effects of the
reader (within t), of the case, of the reader on the case (the same when it is shown again), and of
the moment. The last three have variances that sum to 1.
"""

import dataclasses

import numpy as np
from scipy import special, stats

from rfxray.errors import ConfigError
from rfxray.evaluate import auc


@dataclasses.dataclass(frozen=True)
class RoeMetz:
    """Variances of the model, on the scale of scores.

    Attributes:
      reader: Variance of the readers; .0055 is that of readers who agree closely, .03 of readers
        who differ (Roe and Metz, table 1).
      case: Share that cases have, in [0, 1): what makes readers find the same images easy.
      reader_case: Share that a reader and a case have together, the same at each showing.
    """

    reader: float = 0.0055
    case: float = 0.15
    reader_case: float = 0.15

    def __post_init__(self):
        if self.reader < 0 or self.case < 0 or self.reader_case < 0:
            raise ConfigError("variances of readers and cases must be at least 0")
        if self.case + self.reader_case > 1:
            raise ConfigError(
                f"shares of case ({self.case:g}) and of reader and case ({self.reader_case:g}) "
                "must sum to at most 1"
            )

    def separation(self, area: float | np.ndarray) -> np.ndarray:
        """Difference of the means that gives this AUC, averaged over readers."""
        return stats.norm.ppf(area) * np.sqrt(2 + 2 * self.reader)


def scores(
    model: RoeMetz,
    rng: np.random.Generator,
    area: np.ndarray | float,
    readers: int,
    truth: np.ndarray,
    studies: int = 1,
    showings: int = 1,
) -> np.ndarray:
    """Continuous scores, `[showings, studies, readers, cases] float32`.

    Args:
      model: Variances.
      rng: Source of randomness.
      area: True AUC of every reader, or of each, `[readers]`.
      readers: Number of readers.
      truth: `[cases] bool`, true for synthetic.
      studies: Number of independent studies.
      showings: How often each case is shown to each reader.
    """

    def normal(*shape: int, variance: float) -> np.ndarray:
        return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(variance))

    moment = max(0.0, 1 - model.case - model.reader_case)
    separation = np.broadcast_to(model.separation(area), readers).astype(np.float32)
    of_reader = normal(2, studies, readers, 1, variance=model.reader)
    base = np.where(truth, separation[:, None] + of_reader[1], of_reader[0])
    base = base + normal(studies, 1, len(truth), variance=model.case)
    base = base + normal(studies, readers, len(truth), variance=model.reader_case)
    return base + normal(showings, studies, readers, len(truth), variance=moment)


@dataclasses.dataclass(frozen=True)
class Components:
    """Expected values of what an analysis estimates, on the scale of AUC.

    Attributes:
      area: True mean AUC.
      between: Variance of the true AUCs of readers.
      error: Variance of one reader's AUC over samples of cases (Var).
      shared: Covariance of two readers' AUCs over cases (Cov2).
    """

    area: float
    between: float
    error: float
    shared: float

    def variance(self, readers: int) -> float:
        """Variance of the mean over readers."""
        return self.shared + self.spread / readers

    @property
    def spread(self) -> float:
        """Expected mean square of readers, MS(R)."""
        return self.between + self.error - self.shared


def components(model: RoeMetz, area: float, synthetic: int, real: int) -> Components:
    """Exact components of the model (Gallas and Hillis 2014, J Med Imaging 1:031006).

    Args:
      model: Variances.
      area: True AUC.
      synthetic: Number of synthetic images.
      real: Number of real images.
    """
    same_reader, two_readers = _moments(model, area)
    weights = auc.moment_weights(synthetic, real)
    return Components(
        area=area,
        between=float(same_reader[3] - two_readers[3]),
        error=float(weights @ same_reader - same_reader[3]),
        shared=float(weights @ two_readers - two_readers[3]),
    )


def pair_components(model: RoeMetz, area: float, pairs: int) -> Components:
    """Exact components of the share of pairs in which the synthetic image is found.

    The image with the higher score is taken for synthetic, so the share is the AUC (Green and Swets
    1966, Signal Detection Theory and Psychophysics), over pairs of images instead of all pairs.

    Args:
      model: Variances.
      area: True AUC.
      pairs: Number of pairs, of different images.
    """
    same_reader, two_readers = _moments(model, area)
    return Components(
        area=area,
        between=float(same_reader[3] - two_readers[3]),
        error=float(same_reader[0] - same_reader[3]) / pairs,
        shared=float(two_readers[0] - two_readers[3]) / pairs,
    )


def _moments(model: RoeMetz, area: float) -> tuple[np.ndarray, np.ndarray]:
    """Chance that two comparisons are both right, of one reader and of two, `[4]` each.

    In order: they share both images, the synthetic one, the real one, neither.
    """
    deviate = float(stats.norm.ppf(area))
    total = 2 + 2 * model.reader

    def both(covariance: float) -> float:
        """Chance that two comparisons with this covariance are both right."""
        correlation = min(covariance / total, 1.0)
        slope = np.sqrt((1 - correlation) / (1 + correlation))
        return float(area - 2 * special.owens_t(deviate, slope))  # Owen 1956

    apart = 2 * model.reader
    same_reader = np.array([area, both(apart + 1), both(apart + 1), both(apart)])
    case = model.case
    return same_reader, np.array([both(2 * case), both(case), both(case), area**2])
