"""What one reader did: accuracy with an exact interval, AUC, and d′."""

import dataclasses

import numpy as np
from scipy import stats

from rfxray.evaluate import auc
from rfxray.readers.equivalence import reader_interval
from rfxray.readers.study import Study

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class ReaderResult:
    """Results of a reader under one modality; None is "not estimable".

    Attributes:
      reader: Name.
      modality: Name.
      answered: Number of cases with an answer.
      cases: Number of cases of the study.
      auc: AUC, or the share of correct pairs.
      auc_interval: Its 95% interval over patients.
      decided: Number of answers that are not "undecided"; pairs are always decided.
      accuracy: Share of them that is right.
      accuracy_interval: Exact 95% interval (Clopper and Pearson), films taken as independent.
      hits: Share of the synthetic images that were called synthetic, among the decided.
      false_alarms: Share of the real images that were called synthetic, among the decided.
      d_prime: Sensitivity d′; not estimable if a share is 0 or 1.
      d_prime_interval: Interval from the exact intervals of both shares, at least 95%.
    """

    reader: str
    modality: str
    answered: int
    cases: int
    auc: float | None
    auc_interval: Interval | None
    decided: int
    accuracy: float | None
    accuracy_interval: Interval | None
    hits: float | None
    false_alarms: float | None
    d_prime: float | None
    d_prime_interval: tuple[float | None, float | None] | None


def exact_interval(right: int, count: int, level: float = 0.95) -> Interval:
    """Interval of a proportion by Clopper and Pearson (1934)."""
    low = stats.beta.ppf((1 - level) / 2, right, count - right + 1) if right else 0.0
    high = stats.beta.ppf(0.5 + level / 2, right + 1, count - right) if right < count else 1.0
    return float(low), float(high)


def constant(study: Study, modality: int, reader: int) -> bool:
    """Whether a reader gave one answer to everything: always "real", or always left."""
    given = study.choices[modality, reader]
    given = given[~np.isnan(given)]
    return len(given) > 0 and bool((given == given[0]).all())


def reader_result(study: Study, modality: int, reader: int) -> ReaderResult:
    """Results of one reader from all answers of this reader, no matter what others answered."""
    scores = study.scores[modality, reader]
    seen = ~np.isnan(scores)
    scores, truth, patient = scores[seen], study.truth[seen], study.patient[seen]
    area, interval = _area(study, scores, truth, patient, constant(study, modality, reader))
    accuracy = _Accuracy.of(study, scores, truth)
    return ReaderResult(
        reader=study.readers[reader],
        modality=study.modalities[modality],
        answered=int(seen.sum()),
        cases=len(study.cases),
        auc=area,
        auc_interval=interval,
        **dataclasses.asdict(accuracy),
    )


def _area(
    study: Study, scores: np.ndarray, truth: np.ndarray, patient: np.ndarray, same: bool
) -> tuple[float | None, Interval | None]:
    if same or len(scores) == 0:
        return None, None
    if study.pairs:
        merit = float(scores.mean())
        if len(np.unique(patient)) < 2:
            return merit, None
        if merit in (0.0, 1.0):
            return merit, exact_interval(int(merit) * len(scores), len(scores))
        variance = auc.of_proportions(scores[None], patient)[0, 0]
        low, high = reader_interval(np.array(merit), variance, len(scores), len(scores))
        return merit, (float(low), float(high))
    kinds = [len(np.unique(patient[kind])) for kind in (truth, ~truth)]
    if min(kinds) == 0:
        return None, None
    placed = auc.placements(scores[None], truth)
    merit = float(auc.area(placed, truth)[0])
    if min(kinds) < 2:
        return merit, None
    variance = auc.delong(placed, truth, patient)[0, 0]
    low, high = reader_interval(np.array(merit), variance, kinds[0], kinds[1])
    return merit, (float(low), float(high))


@dataclasses.dataclass(frozen=True)
class _Accuracy:
    decided: int
    accuracy: float | None = None
    accuracy_interval: Interval | None = None
    hits: float | None = None
    false_alarms: float | None = None
    d_prime: float | None = None
    d_prime_interval: tuple[float | None, float | None] | None = None

    @classmethod
    def of(cls, study: Study, scores: np.ndarray, truth: np.ndarray) -> "_Accuracy":
        if study.pairs:
            count, right = len(scores), int(scores.sum())
            if not count:
                return cls(0)
            interval = exact_interval(right, count)
            share = right / count
            return cls(
                decided=count,
                accuracy=share,
                accuracy_interval=interval,
                d_prime=_finite(np.sqrt(2) * stats.norm.ppf(share)),
                d_prime_interval=_finite_ends(*(np.sqrt(2) * stats.norm.ppf(interval))),
            )
        if study.middle is None:
            return cls(0)
        decided = scores != study.middle
        called, truth = scores[decided] > study.middle, truth[decided]
        if not len(called):
            return cls(0)
        right = int((called == truth).sum())
        found = cls(len(called), right / len(called), exact_interval(right, len(called)))
        if not truth.any() or truth.all():
            return found
        shares, ends = [], []
        for kind in (truth, ~truth):
            count, yes = int(kind.sum()), int(called[kind].sum())
            shares.append(yes / count)
            # Both hold at once in at least 95%: they are of different images.
            ends.append(stats.norm.ppf(exact_interval(yes, count, np.sqrt(0.95))))
        deviates = stats.norm.ppf(shares)
        with np.errstate(invalid="ignore"):
            difference = deviates[0] - deviates[1]
            interval = _finite_ends(ends[0][0] - ends[1][1], ends[0][1] - ends[1][0])
        return dataclasses.replace(
            found,
            hits=shares[0],
            false_alarms=shares[1],
            d_prime=_finite(difference),
            d_prime_interval=interval,
        )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _finite_ends(low: float, high: float) -> tuple[float | None, float | None]:
    """Ends of an interval; None is an end that is open."""
    return _finite(low), _finite(high)
