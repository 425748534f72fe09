"""Whether features tell that two images are of one patient: what a near sample would give away."""

import numpy as np

from rfxray.evaluate import area_figure
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
    n = len(several)
    scores = -np.array([*same, *different])
    area = area_figure.of_scores(scores, np.arange(2 * n) < n, np.tile(np.arange(n), 2))
    return area_figure.with_interval(NAME, *area, n, n, 0)
