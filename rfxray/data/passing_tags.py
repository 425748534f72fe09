r"""The tags of a DICOM file that an edit of it may carry on: a list, and the form of each value.

What is not here is new in the edit or absent: names, numbers, dates, places, UIDs, private tags,
overlays, and every free text. A value passes only if it is a number or one of the terms of the
standard, so that no text hides in it; it is written again from what was read.

| tags | why |
|---|---|
| Rows, Columns, bits, Pixel Representation, Photometric Interpretation | the pixels |
| Pixel Padding Value and Range Limit | which pixels are none |
| Pixel Spacing, Imager Pixel Spacing, Nominal Scanned Pixel Spacing, calibration type | size |
| magnification, distances of source, detector and patient | geometry of the projection |
| Lossy Image Compression | whether pixels were ever changed by it (PS3.3 C.7.6.1) |
| Patient Orientation, View Position, Image Laterality | what is left, and the view |
| rescale, window, Modality LUT, VOI LUT, Presentation LUT Shape | how values are displayed |
"""

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from rfxray.data import dicom, dicom_header
from rfxray.data.decoded import Refused
from rfxray.data.display import Table, Window
from rfxray.data.stored import Stored

VIEWS = ("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO")  # PS3.3 C.8.1.2.1
PAIRS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
NUMBERS = (
    "EstimatedRadiographicMagnificationFactor",
    "DistanceSourceToDetector",
    "DistanceSourceToPatient",
)
TERMS = {
    "ViewPosition": VIEWS,
    "ImageLaterality": ("R", "L", "U", "B"),
    "PixelSpacingCalibrationType": ("GEOMETRY", "FIDUCIAL"),
    "LossyImageCompression": ("00", "01"),
}
SIDES = "LRAPHF"  # of Patient Orientation


def passing(stored: Stored, values: np.ndarray, view_is_known: bool = False) -> dict[str, object]:
    """The tags that an edit carries on, with new pixels.

    Args:
      stored: Values and header of the file.
      values: Edited values, like `stored.values`.
      view_is_known: Whether the edit names a view of its own.

    Returns:
      Values by keyword; None for a tag that the edit shall not have.
    """
    dataset = stored.dataset
    assert dataset is not None
    found: dict[str, object] = {**_pixels(stored, values), **_display(stored, dataset)}
    for name in PAIRS:
        pair = [number for number in _numbers(dataset, name) if number]
        if len(pair) == 2 and min(pair) > 0:
            found[name] = [_decimal(number) for number in pair]
    for name in NUMBERS:
        numbers = _numbers(dataset, name)
        if len(numbers) == 1 and numbers[0]:
            found[name] = _decimal(numbers[0])
    for name, terms in TERMS.items():
        if (word := dicom_header.word(dataset, name)) in terms:
            found[name] = word
    if view_is_known:
        found.pop("ViewPosition", None)
    sides = [str(side).strip().upper() for side in _list(dataset.get("PatientOrientation"))]
    if len(sides) == 2 and all(0 < len(s) <= 3 and not set(s) - set(SIDES) for s in sides):
        found["PatientOrientation"] = sides
    return found


def _numbers(dataset: pydicom.Dataset, name: str) -> list[float | None]:
    """The numbers of a tag; none if it does not hold numbers, so that it does not pass."""
    try:
        return list(dicom_header.decimals(dataset, name))
    except Refused:
        return []


def _pixels(stored: Stored, values: np.ndarray) -> dict[str, object]:
    dataset = stored.dataset
    assert dataset is not None
    signed = int(dataset.PixelRepresentation == 1)
    allocated = 8 if dataset.BitsAllocated == 8 and stored.bits <= 8 else 16
    kind = f"<{'i' if signed else 'u'}{allocated // 8}"
    inverse = dataset.PhotometricInterpretation == "MONOCHROME1"
    data = np.ascontiguousarray(values, kind).tobytes()
    found: dict[str, object] = {
        "Rows": values.shape[0],
        "Columns": values.shape[1],
        "BitsAllocated": allocated,
        "BitsStored": stored.bits,
        "HighBit": stored.bits - 1,
        "PixelRepresentation": signed,
        "PhotometricInterpretation": "MONOCHROME1" if inverse else "MONOCHROME2",
        "PixelData": data + b"\0" * (len(data) % 2),
    }
    if stored.reserved:
        low, high = stored.reserved
        found["PixelPaddingValue"] = low
        if high != low:
            found["PixelPaddingRangeLimit"] = high
    return found


def _display(stored: Stored, dataset: pydicom.Dataset) -> dict[str, object]:
    found: dict[str, object] = {"WindowCenter": None, "WindowWidth": None}
    if table := dicom_header.modality_table(dataset, stored.values):
        found["ModalityLUTSequence"] = [_item(table, ModalityLUTType="US")]
    elif "RescaleSlope" in dataset or "RescaleIntercept" in dataset:
        slope, intercept = dicom_header.slope_and_intercept(dataset)
        found |= {"RescaleSlope": _decimal(slope), "RescaleIntercept": _decimal(intercept)}
        found["RescaleType"] = "US"  # unspecified
    values = dicom.modality(stored.values, dataset)(stored.values)
    views = [view for _, view in dicom_header.views(dataset, values)]
    if tables := [view for view in views if isinstance(view, Table)]:
        found["VOILUTSequence"] = [_item(table) for table in tables]
    if windows := [v for v in views if isinstance(v, Window) and not v.is_void]:
        found["WindowCenter"] = [_decimal(window.centre) for window in windows]
        found["WindowWidth"] = [_decimal(window.width) for window in windows]
        if windows[0].function != "LINEAR":
            found["VOILUTFunction"] = windows[0].function
    inverse = dataset.PhotometricInterpretation == "MONOCHROME1"
    if "PresentationLUTShape" in dataset:
        found["PresentationLUTShape"] = "INVERSE" if inverse else "IDENTITY"
    return found


def _item(table: Table, **further: str) -> Dataset:
    """A table as an item of a sequence, without its explanation."""
    item = Dataset()
    count = len(table.entries) % 65536
    if table.first < 0:  # the descriptor is signed, the number of entries still is not
        count = count - 65536 if count > 32767 else count
    vr = "SS" if table.first < 0 else "US"
    item.add_new("LUTDescriptor", vr, [count, table.first, table.bits])
    for name, value in further.items():
        setattr(item, name, value)
    item.add_new("LUTData", "OW", table.entries.astype("<u2").tobytes())
    return item


def _decimal(number: float) -> object:
    return DSfloat(number, auto_format=True)


def _list(value: object) -> list:
    if value is None or isinstance(value, str):
        return str(value or "").split("\\")
    return list(value)  # pyright: ignore[reportArgumentType]  a MultiValue
