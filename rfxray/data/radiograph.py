"""Any radiograph file → the canonical square of 16-bit grey.

Formats: PNG (8 or 16 bit; grey, or colour and palette with only grey colours), JPEG, and DICOM (one
frame, grey; compressed files need the python-gdcm package). The content of a file decides its
format, not its name. A file that is not a complete, grey radiograph is `Refused` with a reason,
never repaired silently. (Damage in a JPEG that still decodes cannot be detected: the format has no
checksum.)

Steps, in this order (`PREPROCESSING` records them in the manifest):

1. DICOM: the stored values (`stored_values`), then display by PS3.3 C.11 (`display`): Modality LUT
   or rescale; the first VOI LUT or window of the file that does not clip more than half of the
   exposed pixels, or none; MONOCHROME1 is inverted. Declared padding that touches the edge becomes
   black. A tag without a value counts as missing, a decimal comma as a point (`dicom_header`).
   Other formats: the stored values.
2. Intensity and size: `canonical`.

Only the pixel spacing, the laterality and the bits stored are kept of a DICOM header; what was
unusual about it is in `Radiograph.notes`. Files that no available decoder reads correctly are
refused: 12-bit JPEG in DICOM, any 16-bit PNG in colour.
"""

import contextlib
import importlib.metadata
import io
import os
import stat
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rfxray.data import canonical, dicom_header, display, stored_values
from rfxray.data import grey as greys
from rfxray.data.canonical import square, to_square
from rfxray.data.decoded import Radiograph, Refused
from rfxray.data.dicom import read_dicom
from rfxray.data.special import SPECIAL
from rfxray.data.stored import Stored, read_stored_dicom, stored_grey
from rfxray.errors import first_line

__all__ = [
    "EXTENSIONS",
    "PREPROCESSING",
    "Radiograph",
    "Refused",
    "ingest",
    "read",
    "read_stored",
    "square",
    "to_square",
    "versions",
]

EXTENSIONS = (".png", ".jpg", ".jpeg", ".jpe", ".dcm", ".dicom")

PREPROCESSING = {
    "dicom": "bits from HighBit down, or of the codestream; PS3.3 C.11: Modality LUT or rescale, "
    "first VOI LUT or window that is not degenerate, MONOCHROME1 inverted; padding black, "
    "void tags missing, decimal commas points",
    "degenerate": f"makes over {display.CLIPPED_SHARE:g} of the exposed pixels black or white, "
    f"without ends that flatten up to {display.FLAT_SHARE:g} of their range",
    "percentiles": canonical.PERCENTILES,
    "percentiles_leave_out": f"outliers, beyond the percentiles {canonical.BULK} by "
    f"{canonical.FENCE:g} times their distance, and if the outliers are a film, what is outside "
    f"its box; {canonical.EXTREMES:g} of the range that is left at the darkest and the brightest "
    "value",
    "mapping": "linear, clipped, to 0..65535",
    "resize": "longer side to size; area averaging down, linear up",
    "pad": "black, centred",
    "borders": "kept",
    "refused": {
        "aspect_over": canonical.LARGEST_ASPECT,
        "side_under": canonical.SMALLEST_SIDE,
        "pixel_sides_over": dicom_header.SQUARE_PIXELS,
        "modalities": dicom_header.OTHER_MODALITIES,
        "body_parts": dicom_header.OTHER_BODY_PARTS,
        "coloured": f"channels more than {greys.GREY_TOLERANCE}/255 apart in over "
        f"{greys.COLOURED_SHARE:g}",
        "beyond_bits_stored": f"in over {stored_values.BEYOND_SHARE:g}",
    },
}


def versions() -> dict[str, str]:
    """Versions of the packages that affect pixels; `absent` if an optional decoder is missing."""
    found = {}
    for package in ("numpy", "pillow", "opencv-python-headless", "pydicom", "python-gdcm"):
        found[package] = "absent"
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def ingest(path: str | os.PathLike, size: int) -> dict:
    """Reads a file and applies `square`.

    Raises:
      Refused: With the reason.
    """
    return square(read(path), size)


def read(path: str | os.PathLike) -> Radiograph:
    """Decodes a PNG, JPEG or DICOM file.

    Raises:
      Refused: If it is another kind of file, damaged, or not a grey image of one frame.
    """
    data = _content(path)
    if not data:
        raise Refused("an empty file")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _read_image(data, "PNG")
    if data.startswith(b"\xff\xd8\xff"):
        return _read_image(data, "JPEG")
    if data.startswith(b"\x1f\x8b"):
        raise Refused("gzipped: unpack it")
    if data[128:132] == b"DICM" or Path(path).suffix.lower() in (".dcm", ".dicom"):
        return read_dicom(data)
    raise Refused("neither PNG, JPEG nor DICOM")


def read_stored(path: str | os.PathLike) -> Stored:
    """Decodes the stored values of a file, without changing any.

    Raises:
      Refused: As `read`, and if its values are not grey of 8 or 16 bits (DICOM: up to 16).
    """
    data = _content(path)
    if not data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        return read_stored_dicom(data)
    found = read(path)
    return stored_grey(found.pixels, found.bits)


def _content(path: str | os.PathLike) -> bytes:
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
        if kind != stat.S_IFREG:  # opening a FIFO would wait for its writer
            known = {**SPECIAL, stat.S_IFDIR: "a folder"}
            raise Refused(f"not a regular file: {known.get(kind, 'a special file')}")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            return file.read()
    except OSError as error:
        raise Refused(f"unreadable: {error.strerror}") from None


def _read_image(data: bytes, kind: str) -> Radiograph:
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            image.verify()  # checksums of a PNG, which decoding ignores; it must be opened again
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            # Further frames of a JPEG are previews of a camera
            frames = getattr(image, "n_frames", 1) if kind == "PNG" else 1
            image.load()  # raises for a truncated file instead of filling it with grey
            image = ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except UnidentifiedImageError:  # its text is the address of our buffer
        raise Refused(f"does not decode: the header of the {kind} is damaged") from None
    except Exception as error:  # Pillow's decoders raise any type for damage
        raise Refused(f"does not decode: {first_line(error)}") from None
    if frames > 1:
        raise Refused(f"several frames: {frames} instead of one")
    # Bit depth and colour type are at a fixed offset in a PNG
    bits, colour_type = (data[24], data[25]) if kind == "PNG" else (8, None)
    if image.mode == "1":
        raise Refused("only black and white")
    if image.mode.startswith("I;16") or image.mode in ("I", "L"):
        return Radiograph(np.asarray(image).astype(np.float32), bits)
    if bits == 16 and colour_type != 0:
        raise Refused("a 16-bit PNG in colour or with transparency")
    if image.mode == "CMYK":
        raise Refused("colour: CMYK")
    if image.mode == "RGB" and "transparency" not in image.info:
        return Radiograph(greys.grey(np.asarray(image)), bits)
    channels = np.asarray(image.convert("RGBA"))
    if (channels[..., 3] < 255).any():
        raise Refused("partly transparent")
    return Radiograph(greys.grey(channels[..., :3]), bits)
