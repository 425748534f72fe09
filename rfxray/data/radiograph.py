"""Any radiograph file → the canonical square of 16-bit grey.

Formats: PNG (8 or 16 bit; grey, or colour and palette with only grey colours), JPEG, and DICOM (one
frame, grey; compressed files need the python-gdcm package). The content of a file decides its
format, not its name. A file that is not a complete, grey radiograph is `Refused` with a reason,
never repaired silently. (Damage in a JPEG that still decodes cannot be detected: the format has no
checksum.)

Steps, in this order (`PREPROCESSING` records them in the manifest):

1. DICOM: the stored bits, wherever they are in their word, modality rescale, then the first VOI LUT
   or window of the file (skipped if it is void or maps everything to one grey), then MONOCHROME1 is
   inverted. Declared padding that touches the edge becomes black. A tag without a value counts as
   missing. Other formats: the stored values.
2. Intensity: linear from the 0.5th to the 99.5th percentile of the pixels to 0..65535, clipped. The
   percentiles exclude outliers (below the 5th or above the 95th percentile by three times the
   distance between these two, which are taken over every fourth pixel in each direction without the
   darkest and the brightest value), then pixels within 1% of the remaining range of its darkest and
   its brightest value, so that hot pixels, black padding, collimation, burned-in markers and
   saturated air do not decide the contrast. The mapping is monotone, without histogram
   equalisation, and right for a 12-bit image in a 16-bit file.
3. Size: the longer side becomes `size`, the aspect is kept; area averaging down (antialiased, and
   unlike Lanczos it cannot ring at the edge of a marker), linear up. Padded to the square with
   black, centred, an odd pixel below or right. Borders and collimation in the file are kept: the
   edge of the field is a guess on many films, and a cut would lose a costophrenic angle for good.
   Step 2 keeps them from deciding the contrast.

Only the pixel spacing, the laterality and the bits stored are kept of a DICOM header. Files that no
available decoder reads correctly are refused: 12-bit JPEG in DICOM, any 16-bit PNG in colour.
"""

import contextlib
import dataclasses
import importlib.metadata
import io
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
import pydicom
from PIL import Image, ImageOps
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from rfxray.errors import DataError, first_line

EXTENSIONS = (".png", ".jpg", ".jpeg", ".jpe", ".dcm", ".dicom")
PERCENTILES = (0.5, 99.5)
BULK = (5, 95)  # percentiles; markers have fewer pixels than are outside
FENCE = 3.0  # times their distance; at 3 no pixel of 151 real radiographs is beyond, at 2 of 14
EXTREMES = 0.01  # share of the range, excluded at both ends; more than JPEG noise in padding
LARGEST_ASPECT = 4.0  # a dozen BRAX files are strips of aspect > 10; long lateral films reach 2
SMALLEST_SIDE = 32

# Chroma subsampling leaves a few levels between the channels of a grey JPEG. A coloured stamp on a
# thousandth of the image (32² in 1024²) exceeds that and should be refused.
GREY_TOLERANCE, COLOURED_SHARE = 8, 0.001
BEYOND_SHARE = 0.01  # of the pixels; an undeclared overlay has fewer, a wrong header more

# Modalities of DICOM that have grey images of one frame but no radiographs. A list of those that do
# (CR, DX, DR, RG, OT, none, …) would never be complete.
OTHER_MODALITIES = ("CT", "MR", "PT", "NM", "US", "MG")
SQUARE_PIXELS = 1.01  # ratio of a pixel's sides; above it images would be visibly distorted

PREPROCESSING = {
    "dicom": "bits from HighBit down, modality rescale, first VOI LUT or window, "
    "MONOCHROME1 inverted, padding black, void tags missing",
    "percentiles": PERCENTILES,
    "percentiles_leave_out": f"outliers, beyond the percentiles {BULK} by {FENCE:g} times their "
    f"distance; {EXTREMES:g} of the range that is left at the darkest and the brightest value",
    "mapping": "linear, clipped, to 0..65535",
    "resize": "longer side to size; area averaging down, linear up",
    "pad": "black, centred",
    "borders": "kept",
    "refused": {
        "aspect_over": LARGEST_ASPECT,
        "side_under": SMALLEST_SIDE,
        "pixel_sides_over": SQUARE_PIXELS,
        "modalities": OTHER_MODALITIES,
        "coloured": f"channels more than {GREY_TOLERANCE}/255 apart in over {COLOURED_SHARE:g}",
        "beyond_bits_stored": f"in over {BEYOND_SHARE:g}",
    },
}

cv2.setNumThreads(1)  # the processes are the parallelism


class Refused(DataError):
    """A file that does not become a record; `str(error)` is the reason for dropped.csv.

    The text before a colon is the same for all files with the same problem.
    """


@dataclasses.dataclass(frozen=True)
class Radiograph:
    """A decoded file.

    Attributes:
      pixels: Pixels [height, width] float32 in any range, bright is dense.
      bits: Bits stored per pixel in the file.
      pixel_spacing: Distance of rows and of columns, mm; 0 if unknown.
      laterality: One of `L`, `R` and the empty string.
    """

    pixels: np.ndarray
    bits: int
    pixel_spacing: tuple[float, float] = (0.0, 0.0)
    laterality: str = ""


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


def square(radiograph: Radiograph, size: int) -> dict:
    """The fields of a record that come from the radiograph (see `rfxray.data.record`).

    Returns:
      Fields `image` [size, size] uint16, `content_box`, `original_size`, `original_bits`,
      `pixel_spacing`, `laterality`.

    Raises:
      Refused: With the reason.
    """
    height, width = radiograph.pixels.shape
    if min(height, width) < SMALLEST_SIDE:
        raise Refused(f"too small: {height} × {width} pixels")
    if max(height, width) > LARGEST_ASPECT * min(height, width):
        raise Refused(
            f"too narrow: {height} × {width} pixels, more than {LARGEST_ASPECT:g} times as long as "
            "wide"
        )
    image, content_box = to_square(normalise(radiograph.pixels), size)
    return {
        "image": np.rint(image * np.float32(65535)).astype(np.uint16),
        "content_box": content_box,
        "original_size": (height, width),
        "original_bits": radiograph.bits,
        "pixel_spacing": radiograph.pixel_spacing,
        "laterality": radiograph.laterality,
    }


def normalise(pixels: np.ndarray) -> np.ndarray:
    """Maps [height, width] float32 of any range to float32 in [0, 1], by the percentiles above.

    Raises:
      Refused: If there are fewer than three greys.
    """
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        raise Refused("not finite: NaN or infinite pixels")
    if low == high:
        raise Refused("blank: one grey value")
    low, high = _reach(pixels, low, high)
    margin = EXTREMES * (high - low)
    middle = pixels[(pixels > low + margin) & (pixels < high - margin)]
    if not middle.size:
        raise Refused("only black and white")
    # "lower" picks the value of a pixel, without arithmetic that could differ between machines
    dark, bright = np.percentile(middle, PERCENTILES, method="lower")
    if dark == bright:
        raise Refused("blank: one grey value except for the darkest and brightest pixels")
    return np.clip((pixels - dark) / (bright - dark), 0, 1).astype(np.float32)


def _reach(pixels: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The darkest and the brightest pixel from `low` to `high` that are not outliers."""
    few = pixels[::4, ::4]  # a sixteenth of the time
    few = few[(few > low) & (few < high)]
    dark, bright = np.percentile(few, BULK, method="lower") if few.size else (low, high)
    reach = FENCE * (bright - dark)
    if dark == bright or (dark - reach <= low and high <= bright + reach):
        return low, high
    kept = pixels[(pixels >= dark - reach) & (pixels <= bright + reach)]
    return float(kept.min()), float(kept.max())


def to_square(image: np.ndarray, size: int) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Resizes and pads [height, width] float32 to [size, size], aspect kept.

    Returns:
      Square and its content box: top, left, height, width in pixels.
    """
    height, width = image.shape
    longer = max(height, width)
    new_height = max(1, (height * size + longer // 2) // longer)
    new_width = max(1, (width * size + longer // 2) // longer)
    how = cv2.INTER_AREA if longer >= size else cv2.INTER_LINEAR
    top, left = (size - new_height) // 2, (size - new_width) // 2
    square = np.zeros((size, size), np.float32)
    square[top : top + new_height, left : left + new_width] = cv2.resize(
        image, (new_width, new_height), interpolation=how
    )
    return square, (top, left, new_height, new_width)


# ---------------------------------------------------------------------------------------------
# Decoding


def read(path: str | os.PathLike) -> Radiograph:
    """Decodes a PNG, JPEG or DICOM file.

    Raises:
      Refused: If it has another format, is damaged, or is not a grey image of one frame.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise Refused(f"unreadable: {error.strerror}") from None
    if not data:
        raise Refused("an empty file")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _read_image(data, "PNG")
    if data.startswith(b"\xff\xd8\xff"):
        return _read_image(data, "JPEG")
    if data[128:132] == b"DICM" or Path(path).suffix.lower() in (".dcm", ".dicom"):
        return _read_dicom(data)
    raise Refused("neither PNG, JPEG nor DICOM")


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
    channels = np.asarray(image.convert("RGBA"))
    if (channels[..., 3] < 255).any():
        raise Refused("partly transparent")
    return Radiograph(_grey(channels[..., :3]), bits)


def _grey(channels: np.ndarray) -> np.ndarray:
    """[height, width, 3] integers of equal channels as [height, width] float32."""
    channels = channels.astype(np.float32)
    spread = channels.max(-1) - channels.min(-1)
    tolerance = GREY_TOLERANCE * max(1.0, channels.max() / 255)
    coloured = float((spread > tolerance).mean())
    if coloured > COLOURED_SHARE:
        raise Refused(f"colour: in {coloured:.1%} of the pixels")
    return channels.mean(-1, dtype=np.float32)


def _read_dicom(data: bytes) -> Radiograph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tags that are not used here
        try:
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            return _from_dataset(dataset)
        except (Refused, MemoryError):
            raise
        except Exception as error:  # pydicom and its decoders raise any type for damage
            # The message of the decoder, without pydicom's introduction
            said = str(error).partition("all available plugins:\n")[2].strip()
            raise Refused(f"does not decode: {first_line(said or error)}") from None


def _from_dataset(dataset: pydicom.Dataset) -> Radiograph:
    if "PixelData" not in dataset:
        raise Refused("a DICOM file without pixel data, or torn before it")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise Refused(f"several frames: {dataset.NumberOfFrames} instead of one")
    if dataset.get("Modality") in OTHER_MODALITIES:
        raise Refused(f"not a radiograph: modality {dataset.Modality}")
    photometric = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2").strip().upper()
    dataset.PhotometricInterpretation = photometric
    if photometric == "PALETTE COLOR":
        raise Refused("colour: a palette")
    # Some viewers show this as a negative, others do not. (IDENTITY with MONOCHROME1 is common, and
    # viewers ignore it.)
    if photometric == "MONOCHROME2" and dataset.get("PresentationLUTShape") == "INVERSE":
        raise Refused("contradictory header: MONOCHROME2 with PresentationLUTShape INVERSE")
    _refuse_oblong(dataset)
    _complete(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID
    _choose_decoder(dataset, syntax)
    stored = dataset.pixel_array
    if stored.ndim == 3 and dataset.SamplesPerPixel == 1:
        raise Refused(f"several frames: {len(stored)} instead of one")
    if not syntax.is_compressed:
        stored = _aligned(stored, dataset)
    pixels = _grey(stored) if stored.ndim == 3 else _as_displayed(stored, dataset)
    pixels = pixels.astype(np.float32)
    if photometric == "MONOCHROME1":
        pixels = pixels.max() + pixels.min() - pixels
    if stored.ndim == 2:
        padding = _padding(stored, dataset)
        if padding.any() and not padding.all():
            pixels[padding] = pixels[~padding].min()
    return Radiograph(pixels, int(dataset.BitsStored), _spacing(dataset), _laterality(dataset))


def _choose_decoder(dataset: pydicom.Dataset, syntax: UID) -> None:
    """Selects one decoder, so that pixels do not depend on which decoders are installed."""
    try:
        readable = get_decoder(syntax).available_plugins
    except NotImplementedError:
        raise Refused(f"a compression that is not read: {syntax.name}") from None
    if syntax.is_compressed:
        plugin = "pydicom" if syntax == RLELossless else "gdcm"
        if plugin not in readable:
            raise Refused(f"a compression that is not read: {syntax.name}")
        dataset.pixel_array_options(decoding_plugin=plugin)
    else:
        dataset.pixel_array_options(correct_unused_bits=False)  # `_aligned` checks them


def _complete(dataset: pydicom.Dataset) -> None:
    """Fills in defaults for tags that decoding needs; 5% of CheXpert-Plus lack some of them."""
    if "TransferSyntaxUID" not in getattr(dataset, "file_meta", {}):
        dataset.file_meta = FileMetaDataset()
        big = dataset.original_encoding[1] is False
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian if big else ImplicitVRLittleEndian
    if dataset.get("BitsAllocated") is None:
        raise Refused("does not decode: no BitsAllocated")
    for tag, value in (
        ("SamplesPerPixel", 1),
        ("PixelRepresentation", 0),
        ("BitsStored", dataset.get("BitsAllocated")),
    ):
        if dataset.get(tag) is None:
            setattr(dataset, tag, value)
    if dataset.get("HighBit") is None:
        dataset.HighBit = dataset.BitsStored - 1


def _aligned(words: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Words of BitsAllocated as values of BitsStored, which end at HighBit (PS3.5 8.1.1).

    The other bits may repeat the sign or hold an overlay; values that need them are refused.
    """
    allocated, stored, high = dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit
    if stored == allocated:
        return words
    if not stored <= high + 1 <= allocated:
        high = stored - 1  # required by the current standard
    words = words.astype(words.dtype.newbyteorder("="), copy=False)
    values = (words << (allocated - 1 - high)) >> (allocated - stored)
    unused = ((1 << allocated) - 1) ^ (((1 << stored) - 1) << (high + 1 - stored))
    for group in range(0x6000, 0x6020, 2):
        position = dataset.get((group, 0x0102))  # OverlayBitPosition
        if position is not None and isinstance(position.value, int):
            unused &= ~(1 << position.value)
    unsigned = words.view(f"u{words.itemsize}")
    unused = unsigned.dtype.type(unused)
    beyond = unsigned & unused != 0
    if beyond.any():
        extended = (values << (high + 1 - stored)).view(unsigned.dtype)
        beyond &= (unsigned ^ extended) & unused != 0
    if (share := float(beyond.mean())) > BEYOND_SHARE:
        raise Refused(f"values beyond BitsStored: in {share:.1%} of the pixels")
    return values


def _as_displayed(pixels: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    for tag in ("RescaleSlope", "RescaleIntercept", "VOILUTFunction"):
        if dataset.get(tag) in (None, ""):
            dataset.pop(tag, None)
    rescaled = apply_modality_lut(pixels, dataset)
    table = (dataset.get("VOILUTSequence") or [pydicom.Dataset()])[0]
    has_table = None not in (table.get("LUTDescriptor"), table.get("LUTData"))
    width = dataset.get("WindowWidth")
    first = width[0] if isinstance(width, MultiValue) and width else width
    if not has_table and not (first and float(str(first)) >= 1):
        return rescaled
    windowed = apply_voi_lut(rescaled, dataset)
    return windowed if windowed.min() < windowed.max() else rescaled


def _padding(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """The padding, [height, width] bool: pixels with the declared value that are connected to the
    edge, since saturated tissue may have this value too (PS3.3 C.7.5.1.1.2).
    """
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return np.zeros(stored.shape, bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = np.array([value, limit if isinstance(limit, int) else value], np.int64)
    # Some files store the value of signed pixels as unsigned
    low, high = sorted(ends.astype(stored.dtype).tolist())
    _, areas = cv2.connectedComponents(((stored >= low) & (stored <= high)).astype(np.uint8))
    edges = np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]])
    return (areas > 0) & np.isin(areas, np.unique(edges))


def _refuse_oblong(dataset: pydicom.Dataset) -> None:
    with contextlib.suppress(TypeError, ValueError):
        for tag in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
            sides = [float(side) for side in dataset.get(tag) or ()]
            if len(sides) == 2 and min(sides) > 0 and max(sides) > SQUARE_PIXELS * min(sides):
                raise Refused(f"pixels that are not square: {tag} {sides[0]:g}, {sides[1]:g}")


def _spacing(dataset: pydicom.Dataset) -> tuple[float, float]:
    for tag in ("PixelSpacing", "ImagerPixelSpacing"):
        with contextlib.suppress(TypeError, ValueError):
            row, column = (float(value) for value in dataset.get(tag))
            if row > 0 and column > 0:
                return row, column
    return 0.0, 0.0


def _laterality(dataset: pydicom.Dataset) -> str:
    for tag in ("ImageLaterality", "Laterality"):
        side = str(dataset.get(tag) or "").strip().upper()
        if side in ("L", "R"):
            return side
    return ""
