"""Every measure of two sets of features, each under its own name and with its numbers of pictures.

Which ones are estimable depends on N: the Fréchet distance in full width from twice the width on,
FD64 from 320 on, below that only KID and the energy distance. What is not estimable says why.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from rfxray.evaluate import energy, frechet_figure, intervals, kernel, manifold
from rfxray.evaluate.basis import LEAST, Basis
from rfxray.evaluate.feature_pair import Patients
from rfxray.evaluate.figure import Figure, not_estimable
from rfxray.evaluate.manifold import Manifold

SPLITS = 20  # of a floor, for distances
SPLITS_OF_MANY = 5  # of a floor of more than `MANY` pictures: its spread between splits is small
MANY = 2000


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
      DataError: for features that are not finite or of different widths.
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
        why = f"without a committed basis it is fitted on {LEAST} reals or more, of 64 features"
        return not_estimable("FD64", len(real), len(synthetic), why)
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
    largest = int(np.bincount(codes).max())
    size = max(1, min(most, len(real) // 2 - largest // 2))
    splits = SPLITS if size <= MANY else SPLITS_OF_MANY
    distances: dict[str, Callable[[np.ndarray, np.ndarray, Patients], Figure]] = {
        "FD": frechet_figure.full,
        "FD64": lambda x, y, of: principal(x, y, of, basis),
        kernel.NAME: kernel.distance,
        energy.NAME: energy.distance,
    }
    # The splits are of numbers of rows, so that either half may come from other features.
    numbers = np.arange(len(real))[:, None]

    def between(measure: Callable[[np.ndarray, np.ndarray, Patients], Figure]) -> Figure:
        def of_numbers(left: np.ndarray, right: np.ndarray, of: Patients) -> Figure:
            return measure(real[left[:, 0]], other[right[:, 0]], of)

        return intervals.floor(of_numbers, numbers, codes, size, splits, seed)

    found = [
        dataclasses.replace(between(measure), name=name) for name, measure in distances.items()
    ]
    if found[-1].value is None:  # too few patients for two halves
        return found
    left, right = intervals.halves(codes, size, seed)
    of = Patients(codes[left], codes[right], int(codes.max()) + 1)
    return [*found, *manifold.figures(real[left], other[right], of)]
