"""The stored values of a radiograph, how each would be displayed, and a change carried back.

The model changes a small square of displayed grey. `carry_back` makes the same change in the file's
own pixels: it is enlarged to their number, and each changed pixel gets the stored value that is
displayed nearest to the grey that is wanted; of several, that nearest to its present value. So the
map from stored to displayed values (tables, rescale, windows, MONOCHROME1) need not be invertible.
Where a linear window or the contrast of `canonical` clips, the line goes on: a marker beyond white
keeps its detail. Where a table or a sigmoid is flat, or the bits end, a change stops. Padding never
changes, and no pixel gets the value of padding.
"""

import dataclasses

import cv2
import numpy as np
import pydicom

from rfxray.data import dicom, dicom_header
from rfxray.data.decoded import Refused
from rfxray.data.stored_values import stored_values


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """Stored values of a file.

    Attributes:
      values: Values [height, width] of an integer type.
      bits: Bits of a value.
      shown: Displayed grey of every possible value from `lowest` on, [2^bits] float64, in the units
        of `Radiograph.pixels` except for a constant.
      lowest: The lowest possible value: below 0 if values are signed.
      padding: Pixels that are padding, [height, width] bool; None for none.
      reserved: Lowest and highest value that means padding; None for none.
      dataset: Header of a DICOM file.
    """

    values: np.ndarray
    bits: int
    shown: np.ndarray
    lowest: int = 0
    padding: np.ndarray | None = None
    reserved: tuple[int, int] | None = None
    dataset: pydicom.Dataset | None = None


def stored_grey(pixels: np.ndarray, bits: int) -> Stored:
    """The stored values of a PNG or JPEG, which are what it displays.

    Args:
      pixels: Pixels [height, width] of `Radiograph`.
      bits: Bits of a value.

    Raises:
      Refused: If they are not whole grey values of 8 or 16 bits.
    """
    values = pixels.astype(np.uint8 if bits == 8 else np.uint16)
    if bits not in (8, 16) or (values != pixels).any():
        raise Refused(f"not grey values of 8 or 16 bits: {bits} bits, or colours not grey")
    return Stored(values, bits, np.arange(1 << bits, dtype=np.float64))


def read_stored_dicom(data: bytes) -> Stored:
    """The stored values of a DICOM file.

    Raises:
      Refused: With the reason; also if it is in colour or has more than 16 bits.
    """
    return dicom.reading(data, _read)


def _read(dataset: pydicom.Dataset) -> Stored:
    dicom_header.refuse_others(dataset)
    dicom_header.complete(dataset)
    values, bits, _ = stored_values(dataset)
    if values.ndim == 3 or bits > 16:
        raise Refused(f"not one grey value of up to 16 bits: {bits} bits, {values.ndim - 1} axes")
    lowest = -(1 << (bits - 1)) if dataset.PixelRepresentation == 1 else 0
    all_values = np.arange(lowest, lowest + (1 << bits))
    modality = dicom.modality(values, dataset)
    padding = dicom.padding_of(values, dataset)
    view, _ = dicom.view_of(modality(values), padding, dataset)
    shown = modality(all_values)
    shown = (view.extended(shown) if view else shown).astype(np.float64)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = -shown
    reserved = dicom.padding_values(values, dataset)
    return Stored(values, bits, shown, lowest, padding, reserved, dataset)


def carry_back(
    stored: Stored, change: np.ndarray, free: np.ndarray, contrast: tuple[float, float]
) -> np.ndarray:
    """The values of a file after a change of its displayed image.

    Args:
      stored: Values of the file.
      change: Change of the displayed image, [rows, columns] float32 of any size in shares of the
        contrast; 0 for none.
      free: Pixels of the file that may change, [height, width] bool.
      contrast: Displayed values that are black and white in the image.

    Returns:
      Values like `stored.values`. Where `free` is false, or the change interpolated to the size of
      the file is 0, they are the same.
    """
    height, width = stored.values.shape
    how = cv2.INTER_LINEAR if height >= change.shape[0] else cv2.INTER_AREA
    wanted = cv2.resize(change.astype(np.float32), (width, height), interpolation=how)
    wanted = wanted.astype(np.float64) * (float(contrast[1]) - float(contrast[0]))
    moved = free & (wanted != 0)
    if stored.padding is not None:
        moved = moved & ~stored.padding
    values = stored.values.copy()
    values[moved] = _nearest(stored, stored.values[moved].astype(np.int64), wanted[moved])
    return values


def _nearest(stored: Stored, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values [count] that are displayed nearest to their present grey plus what is wanted."""
    present = stored.shown[values - stored.lowest]
    target = present + wanted
    every = np.arange(len(stored.shown), dtype=np.int64) + stored.lowest
    if stored.reserved:
        low, high = stored.reserved
        kept = every[(every < low) | (every > high)]
        every = kept if len(kept) else every  # all values are padding, so none is
    greys, group = np.unique(stored.shown[every - stored.lowest], return_inverse=True)
    at = np.clip(np.searchsorted(greys, target), 1, max(1, len(greys) - 1))
    at = np.minimum(at, len(greys) - 1)
    below = np.maximum(at - 1, 0)
    at = np.where(np.abs(greys[below] - target) < np.abs(greys[at] - target), below, at)
    # Of the values with that grey the nearest to the present one: values sorted by grey, then value
    span = 1 << 17
    keys = np.sort(group.astype(np.int64) * span + (every - stored.lowest))
    place = np.searchsorted(keys, at * span + (values - stored.lowest))
    right, left = np.minimum(place, len(keys) - 1), np.maximum(place - 1, 0)
    own = values - stored.lowest
    far = np.int64(1) << 40
    off = [
        np.where(keys[i] // span == at, np.abs(keys[i] % span - own), far) for i in (left, right)
    ]
    found = np.where(off[0] < off[1], keys[left], keys[right]) % span + stored.lowest
    better = np.abs(greys[at] - target) < np.abs(present - target)
    return np.where(better, found, values)
