"""What classifiers read of a test set, by how they were trained: AUROC, rates, and gaps by group.

Every classifier calls as many films positive as there are (the threshold of a finding is the
quantile of its scores), so those of two trainings miss and alarm at the same number of calls. A gap
is the figure of a group less that of the other films of which the attribute is known:
`missed` (1 − sensitivity) and `alarmed` (1 − specificity) over the pathologies, and
`underdiagnosed`, the share of films with a pathology that are called No Finding (Seyyed-Kalantari
et al. 2021, Nat Med 27:2176).
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from rfxray.attributes.vocabulary import FINDING_NAMES, INDEX, PATHOLOGY_NAMES, Attributes
from rfxray.errors import DataError
from rfxray.evaluate import intervals, strata
from rfxray.evaluate.figure import Figure
from rfxray.evaluate.utility import estimates
from rfxray.evaluate.utility.estimates import Estimates

AUROC, MISSED, ALARMED, UNDERDIAGNOSED = "AUROC", "missed", "alarmed", "underdiagnosed"
MEASURES = (AUROC, MISSED, ALARMED, UNDERDIAGNOSED)
MEAN = "mean"  # over the findings
REAL, SYNTHETIC, BOTH, THEN = "real", "synthetic", "both", "synthetic then real"
MORE = "more real then real"  # further real images in the place of the synthetic ones
AGAIN = "real, twice the steps"
# What a training is compared with: reals only, for as many steps.
_BASES = {SYNTHETIC: REAL, BOTH: REAL, THEN: AGAIN, MORE: AGAIN}
_BAND = 20  # years
_SAME = ("view", "sex", "race", "source")

# How a classifier was trained, and the share of the real images that it had (0: none).
Training: TypeAlias = tuple[str, float]


@dataclasses.dataclass(frozen=True)
class Row:
    """A figure.

    Attributes:
      training: How the classifiers were trained.
      fraction: Share of the real images that they had.
      measure: One of `MEASURES`.
      finding: Finding, or `MEAN`.
      group: Group of films such as `sex=F`; empty for all.
      of: `value`, `gap` (the group less the others), `gain` (less that of the real images only, at
        the same share and for as many steps), `gap change` (likewise of a gap), or `share of the
        gain`.
      figure: The figure, over the seeds.
    """

    training: str
    fraction: float
    measure: str
    finding: str
    group: str
    of: str
    figure: Figure


@dataclasses.dataclass(frozen=True)
class Films:
    """The test set.

    Attributes:
      attributes: What is known of each film, [n, 19].
      patients: Patient of each film, [n] int.
    """

    attributes: Attributes
    patients: np.ndarray

    def truth(self, finding: str) -> tuple[np.ndarray, np.ndarray]:
        """Whether a finding is present, and whether that is known, [n] bool each."""
        column = INDEX[finding]
        known = np.asarray(self.attributes.known)[:, column]
        return known & (np.asarray(self.attributes.values)[:, column] > 0.5), known

    def enough(self, finding: str, among: np.ndarray) -> str | None:
        """Why the films that count are too few to judge a finding; None if they are enough."""
        present, known = self.truth(finding)
        sides = [among & present, among & known & ~present]
        counts = [len(np.unique(self.patients[side])) for side in sides]
        if min(counts) >= intervals.LEAST:
            return None
        least = intervals.LEAST
        return f"it needs {least} patients with and {least} without (got {counts[0]}, {counts[1]})"


def groups(attributes: Attributes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The films of each group, and those of which its attribute is known, [n] bool each.

    Groups are views, sexes, races, sources and bands of 20 years of age, with at least
    `strata.LEAST` films each, and as many others.
    """
    parts = strata.of(attributes)
    found: dict[str, np.ndarray] = {}
    for name, mask in parts.items():
        attribute, _, value = name.partition("=")
        if attribute == "age":
            low = int(value.split()[0]) // _BAND * _BAND
            name = f"age={low} to {low + _BAND - 1}"
        elif attribute not in _SAME:
            continue
        found[name] = found.get(name, np.zeros(len(mask), bool)) | mask
    known = np.asarray(attributes.known)
    both = {name: (mask, known[:, INDEX[name.partition("=")[0]]]) for name, mask in found.items()}
    return {
        name: (mask, there)
        for name, (mask, there) in both.items()
        if min(mask.sum(), (there & ~mask).sum()) >= strata.LEAST
    }


def judged(films: Films) -> tuple[list[str], dict[str, str]]:
    """The findings that the test set can judge, and why it cannot judge the others.

    Raises:
      DataError: If it can judge none.
    """
    everyone = np.ones(len(films.patients), bool)
    reasons = {name: films.enough(name, everyone) for name in FINDING_NAMES}
    names = [name for name, why in reasons.items() if why is None]
    if not names:
        first = next(iter(reasons))
        raise DataError(
            f"the test set can judge no finding ({first}: {reasons[first]}); give more test images"
        )
    return names, {name: why for name, why in reasons.items() if why is not None}


def rows(read: Mapping[Training, np.ndarray], films: Films) -> list[Row]:
    """Every figure of every training.

    Args:
      read: Scores of each training, [seeds, n, 14], in the order of `FINDING_NAMES`.
      films: Test set.

    Raises:
      DataError: See `judged`.
    """
    names, _ = judged(films)
    found: list[Row] = []
    own = {training: _Read(scores, films, names) for training, scores in read.items()}
    parts = groups(films.attributes)

    def add(training: Training, measure: str, finding: str, group: str, of: str, what: Estimates):
        within = (0.0, 1.0) if of == "value" else (-np.inf, np.inf)
        shown = estimates.figure(measure, what, films.patients, within)
        found.append(Row(*training, measure, finding, group, of, shown))

    for training, one in own.items():
        base = own.get((_BASES.get(training[0], ""), training[1]))
        for finding, measure, value in one.overall():
            add(training, measure, finding, "", "value", value)
            if base is not None:
                add(training, measure, finding, "", "gain", value - base.of(finding, measure))
        for group, (mask, there) in parts.items():
            for measure in MEASURES:
                value, gap = one.grouped(measure, mask, there)
                add(training, measure, MEAN, group, "value", value)
                add(training, measure, MEAN, group, "gap", gap)
                if base is not None:
                    change = gap - base.grouped(measure, mask, there)[1]
                    add(training, measure, MEAN, group, "gap change", change)
    for (name, fraction), one in own.items():
        more, real = own.get((MORE, fraction)), own.get((AGAIN, fraction))
        if name == THEN and more is not None and real is not None:
            of = [each.of(MEAN, AUROC) - real.of(MEAN, AUROC) for each in (one, more)]
            whole = estimates.figure(AUROC, of[1], films.patients)
            if whole.low is None or whole.low <= 0:
                why = "further real images gain nothing that is beyond chance"
                seeds, images = of[0].influence.shape
                part = estimates.missing(seeds, images, why)
            else:
                part = estimates.ratio(*of)
            add((name, fraction), AUROC, MEAN, "", "share of the gain", part)
    return found


class _Read:
    """What the classifiers of one training say of the test set."""

    def __init__(self, scores: np.ndarray, films: Films, names: Sequence[str]):
        self._films, self._names = films, names
        self._scores = {name: scores[..., FINDING_NAMES.index(name)] for name in names}
        self._calls = {name: self._called(name) for name in names}
        self._shape = (scores.shape[0], scores.shape[1])
        self._everyone = np.ones(scores.shape[1], bool)

    def _called(self, name: str) -> np.ndarray:
        present, known = self._films.truth(name)
        scores = self._scores[name]
        limit = -np.sort(-scores[:, known], axis=1)[:, present.sum() - 1]
        return scores >= limit[:, None]

    def overall(self) -> Iterator[tuple[str, str, Estimates]]:
        """Finding, measure and figures over all films."""
        for name in (*self._names, MEAN):
            yield name, AUROC, self.of(name, AUROC)
        for measure in MEASURES[1:]:
            yield MEAN, measure, self.of(MEAN, measure)

    def of(self, finding: str, measure: str) -> Estimates:
        """A figure over all films."""
        if finding != MEAN:
            return self._one(finding, measure, self._everyone)
        return self._mean(measure, self._everyone, self._usable(measure))

    def grouped(
        self, measure: str, mask: np.ndarray, there: np.ndarray
    ) -> tuple[Estimates, Estimates]:
        """The figure of a group, and its gap to the others.

        Both are over the findings that both sides can judge.
        """
        others = there & ~mask
        names, why = [], "no finding has enough patients on both sides"
        for name in self._usable(measure):
            short = self._films.enough(name, mask) or self._films.enough(name, others)
            why = f"{name} of a group or of the others: {short}" if short else why
            names += [] if short else [name]
        if not names:
            nothing = estimates.missing(*self._shape, why)
            return nothing, nothing
        value = self._mean(measure, mask, names)
        return value, value - self._mean(measure, others, names)

    def _usable(self, measure: str) -> list[str]:
        if measure == UNDERDIAGNOSED:
            return [name for name in self._names if name == "no_finding"]
        wanted = FINDING_NAMES if measure == AUROC else PATHOLOGY_NAMES
        return [name for name in self._names if name in wanted]

    def _mean(self, measure: str, among: np.ndarray, names: Sequence[str]) -> Estimates:
        if not names:
            why = "the test set can judge no finding that it needs"
            return estimates.missing(*self._shape, why)
        return estimates.mean([self._one(name, measure, among) for name in names])

    def _one(self, name: str, measure: str, among: np.ndarray) -> Estimates:
        present, known = self._films.truth(name)
        calls = self._calls[name]
        if measure == AUROC:
            return estimates.auroc(self._scores[name], present, among & known)
        if measure == MISSED:
            return estimates.share(~calls, among & present)
        return estimates.share(calls, among & known & ~present)
