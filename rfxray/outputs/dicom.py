"""DICOM Secondary Capture files of generated images, marked as synthetic in several tags."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rfxray import __version__
from rfxray.command_line import require
from rfxray.outputs import files

NOTE = "synthetic radiograph, not of a person"
EDITED = "edited radiograph: synthetic, not as it was taken"

# The parts of an entry that identify its invented patient. A study belongs to exactly one patient.
_PATIENT = ("weights", "seed", "index", "attributes", "image_sha256")

# The parts for the record beside the image: where things lay, and in which words they were given.
_RECORD = ("checkpoint", "command", "edit_of", "file", "path")

_DAYS = 365.25  # of a year


def uid(*of: object) -> str:
    """A UID that is derived from JSON values: 2.25 and a UUID of version 8 (RFC 9562, §5.8)."""
    bits = int(_digest(*of)[:32], 16)
    bits = bits & ~(0xF << 76) | 8 << 76  # version
    bits = bits & ~(0x3 << 62) | 2 << 62  # variant
    return f"2.25.{bits}"


def patient(entry: Mapping[str, Any]) -> str:
    """Name of the invented patient of an image, 32 hex digits.

    It depends on the network, the seed, the index, the attributes and, for an edit, the image that
    was edited: images that differ in one of these belong to different patients.
    """
    return _digest("patient", {key: entry.get(key) for key in _PATIENT})[:32]


def age_string(years: float) -> str:
    """An age as DICOM has it (PS3.5, AS): `063Y`; `010M` below a year, `012D` below a month.

    Args:
      years: Age in years; a fraction below one is of float32.
    """
    if years >= 1:
        return f"{int(years):03d}Y"
    months = int(years * 12 + 1e-4)  # 10 months are 0.8333333 years
    return f"{months:03d}M" if months else f"{int(years * _DAYS + 1e-4):03d}D"


def _digest(*of: object) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()


def save(
    path: Path,
    image: np.ndarray,
    entry: Mapping[str, Any],
    derived: str = "",
    burned_in: bool | None = None,
    carried: Mapping[str, object] | None = None,
) -> None:
    """Writes a 16-bit MONOCHROME2 Secondary Capture, whole or not at all.

    The SOP Instance UID is derived from everything else that the file holds, pixels included: the
    same content is the same object, and any other content is another. Patient ID and study belong
    to one `patient`, the series to one image. Marked as synthetic are Synthetic Data (0008,001C)
    YES, Conversion Type SYN, SYNTHETIC in Image Type, patient SYNTHETIC^RFXRAY and the
    descriptions. Image Comments hold `entry` as JSON, without paths and commands. No tag is of a
    clock: dates and times are empty.

    Args:
      path: Path of the file.
      image: Greyscale image, [height, width] uint16.
      entry: JSON values that reproduce the image, with `attributes` as `vocabulary.decode` returns
        them; sex, age and view become the tags of these names.
      derived: What was done to which image, for an edit.
      burned_in: Whether the image shows lines of text, as a search of its pixels found; None if
        nobody looked, and Burned In Annotation is absent.
      carried: Tags that replace those of the image, by keyword (None: no such tag), for an edit at
        the size of its radiograph (`rfxray.data.passing_tags`).

    Raises:
      ConfigError: If pydicom is not installed.
    """
    require("prep", "pydicom")
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    attributes = entry.get("attributes", {})
    note = EDITED if derived else NOTE

    of = patient(entry)
    said = {key: value for key, value in entry.items() if key not in _RECORD}

    file = pydicom.Dataset()
    file.SpecificCharacterSet = "ISO_IR 192"
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SOPClassUID = SecondaryCaptureImageStorage
    file.StudyInstanceUID = uid("study", of)

    file.SyntheticData = "YES"
    file.ImageType = ["DERIVED", "SECONDARY", "SYNTHETIC"]
    file.ConversionType = "SYN"
    file.PatientName, file.PatientID = "SYNTHETIC^RFXRAY", f"RFXRAY-{of}"
    file.StudyDescription = file.SeriesDescription = note
    file.DerivationDescription = f"{derived or 'generated'} by rfxray {__version__}: {note}"
    file.ImageComments = json.dumps(said)[:10240]  # the longest value of this type (LT)
    file.Manufacturer = file.ManufacturerModelName = "rfxray"
    file.SoftwareVersions = __version__
    if burned_in is not None:
        file.BurnedInAnnotation = "YES" if burned_in else "NO"

    file.PatientBirthDate = file.StudyDate = file.StudyTime = ""
    file.AccessionNumber = file.ReferringPhysicianName = ""
    file.StudyID = of[:16].upper()  # the longest value of this type (SH)
    file.PatientSex = attributes.get("sex", "")
    if "age" in attributes:
        file.PatientAge = age_string(float(attributes["age"]))
    if attributes.get("view") in ("PA", "AP"):
        file.ViewPosition = attributes["view"]
    file.Modality, file.BodyPartExamined = "OT", "CHEST"
    file.SeriesNumber = file.InstanceNumber = 1
    file.PatientOrientation = ""

    file.Rows, file.Columns = image.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, 0
    file.WindowCenter, file.WindowWidth = 32768, 65536
    file.PixelData = np.ascontiguousarray(image, "<u2").tobytes()
    for tag, value in (carried or {}).items():
        if value is None:
            file.pop(tag, None)
        else:
            setattr(file, tag, value)

    content = io.BytesIO()
    pydicom.dcmwrite(content, file, implicit_vr=False, little_endian=True)
    content = hashlib.sha256(content.getvalue()).hexdigest()
    file.SOPInstanceUID, file.SeriesInstanceUID = uid("image", content), uid("series", content)

    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, file, enforce_file_format=True)
    files.write_whole(path, buffer.getvalue())


def read(path: Path) -> np.ndarray:
    """Reads the pixels of a file that `save` wrote: [height, width] uint16."""
    import pydicom

    return pydicom.dcmread(path).pixel_array
