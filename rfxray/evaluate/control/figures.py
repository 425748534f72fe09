"""How well a classifier reads what was requested, an attribute at a time, with intervals.

A finding, a sex or a view is a question with two answers: this value or another one. Of each
question: the area under the ROC curve (Mann–Whitney; DeLong et al. 1988, by patient Obuchowski
1997); the Brier score (Brier 1950), the mean squared error of the probability; the expected
calibration error, the mean distance between probability and frequency in 10 groups of equal number
(Naeini et al. 2015, by quantiles); and the calibration slope and intercept, the logistic regression
of the answer on the logit of the probability (Cox 1958; 1 and 0 are ideal).
"""

import dataclasses
from typing import TypeAlias

import numpy as np
from scipy import special, stats

from rfxray.attributes.vocabulary import FINDING_NAMES, INDEX, Attributes, lookup
from rfxray.evaluate import area_figure, intervals
from rfxray.evaluate.control.classifiers import Reading
from rfxray.evaluate.figure import Figure, not_estimable

AUROC, BRIER, ECE, SLOPE, INTERCEPT = "AUROC", "Brier", "ECE", "slope", "intercept"
ERROR, BIAS = "error", "bias"
_GROUPS = 10
_EDGE = 1e-6  # a probability nearer to 0 or 1 says no more: float32 rounds there


# What was read from a set, what was requested or is known of it [n, 19], the patient of each image.
Side: TypeAlias = tuple[Reading, Attributes, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value and the variance of it.

    Attributes:
      value: Estimate.
      variance: Estimate of its variance, None if that is not known.
      clusters: Number of patients behind the variance.
      images: Number of images.
      reason: Why there is no value or no variance; None if both are there.
    """

    value: float | None
    variance: float | None
    clusters: int
    images: int
    reason: str | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """A figure of one question.

    Attributes:
      attribute: Attribute that was requested.
      asked: Value that is asked for; empty for a number.
      of: `samples`, `reals` or `gap`, samples less reals.
      figure: The figure. Its numbers of images are those that are known to have or not to have it.
    """

    attribute: str
    asked: str
    of: str
    figure: Figure


def rows(
    samples: Side,
    reals: Side | None,
) -> list[Row]:
    """Every figure of every attribute that is both read and requested.

    Args:
      samples: What was read, what was requested `[n, 19]`, and the patient of each image `[n]`.
      reals: The same of radiographs, of what is known of them; or None.
    """
    found = []
    for attribute in samples[0].answers:
        for value, asked in _questions(attribute, samples):
            own = estimates(attribute, asked, samples)
            theirs = estimates(attribute, asked, reals) if reals is not None else {}
            for name, of_samples in own.items():
                of_reals = theirs.get(name)
                shown = [("samples", _figure(name, of_samples, real=False))]
                if of_reals is not None:
                    shown.append(("reals", _figure(name, of_reals, real=True)))
                    shown.append(("gap", gap(name, of_samples, of_reals)))
                found += [Row(attribute, value, of, figure) for of, figure in shown]
    return found


def _questions(attribute: str, samples: Side) -> list[tuple[str, int | None]]:
    """Values that are asked for, with their numbers; none of what nobody requested."""
    if not samples[1].known[:, INDEX[attribute]].any():
        return []
    values = lookup(attribute).values
    if not values:
        return [("", None)]
    every = list(enumerate(values))
    return [(value, number) for number, value in (every[1:] if len(every) == 2 else every)]


def estimates(attribute: str, asked: int | None, of: Side) -> dict[str, Estimate]:
    """The figures of one question, by name."""
    reading, attributes, clusters = of
    known = np.asarray(attributes.known[:, INDEX[attribute]])
    truth = np.asarray(attributes.values[known, INDEX[attribute]], np.float64)
    answer, patients = reading.answers[attribute][known], np.asarray(clusters)[known]
    if asked is None:
        error = answer[:, 0] - truth
        return {ERROR: mean(np.abs(error), patients), BIAS: mean(error, patients)}
    return binary(answer[:, asked], truth == asked, patients)


def binary(p: np.ndarray, truth: np.ndarray, patients: np.ndarray) -> dict[str, Estimate]:
    """The figures of a question with two answers.

    Args:
      p: Probability of the value, `[n]`.
      truth: Whether it was requested, `[n] bool`.
      patients: Patient of each image, `[n]`.
    """
    p = np.clip(p, _EDGE, 1 - _EDGE)
    least = min(len(np.unique(patients[truth])), len(np.unique(patients[~truth])))
    if least < intervals.LEAST:
        why = f"it needs {intervals.LEAST} patients or samples with the value and without"
        missing = Estimate(None, None, least, len(p), f"{why} (got {least})")
        return dict.fromkeys((AUROC, BRIER, ECE, SLOPE, INTERCEPT), missing)
    area, spread = area_figure.of_scores(p, truth, patients)
    slope, intercept = calibration(p, truth, patients)
    why = "the error of groups is too large by about their spread, so it has no plain interval"
    return {
        AUROC: Estimate(area, spread, least, len(p)),
        BRIER: mean(np.square(p - truth), patients),
        ECE: Estimate(expected_error(p, truth), None, least, len(p), why),
        SLOPE: slope,
        INTERCEPT: intercept,
    }


def mean(values: np.ndarray, patients: np.ndarray) -> Estimate:
    """A mean over images, its variance between patients."""
    variance, count = intervals.cluster_variance(values.astype(np.float64), patients)
    return Estimate(float(values.mean()), variance, count, len(values))


def expected_error(p: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance between probability and frequency over groups of equal number."""
    order = np.argsort(p, kind="stable")
    groups = [part for part in np.array_split(order, _GROUPS) if len(part)]
    return float(sum(abs(p[part].sum() - truth[part].sum()) for part in groups) / len(p))


def calibration(
    p: np.ndarray, truth: np.ndarray, patients: np.ndarray
) -> tuple[Estimate, Estimate]:
    """Slope and intercept of the logistic regression of the truth on the logit of p.

    Its variance is the sandwich of the sums over each patient (Liang and Zeger 1986).
    """
    columns = np.stack([special.logit(p), np.ones(len(p))], 1)
    weights = np.array([1.0, 0.0])
    for _ in range(100):
        fitted = special.expit(columns @ weights)
        curvature = (columns * (fitted * (1 - fitted))[:, None]).T @ columns
        step = np.linalg.lstsq(curvature, columns.T @ (truth - fitted), rcond=None)[0]
        step *= min(1.0, 4 / max(float(np.abs(step).max()), 1e-30))
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    else:
        why = "the value and the others are separated by the probability, so no slope fits best"
        missing = Estimate(None, None, 0, len(p), why)
        return missing, missing
    fitted = special.expit(columns @ weights)
    bread = np.linalg.pinv((columns * (fitted * (1 - fitted))[:, None]).T @ columns)
    codes = np.unique(patients, return_inverse=True)[1]
    scores = columns * (truth - fitted)[:, None]
    sums = np.stack([np.bincount(codes, each) for each in scores.T], 1)
    spread = np.diag(bread @ (sums.T @ sums) @ bread)
    found = zip(weights, spread, strict=True)
    slope, intercept = (Estimate(float(w), float(v), len(sums), len(p)) for w, v in found)
    return slope, intercept


def _figure(name: str, of: Estimate, real: bool) -> Figure:
    n = (of.images, 0) if real else (0, of.images)
    if of.value is None:
        return not_estimable(name, *n, of.reason or "")
    if of.variance is None:
        return Figure(name, of.value, None, None, *n, of.reason)
    if name == AUROC:
        return area_figure.with_interval(AUROC, of.value, of.variance, of.clusters, *n)
    return intervals.student(name, of.value, of.variance, of.clusters, *n)


def gap(name: str, samples: Estimate, reals: Estimate) -> Figure:
    """Samples less reals; they share no image, so variances add."""
    n = (reals.images, samples.images)
    if samples.value is None or reals.value is None:
        side, of = ("samples", samples) if samples.value is None else ("reals", reals)
        return not_estimable(name, *n, f"of the {side}: {of.reason}")
    value = samples.value - reals.value
    if samples.variance is None or reals.variance is None:
        return Figure(name, value, None, None, *n, samples.reason or reals.reason)
    least = min(samples.clusters, reals.clusters)
    return intervals.student(name, value, samples.variance + reals.variance, least, *n)


# ------------------------------------------------------------------------------------------------
# What was not requested


@dataclasses.dataclass(frozen=True)
class Spill:
    """How far requesting one finding moves another attribute, beyond what it does in the reals.

    Attributes:
      requested: Finding that was requested present in some samples and absent in others.
      read: Attribute and value that is read, and that was not requested, such as `sex=M`.
      figure: Difference of the shares of the value between present and absent, samples less reals.
      beyond: Whether the interval of all comparisons together (Bonferroni) leaves 0 out.
    """

    requested: str
    read: str
    figure: Figure
    beyond: bool


def amplification(samples: Side, reals: Side) -> list[Spill]:
    """Amplification of what was not requested: a request for A that also draws B more often.

    In the reals B goes with A as often as it does; the shift of P(B read) between samples with A
    requested present and absent should be as large, and what it is more is amplified (Xia et al.
    2024, arXiv 2403.09422, for counterfactuals).
    """
    found = []
    for requested in _varied(samples[1]):
        for name in samples[0].values:
            if name == requested or lookup(name).continuous:
                continue
            every = list(enumerate(lookup(name).values))
            for number, value in every[1:] if len(every) == 2 else every:
                shifts = [
                    _shift(side, requested, name, number, free)
                    for side, free in ((samples, True), (reals, False))
                ]
                if shifts[0] is not None and shifts[1] is not None:
                    figure = gap("shift", shifts[0], shifts[1])
                    spread = (shifts[0].variance or 0) + (shifts[1].variance or 0)
                    found.append((requested, f"{name}={value}", figure, float(spread)))
    limit = stats.norm.ppf(1 - 0.025 / max(len(found), 1))
    return [
        Spill(one, other, figure, bool(abs(figure.value or 0) > limit * np.sqrt(spread) > 0))
        for one, other, figure, spread in found
    ]


def _varied(attributes: Attributes) -> list[str]:
    """Findings that were requested both ways."""
    found = []
    for name in FINDING_NAMES:
        known = np.asarray(attributes.known[:, INDEX[name]])
        if len(np.unique(attributes.values[known, INDEX[name]])) == 2:
            found.append(name)
    return found


def _shift(
    of: Side,
    requested: str,
    name: str,
    number: int,
    free: bool,
) -> Estimate | None:
    """Share of a value among images with a finding less that among images without it; of samples
    only those in which the read attribute is `free`, that is left to the model."""
    reading, attributes, clusters = of
    rows = np.asarray(attributes.known[:, INDEX[requested]])
    if free:
        rows = rows & ~np.asarray(attributes.known[:, INDEX[name]])
    present = np.asarray(attributes.values[:, INDEX[requested]] > 0.5)
    hits = reading.values[name] == number
    sides = [rows & present, rows & ~present]
    if min(len(np.unique(clusters[side])) for side in sides) < intervals.LEAST:
        return None
    one, other = (mean(hits[side], clusters[side]) for side in sides)
    assert one.value is not None
    assert other.value is not None
    spread = (one.variance or 0) + (other.variance or 0)
    least = min(one.clusters, other.clusters)
    return Estimate(one.value - other.value, spread, least, one.images + other.images)
