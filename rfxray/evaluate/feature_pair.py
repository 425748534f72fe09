"""Two sets of features that are compared, and the patient of each row."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rfxray.errors import DataError

# Rows that are looked at at once: 4096 rows of 2048 in float64 are 64 MiB.
ROWS = 4096


@dataclasses.dataclass(frozen=True)
class Patients:
    """Rows of two sets as clusters: rows of one patient are not independent of each other.

    Attributes:
      real: Cluster of each real row, `[n] int` in 0 … count − 1.
      synthetic: Cluster of each synthetic row, `[m] int`, of the same numbering.
      count: Number of clusters in both sets together.
    """

    real: np.ndarray
    synthetic: np.ndarray
    count: int

    @property
    def shared(self) -> bool:
        """Whether a patient has rows in both sets."""
        return len(np.intersect1d(self.real, self.synthetic)) > 0


def patients(
    n_real: int,
    n_synthetic: int,
    real: Sequence | np.ndarray | None = None,
    synthetic: Sequence | np.ndarray | None = None,
) -> Patients:
    """Numbers the patients of two sets.

    Args:
      n_real: Number of real rows.
      n_synthetic: Number of synthetic rows.
      real: Patient of each real row; each row is a patient of its own if None.
      synthetic: Patient of each synthetic row, the same name being the same patient; or None.

    Raises:
      DataError: If the names are not as many as the rows.
    """
    codes, count = number(("real", n_real, real), ("synthetic", n_synthetic, synthetic))
    return Patients(codes[0], codes[1], count)


def number(
    *sets: tuple[str, int, Sequence | np.ndarray | None],
) -> tuple[list[np.ndarray], int]:
    """Numbers the patients of several sets in one numbering.

    Args:
      sets: Name of a set, number of its rows, patient of each row or None, for each set.

    Returns:
      The patient of each row, `[rows] int64` for each set, and the number of patients.

    Raises:
      DataError: If the names are not as many as the rows.
    """
    names: list[list] = []
    for what, count, given in sets:
        if given is None:
            names.append([(what, row) for row in range(count)])
        elif len(given) != count:
            raise DataError(f"{len(given)} patients for {count} {what} rows; give one for each row")
        else:
            names.append([str(name) for name in given])
    numbers = {
        name: i for i, name in enumerate(dict.fromkeys(name for side in names for name in side))
    }
    return [np.array([numbers[name] for name in side], np.int64) for side in names], len(numbers)


def check(features: np.ndarray, what: str) -> None:
    """Refuses what is not a set of features.

    Args:
      features: Features, `[n, width] float32 or float64`.
      what: Name of the set, for the message.

    Raises:
      DataError: For another shape, no rows, or a row that is not finite.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise DataError(
            f"{what} features must be [n, width] with at least one row (got {features.shape})"
        )
    for start in range(0, len(features), ROWS):
        bad = ~np.isfinite(features[start : start + ROWS]).all(1)
        if bad.any():
            raise DataError(
                f"{what} features are not finite in row {start + int(bad.argmax())}; find that "
                "image, correct or remove it, and extract again"
            )


def check_pair(real: np.ndarray, synthetic: np.ndarray) -> None:
    """Refuses two sets that cannot be compared, as `check`, or of different widths."""
    check(real, "real")
    check(synthetic, "synthetic")
    if real.shape[1] != synthetic.shape[1]:
        raise DataError(
            f"real features have {real.shape[1]} columns and synthetic ones {synthetic.shape[1]}; "
            "extract both with one extractor"
        )
