"""What goes with what: the joint distribution of attributes in samples and in radiographs.

One classifier reads both sets, so that its errors are on both sides. For every two values of two
attributes it says how often the one is read where the other is: P(second | first), and P(second)
for what stands by itself. Ages are in steps of 20 years there, and have their mean, deviation and
quantiles besides. What the samples were requested with is fixed by whoever requested it, so the
reals are weighted to have it as often.

Intervals are of 95%, by influence functions summed over patients (a share of shares is a ratio of
means). There are hundreds of comparisons, so one in twenty leaves 0 out by chance: `beyond` says
whether the interval of all of them together (Bonferroni) does.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse, stats

from rfxray.attributes.vocabulary import ATTRIBUTES, Attributes, lookup
from rfxray.errors import DataError
from rfxray.evaluate import intervals
from rfxray.evaluate.figure import Figure, not_estimable

AGES = (0, 20, 40, 60, 80)  # years at which a group of ages begins
ALL = "all"
OFF = 0.05  # of a share: a difference that people would see in a table
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How often a value is read where another one is.

    Attributes:
      given: Value that is there, such as `cardiomegaly=present`; `all` for every image.
      value: Value of another attribute, the share of which is compared.
      samples: Share in the samples.
      reals: Share in the reals, weighted.
      figure: Samples less reals; its numbers of images are those with `given`.
      beyond: Whether the interval of all comparisons together leaves 0 out.
    """

    given: str
    value: str
    samples: float | None
    reals: float | None
    figure: Figure
    beyond: bool


@dataclasses.dataclass(frozen=True)
class Ages:
    """Ages as they are read, years.

    Attributes:
      mean, deviation: Samples less reals.
      samples, reals: Mean, deviation and the quantiles of `QUANTILES` of each side.
    """

    mean: Figure
    deviation: Figure
    samples: tuple[float, ...]
    reals: tuple[float, ...]


def weights(requested: Attributes, known: Attributes) -> tuple[np.ndarray, list[str]]:
    """Weights of the reals with which they have what was requested of every sample as often.

    Args:
      requested: What was requested of the samples, [n, 19].
      known: What is known of the reals, [m, 19].

    Returns:
      Weights [m], 0 for a real that is in no cell or not known; and the attributes that were
      requested of every sample. If those are all that is known of the reals (samples of full
      requests), or none, the weights are 1: the requests are the population then.

    Raises:
      DataError: If no real is like some samples.
    """
    asked = np.asarray(requested.known)
    fixed = [i for i, a in enumerate(ATTRIBUTES) if asked[:, i].all() and not a.continuous]
    every = [i for i in range(len(ATTRIBUTES)) if asked[:, i].any()]
    names = [ATTRIBUTES[i].name for i in fixed]
    if not fixed or len(every) > len(ATTRIBUTES) // 2:
        return np.ones(len(known.known)), []
    there = np.asarray(known.known)[:, fixed].all(1)
    keys = [np.asarray(side.values)[:, fixed].astype(int) for side in (requested, known)]
    cells, place = np.unique(keys[0], axis=0, return_inverse=True)
    counts = np.bincount(place.reshape(-1))
    found = np.zeros(len(keys[1]))
    for cell, count in zip(cells, counts, strict=True):
        rows = there & (keys[1] == cell).all(1)
        if not rows.any():
            words = [
                f"{ATTRIBUTES[i].name}={ATTRIBUTES[i].values[value]}"
                for i, value in zip(fixed, cell, strict=True)
            ]
            raise DataError(
                f"{count} samples were requested with {', '.join(words)}, and no real has that; "
                "give --real a split that has it"
            )
        found[rows] = count / rows.sum()
    return found * len(found) / found.sum(), names


def indicators(values: Mapping[str, np.ndarray]) -> tuple[list[str], list[str], np.ndarray]:
    """What is read as columns of 0 and 1.

    Args:
      values: What was read, `[n]` by attribute.

    Returns:
      Attribute and label (`view=PA`) of each column, and `[n, columns]` float64.
    """
    owners, labels, columns = [], [], []
    for name, read in values.items():
        attribute = lookup(name)
        if attribute.continuous:
            ends = [*AGES[1:], np.inf]
            parts = {
                f"{name}={low} to {high - 1:g}" if high < np.inf else f"{name}={low} and above": (
                    (read >= low) & (read < high)
                )
                for low, high in zip(AGES, ends, strict=True)
            }
        else:
            parts = {f"{name}={v}": read == number for number, v in enumerate(attribute.values)}
        for label, column in parts.items():
            owners.append(name)
            labels.append(label)
            columns.append(column)
    return owners, labels, np.stack(columns, 1).astype(np.float64)


def compare(
    samples: tuple[Mapping[str, np.ndarray], np.ndarray],
    reals: tuple[Mapping[str, np.ndarray], np.ndarray],
    real_weights: np.ndarray,
    without: Sequence[str] = (),
) -> list[Comparison]:
    """Every share and every conditional share, samples less reals.

    Args:
      samples: What was read, by attribute, and the patient of each image.
      reals: The same of the reals.
      real_weights: Weight of each real.
      without: Attributes that were requested of every sample: nothing is to be learnt of their
        shares, which are as requested.
    """
    owners, labels, columns = indicators(samples[0])
    sides = [
        _shares(columns, samples[1], np.ones(len(columns))),
        _shares(indicators(reals[0])[2], reals[1], real_weights),
    ]
    pairs = [
        (i, j)
        for i in range(-1, len(labels))
        for j in range(len(labels))
        if (i < 0 or owners[i] != owners[j]) and owners[j] not in without
    ]
    found = []
    for i, j in pairs:
        n = [int(side.clusters[i]) for side in sides]
        images = int(sides[1].images[i]), int(sides[0].images[i])
        name = "difference"
        if min(n) < intervals.LEAST:
            why = f"it needs {intervals.LEAST} patients or samples of each set (got {min(n)})"
            found.append((i, j, not_estimable(name, *images, why), 0.0))
            continue
        value = float(sides[0].share[i, j] - sides[1].share[i, j])
        spread = float(sides[0].variance[i, j] + sides[1].variance[i, j])
        found.append((i, j, intervals.student(name, value, spread, min(n), *images), spread))
    limit = stats.norm.ppf(1 - 0.025 / max(sum(f[2].value is not None for f in found), 1))
    return [
        Comparison(
            given=ALL if i < 0 else labels[i],
            value=labels[j],
            samples=_or_none(float(sides[0].share[i, j])),
            reals=_or_none(float(sides[1].share[i, j])),
            figure=figure,
            beyond=bool(abs(figure.value or 0) > limit * np.sqrt(spread) > 0),
        )
        for i, j, figure, spread in found
    ]


@dataclasses.dataclass(frozen=True)
class _Shares:
    """P(j | i), its variance, and how many patients and images have i; the last row is all."""

    share: np.ndarray
    variance: np.ndarray
    clusters: np.ndarray
    images: np.ndarray


def _shares(columns: np.ndarray, patients: np.ndarray, weight: np.ndarray) -> _Shares:
    codes = np.unique(patients, return_inverse=True)[1]
    of = sparse.csr_array((np.ones(len(codes)), (codes, np.arange(len(codes)))))
    given = np.concatenate([columns, np.ones((len(columns), 1))], 1)  # row −1 is all
    count = given.shape[1]
    share = np.full((count, columns.shape[1]), np.nan)
    variance = np.zeros_like(share)
    clusters, images = np.zeros(count), np.zeros(count)
    for i in range(count):
        here = given[:, i] * weight
        total = here.sum()
        images[i] = (here > 0).sum()
        clusters[i] = (of @ here > 0).sum()
        if not total:
            continue
        share[i] = here @ columns / total
        sums = of @ (here[:, None] * (columns - share[i]) / total)
        variance[i] = np.square(sums).sum(0) * clusters[i] / max(clusters[i] - 1, 1)
    return _Shares(share, variance, clusters, images)


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


def ages(
    samples: tuple[np.ndarray, np.ndarray],
    reals: tuple[np.ndarray, np.ndarray],
    real_weights: np.ndarray,
) -> Ages:
    """Mean, deviation and quantiles of ages, samples beside reals.

    Args:
      samples: Years that were read, `[n]`, and the patient of each image.
      reals: The same of the reals.
      real_weights: Weight of each real.
    """
    both = [_moments(*samples, np.ones(len(samples[0]))), _moments(*reals, real_weights)]
    n = int((real_weights > 0).sum()), len(samples[0])
    least = min(len(np.unique(samples[1])), len(np.unique(reals[1][real_weights > 0])))
    figures = [
        intervals.student(
            name, both[0][0][k] - both[1][0][k], both[0][1][k] + both[1][1][k], least, *n
        )
        for k, name in enumerate(("mean age, years", "deviation of age, years"))
    ]
    shown = [
        (*moments, *_quantiles(side[0], weight))
        for (moments, _), side, weight in zip(
            both, (samples, reals), (np.ones(len(samples[0])), real_weights), strict=True
        )
    ]
    return Ages(figures[0], figures[1], shown[0], shown[1])


def _moments(
    years: np.ndarray, patients: np.ndarray, weight: np.ndarray
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Weighted mean and deviation, and their variances between patients."""
    share = weight / weight.sum()
    mean = float(share @ years)
    deviation = float(np.sqrt(share @ np.square(years - mean)))
    codes = np.unique(patients, return_inverse=True)[1]
    pulls = (
        share * (years - mean),
        share * (np.square(years - mean) - deviation**2) / max(2 * deviation, 1e-9),
    )
    spread = [float(np.square(np.bincount(codes, pull)).sum()) for pull in pulls]
    return (mean, deviation), (spread[0], spread[1])


def _quantiles(years: np.ndarray, weight: np.ndarray) -> list[float]:
    order = np.argsort(years)
    place = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    return [float(each) for each in np.interp(QUANTILES, place, years[order])]
