"""Every measure of two sets of features, each under its own name and with its numbers of pictures.

Which ones are estimable depends on N: the Fréchet distance in full width from twice the width on,
FD64 from 320 on, below that only KID and the energy distance. What is not estimable says why.
"""

import dataclasses

import numpy as np

from rfxray.evaluate import energy, frechet_figure, intervals, kernel, manifold
from rfxray.evaluate.basis import LEAST, Basis
from rfxray.evaluate.feature_pair import Patients
from rfxray.evaluate.figure import Figure, not_estimable
from rfxray.evaluate.intervals import Measure
from rfxray.evaluate.manifold import Manifold

SPLITS = 20  # of a floor, for distances
SPLITS_OF_MANY = 5  # of a floor of more than `MANY` pictures: its spread between splits is small
MANY = 2000
SPLITS_OF_PART = 10  # of a floor of a part: 40 parts of 2,000 pictures take half a minute
MOST_OF_PART = 500
NO_BASIS = f"without a committed basis it is fitted on {LEAST} reals or more, of 64 features"


def measured(
    real: np.ndarray,
    synthetic: np.ndarray,
    of: Patients,
    basis: Basis | None,
    seed: int,
    seen: Manifold | None,
) -> list[Figure]:
    """FD, FD∞, FD64, KID, energy distance, precision, recall, density and coverage.

    Args:
      real: Real features, [n, width] float32.
      synthetic: Synthetic features, [m, width] float32.
      of: Patient of each row.
      basis: Basis of FD64, None if there is none.
      seed: Seed of the subsets of FD∞.
      seen: PRDC of these sets, if it is there already.

    Raises:
      DataError: For features that are not finite or of different widths.
    """
    return [
        frechet_figure.full(real, synthetic, of),
        frechet_figure.infinite(real, synthetic, of, seed=seed),
        principal(real, synthetic, of, basis),
        kernel.distance(real, synthetic, of),
        energy.distance(real, synthetic, of),
        *manifold.figures(real, synthetic, of, seen),
    ]


def principal(real: np.ndarray, synthetic: np.ndarray, of: Patients, basis: Basis | None) -> Figure:
    """FD64, or why there is none; see `measured`."""
    if basis is None:
        return not_estimable("FD64", len(real), len(synthetic), NO_BASIS)
    return frechet_figure.principal(real, synthetic, of, basis)


def of_curve(
    real: np.ndarray, synthetic: np.ndarray, of: Patients, basis: Basis | None
) -> list[Figure]:
    """The measures of which a curve over N is drawn; those that are estimable."""
    found = [
        kernel.distance(real, synthetic, of),
        principal(real, synthetic, of, basis),
        frechet_figure.full(real, synthetic, of),
    ]
    return [figure for figure in found if figure.value is not None]


def differences(
    real: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    codes: tuple[np.ndarray, np.ndarray, np.ndarray],
    basis: Basis | None,
) -> list[Figure]:
    """KID, FD64 and FD of a first model less those of a second, to one real set, paired.

    Args:
      real: Real features, [n, width] float32.
      first: Features of the samples of the first model, [m, width] float32.
      second: Features of the samples of the second model, [l, width] float32.
      codes: Cluster of each row of the three sets in one numbering.
      basis: Basis of FD64, None if there is none.
    """
    kid = kernel.difference(real, first, second, codes)
    if basis is None:
        counts = len(real), min(len(first), len(second))
        fd64 = not_estimable("FD64 difference", *counts, NO_BASIS)
    else:
        fd64 = frechet_figure.difference(real, first, second, codes, basis)
    return [kid, fd64, frechet_figure.difference(real, first, second, codes)]


def part_floor(
    real: np.ndarray, other: np.ndarray, codes: np.ndarray, most: int, seed: int
) -> Figure:
    """KID of halves of a part of the reals that share no patient; see `floors`.

    There are many parts, so it has at most 500 pictures of a half and 10 splits: its N stands
    beside it, and KID has no bias of N.
    """
    size, _ = _halves(codes, min(most, MOST_OF_PART))
    found = _between(real, other, codes, kernel.distance, size, SPLITS_OF_PART, seed)
    return dataclasses.replace(found, name=kernel.NAME)


def _halves(codes: np.ndarray, most: int) -> tuple[int, int]:
    """Pictures of a half, and number of splits."""
    largest = int(np.bincount(codes).max())
    size = max(1, min(most, len(codes) // 2 - largest // 2))
    return size, SPLITS if size <= MANY else SPLITS_OF_MANY


def _between(
    real: np.ndarray,
    other: np.ndarray,
    codes: np.ndarray,
    measure: Measure,
    size: int,
    splits: int,
    seed: int,
) -> Figure:
    """A distance between halves, the second one of other features of the same pictures."""

    def of_numbers(left: np.ndarray, right: np.ndarray, of: Patients) -> Figure:
        return measure(real[left[:, 0]], other[right[:, 0]], of)

    # The splits are of numbers of rows, so that either half may come from other features.
    return intervals.floor(of_numbers, np.arange(len(real))[:, None], codes, size, splits, seed)


def floors(
    real: np.ndarray,
    other: np.ndarray,
    codes: np.ndarray,
    most: int,
    basis: Basis | None,
    seed: int,
) -> list[Figure]:
    """What halves of the reals that share no patient are apart, by every measure of `measured`.

    Args:
      real: Real features, [n, width] float32.
      other: Features of the same pictures, perhaps resized: the second half comes from them.
      codes: Patient of each row, [n] int.
      most: Number of pictures of a half, at most.
      basis: Basis of FD64, None if there is none.
      seed: Seed of the splits.

    Returns:
      Distances as the mean over splits, with the range of 95% of such splits; precision, recall,
      density and coverage of the first split, with their own intervals.
    """
    size, splits = _halves(codes, most)
    distances: dict[str, Measure] = {
        "FD": frechet_figure.full,
        "FD64": lambda x, y, of: principal(x, y, of, basis),
        kernel.NAME: kernel.distance,
        energy.NAME: energy.distance,
    }
    found = [
        dataclasses.replace(_between(real, other, codes, measure, size, splits, seed), name=name)
        for name, measure in distances.items()
    ]
    if found[-1].value is None:  # too few patients for two halves
        return found
    left, right = intervals.halves(codes, size, seed)
    of = Patients(codes[left], codes[right], int(codes.max()) + 1)
    return [*found, *manifold.figures(real[left], other[right], of)]
