"""Any radiograph file → the canonical square of 16-bit grey.

What is read: PNG (8 or 16 bit; grey, or colour and palette with only grey colours), JPEG, and
DICOM (one frame, grey; compressed by the python-gdcm package). A file goes by its content, not by
its name. What is not a whole, grey radiograph is `Refused` with a reason, never mended in silence.
(Damage within a JPEG that leaves it decodable cannot be seen: the format has no checksum.)

What is done, in this order (`PREPROCESSING` carries it into the manifest):

1. DICOM: the stored bits, wherever they lie in their word, modality rescale, then the first VOI LUT
   or window of the file (left out where it is void or shows nothing but one grey), then MONOCHROME1
   is inverted. The declared padding becomes black where it touches the edge. A tag without a value
   is a missing one. Others: the stored values.
2. Intensity: linear from the 0.5th to the 99.5th percentile of the pixels to 0..65535, clipped. The
   percentiles leave out outliers (below the 5th or above the 95th percentile by three times the
   distance of these, which are of every fourth pixel each way except the darkest and the brightest
   value), then the pixels within 1% of the range of the darkest and of the brightest value that is
   left, so that hot pixels, black padding, collimation, burned-in markers and saturated air do not
   decide the contrast. Monotone; no histogram is equalised. A 12-bit picture in a 16-bit file comes
   out right.
3. Size: the longer side becomes `size`, the other keeps the aspect; area averaging down (the
   antialiased choice that cannot ring at the edge of a marker as Lanczos does), linear up. Padded
   to the square with black, centred, an odd pixel below or right. Borders and collimation that the
   file has are kept: where the field ends is a guess on many films, and a cut loses a costophrenic
   angle for good; step 2 keeps them from deciding the contrast.

Of a DICOM header only the pixel spacing, the laterality and the bits stored are kept. What no
decoder at hand reads whole is refused: 12-bit JPEG within DICOM, 16-bit PNG in colour, grey or not.
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
BULK = (5, 95)  # percentiles; markers have fewer pixels than lie outside
FENCE = 3.0  # times their distance; no pixel of 151 real radiographs is beyond, of 14 at 2
EXTREMES = 0.01  # of the range, left out at either end; JPEG noise in black padding is below it
LARGEST_ASPECT = 4.0  # a dozen BRAX files are strips of aspect > 10; long lateral films reach 2
SMALLEST_SIDE = 32


# Colour subsampling leaves a few levels between the channels of a grey JPEG. A coloured stamp of a
# thousandth of the picture (32² in 1024²) is beyond that and is worth refusing.
GREY_TOLERANCE, COLOURED_SHARE = 8, 0.001
BEYOND_SHARE = 0.01  # of the pixels; an overlay that is not declared is less, a wrong header more


# Of DICOM: grey pictures of one frame that are no projection of a chest. The ways of saying that
# something is a radiograph (CR, DX, DR, RG, OT, nothing) have no end.
OTHER_MODALITIES = ("CT", "MR", "PT", "NM", "US", "MG")
SQUARE_PIXELS = 1.01  # sides of a pixel; what is further from a square would come out distorted

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

    The words before a colon are the same for all files of the same trouble.
    """


@dataclasses.dataclass(frozen=True)
class Radiograph:
    """A decoded file.

    Attributes:
      pixels: [height, width] float32 in any range, bright is dense.
      bits: stored per pixel in the file.
      pixel_spacing: rows and columns, mm; 0 where not known.
      laterality: `L`, `R` or empty.
    """

    pixels: np.ndarray
    bits: int
    pixel_spacing: tuple[float, float] = (0.0, 0.0)
    laterality: str = ""


def versions() -> dict[str, str]:
    """Of the packages that decide a pixel; `absent` where an optional decoder is missing."""
    found = {}
    for package in ("numpy", "pillow", "opencv-python-headless", "pydicom", "python-gdcm"):
        found[package] = "absent"
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def ingest(path: str | os.PathLike, size: int) -> dict:
    """`square` of a file.

    Raises:
      Refused: with the reason.
    """
    return square(read(path), size)


def square(radiograph: Radiograph, size: int) -> dict:
    """A radiograph as the fields of a record that come from the picture (see `rfxray.data.record`).

    Returns:
      `image` [size, size] uint16, `content_box`, `original_size`, `original_bits`, `pixel_spacing`,
      `laterality`.

    Raises:
      Refused: with the reason.
    """
    height, width = radiograph.pixels.shape
    if min(height, width) < SMALLEST_SIDE:
        raise Refused(f"too small: {height} × {width} pixels")
    if max(height, width) > LARGEST_ASPECT * min(height, width):
        raise Refused(f"a strip: {height} × {width} pixels")
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
    """[height, width] float32 of any range as float32 in [0, 1], by the percentiles above.

    Raises:
      Refused: where there are fewer than three greys.
    """
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        raise Refused("pixels that are not finite")
    if low == high:
        raise Refused("a constant image")
    low, high = _reach(pixels, low, high)
    margin = EXTREMES * (high - low)
    middle = pixels[(pixels > low + margin) & (pixels < high - margin)]
    if not middle.size:
        raise Refused("only black and white")
    # "lower" picks a pixel's own value: no arithmetic that could differ between machines
    dark, bright = np.percentile(middle, PERCENTILES, method="lower")
    if dark == bright:
        raise Refused("a constant image except for its extremes")
    return np.clip((pixels - dark) / (bright - dark), 0, 1).astype(np.float32)


def _reach(pixels: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The darkest and the brightest of the pixels, `low` to `high`, that is no outlier."""
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
      The square and its content box: top, left, height, width in pixels.
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
      Refused: where it is none, is torn, or is no grey picture of one frame.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise Refused(f"unreadable: {error.strerror}") from None
    if not data:
        raise Refused("an empty file")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _read_picture(data, "PNG")
    if data.startswith(b"\xff\xd8\xff"):
        return _read_picture(data, "JPEG")
    if data[128:132] == b"DICM" or Path(path).suffix.lower() in (".dcm", ".dicom"):
        return _read_dicom(data)
    raise Refused("neither PNG, JPEG nor DICOM")


def _read_picture(data: bytes, kind: str) -> Radiograph:
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as picture:
            picture.verify()  # a PNG's checksums, which decoding leaves unread; then open it again
        with Image.open(io.BytesIO(data), formats=(kind,)) as picture:
            # Of a JPEG, further pictures are a camera's previews
            frames = getattr(picture, "n_frames", 1) if kind == "PNG" else 1
            picture.load()  # a torn file is an error here, not a grey remainder
            picture = ImageOps.exif_transpose(picture)
    except MemoryError:
        raise
    except Exception as error:  # damage surfaces as any exception in Pillow's decoders
        raise Refused(f"does not decode: {first_line(error)}") from None
    if frames > 1:
        raise Refused(f"several frames: {frames}")
    # The bit depth and the colour type stand at a fixed place in a PNG
    bits, colour_type = (data[24], data[25]) if kind == "PNG" else (8, None)
    if picture.mode == "1":
        raise Refused("only black and white")
    if picture.mode.startswith("I;16") or picture.mode in ("I", "L"):
        return Radiograph(np.asarray(picture).astype(np.float32), bits)
    if bits == 16 and colour_type != 0:
        raise Refused("a 16-bit PNG in colour or with transparency")
    if picture.mode == "CMYK":
        raise Refused("colour: CMYK")
    channels = np.asarray(picture.convert("RGBA"))
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
        warnings.simplefilter("ignore")  # odd tags that we do not use
        try:
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            return _from_dataset(dataset)
        except (Refused, MemoryError):
            raise
        except Exception as error:  # damage surfaces as any exception in pydicom and its decoders
            # The line of the one decoder that was asked, not pydicom's announcement of it
            said = str(error).partition("all available plugins:\n")[2].strip()
            raise Refused(f"does not decode: {first_line(said or error)}") from None


def _from_dataset(dataset: pydicom.Dataset) -> Radiograph:
    if "PixelData" not in dataset:
        raise Refused("a DICOM file without pixel data, or torn before it")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise Refused(f"several frames: {dataset.NumberOfFrames}")
    if dataset.get("Modality") in OTHER_MODALITIES:
        raise Refused(f"no radiograph: modality {dataset.Modality}")
    photometric = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2").strip().upper()
    dataset.PhotometricInterpretation = photometric
    if photometric == "PALETTE COLOR":
        raise Refused("colour: a palette")
    # One reader shows this as a negative, the next does not. (Beside MONOCHROME1, IDENTITY is what
    # many write and nobody heeds.)
    if photometric == "MONOCHROME2" and dataset.get("PresentationLUTShape") == "INVERSE":
        raise Refused("greys that contradict each other: MONOCHROME2, PresentationLUTShape INVERSE")
    _refuse_oblong(dataset)
    _complete(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID
    _choose_decoder(dataset, syntax)
    stored = dataset.pixel_array
    if stored.ndim == 3 and dataset.SamplesPerPixel == 1:
        raise Refused(f"several frames: {len(stored)}")
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
    """One decoder, not whichever of several is installed: the pixels must not depend on it."""
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
        dataset.pixel_array_options(correct_unused_bits=False)  # `_aligned` looks at them first


def _complete(dataset: pydicom.Dataset) -> None:
    """Fills in what decoding needs and 5% of CheXpert-Plus lack, as the standard has it."""
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
    """Words of BitsAllocated as the values of their BitsStored, which end at HighBit (PS3.5 8.1.1).

    The other bits may carry the sign or an overlay; values that need them are another matter.
    """
    allocated, stored, high = dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit
    if stored == allocated:
        return words
    if not stored <= high + 1 <= allocated:
        high = stored - 1  # what the standard asks for by now
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
    if not has_table and not (first and float(first) >= 1):
        return rescaled
    windowed = apply_voi_lut(rescaled, dataset)
    return windowed if windowed.min() < windowed.max() else rescaled


def _padding(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Where [height, width] stored pixels are padding, bool: of the declared value, and reaching
    from the edge inwards, for saturated tissue may have the value too (PS3.3 C.7.5.1.1.2).
    """
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return np.zeros(stored.shape, bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = np.array([value, limit if isinstance(limit, int) else value], np.int64)
    # Some write the value of signed pixels as if they were not
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
