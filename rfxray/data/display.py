"""How DICOM displays stored values: the formulas of PS3.3 C.11 on plain arrays.

    stored values → modality: `rescale`, or a `Table` → VOI: a `Window` or a `Table`, in [0, 1] →
    `invert`, once, if the photometric interpretation is MONOCHROME1

A Presentation LUT Shape never inverts a second time: PS3.3 C.7.6.1 requires INVERSE with
MONOCHROME1 and IDENTITY with MONOCHROME2, so it repeats the photometric interpretation.
"""

import dataclasses

import numpy as np

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")  # C.11.2.1.2 and C.11.2.1.3
# A view is degenerate if it makes more than half of the exposed pixels black or white. An end that
# flattens less than a tenth of their range does not count: that is air or the plate outside.
CLIPPED_SHARE, FLAT_SHARE = 0.5, 0.1
# Black and white to half a step of 8 bits; a sigmoid never reaches its ends.
END = 1 / 510


@dataclasses.dataclass(frozen=True)
class Window:
    """A VOI window (PS3.3 C.11.2.1.2).

    Attributes:
      centre: Centre, in modality units.
      width: Width, in modality units; LINEAR needs 1 or more, the others more than 0.
      function: One of `FUNCTIONS`.
    """

    centre: float
    width: float
    function: str = "LINEAR"

    @property
    def is_void(self) -> bool:
        """Whether the standard gives a window of this width no meaning."""
        return not (self.width >= 1 if self.function == "LINEAR" else self.width > 0)

    @property
    def ends(self) -> tuple[float, float]:
        """The darkest and the brightest output."""
        return 0.0, 1.0

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Maps modality values of any shape to float64 in [0, 1]."""
        values = values.astype(np.float64)
        if self.function == "SIGMOID":
            with np.errstate(over="ignore"):  # exp of a large number: black
                return 1 / (1 + np.exp(-4 * (values - self.centre) / self.width))
        centre, width = self._line
        if width == 0:
            return (values > centre).astype(np.float64)
        values -= centre
        values /= width
        values += 0.5
        return np.clip(values, 0, 1, out=values)

    def extended(self, values: np.ndarray) -> np.ndarray:
        """The same, but a line goes on beyond black and white."""
        centre, width = self._line
        if self.function == "SIGMOID" or width == 0:
            return self(values)
        return (values.astype(np.float64) - centre) / width + 0.5

    @property
    def _line(self) -> tuple[float, float]:
        exact = self.function == "LINEAR_EXACT"
        return (self.centre, self.width) if exact else (self.centre - 0.5, self.width - 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A look-up table of the modality or the VOI (PS3.3 C.11.1.1 and C.11.2.1.1).

    Attributes:
      first: Input that the first entry is for; inputs below take the first entry, inputs beyond the
        table the last.
      bits: Bits of an entry.
      entries: Entries [count] int64.
    """

    first: int
    bits: int
    entries: np.ndarray

    @property
    def ends(self) -> tuple[float, float]:
        """The darkest and the brightest output."""
        low, high = (int(self.entries.min()), int(self.entries.max()))
        return low / self._full, high / self._full

    @property
    def _full(self) -> int:
        # entries may be larger than their bits allow
        return max((1 << self.bits) - 1, int(self.entries.max()))

    def look_up(self, values: np.ndarray) -> np.ndarray:
        """The entries, int64, for values of any shape; a fraction of an input is cut off."""
        if values.dtype.kind == "f":
            # 1e-6: 0.1 × 30 is 2.9999… + 1e-17
            values = np.floor(np.clip(values - self.first, 0, len(self.entries) - 1) + 1e-6)
            return self.entries[values.astype(np.int64)]
        index = values.astype(np.int64)
        index -= self.first
        return self.entries[np.clip(index, 0, len(self.entries) - 1, out=index)]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Maps modality values of any shape to float64 in [0, 1], by the bits of the entries."""
        return self.look_up(values) / self._full

    def extended(self, values: np.ndarray) -> np.ndarray:
        """The same: beyond the table its ends go on."""
        return self(values)


def rescale(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Stored values of any shape and type as modality values, float64 (PS3.3 C.11.1.1.2)."""
    return stored.astype(np.float64) * slope + intercept


def invert(shown: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """Values of any shape with black and white, which are `ends`, exchanged."""
    return ends[1] + ends[0] - shown


def clipped_share(view: Window | Table, exposed: np.ndarray) -> float:
    """Share of the exposed modality values, [count], that a view makes black or white.

    An end that flattens only a small part of their range is not counted (`FLAT_SHARE`).
    """
    if not exposed.size:
        return 0.0
    low, high = view.ends
    if low == high:
        return 1.0
    shown = (view(exposed) - low) / (high - low)
    reach = float(exposed.max()) - float(exposed.min())
    clipped = 0
    for flat in (exposed[shown <= END], exposed[shown >= 1 - END]):
        if flat.size and float(flat.max()) - float(flat.min()) > FLAT_SHARE * reach:
            clipped += flat.size
    return clipped / exposed.size
