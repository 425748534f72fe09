"""Figures of several classifiers on one test set, and how sure they are.

A figure of a classifier (an AUROC, a rate, a difference of both) is close to a mean over images:
each image has an influence on it, and figures are added and subtracted as their influences are.
Classifiers of several seeds are a sample of all that could have been trained, and patients a sample
of all patients, so the variance is that of Obuchowski and Rockette (1995) for readers and cases, as
Hillis (2007, Stat Med 26:596) writes it: MS(R) / J + max(Cov2, 0). For one seed only the patients
count.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from rfxray.evaluate import auc, intervals
from rfxray.evaluate.figure import Figure, not_estimable


@dataclasses.dataclass(frozen=True)
class Estimates:
    """One figure of each classifier.

    Attributes:
      values: Figure of each seed, [seeds].
      influence: What each image adds to it, [seeds, images]; each row sums to 0.
      among: Images that it is of, [images] bool.
      reason: Why there is no figure; None if there is one.
    """

    values: np.ndarray
    influence: np.ndarray
    among: np.ndarray
    reason: str | None = None

    def __sub__(self, other: "Estimates") -> "Estimates":
        return Estimates(
            self.values - other.values,
            self.influence - other.influence,
            self.among | other.among,
            self.reason or other.reason,
        )


def missing(seeds: int, images: int, reason: str) -> Estimates:
    """A figure that these images do not allow."""
    nothing = np.zeros((seeds, images))
    return Estimates(np.full(seeds, np.nan), nothing, np.zeros(images, bool), reason)


def mean(of: Sequence[Estimates]) -> Estimates:
    """The mean of the figures that there are; all of one shape, at least one."""
    there = [each for each in of if each.reason is None]
    if not there:
        return of[0]
    return Estimates(
        np.mean([each.values for each in there], 0),
        np.mean([each.influence for each in there], 0),
        np.any([each.among for each in there], 0),
    )


def auroc(scores: np.ndarray, truth: np.ndarray, among: np.ndarray) -> Estimates:
    """The area under the ROC curve of each classifier (Mann–Whitney).

    Args:
      scores: Score of each image, [seeds, images].
      truth: Whether an image is positive, [images] bool.
      among: Images that count, [images] bool; some are positive, and some are not.
    """
    right = truth[among]
    placed = auc.placements(scores[:, among], right)
    values = auc.area(placed, right)
    influence = np.zeros(scores.shape)
    influence[:, among] = (placed - values[:, None]) / np.where(right, right.sum(), (~right).sum())
    return Estimates(values, influence, among)


def share(hits: np.ndarray, among: np.ndarray) -> Estimates:
    """The share of images that count of which each classifier says yes.

    Args:
      hits: What each classifier says, [seeds, images] bool.
      among: Images that count, [images] bool; at least one.
    """
    values = hits[:, among].mean(1)
    influence = np.where(among, hits - values[:, None], 0) / among.sum()
    return Estimates(values, influence, among)


def ratio(part: Estimates, whole: Estimates) -> Estimates:
    """The mean of one figure as a share of that of another (by the delta method)."""
    of = part.values.mean() / whole.values.mean()
    apart = (part.values - part.values.mean()) - of * (whole.values - whole.values.mean())
    influence = (part.influence - of * whole.influence) / whole.values.mean()
    values, among = of + apart / whole.values.mean(), part.among | whole.among
    return Estimates(values, influence, among, part.reason or whole.reason)


def figure(
    name: str,
    of: Estimates,
    patients: np.ndarray,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> Figure:
    """The mean over the seeds with its 95% interval.

    Args:
      name: Name of the measure.
      of: Figure of each seed.
      patients: Patient of each image, [images] int.
      within: Ends of the range of the measure, at which an interval ends too.
    """
    images = int(of.among.sum())
    if of.reason is not None:
        return not_estimable(name, images, 0, of.reason)
    value = float(of.values.mean())
    codes = np.unique(patients, return_inverse=True)[1]
    sums = np.stack([np.bincount(codes, row, codes.max() + 1) for row in of.influence])
    count = len(np.unique(codes[of.among]))
    if count < intervals.LEAST:
        why = f"an interval needs {intervals.LEAST} patients (got {count})"
        return Figure(name, value, None, None, images, 0, why)
    covariance = sums @ sums.T * count / (count - 1)
    variance, df = _pooled(of.values, covariance, count)
    half = float(stats.t.ppf(0.975, df) * np.sqrt(variance))
    if not half > 1e-9:
        return Figure(name, value, None, None, images, 0, "nothing varies between patients")
    low, high = max(value - half, within[0]), min(value + half, within[1])
    return Figure(name, value, low, high, images, 0)


def _pooled(values: np.ndarray, covariance: np.ndarray, patients: int) -> tuple[float, float]:
    """Variance of the mean over seeds and patients, and the degrees of freedom behind it."""
    seeds = len(values)
    if seeds == 1:
        return float(covariance[0, 0]), patients - 1
    spread = float(values.var(ddof=1))
    between = max(float(covariance[~np.eye(seeds, dtype=bool)].mean()), 0.0)
    total = spread + seeds * between
    df = total**2 / (spread**2 / (seeds - 1)) if spread > 0 else np.inf
    return total / seeds, float(min(df, patients - 1))
