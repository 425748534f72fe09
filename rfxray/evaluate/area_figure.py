"""An area under the ROC curve as a figure, with an interval that does not leave 0 to 1."""

import numpy as np
from scipy import special, stats

from rfxray.evaluate import auc
from rfxray.evaluate.figure import Figure


def with_interval(
    name: str, area: float, variance: float, clusters: int, n_real: int, n_synthetic: int
) -> Figure:
    """An area with the 95% interval of its logit (Pepe 2003, §5.2.4), by Student's t.

    Args:
      name: Name of the figure.
      area: The area.
      variance: Estimate of its variance.
      clusters: Number of patients behind that estimate.
      n_real: Number of real images.
      n_synthetic: Number of synthetic images.
    """
    if not 0 < area < 1 or not variance > 0:
        why = "the two sides do not overlap, so the spread is unknown"
        return Figure(name, area, None, None, n_real, n_synthetic, why)
    half = stats.t.ppf(0.975, clusters - 1) * variance**0.5 / (area * (1 - area))
    low, high = special.expit(special.logit(area) + np.array([-half, half]))
    return Figure(name, area, float(low), float(high), n_real, n_synthetic)


def of_scores(scores: np.ndarray, truth: np.ndarray, patients: np.ndarray) -> tuple[float, float]:
    """Area and its variance over patients (Obuchowski 1997).

    Args:
      scores: One for each image, [n]; higher says true.
      truth: [n] bool.
      patients: Patient of each image, [n] int.
    """
    placed = auc.placements(scores[None], truth)
    return float(auc.area(placed, truth)[0]), float(auc.delong(placed, truth, patients)[0, 0])
