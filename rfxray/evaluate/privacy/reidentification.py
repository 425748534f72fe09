"""Whether features tell that two images are of one patient: what a near sample would give away."""

import numpy as np
from scipy import special, stats

from rfxray.evaluate import auc
from rfxray.evaluate.figure import Figure, not_estimable

NAME = "re-identification AUC"
LEAST = 20  # patients with several images
_MOST = 2000  # pairs of each kind


def judge(features: np.ndarray, patients: np.ndarray, seed: int) -> Figure:
    """AUC of the distance of two images of one patient against two of different patients.

    One pair of each patient who has several images is drawn, and one with another patient; patients
    are the unit of its interval.

    Args:
      features: Features of real images, [n, width] float32.
      patients: Patient of each, [n] int.
      seed: Seed of the pairs.
    """
    generator = np.random.default_rng(seed)
    names, counts = np.unique(patients, return_counts=True)
    several = generator.permutation(names[counts > 1])[:_MOST]
    if len(several) < LEAST:
        why = f"re-identification needs {LEAST} patients with several images (got {len(several)})"
        return not_estimable(NAME, len(patients), 0, why)
    same, different = [], []
    for name in several:
        one, two = generator.permutation(np.flatnonzero(patients == name))[:2]
        other = generator.choice(np.flatnonzero(patients != name))
        same.append(np.linalg.norm(features[one] - features[two]))
        different.append(np.linalg.norm(features[one] - features[other]))
    scores = -np.array([*same, *different])[None]
    truth = np.arange(scores.shape[1]) < len(same)
    placed = auc.placements(scores, truth)
    area = float(auc.area(placed, truth)[0])
    variance = float(auc.delong(placed, truth, np.tile(np.arange(len(several)), 2))[0, 0])
    n = len(several)
    if not 0 < area < 1 or not variance > 0:
        return Figure(
            NAME, area, None, None, n, 0, "no distances overlap, so the spread is unknown"
        )
    half = stats.t.ppf(0.975, n - 1) * variance**0.5 / (area * (1 - area))
    low, high = special.expit(special.logit(area) + np.array([-half, half]))
    return Figure(NAME, area, float(low), float(high), n, 0)
