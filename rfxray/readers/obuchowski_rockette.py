"""Several readers and several cases at once, by Obuchowski and Rockette (1995), as Hillis (2007,
Stat Med 26:596) and the user guide of MRMCaov write it.

Readers are a sample of all readers, and cases of all cases; a percentage that is pooled over reads
ignores the first. It works on any figure of merit of a reader that has covariances: the AUC, or the
share of pairs in which the synthetic image was found.
"""

import dataclasses

import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True)
class Pooled:
    """A mean over readers, or a difference of two; numbers or arrays over simulated studies.

    Attributes:
      mean: Estimate.
      se: Standard error.
      df: Degrees of freedom of the t distribution; infinity is the normal one.
    """

    mean: np.ndarray
    se: np.ndarray
    df: np.ndarray

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Both ends of the interval of this level."""
        half = stats.t.ppf(0.5 + level / 2, self.df) * self.se
        return self.mean - half, self.mean + half

    def p_value(self, null: float) -> np.ndarray:
        """Two-sided p of the test that the mean is `null`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return 2 * stats.t.sf(np.abs(self.mean - null) / self.se, self.df)


def mean_covariance(covariance: np.ndarray) -> np.ndarray:
    """Mean of the covariances of two different readers (Cov2), `[...]`.

    A reader at an AUC of 0 or 1 has no spread over cases, and its zeros say nothing about other
    readers: such rows are left out. NaN if fewer than two readers remain.
    """
    varies = np.diagonal(covariance, axis1=-2, axis2=-1) > 0
    both = varies[..., :, None] & varies[..., None, :] & ~np.eye(covariance.shape[-1], dtype=bool)
    with np.errstate(invalid="ignore"):
        return (covariance * both).sum((-2, -1)) / both.sum((-2, -1))


def mean_variance(covariance: np.ndarray) -> np.ndarray:
    """Mean of the variances of the readers that vary over cases, `[...]`; NaN if none does."""
    variance = np.diagonal(covariance, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        return np.where(variance > 0, variance, 0).sum(-1) / (variance > 0).sum(-1)


def _differ(values: np.ndarray) -> np.ndarray:
    """Whether values differ along the last axis by more than rounding, which is not variance."""
    return np.ptp(values, -1) > 1e-9


def reader_mean(merit: np.ndarray, covariance: np.ndarray) -> Pooled:
    """The mean over readers of one modality, readers and cases random.

    Args:
      merit: AUC of each reader, `[..., readers]`.
      covariance: Their covariances over cases, `[..., readers, readers]`.

    Returns:
      `Pooled` of shape `[...]`. SE² = MS(R)/J + max(Cov2, 0) (Hillis 2007, one modality). NaN if
      fewer than two readers vary over cases.
    """
    readers = merit.shape[-1]
    spread = np.where(_differ(merit), merit.var(-1, ddof=1), 0.0)
    between = readers * np.maximum(mean_covariance(covariance), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = (spread + between) ** 2 / (spread**2 / (readers - 1))
    df = np.where(spread > 0, df, np.inf)
    return Pooled(merit.mean(-1), np.sqrt((spread + between) / readers), df)


def fixed_readers(merit: np.ndarray, covariance: np.ndarray) -> Pooled:
    """The mean of these very readers, for other cases: says nothing about other readers."""
    readers = merit.shape[-1]
    cov2 = np.maximum(mean_covariance(covariance), 0)
    se = np.sqrt((mean_variance(covariance) + (readers - 1) * cov2) / readers)
    return Pooled(merit.mean(-1), se, np.full(np.shape(se), np.inf))


def fixed_cases(merit: np.ndarray) -> Pooled:
    """The mean of other readers on these very cases: says nothing about other images."""
    readers = merit.shape[-1]
    se = np.where(_differ(merit), merit.std(-1, ddof=1), 0.0) / np.sqrt(readers)
    return Pooled(merit.mean(-1), se, np.full(np.shape(se), readers - 1.0))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The test that all modalities have the same mean.

    Attributes:
      mean_squares: MS(T), MS(R) and MS(T:R).
      covariances: Var and Cov1, Cov2, Cov3 of Obuchowski and Rockette.
      f: F statistic; None, as all below, if nothing varies.
      df: Degrees of freedom of its numerator and its denominator; None is infinity (χ²).
      p: p value.
      difference_se: Standard error of the difference of two modalities.
    """

    mean_squares: tuple[float, float, float]
    covariances: tuple[float, float, float, float]
    f: float | None
    df: tuple[int, float | None]
    p: float | None
    difference_se: float | None


def error_covariances(covariance: np.ndarray) -> tuple[float, float, float, float]:
    """Var, Cov1 (same reader), Cov2 (same modality), Cov3 (neither) of `[I, J, I, J]`."""
    modality, reader = np.indices(covariance.shape[:2])
    modality, reader = modality.ravel(), reader.ravel()
    flat = covariance.reshape(len(modality), -1)
    same_modality = modality[:, None] == modality
    same_reader = reader[:, None] == reader
    return (
        float(flat[same_modality & same_reader].mean()),
        float(flat[~same_modality & same_reader].mean()),
        float(flat[same_modality & ~same_reader].mean()),
        float(flat[~same_modality & ~same_reader].mean()),
    )


def compare(merit: np.ndarray, covariance: np.ndarray, random: str = "both") -> Comparison:
    """Compares two or more modalities that all readers read.

    Args:
      merit: `[modalities, readers]`.
      covariance: `[modalities, readers, modalities, readers]`.
      random: What is a sample: `both`, `cases` (readers fixed) or `readers` (cases fixed).
    """
    modalities, readers = merit.shape
    by_modality, by_reader = merit.mean(1), merit.mean(0)
    rest = merit - by_modality[:, None] - by_reader + merit.mean()
    ms_t = readers * by_modality.var(ddof=1)
    ms_r = modalities * by_reader.var(ddof=1)
    ms_tr = (rest**2).sum() / ((modalities - 1) * (readers - 1)) if _differ(rest.ravel()) else 0.0
    var, cov1, cov2, cov3 = found = error_covariances(covariance)
    between = readers * max(cov2 - cov3, 0.0)
    first = modalities - 1
    if random == "both":
        denominator = ms_tr + between
        df = denominator**2 / (ms_tr**2 / (first * (readers - 1))) if ms_tr > 0 else np.inf
    elif random == "cases":
        denominator = var - cov1 + between * (readers - 1) / readers
        df = np.inf
    else:
        denominator, df = ms_tr, float(first * (readers - 1))
    mean_squares = (float(ms_t), float(ms_r), float(ms_tr))
    if not denominator > 0:
        return Comparison(mean_squares, found, None, (first, None), None, None)
    f = ms_t / denominator
    p = stats.chi2.sf(f * first, first) if np.isinf(df) else stats.f.sf(f, first, df)
    return Comparison(
        mean_squares=mean_squares,
        covariances=found,
        f=float(f),
        df=(first, None if np.isinf(df) else float(df)),
        p=float(p),
        difference_se=float(np.sqrt(2 * denominator / readers)),
    )
