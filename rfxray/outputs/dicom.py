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
_PATIENT = ("checkpoint", "step", "ema", "seed", "index", "attributes", "image_sha256")

# The parts that do not identify the image: the same image may be requested with other words.
_WORDING = ("command", "edit_of")


def save(
    path: Path,
    image: np.ndarray,
    entry: Mapping[str, Any],
    derived: str = "",
    burned_in: bool | None = None,
    carried: Mapping[str, object] | None = None,
) -> None:
    """Writes a 16-bit MONOCHROME2 Secondary Capture, whole or not at all.

    The UIDs are derived only from `entry` (2.25 and a hash), so the same image generated again is
    the same object. Patient ID, study and series are derived from the model, the seed, the index,
    the attributes and, for an edit, the image that was edited: images that differ in one of these
    belong to different patients. Marked as synthetic are Synthetic Data (0008,001C) YES, Conversion
    Type SYN, SYNTHETIC in Image Type, patient SYNTHETIC^RFXRAY and the descriptions; Image Comments
    hold `entry` as JSON.

    Args:
      path: Path of the file.
      image: Greyscale image, [height, width] uint16.
      entry: JSON values that reproduce the image, with `attributes` as `vocabulary.decode` returns
        them; sex, age and view become the tags of these names.
      derived: What was done to which image, for an edit.
      burned_in: Whether the image shows lines of text, as a search of its pixels found; None if
        nobody looked or none was found, and Burned In Annotation is absent from an edit.
      carried: Tags that replace those of the image, by keyword (None: no such tag), for an edit at
        the size of its radiograph (`rfxray.data.passing_tags`).

    Raises:
      ConfigError: if pydicom is not installed.
    """
    require("prep", "pydicom")
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    attributes = entry.get("attributes", {})
    note = EDITED if derived else NOTE

    def digest(*of: object) -> str:
        return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:32]

    def uid(*of: object) -> str:
        return f"2.25.{int(digest(*of), 16)}"

    patient = digest("patient", {key: entry.get(key) for key in _PATIENT})
    picture = {key: value for key, value in entry.items() if key not in _WORDING}

    file = pydicom.Dataset()
    file.SpecificCharacterSet = "ISO_IR 192"
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SOPClassUID = SecondaryCaptureImageStorage
    file.SOPInstanceUID = uid("picture", picture)
    file.StudyInstanceUID, file.SeriesInstanceUID = uid("study", patient), uid("series", patient)

    file.SyntheticData = "YES"
    file.ImageType = ["DERIVED", "SECONDARY", "SYNTHETIC"]
    file.ConversionType = "SYN"
    file.PatientName, file.PatientID = "SYNTHETIC^RFXRAY", f"RFXRAY-{patient}"
    file.StudyDescription = file.SeriesDescription = note
    file.DerivationDescription = f"{derived or 'generated'} by rfxray {__version__}: {note}"
    file.ImageComments = json.dumps(dict(entry))[:10240]  # the longest value of this type (LT)
    file.Manufacturer, file.ManufacturerModelName = "rfxray", __version__
    if burned_in is not None or not derived:
        file.BurnedInAnnotation = "YES" if burned_in else "NO"

    file.PatientBirthDate = file.StudyDate = file.StudyTime = ""
    file.AccessionNumber = file.ReferringPhysicianName = file.StudyID = file.Laterality = ""
    file.PatientSex = attributes.get("sex", "")
    if "age" in attributes:
        file.PatientAge = f"{int(attributes['age']):03d}Y"
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
            delattr(file, tag)
        else:
            setattr(file, tag, value)

    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, file, enforce_file_format=True)
    files.write_whole(path, buffer.getvalue())


def read(path: Path) -> np.ndarray:
    """Reads the pixels of a file that `save` wrote: [height, width] uint16."""
    import pydicom

    return pydicom.dcmread(path).pixel_array
