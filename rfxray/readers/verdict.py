"""The verdict on one modality, with every analysis beside it."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from rfxray.evaluate import auc
from rfxray.readers import bootstrap, equivalence
from rfxray.readers import obuchowski_rockette as pooling
from rfxray.readers.equivalence import (
    ALPHA,
    CHANCE,
    LEAST_READERS,
    NOT_ESTIMABLE,
    NOT_SHOWN,
    TOLD_APART,
)
from rfxray.readers.obuchowski_rockette import Pooled
from rfxray.readers.one_shot import one_shot
from rfxray.readers.panel import Panel, why_not_estimable
from rfxray.readers.per_reader import ReaderResult

METHODS = ("delong", "jackknife", "unbiased")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean AUC by one method; what is None is not estimable.

    Attributes:
      method: What was done, and what is random.
      mean: Mean over readers.
      se: Standard error.
      df: Degrees of freedom; None is the normal distribution, or a bootstrap.
      interval: 95% interval.
      why: Reason why it is not estimable.
    """

    method: str
    mean: float | None = None
    se: float | None = None
    df: float | None = None
    interval: tuple[float, float] | None = None
    why: str | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The conclusion on one modality.

    Attributes:
      modality: Name.
      verdict: `equivalent within ±M`, `TOLD_APART`, `NOT_SHOWN` or `NOT_ESTIMABLE`.
      reasons: What led to it, a sentence each.
      main: The estimate that the verdict rests on.
      interval_90: The interval that has to lie within the margin.
      tost_p: p of the two one-sided tests.
      difference_p: p against .5.
      distance: Mean distance of readers from .5, corrected for chance.
      others: All other estimates.
    """

    modality: str
    verdict: str
    reasons: tuple[str, ...]
    main: Estimate
    interval_90: tuple[float, float] | None
    tost_p: float | None
    difference_p: float | None
    distance: float | None
    others: tuple[Estimate, ...]


def _estimate(method: str, pooled: Pooled) -> Estimate:
    if not np.isfinite(pooled.se) or pooled.se <= 0 or np.isnan(pooled.df):
        return Estimate(method, why="fewer than two readers with an AUC that varies over cases")
    low, high = np.clip(pooled.interval(), 0, 1)  # of an AUC
    df = float(pooled.df) if np.isfinite(pooled.df) else None
    return Estimate(method, float(pooled.mean), float(pooled.se), df, (float(low), float(high)))


def judge_modality(
    panel: Panel,
    modality: int,
    name: str,
    margin: float,
    method: str,
    names: Sequence[str],
    apart_from_panel: Mapping[str, ReaderResult],
    seed: int,
) -> Verdict:
    """Judges one modality.

    Args:
      panel: Readers and cases of the pooled analysis.
      modality: Index of the modality.
      name: Its name.
      margin: Margin of equivalence.
      method: Covariances that the verdict rests on.
      names: Names of the panel's readers.
      apart_from_panel: Results of readers who are not in the panel; the verdict "equivalent" must
        hold for them as well.
      seed: Seed of the bootstrap.
    """
    main_name = f"Obuchowski–Rockette, readers and cases random, {method}"
    if why := why_not_estimable(panel):
        return _none(name, main_name, why)
    merit = panel.merit()[modality]
    covariance = panel.covariance(method)[modality, :, modality]
    pooled = pooling.reader_mean(merit, covariance)
    main = _estimate(main_name, pooled)
    others = (*_other_estimates(panel, modality, method, seed),)
    synthetic, real = panel.patients()
    variance = np.maximum(np.diagonal(covariance), 0)
    said = equivalence.judge(pooled, merit, variance, synthetic, real, margin, panel.pairs)
    beyond = [n for n, flag in zip(names, said.beyond, strict=True) if flag]
    reasons = _conditions(said, merit, margin, names)
    if main.why and not beyond:
        return dataclasses.replace(_none(name, main_name, main.why), others=others)
    blocked = [
        f"{reader}, who is not in the panel, has an AUC of {result.auc:.3f}, outside of the margin"
        for reader, result in apart_from_panel.items()
        if result.auc is not None
        and result.auc_interval is not None
        and (result.auc_interval[0] > CHANCE + margin or result.auc_interval[1] < CHANCE - margin)
    ]
    enough = len(panel.readers) >= LEAST_READERS
    if not enough:
        blocked.append(f"{len(panel.readers)} readers; {LEAST_READERS} are needed for equivalence")
    if bool(said.equivalent) and not blocked:
        verdict = f"equivalent within ±{margin:g}"
    elif bool(said.apart):
        verdict = TOLD_APART
    else:
        verdict = NOT_SHOWN
    low, high = np.clip(pooled.interval(1 - 2 * ALPHA), 0, 1)
    return Verdict(
        modality=name,
        verdict=verdict,
        reasons=(*reasons, *blocked),
        main=main,
        interval_90=None if main.why else (float(low), float(high)),
        tost_p=None if main.why else float(said.tost_p),
        difference_p=None if main.why else float(said.difference_p),
        distance=float(said.distance),
        others=others,
    )


def _none(name: str, method: str, why: str) -> Verdict:
    main = Estimate(method, why=why)
    return Verdict(name, NOT_ESTIMABLE, (why,), main, None, None, None, None, ())


def _conditions(
    said: equivalence.Judgement, merit: np.ndarray, margin: float, names: Sequence[str]
) -> list[str]:
    """Each condition of the verdict as a sentence."""

    def listed(flags: np.ndarray) -> str:
        chosen = zip(names, merit, flags, strict=True)
        return ", ".join(f"{name} ({area:.3f})" for name, area, flag in chosen if flag)

    within = f".5 ± {margin:g}".replace("0.", ".")
    found = []
    if np.isfinite(said.tost_p):
        accepts = "lies" if said.tost_p < ALPHA else "does not lie"
        found.append(
            f"the 90% interval of the mean {accepts} within {within} (TOST p {said.tost_p:.3g})"
        )
        differs = "differs" if said.difference_p < ALPHA else "does not differ significantly"
        found.append(f"the mean {differs} from .5 (p {said.difference_p:.3g})")
    if outside := listed(~said.overlaps):
        found.append(f"intervals of readers that do not overlap {within}: {outside}")
    else:
        found.append(f"the interval of every reader overlaps {within}")
    if said.beyond.any():
        found.append(f"readers who tell them apart beyond the margin: {listed(said.beyond)}")
    if (doubtful := said.telling & ~said.beyond).any():
        found.append(
            f"readers outside of {within} with an interval that excludes .5: {listed(doubtful)}"
        )
    below = "below" if said.distance < margin else "not below"
    found.append(
        f"the mean distance of readers from .5, corrected for chance, is {said.distance:.3f}, "
        f"{below} the margin"
    )
    return found


def _other_estimates(panel: Panel, modality: int, method: str, seed: int) -> list[Estimate]:
    merit, scores = panel.merit()[modality], panel.scores[modality]
    found = []
    main = panel.covariance(method)[modality, :, modality]
    for other in () if panel.pairs else METHODS:
        if other == method:
            continue
        title = f"Obuchowski–Rockette, readers and cases random, {other}"
        if other == "unbiased" and panel.clustered:
            found.append(Estimate(title, why="several films of a patient"))
            continue
        covariance = panel.covariance(other)[modality, :, modality]
        found.append(_estimate(title, pooling.reader_mean(merit, covariance)))
    found.append(_estimate("these readers, cases random", pooling.fixed_readers(merit, main)))
    found.append(_estimate("readers random, these cases", pooling.fixed_cases(merit)))
    rng = np.random.default_rng(seed)
    title = "bootstrap of readers and patients"
    if panel.pairs:
        interval = bootstrap.of_proportions(scores, panel.patient, rng)
        found.append(Estimate(title, float(merit.mean()), interval=interval))
        return found
    found.append(_gallas(panel, modality))
    patients = panel.patient[panel.truth], panel.patient[~panel.truth]
    interval = bootstrap.reader_case(auc.wins(scores, panel.truth), *patients, rng)
    found.append(Estimate(title, float(merit.mean()), interval=interval))
    return found


def _gallas(panel: Panel, modality: int) -> Estimate:
    """Gallas' variance, with the degrees of freedom of the unbiased covariances."""
    title = "Gallas' one-shot estimate, readers and cases random"
    if panel.clustered:
        return Estimate(title, why="several films of a patient")
    merit = panel.merit()[modality]
    variance = one_shot(panel.scores[modality], panel.truth).variance
    if variance <= 0:
        return Estimate(title, why=f"the estimate of the variance is {variance:.2g}")
    df = pooling.reader_mean(merit, panel.covariance("unbiased")[modality, :, modality]).df
    return _estimate(title, Pooled(merit.mean(), np.sqrt(variance), df))
