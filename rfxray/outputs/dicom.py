"""DICOM Secondary Capture files of generated pictures, which say in many ways that they are it."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rfxray import __version__
from rfxray.errors import ConfigError
from rfxray.outputs import files

NOTE = "synthetic radiograph, not of a person"
EDITED = "edited radiograph: synthetic, not as it was taken"


# What makes the patient, of whom there is no other: a study belongs to exactly one.
_PATIENT = ("checkpoint", "step", "ema", "seed", "index", "attributes", "image_sha256")


# What a file is called and how it was asked for make no other picture.
_WORDING = ("command", "edit_of")


def save(path: Path, image: np.ndarray, entry: Mapping[str, object], derived: str = "") -> None:
    """Writes a 16-bit MONOCHROME2 Secondary Capture, whole or not at all.

    Its UIDs follow from `entry` alone (2.25 and a hash), so that the same picture made again is the
    same object. Patient ID, study and series follow from the model, the seed, the index, the
    attributes and, of an edit, the picture that was edited: pictures that differ in one of these
    are of another patient. Tags that say what it is: Synthetic Data (0008,001C) YES, Conversion
    Type SYN, SYNTHETIC in the Image Type, patient SYNTHETIC^RFXRAY, descriptions, and `entry` as
    JSON in Image Comments.

    Args:
      path: of the file.
      image: [height, width] uint16.
      entry: JSON values that reproduce the picture, with `attributes` as `conditioning.decode` has
        them; sex, age and view become the tags of that name.
      derived: what was done to which picture, for an edit.

    Raises:
      ConfigError: where pydicom is not installed.
    """
    try:
        import pydicom
        from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
    except ModuleNotFoundError as error:
        raise ConfigError("DICOM needs pydicom: pip install -e '.[prep]'") from error
    told = entry.get("attributes", {})
    note = EDITED if derived else NOTE

    def digest(*of: object) -> str:
        return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:32]

    def uid(*of: object) -> str:
        return f"2.25.{int(digest(*of), 16)}"

    patient = digest("patient", {key: entry.get(key) for key in _PATIENT})
    picture = {key: value for key, value in entry.items() if key not in _WORDING}

    file = pydicom.Dataset()
    file.SpecificCharacterSet = "ISO_IR 192"
    file.file_meta = pydicom.dataset.FileMetaDataset()
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
    file.ImageComments = json.dumps(dict(entry))[:10240]  # LT's length
    file.Manufacturer, file.ManufacturerModelName = "rfxray", __version__
    file.BurnedInAnnotation = "NO"

    file.PatientBirthDate = file.StudyDate = file.StudyTime = ""
    file.AccessionNumber = file.ReferringPhysicianName = file.StudyID = file.Laterality = ""
    file.PatientSex = told.get("sex", "")
    if "age" in told:
        file.PatientAge = f"{int(told['age']):03d}Y"
    if told.get("view") in ("PA", "AP"):
        file.ViewPosition = told["view"]
    file.Modality, file.BodyPartExamined = "OT", "CHEST"
    file.SeriesNumber = file.InstanceNumber = 1
    file.PatientOrientation = ""

    file.Rows, file.Columns = image.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, 0
    file.WindowCenter, file.WindowWidth = 32768, 65536
    file.PixelData = np.ascontiguousarray(image, "<u2").tobytes()

    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, file, enforce_file_format=True)
    files.write_whole(path, buffer.getvalue())


def read(path: Path) -> np.ndarray:
    """The pixels of a file that `save` wrote: [height, width] uint16."""
    import pydicom

    return pydicom.dcmread(path).pixel_array
