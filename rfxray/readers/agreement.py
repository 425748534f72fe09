"""Agreement of two readings beyond chance: κ (Cohen 1960) and AC1 (Gwet 2008).

κ drops if one answer is much more frequent than the other, even when readers agree; AC1 hardly
does. Both are given with an interval from leaving out each patient once.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Agreement of two readings of the same cases.

    Attributes:
      count: Number of cases.
      same: Share of cases with the same answer.
      kappa: κ with its interval, None if it is not estimable: both gave one answer only, or
        patients do not differ in it.
      ac1: AC1 with its interval, None if it is not estimable.
    """

    count: int
    same: float | None
    kappa: tuple[float, float, float] | None
    ac1: tuple[float, float, float] | None


def kappa(table: np.ndarray) -> float:
    """κ of a table of counts, `[categories, categories]`; NaN if chance explains everything."""
    shares = table / table.sum()
    chance = shares.sum(0) @ shares.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float((np.trace(shares) - chance) / (1 - chance))


def ac1(table: np.ndarray) -> float:
    """AC1 of a table of counts, `[categories, categories]`; NaN for a single category."""
    if len(table) < 2:
        return float("nan")
    shares = table / table.sum()
    mean = (shares.sum(0) + shares.sum(1)) / 2
    chance = (mean * (1 - mean)).sum() / (len(table) - 1)
    return float((np.trace(shares) - chance) / (1 - chance))


def agreement(
    first: np.ndarray, second: np.ndarray, cluster: np.ndarray, categories: int
) -> Agreement:
    """Agreement of two readings.

    Args:
      first: Answers as whole numbers below `categories`, `[cases] int`.
      second: Answers of the other reading.
      cluster: Patient of each case, `[cases] int`.
      categories: Number of possible answers.

    Returns:
      An `Agreement`.
    """
    if not len(first):
        return Agreement(0, None, None, None)
    same = float(np.mean(first == second))
    names, which = np.unique(cluster, return_inverse=True)
    tables = np.zeros((len(names), categories, categories))
    np.add.at(tables, (which, first, second), 1)
    return Agreement(len(first), same, _interval(tables, kappa), _interval(tables, ac1))


def _interval(
    tables: np.ndarray, statistic: Callable[[np.ndarray], float]
) -> tuple[float, float, float] | None:
    """Estimate and 95% interval by the jackknife over clusters, `[clusters, …]`."""
    total = tables.sum(0)
    value = statistic(total)
    count = len(tables)
    if not np.isfinite(value) or count < 3:
        return None
    without = np.array([statistic(total - table) for table in tables])
    if not np.isfinite(without).all():
        return None
    se = np.sqrt((count - 1) * without.var())
    if se < 1e-12:  # all patients agree alike: that says nothing of others
        return None
    half = stats.t.ppf(0.975, count - 1) * se
    return value, max(-1.0, value - half), min(1.0, value + half)
