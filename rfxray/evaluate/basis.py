"""The principal components on which FD64 is measured, so that its figures compare across papers."""

import dataclasses
import hashlib
import zipfile
from pathlib import Path

import numpy as np

from rfxray.errors import DataError
from rfxray.outputs import files

WIDTH = 64
LEAST = 5 * WIDTH  # images of each set: five rows per component


@dataclasses.dataclass(frozen=True)
class Basis:
    """Directions of most variance of a reference set.

    Attributes:
      mean: Mean of that set, `[width] float64`.
      components: Orthonormal columns, the most variance first, `[width, 64] float64`.
      extractor: Hash of the extractor of the features, hex.
      fitted_on: Name of the reference set.
    """

    mean: np.ndarray
    components: np.ndarray
    extractor: str
    fitted_on: str

    @property
    def name(self) -> str:
        """Name of the distance: FD64."""
        return f"FD{self.components.shape[1]}"

    @property
    def hash(self) -> str:
        """SHA-256 of the content, hex: the basis is printed beside each figure by this."""
        digest = hashlib.sha256(f"{self.extractor}\n{self.fitted_on}\n".encode())
        for array in (self.mean, self.components):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
        return digest.hexdigest()

    def check(self, width: int) -> None:
        """Refuses features of another width than the basis.

        Raises:
          DataError: For such features.
        """
        if width != len(self.mean):
            raise DataError(
                f"the basis of {self.name} is for {len(self.mean)} columns, not {width}; use the "
                "basis of this extractor"
            )

    def save(self, path: str | Path) -> None:
        """Writes the basis as an npz file of float32: 0.3 MB for 1,280 columns."""
        with files.whole_file(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                mean=self.mean.astype(np.float32),
                components=self.components.astype(np.float32),
                extractor=np.asarray(self.extractor),
                fitted_on=np.asarray(self.fitted_on),
            )


def fit(
    mean: np.ndarray, covariance: np.ndarray, extractor: str, fitted_on: str, width: int = WIDTH
) -> Basis:
    """Principal components of a reference set.

    Args:
      mean: Mean of its features, `[columns] float64`.
      covariance: Covariance of its features, `[columns, columns] float64`.
      extractor: Hash of the extractor of the features, hex.
      fitted_on: Name of the reference set.
      width: Number of components.

    Raises:
      DataError: For features with fewer columns than components.
    """
    if len(mean) < width:
        raise DataError(
            f"features of {len(mean)} columns have no {width} principal components; use FD"
        )
    vectors = np.linalg.eigh(covariance)[1][:, ::-1][:, :width]
    # An eigenvector has no sign of its own; the largest entry is positive, so that a hash repeats.
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0)
    rounded = (vectors * np.sign(largest)).astype(np.float32).astype(np.float64)
    return Basis(mean.astype(np.float32).astype(np.float64), rounded, extractor, fitted_on)


def packaged_file(extractor: str) -> Path:
    """The file in the package of the basis of an extractor, by its name; it may not exist."""
    return Path(__file__).parent / "packaged" / f"fd64_{extractor}.npz"


def packaged(extractor: str, weights: str) -> Basis | None:
    """The basis that comes with the package, so that FD64 compares across data sets and papers.

    Args:
      extractor: Name of the extractor.
      weights: Hash of its weights, hex.

    Returns:
      The basis, or None if there is none for these weights.
    """
    file = packaged_file(extractor)
    found = load(file) if file.exists() else None
    return found if found is not None and found.extractor == weights else None


def load(path: str | Path) -> Basis:
    """The inverse of `Basis.save`.

    Raises:
      DataError: If there is no such basis, or it is damaged.
    """
    try:
        with np.load(path) as file:
            mean, components = (file[n].astype(np.float64) for n in ("mean", "components"))
            return Basis(mean, components, str(file["extractor"]), str(file["fitted_on"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"no basis of FD64 in {path} ({error}); fit it again") from error
