"""Everything that a study says, as one tree of dataclasses: no files, no pages."""

import dataclasses
import itertools

import numpy as np

from rfxray.readers import attention, diagnosis
from rfxray.readers import obuchowski_rockette as pooling
from rfxray.readers.agreement import Agreement, agreement
from rfxray.readers.breakdown import Experience, Part, Trend, by_experience, by_stratum, trend
from rfxray.readers.panel import panel as panel_of
from rfxray.readers.panel import why_not_estimable
from rfxray.readers.per_reader import ReaderResult, reader_result
from rfxray.readers.study import Study
from rfxray.readers.verdict import Verdict, judge_modality


@dataclasses.dataclass(frozen=True)
class Difference:
    """Two modalities, the first minus the second."""

    first: str
    second: str
    difference: float
    se: float
    interval: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The test that modalities have the same mean AUC.

    Attributes:
      random: What is a sample: `both`, `cases` or `readers`.
      test: Statistic with its parts.
      differences: Each two modalities.
    """

    random: str
    test: pooling.Comparison
    differences: tuple[Difference, ...]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Agreement of a reader with itself (on repeats) or with another one."""

    modality: str
    first: str
    second: str
    found: Agreement


@dataclasses.dataclass(frozen=True)
class Analysis:
    """All results of a study.

    Attributes:
      study: Name of the study.
      margin: Margin of equivalence.
      method: Covariances that verdicts rest on.
      pairs: Whether two images were shown side by side.
      counts: Numbers of readers, cases and patients, in the study and in the panel.
      clustered: Whether a patient has several cases in the panel.
      excluded: Reason for each reader that the pooled results leave out.
      left_out: What else was not analysed, and how often.
      readers: Results of every reader under every modality.
      verdicts: A verdict for each modality.
      comparisons: Tests of modalities against each other.
      intra: Agreement of readers with themselves.
      inter: Agreement of each two readers.
      parts: Results by stratum, of each modality.
      trends: Learning and fatigue, of each modality.
      experience: Results by experience, of each modality.
      controls: Results on controls; only the degraded ones can change a verdict, from "equivalent".
      diagnosis: Results of the phase of diagnosis, on which no verdict depends.
    """

    study: str
    margin: float
    method: str
    pairs: bool
    counts: dict[str, int]
    clustered: bool
    excluded: dict[str, str]
    left_out: dict[str, int]
    readers: tuple[ReaderResult, ...]
    verdicts: tuple[Verdict, ...]
    comparisons: tuple[Comparison, ...]
    intra: tuple[Pair, ...]
    inter: tuple[Pair, ...]
    parts: dict[str, tuple[Part, ...]]
    trends: dict[str, Trend]
    experience: dict[str, tuple[Experience, ...]]
    controls: tuple[attention.ControlResult, ...]
    diagnosis: tuple[diagnosis.Finding, ...]


def analyse(study: Study, margin: float, method: str = "delong", seed: int = 0) -> Analysis:
    """Analyses a study.

    Args:
      study: Answers and truth.
      margin: Margin of equivalence, on the scale of AUC.
      method: Covariances for the verdict, one of `verdict.METHODS`.
      seed: Seed of the bootstrap.
    """
    panel = panel_of(study)
    if method == "unbiased" and panel.clustered:
        method = "delong"
    places = [(i, j) for i in range(len(study.modalities)) for j in range(len(study.readers))]
    results = {place: reader_result(study, *place) for place in places}
    names = [study.readers[j] for j in panel.readers]
    controlled = attention.results(study)
    verdicts = [
        judge_modality(
            panel,
            i,
            modality,
            margin,
            method,
            names,
            {study.readers[j]: results[i, j] for j in panel.excluded},
            seed,
        )
        for i, modality in enumerate(study.modalities)
    ]
    modalities = dict(enumerate(study.modalities))
    return Analysis(
        study=study.name,
        margin=margin,
        method=method,
        pairs=study.pairs,
        counts={
            "readers": len(study.readers),
            "readers_analysed": len(panel.readers),
            "cases": len(study.cases),
            "cases_analysed": len(panel.cases),
            "synthetic_analysed": len(panel.cases) if study.pairs else int(panel.truth.sum()),
            "real_analysed": len(panel.cases) if study.pairs else int((~panel.truth).sum()),
            "patients_analysed": len(np.unique(panel.patient)),
        },
        clustered=panel.clustered,
        excluded={study.readers[j]: why for j, why in panel.excluded.items()},
        left_out=_left_out(study, panel.readers, len(panel.cases)),
        readers=tuple(results.values()),
        verdicts=tuple(attention.judged(each, study, controlled, names) for each in verdicts),
        controls=controlled,
        comparisons=_comparisons(study, panel, method),
        intra=_intra(study),
        inter=_inter(study),
        parts={m: tuple(by_stratum(study, panel, i)) for i, m in modalities.items()},
        trends={m: trend(study, panel, i) for i, m in modalities.items()},
        experience={
            m: tuple(by_experience(study, [results[i, j] for j in range(len(study.readers))]))
            for i, m in modalities.items()
        },
        diagnosis=diagnosis.analyse(study.diagnosis) if study.diagnosis else (),
    )


def _left_out(study: Study, readers: tuple[int, ...], analysed: int) -> dict[str, int]:
    found = dict(study.left_out)
    if analysed < len(study.cases) and readers:
        found["cases that a reader of the panel left open"] = len(study.cases) - analysed
    return found


def _comparisons(study: Study, panel, method: str) -> tuple[Comparison, ...]:
    if len(study.modalities) < 2 or why_not_estimable(panel):
        return ()
    merit, covariance = panel.merit(), panel.covariance(method)
    means, found = merit.mean(1), []
    for random in ("both", "cases", "readers"):
        test = pooling.compare(merit, covariance, random)
        differences = []
        for i, k in itertools.combinations(range(len(study.modalities)), 2):
            if test.difference_se is None:
                continue
            df = np.asarray(np.inf if test.df[1] is None else test.df[1])
            pooled = pooling.Pooled(means[i] - means[k], np.asarray(test.difference_se), df)
            low, high = pooled.interval()
            names = study.modalities[i], study.modalities[k]
            interval = float(low), float(high)
            differences.append(Difference(*names, float(pooled.mean), test.difference_se, interval))
        found.append(Comparison(random, test, tuple(differences)))
    return tuple(found)


def _categories(study: Study, scores: np.ndarray) -> np.ndarray:
    """Answers as categories: real, undecided, synthetic; for pairs wrong and right."""
    if study.pairs:
        return scores.astype(int)
    assert study.middle is not None
    return (np.sign(scores - study.middle) + 1).astype(int)


def _intra(study: Study) -> tuple[Pair, ...]:
    found = []
    if not study.pairs and study.middle is None:
        return ()
    for i, modality in enumerate(study.modalities):
        for j, reader in enumerate(study.readers):
            rows = [r for r in study.repeats if (r.modality, r.reader) == (i, j)]
            if not rows:
                continue
            first = _categories(study, np.array([r.first for r in rows]))
            again = _categories(study, np.array([r.again for r in rows]))
            patient = study.patient[[r.case for r in rows]]
            count = 2 if study.pairs else 3
            found.append(Pair(modality, reader, reader, agreement(first, again, patient, count)))
    return tuple(found)


def _inter(study: Study) -> tuple[Pair, ...]:
    found = []
    if not study.pairs and study.middle is None:
        return ()
    for i, modality in enumerate(study.modalities):
        for j, k in itertools.combinations(range(len(study.readers)), 2):
            scores = study.scores[i][[j, k]]
            both = ~np.isnan(scores).any(0)
            first, second = _categories(study, scores[:, both])
            count = 2 if study.pairs else 3
            pair = agreement(first, second, study.patient[both], count)
            found.append(Pair(modality, study.readers[j], study.readers[k], pair))
    return tuple(found)
