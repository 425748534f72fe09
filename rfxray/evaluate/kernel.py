"""KID: the unbiased squared maximum mean discrepancy of features (Bińkowski et al. 2018)."""

import numpy as np

from rfxray.evaluate import two_sample
from rfxray.evaluate.feature_pair import Patients
from rfxray.evaluate.figure import Figure

NAME = "KID"


def polynomial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x·y / width + 1)³ of rows `[a, width]` and `[b, width]` float64: `[a, b]` float64."""
    products = x @ y.T
    products /= x.shape[1]
    products += 1
    return products * products * products


def distance(real: np.ndarray, synthetic: np.ndarray, patients: Patients) -> Figure:
    """KID on all pairs of different patients, with its 95% interval.

    Args:
      real: Real features, `[n, width] float32 or float64`.
      synthetic: Synthetic features, `[m, width]`.
      patients: Patient of each row, from `feature_pair.patients`.

    Raises:
      DataError: For features that are not finite or of different widths.
    """
    return two_sample.distance(NAME, polynomial, real, synthetic, patients)


def difference(
    real: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    codes: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Figure:
    """KID of a first model less that of a second, negative if the first is nearer.

    Args:
      real: Real features, `[n, width] float32 or float64`.
      first: Features of the samples of the first model, `[m, width]`.
      second: Features of the samples of the second model, `[l, width]`.
      codes: Cluster of each row in one numbering, from `feature_pair.number`: the patient of a
        real row, the request of a sample.

    Raises:
      DataError: For features that are not finite or of different widths.
    """
    return two_sample.difference("KID difference", polynomial, real, first, second, codes)
