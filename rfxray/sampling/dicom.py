"""DICOM Secondary Capture files of generated pictures, which say in many ways that they are it."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rfxray import __version__, pictures
from rfxray.errors import ConfigError

NOTE = "synthetic radiograph, not of a person"


def save(path: Path, image: np.ndarray, entry: Mapping[str, object], derived: str = "") -> None:
    """Writes a 16-bit MONOCHROME2 Secondary Capture, whole or not at all.

    Its UIDs follow from `entry` alone (2.25 and a hash), so that the same picture made again is the
    same object; a study and a series hold what one checkpoint and seed made. Tags that say what it
    is: Synthetic Data (0008,001C) YES, Conversion Type SYN, SYNTHETIC in the Image Type, patient
    SYNTHETIC^RFXRAY, descriptions, and `entry` as JSON in Image Comments.

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
        raise ConfigError("DICOM needs pydicom: pip install 'rfxray[prep]'") from error
    told = entry.get("attributes", {})
    origin = {key: entry.get(key) for key in ("checkpoint", "step", "ema", "seed")}

    def uid(*of: object) -> str:
        digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).digest()
        return f"2.25.{int.from_bytes(digest[:16])}"

    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SOPClassUID = SecondaryCaptureImageStorage
    file.SOPInstanceUID = uid("picture", dict(entry), derived)
    file.StudyInstanceUID, file.SeriesInstanceUID = uid("study", origin), uid("series", origin)

    file.SyntheticData = "YES"
    file.ImageType = ["DERIVED", "SECONDARY", "SYNTHETIC"]
    file.ConversionType = "SYN"
    file.PatientName, file.PatientID = "SYNTHETIC^RFXRAY", f"RFXRAY-{entry.get('index', 0)}"
    file.StudyDescription = file.SeriesDescription = NOTE
    file.DerivationDescription = f"{derived or 'generated'} by rfxray {__version__}: {NOTE}"
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
    file.SeriesNumber, file.InstanceNumber = 1, int(entry.get("index", 0)) + 1
    file.PatientOrientation = ""

    file.Rows, file.Columns = image.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, 0
    file.WindowCenter, file.WindowWidth = 32768, 65536
    file.PixelData = np.ascontiguousarray(image, "<u2").tobytes()

    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, file, enforce_file_format=True)
    pictures.write_whole(path, buffer.getvalue())


def read(path: Path) -> np.ndarray:
    """The pixels of a file that `save` wrote: [height, width] uint16."""
    import pydicom

    return pydicom.dcmread(path).pixel_array
