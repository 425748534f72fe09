"""What a study concludes: equivalent within a margin, different, or not shown.

A mean AUC of .5 is not "cannot tell": readers at .75 and .25 have it. So the verdict "equivalent"
has four conditions:

1. two one-sided tests accept that the mean is within .5 ± margin (TOST, Schuirmann 1987);
2. the 95% interval of every reader overlaps .5 ± margin;
3. no reader tells them apart beyond the margin: an AUC outside of .5 ± margin, with an interval at
   the level 1 - .05 / readers that excludes .5. Without it, of studies with one reader at .75 among
   seven at .5, with 200 images and a margin of .1, 5% were called equivalent;
4. the mean distance of the readers from .5, without what chance adds to it, is below the margin.

The verdict `TOLD_APART` is given if the mean differs from .5, or if the interval of a reader, at
the level of 3, lies outside of .5 ± margin. In between it is "not shown".
"""

import dataclasses

import numpy as np
from scipy import stats

from rfxray.readers.obuchowski_rockette import Pooled

CHANCE = 0.5
TOLD_APART, NOT_SHOWN, NOT_ESTIMABLE = "told apart", "not shown", "not estimable"
ALPHA = 0.05
LEAST_READERS = 3  # the smallest panel of which the size of the tests was measured


def tost(pooled: Pooled, margin: float) -> np.ndarray:
    """p of the two one-sided tests that the mean is within `CHANCE` ± margin.

    It is below 5% exactly if the 90% interval lies within the margin.
    """
    distance = np.abs(pooled.mean - CHANCE)
    with np.errstate(divide="ignore", invalid="ignore"):
        return stats.t.sf((margin - distance) / pooled.se, pooled.df)


def reader_interval(
    merit: np.ndarray,
    variance: np.ndarray,
    synthetic: int,
    real: int,
    level: float = 0.95,
    pairs: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of each reader's AUC over samples of cases.

    On the scale of the logit from DeLong's variance. A reader at 0 or 1 has none, and gets the
    score interval of Newcombe (2006, Stat Med 25:559, method 5) from the numbers of cases; for
    pairs, which are a share, the exact one of Clopper and Pearson.

    Args:
      merit: AUC, `[...]`.
      variance: Its variance over cases, `[...]`.
      synthetic: Number of independent synthetic cases.
      real: Number of independent real cases.
      level: Confidence level.
      pairs: Whether `merit` is the share of `synthetic` independent pairs.
    """
    z = stats.norm.ppf(0.5 + level / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = np.log(merit / (1 - merit))
        half = z * np.sqrt(variance) / (merit * (1 - merit))
        low, high = (1 / (1 + np.exp(-(centre + sign * half))) for sign in (-1, 1))
    extreme = (merit <= 0) | (merit >= 1)
    if np.any(extreme):
        bound = (0.5 - level / 2) ** (1 / synthetic)
        if not pairs:
            bound = _newcombe_bound_at_one(synthetic, real, float(z))
        low = np.where(extreme, np.where(merit >= 1, bound, 0.0), low)
        high = np.where(extreme, np.where(merit >= 1, 1.0, 1 - bound), high)
    return low, high


def _newcombe_bound_at_one(synthetic: int, real: int, z: float) -> float:
    """The area A below 1 with 1 - A = z √V(A)."""
    half = (synthetic + real) / 2 - 1
    low, high = 0.0, 1 - 1e-12
    for _ in range(60):
        a = (low + high) / 2
        variance = a * (1 - a) / (synthetic * real)
        variance *= 1 + half * ((1 - a) / (2 - a) + a / (1 + a))
        low, high = (a, high) if 1 - a > z * np.sqrt(variance) else (low, a)
    return (low + high) / 2


def mean_distance(merit: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Mean of |AUC - .5| over readers without what chance adds to it, `[...]`.

    It is the common distance that would show the mean that was seen: the mean of a folded normal
    grows with its distance, so there is one, or none, which is 0. If readers differ it is above
    the mean of their distances (Jensen), on the careful side.

    Args:
      merit: AUC of each reader, `[..., readers]`.
      variance: Their variances over cases, `[..., readers]`.
    """
    seen = np.abs(merit - CHANCE).mean(-1)
    deviation = np.sqrt(variance)
    low, high = np.zeros_like(seen), np.full_like(seen, CHANCE)
    for _ in range(40):  # halves an interval of ½ to 5e-13
        middle = (low + high) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = middle[..., None] / deviation
        folded = deviation * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2)
        folded = folded + middle[..., None] * (1 - 2 * stats.norm.sf(ratio))
        folded = np.where(deviation > 0, folded, middle[..., None]).mean(-1)
        low = np.where(folded < seen, middle, low)
        high = np.where(folded < seen, high, middle)
    return np.where(seen > 0, low, 0.0)


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What the conditions say; booleans and numbers, or arrays over simulated studies.

    Attributes:
      tost_p: p of the two one-sided tests.
      difference_p: Two-sided p against .5.
      overlaps: Whether the interval of each reader overlaps .5 ± margin, `[..., readers]`.
      telling: Whether each reader is outside of the margin with an interval that excludes .5,
        `[..., readers]`.
      beyond: Whether the interval of each reader lies outside of the margin, `[..., readers]`.
      distance: Mean distance of the readers from .5, corrected.
      equivalent: Whether all conditions hold.
      apart: Whether the mean differs from .5, or the interval of a reader lies outside of the
        margin. Never together with `equivalent`.
    """

    tost_p: np.ndarray
    difference_p: np.ndarray
    overlaps: np.ndarray
    telling: np.ndarray
    beyond: np.ndarray
    distance: np.ndarray
    equivalent: np.ndarray
    apart: np.ndarray


def judge(
    pooled: Pooled,
    merit: np.ndarray,
    variance: np.ndarray,
    synthetic: int,
    real: int,
    margin: float,
    pairs: bool = False,
) -> Judgement:
    """Puts the conditions together. A value that is NaN fulfils none.

    Args:
      pooled: Mean over readers, readers and cases random.
      merit: AUC of each reader, `[..., readers]`.
      variance: Their variances over cases, `[..., readers]`.
      synthetic: Number of independent synthetic cases.
      real: Number of independent real cases.
      margin: Largest distance from .5 that counts as equivalent.
      pairs: Whether `merit` is the share of `synthetic` independent pairs.
    """
    low, high = reader_interval(merit, variance, synthetic, real, pairs=pairs)
    overlaps = (low <= CHANCE + margin) & (high >= CHANCE - margin)
    readers = merit.shape[-1]
    low, high = reader_interval(merit, variance, synthetic, real, 1 - ALPHA / readers, pairs)
    telling = ((low > CHANCE) | (high < CHANCE)) & (np.abs(merit - CHANCE) > margin)
    beyond = (low > CHANCE + margin) | (high < CHANCE - margin)
    distance = mean_distance(merit, variance)
    tost_p, difference_p = tost(pooled, margin), pooled.p_value(CHANCE)
    within = overlaps.all(-1) & ~telling.any(-1) & (distance < margin)
    tested = pooled.se > 0  # without a standard error no test says anything
    equivalent = tested & (tost_p < ALPHA) & within
    apart = ((tested & (difference_p < ALPHA)) | beyond.any(-1)) & ~equivalent
    return Judgement(tost_p, difference_p, overlaps, telling, beyond, distance, equivalent, apart)
