"""A decoded radiograph, and the refusal of a file that does not become one."""

import dataclasses

import numpy as np

from rfxray.errors import DataError


class Refused(DataError):
    """A file that does not become a record; `str(error)` is the reason for dropped.csv.

    The text before a colon is the same for all files with the same problem.
    """


@dataclasses.dataclass(frozen=True)
class Radiograph:
    """A decoded file.

    Attributes:
      pixels: Pixels [height, width] float32 in any range, bright is dense.
      bits: Bits stored per pixel in the file.
      pixel_spacing: Distance of rows and of columns, mm; 0 if unknown.
      laterality: One of `L`, `R` and the empty string.
      notes: Remarks about how the file was read. The text before a colon is the same for all files
        with the same remark.
    """

    pixels: np.ndarray
    bits: int
    pixel_spacing: tuple[float, float] = (0.0, 0.0)
    laterality: str = ""
    notes: tuple[str, ...] = ()
