"""A DICOM file → its pixels as they are to be displayed."""

import io
import warnings
from collections.abc import Callable
from typing import TypeVar

import cv2
import numpy as np
import pydicom

from rfxray.data import dicom_header, display
from rfxray.data.canonical import exposed
from rfxray.data.decoded import Radiograph, Refused
from rfxray.data.grey import grey
from rfxray.data.stored_values import stored_values
from rfxray.errors import first_line

JUDGED_SIDE = 512  # pixels; a window is judged by about this many rows or columns


def read_dicom(data: bytes) -> Radiograph:
    """Decodes a file of one grey frame.

    Raises:
      Refused: With the reason.
    """
    return reading(data, _radiograph)


T = TypeVar("T")


def reading(data: bytes, read: Callable[[pydicom.Dataset], T]) -> T:
    """What a function reads from the content of a file; any damage is Refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tags that are not used here
        try:
            return read(pydicom.dcmread(io.BytesIO(data), force=True))
        except (Refused, MemoryError):
            raise
        except Exception as error:  # pydicom and its decoders raise any type for damage
            # The message of the decoder, without pydicom's introduction
            said = str(error).partition("all available plugins:\n")[2].strip()
            raise Refused(f"does not decode: {first_line(said or error)}") from None


def _radiograph(dataset: pydicom.Dataset) -> Radiograph:
    dicom_header.refuse_others(dataset)
    dicom_header.complete(dataset)
    stored, bits, notes = stored_values(dataset)
    if stored.ndim == 3:
        pixels, left_out = grey(stored), []
    else:
        pixels, left_out = _displayed(stored, dataset)
    return Radiograph(
        pixels,
        bits,
        dicom_header.spacing(dataset),
        dicom_header.laterality(dataset),
        (*dicom_header.notes(dataset), *notes, *left_out),
    )


def _displayed(stored: np.ndarray, dataset: pydicom.Dataset) -> tuple[np.ndarray, list[str]]:
    """Stored values [height, width] as float32, bright is dense; notes on what was left out."""
    values = modality(stored, dataset)(stored)
    padding = padding_of(stored, dataset)
    view, notes = view_of(values, padding, dataset)
    pixels = (view(values) if view else values).astype(np.float32)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        ends = (0.0, 1.0) if view else (pixels.min(), pixels.max())
        pixels = display.invert(pixels, ends)
    if padding is not None:
        pixels[padding] = pixels[~padding].min()
    return pixels, notes


def modality(stored: np.ndarray, dataset: pydicom.Dataset) -> Callable[[np.ndarray], np.ndarray]:
    """What makes modality values of stored values: the table of the file, or its rescale."""
    if table := dicom_header.modality_table(dataset, stored):
        return table.look_up
    slope, intercept = dicom_header.slope_and_intercept(dataset)
    if (slope, intercept) == (1, 0):
        return lambda values: values
    return lambda values: display.rescale(values, slope, intercept)


def view_of(
    values: np.ndarray, padding: np.ndarray | None, dataset: pydicom.Dataset
) -> tuple[display.Window | display.Table | None, list[str]]:
    """The first VOI LUT or window of the file that shows the radiograph, or None; notes."""
    film, notes = None, []
    for name, view in dicom_header.views(dataset, values):
        if isinstance(view, display.Window) and view.is_void:
            notes.append(f"a window without width was left out: {name}")
            continue
        if film is None:
            step = max(1, min(values.shape) // JUDGED_SIDE)
            film = values[::step, ::step].astype(np.float32)
            if padding is not None:
                inside = ~padding[::step, ::step]
                film[~inside] = film[inside].min() if inside.any() else film.min()
            film = exposed(film)
        share = display.clipped_share(view, film)
        if share <= display.CLIPPED_SHARE:
            return view, notes
        kind = "window" if isinstance(view, display.Window) else "VOI LUT"
        notes.append(f"a {kind} that clips most of the picture was left out: {name}, {share:.0%}")
    return None, notes


def padding_of(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray | None:
    """The padding, [height, width] bool, if there is some: pixels with the declared value that are
    connected to the edge, since saturated tissue may have this value too (PS3.3 C.7.5.1.1.2).
    """
    if (ends := padding_values(stored, dataset)) is None:
        return None
    low, high = ends
    _, areas = cv2.connectedComponents(((stored >= low) & (stored <= high)).astype(np.uint8))
    edges = np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]])
    padding = (areas > 0) & np.isin(areas, np.unique(edges))
    return padding if padding.any() and not padding.all() else None


def padding_values(stored: np.ndarray, dataset: pydicom.Dataset) -> tuple[int, int] | None:
    """The lowest and the highest stored value that is declared as padding, if one is."""
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = np.array([value, limit if isinstance(limit, int) else value], np.int64)
    # Some files store the value of signed pixels as unsigned
    low, high = sorted(ends.astype(stored.dtype).tolist())
    return low, high
