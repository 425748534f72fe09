"""What a DICOM header says, in the words of files as they are, and which headers are refused.

A tag without a value counts as missing, each for itself. Decimal commas are read as points.
"""

import contextlib
import math
import re
from collections.abc import Iterator

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from rfxray.data.decoded import Refused
from rfxray.data.display import FUNCTIONS, Table, Window

# Modalities of DICOM that have grey images of one frame but no radiographs. A list of those that do
# (CR, DX, DR, RG, OT, none, …) would never be complete.
OTHER_MODALITIES = ("CT", "MR", "PT", "NM", "US", "MG")
# Defined terms of PS3.16 annex L and usual words for regions other than the chest. A list of words
# for the chest would never be complete: an empty or unknown body part passes. So do rib and
# sternum, which are examined on films of the chest.
_PARTS = """
    ABDOMEN ABDOMENPELVIS ANKLE ARM BLADDER BREAST BUTTOCK CALCANEUS CALF CEREBRUM
    CERVICALSPINE CLAVICLE COCCYX COLON CSPINE CTSPINE DENTAL ELBOW EXTREMITY EYE FACE
    FACIALBONES FEMUR FIBULA FINGER FOOT FEET FOREARM HAND HEAD HEADNECK HEEL HIP HUMERUS JAW
    KIDNEY KNEE LEG LIVER LOWERARM LOWERLEG LSPINE LSSPINE LUMBARSPINE MANDIBLE MASTOID
    MAXILLA METACARPUS METATARSUS NECK NOSE ORBIT PARANASALSINUS PATELLA PELVIS RADIUS
    RADIUSULNA SACRUM SCALP SCAPULA SHOULDER SINUS SKULL SPINE SSPINE STOMACH TEETH
    TEMPOROMANDIBULARJOINT THIGH THORACICSPINE THUMB TIBIA TIBIAFIBULA TLSPINE TMJ TOE TOOTH
    TSPINE ULNA UPPERARM WRIST ZYGOMA
"""
OTHER_BODY_PARTS = tuple(_PARTS.split())
CHEST_WORDS = ("CHEST", "THORA", "TORAX", "TORAC", "LUNG", "PULMO", "RIB", "STERN")
SQUARE_PIXELS = 1.01  # ratio of a pixel's sides; above it images would be visibly distorted
EXPECTED_ORIENTATIONS = ("L\\F", "A\\F", "P\\F")  # frontal as usually shown, and both laterals
DECIMALS = (
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"),
    *("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"),
)
_BINARY = ("AT", "FD", "FL", "SL", "SS", "UL", "US", "SV", "UV", "OB", "OW", "OD", "OF", "OL")


def refuse_others(dataset: pydicom.Dataset) -> None:
    """Raises Refused if the header says that this is not one radiograph of a chest."""
    if "PixelData" not in dataset:
        raise Refused("a DICOM file without pixel data, or torn before it")
    frames = number(dataset, "NumberOfFrames", 1)
    if frames > 1:
        raise Refused(f"several frames: {frames:g} instead of one")
    modality = word(dataset, "Modality")
    if modality in OTHER_MODALITIES:
        raise Refused(f"not a radiograph: modality {modality}")
    part = word(dataset, "BodyPartExamined")
    if is_other_part(part):
        raise Refused(f"not a chest: body part {part}")
    photometric = word(dataset, "PhotometricInterpretation")
    if photometric == "PALETTE COLOR":
        raise Refused("colour: a palette")
    # PS3.3 C.7.6.1: INVERSE is for MONOCHROME1, IDENTITY for MONOCHROME2. Some viewers show this as
    # a negative, others do not. (IDENTITY with MONOCHROME1 is common, and viewers ignore it.)
    if photometric != "MONOCHROME1" and word(dataset, "PresentationLUTShape") == "INVERSE":
        raise Refused("contradictory header: MONOCHROME2 with PresentationLUTShape INVERSE")
    for tag in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        with contextlib.suppress(Refused):
            sides = [side for side in decimals(dataset, tag) if side]
            if len(sides) == 2 and min(sides) > 0 and max(sides) > SQUARE_PIXELS * min(sides):
                break
    else:
        return
    raise Refused(f"pixels that are not square: {tag} {sides[0]:g}, {sides[1]:g}")


def is_other_part(part: str) -> bool:
    """Whether a body part, in capitals, names another region and not the chest."""
    if any(chest in part for chest in CHEST_WORDS) and "SPINE" not in part:
        return False
    words = [w for w in re.split(r"[^A-Z]+", part) if w not in ("", "LEFT", "RIGHT", "L", "R")]
    names = {*words, "".join(words), "".join(re.findall("[A-Z]", part))}
    return bool({*names, *(name.removesuffix("S") for name in names)} & set(OTHER_BODY_PARTS))


def complete(dataset: pydicom.Dataset) -> None:
    """Fills in defaults for tags that decoding needs; 5% of CheXpert-Plus lack some of them.

    Raises:
      Refused: If a tag has no default, is not one number, or contradicts another.
    """
    if "TransferSyntaxUID" not in getattr(dataset, "file_meta", {}):
        dataset.file_meta = FileMetaDataset()
        big = dataset.original_encoding[1] is False
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian if big else ImplicitVRLittleEndian
    for tag in ("Rows", "Columns", "BitsAllocated"):
        _fill_in(dataset, tag, None)
    _fill_in(dataset, "SamplesPerPixel", 1)
    _fill_in(dataset, "PixelRepresentation", 0)
    _fill_in(dataset, "BitsStored", dataset.BitsAllocated)
    _fill_in(dataset, "HighBit", dataset.BitsStored - 1)
    if not 1 <= dataset.BitsStored <= dataset.BitsAllocated:
        raise Refused(
            f"contradictory header: BitsStored {dataset.BitsStored} of BitsAllocated "
            f"{dataset.BitsAllocated}"
        )
    dataset.PhotometricInterpretation = word(dataset, "PhotometricInterpretation") or "MONOCHROME2"


def _fill_in(dataset: pydicom.Dataset, tag: str, default: int | None) -> None:
    value = dataset.get(tag)
    if value in (None, ""):
        if default is None:
            raise Refused(f"does not decode: no {tag}")
        setattr(dataset, tag, default)
    elif not isinstance(value, int):
        raise Refused(f"does not decode: {tag} is not one whole number")


def notes(dataset: pydicom.Dataset) -> list[str]:
    """Remarks about the header; see `Radiograph`."""
    found = []
    if commas := [tag for tag in DECIMALS if "," in _text(dataset, tag)]:
        found.append(f"a decimal comma was read as a point: {', '.join(commas)}")
    orientation = _text(dataset, "PatientOrientation").replace(" ", "").upper()
    if orientation.strip("\\") and orientation not in EXPECTED_ORIENTATIONS:
        found.append(f"unusual PatientOrientation: {orientation}")
    photometric = dataset.PhotometricInterpretation
    if dataset.SamplesPerPixel == 1 and photometric not in ("MONOCHROME1", "MONOCHROME2"):
        found.append(f"one sample per pixel was read as MONOCHROME2: {photometric}")
    return found


def modality_table(dataset: pydicom.Dataset, stored: np.ndarray) -> Table | None:
    """The Modality LUT, if there is one."""
    items = dataset.get("ModalityLUTSequence") or ()
    return next((t for t in (_table(item, dataset, stored) for item in items) if t), None)


def slope_and_intercept(dataset: pydicom.Dataset) -> tuple[float, float]:
    """Of the rescale; 1 and 0 if missing, each for itself."""
    slope = number(dataset, "RescaleSlope", 1)
    if slope == 0:
        raise Refused("contradictory header: RescaleSlope 0")
    return slope, number(dataset, "RescaleIntercept", 0)


def views(dataset: pydicom.Dataset, values: np.ndarray) -> Iterator[tuple[str, Window | Table]]:
    """The VOI LUTs, then the windows of a file in their order, each with a description.

    Raises:
      Refused: If a table is short, or a function is not one of the standard that we read.
    """
    for number_, item in enumerate(dataset.get("VOILUTSequence") or (), 1):
        if table := _table(item, dataset, values):
            yield f"VOI LUT {number_}", table
    widths, centres = decimals(dataset, "WindowWidth"), decimals(dataset, "WindowCenter")
    function = word(dataset, "VOILUTFunction") or "LINEAR"
    for centre, width in zip(centres, widths, strict=False):
        if centre is None or width is None:
            continue
        if function not in FUNCTIONS:
            raise Refused(f"a VOI LUT function that is not read: {function}")
        yield f"window with centre {centre:g}, width {width:g}", Window(centre, width, function)


def spacing(dataset: pydicom.Dataset) -> tuple[float, float]:
    """Distance of rows and of columns, mm; 0 if unknown."""
    for tag in ("PixelSpacing", "ImagerPixelSpacing"):
        with contextlib.suppress(Refused, TypeError, ValueError):
            row, column = decimals(dataset, tag)
            if row and column and row > 0 and column > 0:
                return row, column
    return 0.0, 0.0


def laterality(dataset: pydicom.Dataset) -> str:
    """`L`, `R` or the empty string."""
    for tag in ("ImageLaterality", "Laterality"):
        if (side := word(dataset, tag)) in ("L", "R"):
            return side
    return ""


# ---------------------------------------------------------------------------------------------
# Values of tags


def word(dataset: pydicom.Dataset, tag: str) -> str:
    """The first value of a tag, in capitals without spaces around it; empty if missing."""
    value = dataset.get(tag)
    if isinstance(value, MultiValue | list):
        value = value[0] if value else ""
    return str(value or "").strip(" \0").upper()


def number(dataset: pydicom.Dataset, tag: str, default: float) -> float:
    """The one number of a tag.

    Raises:
      Refused: If it is not a number, or there are several.
    """
    found = {value for value in decimals(dataset, tag) if value is not None}
    if len(found) > 1:
        raise Refused(f"unreadable number: {tag} {_text(dataset, tag)!r}")
    return found.pop() if found else default


def decimals(dataset: pydicom.Dataset, tag: str) -> list[float | None]:
    r"""The numbers of a tag, None for an empty one between two `\`; a comma is read as a point.

    Raises:
      Refused: If one is not a finite number.
    """
    text = _text(dataset, tag)
    if not text:
        return []
    try:
        found = [float(t.replace(",", ".")) if t.strip() else None for t in text.split("\\")]
    except ValueError:
        found = [None, math.nan]
    if not all(value is None or math.isfinite(value) for value in found):
        raise Refused(f"unreadable number: {tag} {text[:40]!r}")
    return found


def _text(dataset: pydicom.Dataset, tag: str) -> str:
    """The text of a tag as it is in the file; pydicom would refuse a decimal comma."""
    element = dataset.get_item(tag)
    if isinstance(element, RawDataElement) and element.VR not in _BINARY:
        return (element.value or b"").decode("latin-1").strip(" \0")
    value = dataset.get(tag)
    if isinstance(value, MultiValue | list):
        return "\\".join(str(v) for v in value)
    return "" if value is None else str(value).strip(" \0")


def _table(item: pydicom.Dataset, dataset: pydicom.Dataset, inputs: np.ndarray) -> Table | None:
    """A LUT as PS3.3 C.11.1.1 and C.11.2.1.1 have it; None if it has no descriptor or no data."""
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
    if isinstance(descriptor, bytes):
        descriptor = np.frombuffer(descriptor, f"{order}u2").tolist()
    if not descriptor or data is None or (isinstance(data, bytes | MultiValue) and not data):
        return None
    if not isinstance(descriptor, MultiValue | list) or len(descriptor) != 3:
        raise Refused("unreadable LUT: LUTDescriptor does not have three values")
    count, first, bits = (int(value) for value in descriptor)
    count, bits = count % 65536 or 65536, bits % 65536  # read as signed, 65536 - 4096 is negative
    if not 1 <= bits <= 16:
        raise Refused(f"unreadable LUT: {bits} bits in an entry")
    if isinstance(data, bytes):
        data = (
            data[: len(data) // 2 * 2] if len(data) >= 2 * count else data + b"\0" * (len(data) % 2)
        )
        words = np.frombuffer(data, f"{order}u2").astype("<u2")
    else:
        words = np.atleast_1d(np.asarray(data, np.int64)).astype("<u2")
    if bits <= 8 and len(words) < count:  # two entries in a word, the first in its lower byte
        words = words.view(np.uint8)
    if len(words) < count:
        raise Refused(f"unreadable LUT: {len(words)} entries instead of {count}")
    # US or SS: the one in which the table meets its inputs
    low, high = float(inputs.min()), float(inputs.max())
    other = first - 65536 if first > 32767 else first + 65536 if first < 0 else first
    if not _meets(first, count, low, high) and _meets(other, count, low, high):
        first = other
    return Table(first, bits, words[:count].astype(np.int64))


def _meets(first: int, count: int, low: float, high: float) -> bool:
    return first <= high and first + count > low
