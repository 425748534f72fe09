"""Energy distance 2 E|x − y| − E|x − x'| − E|y − y'|, unbiased (Székely and Rizzo 2013)."""

import numpy as np

from rfxray.evaluate import two_sample
from rfxray.evaluate.feature_pair import Patients
from rfxray.evaluate.figure import Figure
from rfxray.evaluate.manifold import squared_distances

NAME = "energy distance"


def distance(real: np.ndarray, synthetic: np.ndarray, patients: Patients) -> Figure:
    """Energy distance on all pairs of different patients, with its 95% interval.

    Args:
      real: Real features, `[n, width] float32 or float64`.
      synthetic: Synthetic features, `[m, width]`.
      patients: Patient of each row, from `feature_pair.patients`.

    Raises:
      DataError: For features that are not finite or of different widths.
    """
    return two_sample.distance(NAME, _kernel, real, synthetic, patients)


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -np.sqrt(squared_distances(x, y))
