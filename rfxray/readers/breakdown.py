"""Results in parts: by stratum, by experience of the reader, and along the order of reading."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from rfxray.readers import obuchowski_rockette as pooling
from rfxray.readers.panel import Panel, subset, why_not_estimable
from rfxray.readers.per_reader import ReaderResult
from rfxray.readers.study import Study


@dataclasses.dataclass(frozen=True)
class Part:
    """The mean AUC over some of the cases; not corrected for the number of parts.

    Attributes:
      field: Field of the stratum, such as `view`, or `order`.
      value: Value of it.
      synthetic: Number of synthetic cases; of pairs all are counted here.
      real: Number of real cases.
      mean: Mean AUC over readers, None if it is not estimable.
      interval: Its 95% interval, readers and cases random.
      seconds: Median time of an answer, None if unknown.
      why: Reason why it is not estimable.
    """

    field: str
    value: str
    synthetic: int
    real: int
    mean: float | None
    interval: tuple[float, float] | None
    seconds: float | None
    why: str | None


def _part(
    study: Study, panel: Panel, modality: int, field: str, value: str, cases: np.ndarray
) -> Part:
    part = subset(study, panel.readers, panel.excluded, cases)
    synthetic = len(cases) if study.pairs else int(part.truth.sum())
    times = study.seconds[modality][list(panel.readers)][:, cases]
    times = times[~np.isnan(times)]
    base = Part(
        field=field,
        value=value,
        synthetic=synthetic,
        real=0 if study.pairs else len(cases) - synthetic,
        mean=None,
        interval=None,
        seconds=float(np.median(times)) if len(times) else None,
        why=why_not_estimable(part),
    )
    if base.why:
        return base
    covariance = part.covariance("delong")[modality, :, modality]
    pooled = pooling.reader_mean(part.merit()[modality], covariance)
    if not pooled.se > 0:
        return dataclasses.replace(base, why="no reader's AUC varies over these cases")
    low, high = np.clip(pooled.interval(), 0, 1)  # of an AUC
    return dataclasses.replace(base, mean=float(pooled.mean), interval=(float(low), float(high)))


def by_stratum(study: Study, panel: Panel, modality: int) -> list[Part]:
    """The mean AUC for each value of each field of the cases."""
    found = []
    for field, values in study.strata.items():
        of_panel = np.array([values[k] for k in panel.cases])
        for value in sorted(set(of_panel.tolist()) - {""}):
            cases = panel.cases[of_panel == value]
            found.append(_part(study, panel, modality, field, value, cases))
    return found


@dataclasses.dataclass(frozen=True)
class Trend:
    """Change from the first half of a reader's order to the second: learning, or fatigue.

    Attributes:
      readers: Number of readers with an AUC in both halves.
      change: Mean change of the AUC.
      interval: Its 95% interval over readers, cases fixed.
      seconds: Median time of an answer in the first and the second half.
      why: Reason why the change is not estimable.
    """

    readers: int
    change: float | None
    interval: tuple[float, float] | None
    seconds: tuple[float, float] | None
    why: str | None


def trend(study: Study, panel: Panel, modality: int) -> Trend:
    """Compares the halves of every reader's own order."""
    changes, times = [], ([], [])
    for j in panel.readers:
        items = study.items[modality, j][panel.cases]
        if np.isnan(items).any():
            continue
        late = items > np.median(items)
        areas = []
        for half, cases in enumerate((panel.cases[~late], panel.cases[late])):
            part = subset(study, (j,), {}, cases)
            one = (part.scores[modality] == part.scores[modality, :, :1]).all()
            if study.pairs or (part.truth.any() and not part.truth.all() and not one):
                areas.append(float(part.merit()[modality, 0]))
            seconds = study.seconds[modality, j][cases]
            times[half].extend(seconds[~np.isnan(seconds)])
        if len(areas) == 2:
            changes.append(areas[1] - areas[0])
    spent = None
    if times[0] and times[1]:
        spent = (float(np.median(times[0])), float(np.median(times[1])))
    if len(changes) < 2:
        return Trend(len(changes), None, None, spent, "fewer than two readers with a known order")
    mean, count = float(np.mean(changes)), len(changes)
    half = stats.t.ppf(0.975, count - 1) * np.std(changes, ddof=1) / np.sqrt(count)
    return Trend(count, mean, (float(mean - half), float(mean + half)), spent, None)


@dataclasses.dataclass(frozen=True)
class Experience:
    """AUC by a fact of the readers, such as their years of experience.

    Attributes:
      fact: Name of the fact.
      readers: Readers that gave a number, with the number and their AUC.
      correlation: Spearman's rank correlation.
      p: p of it, by permutation.
      why: Reason why it is not estimable.
    """

    fact: str
    readers: tuple[tuple[str, float, float], ...]
    correlation: float | None
    p: float | None
    why: str | None


# A correlation of four readers has 24 orders, the fewest with which p can be below .05 (one-sided).
LEAST_FOR_EXPERIENCE = 4


def by_experience(study: Study, results: Sequence[ReaderResult]) -> list[Experience]:
    """The AUC against each fact of the files that is a number."""
    facts = sorted({fact for about in study.about.values() for fact in about})
    found = []
    for fact in facts:
        rows = []
        for result in results:
            value = _number(study.about.get(result.reader, {}).get(fact, ""))
            if value is not None and result.auc is not None:
                rows.append((result.reader, value, result.auc))
        if not rows or fact.endswith("sha256"):
            continue
        values, areas = [row[1] for row in rows], [row[2] for row in rows]
        if len(rows) < LEAST_FOR_EXPERIENCE or len(set(values)) < 2 or len(set(areas)) < 2:
            why = (
                f"{len(rows)} readers with a number; {LEAST_FOR_EXPERIENCE} that differ are needed"
            )
            found.append(Experience(fact, tuple(rows), None, None, why))
            continue

        ranks = stats.rankdata(areas)

        def statistic(order: np.ndarray, ranks: np.ndarray = ranks) -> float:
            return np.corrcoef(order, ranks)[0, 1]

        test = stats.permutation_test(
            (stats.rankdata(values),),
            statistic,
            permutation_type="pairings",
            n_resamples=2000,
            rng=0,
        )
        found.append(Experience(fact, tuple(rows), float(test.statistic), float(test.pvalue), None))
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
