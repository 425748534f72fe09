"""Whether a classifier leans on an attribute, from what it says of twins.

A twin is the same radiograph with one attribute changed. `drift` is by how much the change moves
the probability of a finding. If patients are changed in both directions (F → M and M → F), it is
half the difference of the two mean movements: what an edit does whatever its direction, such as
its traces in the pixels, falls out of it.

Two placebos stand beside it. The round trip edits without a change. The other placebo changes an
attribute that has nothing to do with the first, enlarged until it moves as many grey levels in
each radiograph; its drift is taken over the same patients with the same signs.

A finding *leans* if its drift is above the margin, and above that of both placebos, each by an
interval; it *does not lean* if the interval of the drift is within the margin, and else is not
decided. Intervals are by patient, and together of 95% over all findings (Bonferroni), so all of
them hold the truth in 95% of studies.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from rfxray.errors import DataError
from rfxray.evaluate import intervals
from rfxray.evaluate.figure import Figure, not_estimable

LEANS, DOES_NOT, UNDECIDED = "leans", "does not lean", "not decided"
LEVEL = 0.05  # of all verdicts together
MARGIN = 0.05  # of probability: a smaller drift is of no consequence
THRESHOLD = 0.5  # of a probability, from which on a finding counts as read
SMALLEST_GROUP = 20  # pairs of each direction, from which on a subgroup has a figure


@dataclasses.dataclass(frozen=True)
class Twins:
    """Probabilities of one finding.

    Attributes:
      before: Those of the radiographs, [n].
      after: Those of their twins, [n].
      placebo: Those of the unrelated edit of equal size, [n], NaN for pairs without one; None if
        there is none at all.
      nothing: Those of the round trip, [n]; None if there is none.
    """

    before: Float[np.ndarray, " n"]
    after: Float[np.ndarray, " n"]
    placebo: Float[np.ndarray, " n"] | None
    nothing: Float[np.ndarray, " n"] | None

    def rows(self, which: np.ndarray) -> "Twins":
        """Some of the pairs."""
        placebo, nothing = (None if p is None else p[which] for p in (self.placebo, self.nothing))
        return Twins(self.before[which], self.after[which], placebo, nothing)


@dataclasses.dataclass(frozen=True)
class Group:
    """Drift in a subgroup less that in all other pairs.

    Attributes:
      name: Name such as `view=PA`.
      drift: Drift in the subgroup.
      gap: Difference.
    """

    name: str
    drift: Figure
    gap: Figure


@dataclasses.dataclass(frozen=True)
class Finding:
    """What the twins show of one finding.

    Attributes:
      name: Name of the finding.
      verdict: `LEANS`, `DOES_NOT` or `UNDECIDED`.
      why: Reason of the verdict, in words.
      drift: Drift of the change.
      by_direction: Mean movement of the pairs of each direction.
      placebo: Drift of the placebo, with the same signs.
      placebo_mean: Mean movement by the placebo: what any edit of this size does to the score.
      nothing: Drift of the round trip.
      excess: Size of the drift less that of the placebo.
      flips: Share of the pairs in which the finding is read in one twin only.
      placebo_flips: The same of the placebo.
      nothing_flips: The same of the round trip.
      groups: Subgroups.
      left_out: Pairs in which the finding itself follows the change, which are in no figure.
    """

    name: str
    verdict: str
    why: str
    drift: Figure
    by_direction: Mapping[str, Figure]
    placebo: Figure
    placebo_mean: Figure
    nothing: Figure
    excess: Figure
    flips: Figure
    placebo_flips: Figure
    nothing_flips: Figure
    groups: list[Group]
    left_out: int


@dataclasses.dataclass(frozen=True)
class Pairs:
    """What is known of the pairs, whatever reads them.

    Attributes:
      sign: 1 for a change towards the later value of the vocabulary, −1 for one away from it, [n].
      patients: Number of the patient of each pair, [n].
      directions: Name of each direction such as `F → M`, by sign.
      groups: Pairs of each subgroup, by name.
    """

    sign: Int[np.ndarray, " n"]
    patients: Int[np.ndarray, " n"]
    directions: Mapping[int, str]
    groups: Mapping[str, Bool[np.ndarray, " n"]]

    def rows(self, which: np.ndarray) -> "Pairs":
        """Some of the pairs."""
        groups = {name: mask[which] for name, mask in self.groups.items()}
        return Pairs(self.sign[which], self.patients[which], self.directions, groups)


def judge(
    twins: Mapping[str, Twins],
    pairs: Pairs,
    followed: Mapping[str, Bool[np.ndarray, " n"]] | None = None,
    margin: float = MARGIN,
    threshold: float = THRESHOLD,
) -> list[Finding]:
    """The verdict on each finding.

    Args:
      twins: Probabilities, by finding.
      pairs: What is known of the pairs.
      followed: Pairs in which a finding itself follows the change, by finding.
      margin: Drift, of probability, that is of no consequence.
      threshold: Probability from which on a finding counts as read.

    Raises:
      DataError: If no pair is left of a finding.
    """
    level, found = LEVEL / max(len(twins), 1), []
    for name, own in twins.items():
        out = (followed or {}).get(name, np.zeros(len(own.before), bool))
        if out.all():
            raise DataError(f"no pair is left of {name}: it follows the change in all of them")
        found.append(
            _judged(
                *(name, own.rows(~out), pairs.rows(~out), int(out.sum())),
                *(level, margin, threshold),
            )
        )
    return found


def overall(findings: list[Finding]) -> str:
    """The verdict on a classifier: it leans if it does for any finding."""
    verdicts = {each.verdict for each in findings}
    return LEANS if LEANS in verdicts else UNDECIDED if UNDECIDED in verdicts else DOES_NOT


def contrast(
    moved: Float[np.ndarray, " n"], sign: Int[np.ndarray, " n"]
) -> tuple[float, Float[np.ndarray, " n"]]:
    """The drift, and the influence of each pair on it (their mean is 0).

    Args:
      moved: Movement of the probability of each pair.
      sign: Direction of each pair, 1 or −1.
    """
    sides = [side for side in (1, -1) if (sign == side).any()]
    value, influence = 0.0, np.zeros(len(moved))
    for side in sides:
        rows = sign == side
        mean = float(moved[rows].mean())
        value += side * mean / len(sides)
        influence[rows] = side * (moved[rows] - mean) * len(moved) / rows.sum() / len(sides)
    return value, influence


def _judged(
    name: str,
    of: Twins,
    pairs: Pairs,
    left_out: int,
    level: float,
    margin: float,
    threshold: float,
) -> Finding:
    sign, patients, n = pairs.sign, pairs.patients, len(of.before)
    moved = of.after - of.before
    value, influence = contrast(moved, sign)
    drift = _figure("drift", value, influence, patients)
    wide = _half(influence, patients, level)
    absent = not_estimable("drift", n, n, "these pairs have no such placebo")
    placebo, placebo_mean, nothing, excess = absent, absent, absent, absent
    beyond = []  # whether the drift is above that of each placebo
    placebo_flips, nothing_flips = absent, absent
    if of.placebo is not None and (there := np.isfinite(of.placebo)).any():
        by = (of.placebo - of.before)[there]
        other, own = contrast(by, sign[there])
        placebo = _figure("drift", other, own, patients[there])
        placebo_mean = _figure("mean movement", float(by.mean()), by - by.mean(), patients[there])
        matched, also = contrast(moved[there], sign[there])
        both = np.sign(matched) * also - np.sign(other) * own
        size = abs(matched) - abs(other)
        excess = _figure("excess", size, both, patients[there])
        beyond.append(size - _half(both, patients[there], level) > 0)
        placebo_flips = _flips(of.before[there], of.placebo[there], patients[there], threshold)
    if of.nothing is not None:
        other, own = contrast(of.nothing - of.before, sign)
        nothing = _figure("drift", other, own, patients)
        both = np.sign(value) * influence - np.sign(other) * own
        beyond.append(abs(value) - abs(other) - _half(both, patients, level) > 0)
        nothing_flips = _flips(of.before, of.nothing, patients, threshold)
    if len(np.unique(patients)) < intervals.LEAST:
        verdict, why = UNDECIDED, f"it needs {intervals.LEAST} patients"
    elif len(beyond) < 2:
        verdict, why = UNDECIDED, "a placebo is missing"
    elif abs(value) - wide > margin and all(beyond):
        verdict, why = LEANS, f"its drift is above {margin:g} and above that of both placebos"
    elif abs(value) + wide < margin:
        verdict, why = DOES_NOT, f"its drift is within {margin:g}"
    elif abs(value) - wide > margin:
        verdict, why = UNDECIDED, "an unrelated edit of equal size moves it as much"
    else:
        verdict, why = UNDECIDED, f"the interval of its drift holds {margin:g}; take more pairs"
    return Finding(
        name=name,
        verdict=verdict,
        why=why,
        drift=drift,
        by_direction={
            words: _mean("mean movement", moved[rows], patients[rows])
            for side, words in pairs.directions.items()
            if (rows := sign == side).any()
        },
        placebo=placebo,
        placebo_mean=placebo_mean,
        nothing=nothing,
        excess=excess,
        flips=_flips(of.before, of.after, patients, threshold),
        placebo_flips=placebo_flips,
        nothing_flips=nothing_flips,
        groups=_groups(moved, pairs),
        left_out=left_out,
    )


def _groups(moved: np.ndarray, pairs: Pairs) -> list[Group]:
    """The subgroups that have, as all other pairs, enough pairs of each direction."""
    found, sides = [], np.unique(pairs.sign)
    for name, mask in pairs.groups.items():
        parts = [pairs.sign[each] for each in (mask, ~mask)]
        if min((part == side).sum() for part in parts for side in sides) < SMALLEST_GROUP:
            continue
        influence = np.zeros(len(moved))
        values = []
        for each, side in ((mask, 1), (~mask, -1)):
            value, own = contrast(moved[each], pairs.sign[each])
            values.append(value)
            influence[each] = side * own * len(moved) / each.sum()
        inside = _figure("drift", values[0], influence[mask], pairs.patients[mask], mask.mean())
        gap = _figure("gap", values[0] - values[1], influence, pairs.patients)
        found.append(Group(name, inside, gap))
    return found


def _mean(name: str, values: np.ndarray, patients: np.ndarray) -> Figure:
    return _figure(name, float(values.mean()), values - values.mean(), patients)


def _figure(
    name: str, value: float, influence: np.ndarray, patients: np.ndarray, share: float = 1.0
) -> Figure:
    """A figure with its 95% interval; the influence is of the mean, times 1 / share."""
    variance, count = intervals.cluster_variance(influence * share, patients)
    return intervals.student(name, value, variance, count, len(influence), len(influence))


def _half(influence: np.ndarray, patients: np.ndarray, level: float) -> float:
    """Half the width of the interval of this level."""
    variance, count = intervals.cluster_variance(influence, patients)
    return float(stats.t.ppf(1 - level / 2, max(count - 1, 1)) * np.sqrt(variance))


def _flips(before: np.ndarray, after: np.ndarray, patients: np.ndarray, threshold: float) -> Figure:
    hits = (before >= threshold) != (after >= threshold)
    return intervals.proportion("flips", hits, patients, len(hits), len(hits))
