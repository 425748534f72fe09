"""How many readers and cases a study needs: power by formula and by simulation."""

import dataclasses

import numpy as np
from scipy import optimize, stats

from rfxray.errors import DataError
from rfxray.evaluate import auc
from rfxray.readers import equivalence, obuchowski_rockette
from rfxray.readers.equivalence import ALPHA, CHANCE
from rfxray.readers.roe_metz import (
    Components,
    RoeMetz,
    components,
    pair_components,
    scores,
)

# Studies that are simulated at once: 250 of 8 readers and 400 cases are 3 MB an array.
CHUNK = 250
DRAWS = 20000  # of the variances that the formula averages over: power to ±.004


@dataclasses.dataclass(frozen=True)
class Rates:
    """How often a study says something, as shares of studies; a 95% interval of 10,000 is ±.004.

    Attributes:
      tost: Share in which the two one-sided tests accept equivalence.
      difference: Share in which the test against .5 rejects.
      covered: Share in which the 95% interval holds the true mean AUC.
      equivalent: Share with the verdict "equivalent".
      apart: Share with the verdict `TOLD_APART`.
      se: Root of the mean squared standard error, on the scale of AUC.
    """

    tost: float
    difference: float
    covered: float
    equivalent: float
    apart: float
    se: float


@dataclasses.dataclass(frozen=True)
class Scale:
    """A scale of ratings.

    Attributes:
      thresholds: Ascending scores that separate the ratings.
      area: AUC of the continuous scores that have the wanted AUC once they are rated.
    """

    thresholds: np.ndarray
    area: float


def simulated(
    model: RoeMetz,
    area: float | np.ndarray,
    readers: int,
    truth: np.ndarray,
    margin: float,
    studies: int,
    rng: np.random.Generator,
    scale: Scale | None = None,
    pairs: bool = False,
) -> Rates:
    """Runs whole studies of the Roe–Metz model through the analysis.

    Args:
      model: Variances.
      area: True AUC of all readers, or of each.
      readers: Number of readers.
      truth: `[cases] bool`.
      margin: Margin of equivalence.
      studies: Number of studies.
      rng: Source of randomness.
      scale: Scale of ratings; None keeps scores continuous.
      pairs: Whether the n-th synthetic image is shown beside the n-th real one.
    """
    cluster = np.arange(truth.sum() if pairs else len(truth))
    synthetic, real = int(truth.sum()), int((~truth).sum())
    sums = np.zeros(6)
    for start in range(0, studies, CHUNK):
        count = min(CHUNK, studies - start)
        drawn = scores(model, rng, scale.area if scale else area, readers, truth, count)[0]
        if scale:
            drawn = np.searchsorted(scale.thresholds, drawn)
        if pairs:
            found = drawn[..., truth] > drawn[..., ~truth]
            merit, covariance = found.mean(-1), auc.of_proportions(found, cluster)
        else:
            placed = auc.placements(drawn, truth)
            merit, covariance = auc.area(placed, truth), auc.delong(placed, truth, cluster)
        variance = np.diagonal(covariance, axis1=-2, axis2=-1)
        pooled = obuchowski_rockette.reader_mean(merit, covariance)
        said = equivalence.judge(pooled, merit, variance, synthetic, real, margin, pairs)
        low, high = pooled.interval()
        true = np.mean(area)
        found = (
            said.tost_p < ALPHA,
            said.difference_p < ALPHA,
            (low <= true) & (true <= high),
            said.equivalent,
            said.apart,
            pooled.se**2,
        )
        sums += [np.sum(value) for value in found]
    tost, difference, covered, equivalent, apart, variance = map(float, sums / studies)
    return Rates(tost, difference, covered, equivalent, apart, float(np.sqrt(variance)))


@dataclasses.dataclass(frozen=True)
class Planned:
    """Power of a design by formula.

    Attributes:
      equivalence: Chance that TOST accepts equivalence.
      difference: Chance that the test against .5 rejects.
      se: True standard deviation of the mean AUC.
    """

    equivalence: float
    difference: float
    se: float


def expected(model: RoeMetz, area: float, cases: int, pairs: bool) -> Components:
    """Components of a study of this number of images, half of them synthetic, or of pairs."""
    if pairs:
        return pair_components(model, area, cases)
    return components(model, area, cases // 2, cases // 2)


def planned(
    found: Components, readers: int, cases: int, margin: float, pairs: bool = False
) -> Planned:
    """Power of a design, from its components.

    The mean is normal around its true value. MS(R) is a multiple of χ² with J - 1 degrees of
    freedom, and the estimated covariance of two readers (Cov2) is that of a Wishart matrix with as
    many as there are cases: with few cases it is often below 0, which the analysis replaces by 0.

    Args:
      found: Components at these numbers of cases.
      readers: Number of readers, at least 2.
      cases: Number of cases: images of both kinds, or pairs.
      margin: Margin of equivalence.
      pairs: Whether cases are pairs.
    """
    freedom = cases - (1 if pairs else 2)
    rng = np.random.default_rng(0)  # the same average for the same design
    spread = found.spread * rng.chisquare(readers - 1, DRAWS) / (readers - 1)
    apart = found.error - found.shared
    together = found.error + (readers - 1) * found.shared
    shared = together * rng.chisquare(freedom, DRAWS) / freedom / readers
    others = freedom * (readers - 1)
    shared -= apart * rng.chisquare(others, DRAWS) / others / readers
    between = readers * np.maximum(shared, 0)
    df = (spread + between) ** 2 / (spread**2 / (readers - 1))
    se = np.sqrt((spread + between) / readers)
    deviation = np.sqrt(found.variance(readers))
    offset = found.area - CHANCE

    def within(half: np.ndarray) -> np.ndarray:
        """Chance that the mean is closer than this to .5."""
        upper, lower = (half - offset) / deviation, (-half - offset) / deviation
        return np.where(half > 0, stats.norm.cdf(upper) - stats.norm.cdf(lower), 0.0)

    accepts = within(margin - stats.t.ppf(1 - ALPHA, df) * se)
    keeps = within(stats.t.ppf(1 - ALPHA / 2, df) * se)
    return Planned(float(accepts.mean()), float(1 - keeps.mean()), float(deviation))


def from_pilot(
    merit: np.ndarray, covariance: np.ndarray, synthetic: int, real: int, pairs: bool = False
) -> RoeMetz:
    """The Roe–Metz model that has the components of a pilot study.

    The share of reader and case is not needed for one showing; it is what remains, halved.

    Args:
      merit: AUC of each reader, `[readers]`.
      covariance: Their covariances over cases, `[readers, readers]`.
      synthetic: Number of synthetic images.
      real: Number of real images.
      pairs: Whether they were shown in pairs, as many as each number says.

    Raises:
      DataError: If the covariances cannot be estimated, or no model has these components.
    """
    area = float(np.clip(merit.mean(), 0.5, 0.995))
    error = float(obuchowski_rockette.mean_variance(covariance))
    shared = float(obuchowski_rockette.mean_covariance(covariance))
    if not np.isfinite(error + shared):
        raise DataError("the pilot has fewer than two readers with an AUC that varies")
    shared = max(shared, 0.0)
    between = max(float(merit.var(ddof=1)) - (error - shared), 0.0)

    def model(reader: float, case: float) -> RoeMetz:
        return RoeMetz(reader, case, (1 - case) / 2)

    def of(chosen: RoeMetz) -> Components:
        if pairs:
            return pair_components(chosen, area, synthetic)
        return components(chosen, area, synthetic, real)

    def reader_gap(reader: float) -> float:
        return of(model(reader, 0.0)).between - between

    reader = 0.0
    if between > 0 and reader_gap(10) > 0:
        reader = optimize.root_scalar(reader_gap, bracket=(0.0, 10.0)).root

    def case_gap(case: float) -> float:
        found = of(model(reader, case))
        return found.shared / found.error - shared / error

    if case_gap(0.99) < 0:
        raise DataError(
            f"the pilot's readers agree more (Cov2 {shared:.2g}) than one reader varies "
            f"(Var {error:.2g}); give the variances by flags"
        )
    case = 0.0
    if case_gap(0.0) < 0:
        case = optimize.root_scalar(case_gap, bracket=(0.0, 0.99)).root
    return model(float(reader), float(case))


MOST_CASES = 5000


def smallest(
    model: RoeMetz, area: float, readers: int, margin: float, power: float, pairs: bool = False
) -> int | None:
    """The smallest number of cases that reaches a power by formula.

    Args:
      model: Variances.
      area: True AUC; within the margin the power is that of equivalence, outside that of the test
        against .5.
      readers: Number of readers.
      margin: Margin of equivalence.
      power: Wanted power.
      pairs: Whether cases are pairs.

    Returns:
      Number of cases, at least 10, of single images an even one; None if `MOST_CASES` do not reach
      it.
    """
    step = 1 if pairs else 2

    def reached(steps: int) -> bool:
        cases = step * steps
        plan = planned(expected(model, area, cases, pairs), readers, cases, margin, pairs)
        wanted = plan.equivalence if abs(area - CHANCE) < margin else plan.difference
        return wanted >= power

    low, high = 8 // step, MOST_CASES // step  # it grows with the number of cases
    if not reached(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return step * high
