"""The variance of the mean AUC in one shot: Gallas (2006, Acad Radiol 13:353), as iMRMC does it.

Unbiased estimates of the second moments of the kernel, for the same reader and for two, give the
variance for random readers and cases directly. It needs independent cases, and may be negative.
"""

import dataclasses

import numpy as np

from rfxray.evaluate import auc


@dataclasses.dataclass(frozen=True)
class OneShot:
    """Variance of the mean AUC of one modality.

    Attributes:
      moments: M1 to M8: for one reader pairs that share both images, the synthetic, the real,
        neither; the same for two readers.
      variance: Variance of the mean over readers.
    """

    moments: tuple[float, ...]
    variance: float


def one_shot(scores: np.ndarray, truth: np.ndarray) -> OneShot:
    """Estimates the variance for readers and cases random.

    Args:
      scores: `[readers, cases]`, finite, at least two readers.
      truth: `[cases] bool`, with at least two of each kind.
    """
    found = auc.moments(scores, truth)
    readers = len(scores)
    trace = np.trace(found, axis1=1, axis2=2)
    one = trace / readers
    two = (found.sum((1, 2)) - trace) / (readers * (readers - 1))
    weights = auc.moment_weights(int(truth.sum()), int((~truth).sum()))
    second = weights @ one / readers + weights @ two * (1 - 1 / readers)
    return OneShot((*map(float, one), *map(float, two)), float(second - two[3]))
