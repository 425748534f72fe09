"""Whether a model's loss tells its training images from others (membership inference).

The attack of Carlini et al. 2023 (arXiv 2301.13188, §5) without shadow models: the flow loss of an
image at fixed times and with fixed noise, lower for what was memorised. AUC .5 and a true positive
rate of 1% at a false positive rate of 1% are chance. Stronger attacks exist; this bounds nothing.
"""

import dataclasses

import numpy as np

from rfxray.evaluate import area_figure
from rfxray.evaluate.figure import Figure, not_estimable

LEAST = 20  # patients of each side
FALSE_POSITIVES = 0.01
_REPLICATES = 1000
AUC, TPR = "membership AUC", "membership TPR at 1% FPR"


@dataclasses.dataclass(frozen=True)
class Membership:
    """How well members are separated from others.

    Attributes:
      area: AUC, with the interval over patients (Obuchowski 1997) on the logit.
      rate: True positive rate at a false positive rate of 1%, with that of a bootstrap over
        patients of both sides.
    """

    area: Figure
    rate: Figure


def judge(
    members: np.ndarray, others: np.ndarray, patients: np.ndarray, other_patients: np.ndarray
) -> Membership:
    """Compares the losses of both.

    Args:
      members: Losses of training images, [n].
      others: Losses of images that the model never saw, [m].
      patients: Patient of each member, [n] int.
      other_patients: Patient of each other image, [m] int, in the same numbering.
    """
    n, m = len(members), len(others)
    sides = [len(np.unique(each)) for each in (patients, other_patients)]
    if min(sides) < LEAST:
        why = f"membership needs {LEAST} patients of each side (got {sides[0]} and {sides[1]})"
        return Membership(not_estimable(AUC, n, m, why), not_estimable(TPR, n, m, why))
    scores, both = -np.concatenate([members, others]), np.concatenate([patients, other_patients])
    area = area_figure.of_scores(scores, np.arange(n + m) < n, both)
    return Membership(
        area_figure.with_interval(AUC, *area, min(sides), n, m),
        _rate(members, others, patients, other_patients),
    )


def _rate(
    members: np.ndarray, others: np.ndarray, patients: np.ndarray, other_patients: np.ndarray
) -> Figure:
    n, m = len(members), len(others)

    def rate(inside: np.ndarray, outside: np.ndarray) -> float:
        return float((inside < np.quantile(outside, FALSE_POSITIVES)).mean())

    if m < 1 / FALSE_POSITIVES:
        why = (
            f"a rate of 1% needs {round(1 / FALSE_POSITIVES)} images that are no members (got {m})"
        )
        return not_estimable(TPR, n, m, why)
    generator = np.random.default_rng(0)
    groups = [_groups(patients), _groups(other_patients)]
    found = []
    for _ in range(_REPLICATES):
        rows = [_resampled(generator, each) for each in groups]
        found.append(rate(members[rows[0]], others[rows[1]]))
    low, high = np.quantile(found, [0.025, 0.975])
    value = rate(members, others)
    if not low < high:
        return Figure(TPR, value, None, None, n, m, "all replicates are equal")
    return Figure(TPR, value, float(low), float(high), n, m)


def _groups(patients: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(patients, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(patients[order])) + 1)


def _resampled(generator: np.random.Generator, groups: list[np.ndarray]) -> np.ndarray:
    drawn = generator.integers(0, len(groups), len(groups))
    return np.concatenate([groups[i] for i in drawn])
