"""A given radiograph and its masks, as squares of the model's size."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from rfxray.command_line import require
from rfxray.data.decoded import Radiograph
from rfxray.data.pixels import to_float, to_uint16
from rfxray.errors import ConfigError, DataError
from rfxray.outputs import files


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """A radiograph that was given.

    Attributes:
      decoded: Its pixels as the file is displayed.
      image: Image [size, size] float32 in [−1, 1].
      content_box: Top, left, height and width of the radiograph in the image; the rest is padding.
      text: Number of likely lines of text in it (`rfxray.data.burned_text`).
    """

    decoded: Radiograph = dataclasses.field(repr=False)
    image: np.ndarray = dataclasses.field(repr=False)
    content_box: tuple[int, int, int, int]
    text: int

    @property
    def outside(self) -> np.ndarray:
        """Where the image is padding, [size, size] bool."""
        top, left, height, width = self.content_box
        outside = np.ones(self.image.shape, bool)
        outside[top : top + height, left : left + width] = False
        return outside


def read_square(path: str | Path, size: int) -> Given:
    """A radiograph file as the model's square.

    Args:
      path: Path of a PNG, JPEG or DICOM file.
      size: Side of the square, pixels.

    Raises:
      DataError: If the file is damaged or not a grey radiograph of one frame, with the reason.
      ConfigError: If the decoders are not installed.
    """
    reader = _reader()
    from rfxray.data import burned_text

    try:
        found = reader.read(Path(path))
        square = reader.square(found, size)
        searched = reader.square(found, burned_text.SIDE)["image"]
    except reader.Refused as refusal:
        raise DataError(f"{path}: {refusal}") from None
    return Given(
        found, to_float(square["image"]), square["content_box"], len(burned_text.lines(searched))
    )


def read_mask(path: Path, original: tuple[int, int], size: int) -> np.ndarray:
    """A mask file as [size, size] float32 in [0, 1], placed as the radiograph was.

    Args:
      path: Path of a grey PNG, white where the mask is 1.
      original: Height and width of the radiograph in its file.
      size: Side of the model's square, pixels.

    Raises:
      ConfigError: If it is of neither the radiograph's size nor the model's, or black.
      DataError: If it cannot be read, or is in colour.
    """
    try:
        levels = files.read_png(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a mask: {error}") from error
    if not levels.any():
        raise ConfigError(f"the mask {path} is black everywhere, so it selects nothing")
    mask = levels.astype(np.float32) / levels.max()
    if mask.shape == (size, size):
        return mask
    if mask.shape != tuple(original):
        found, wanted = (" × ".join(map(str, shape)) for shape in (mask.shape, original))
        raise ConfigError(
            f"the mask {path} is {found} pixels; it must be as large as the radiograph ({wanted}) "
            f"or the model ({size} × {size})"
        )
    return _reader().to_square(mask, size)[0]


def carried_back(
    path: Path,
    given: Given,
    edited: np.ndarray,
    keep: np.ndarray,
    masks: Mapping[str, Path],
) -> tuple[Any, np.ndarray]:
    """The stored values of a file (`data.stored.Stored`), and these after an edit of its square.

    A value changes if the change, rounded to 16 bits and interpolated to the size of the file, is
    not 0 there, and masks permit it: each at its own size, and of an edit mask all that is black is
    kept.

    Args:
      path: Path of the radiograph.
      given: What `read_square` read from it.
      edited: Edited image, [size, size] float32 in [−1, 1].
      keep: Pixels of the image that are kept, [size, size] bool.
      masks: Files of the masks, by `mask`, `keep` and `inpaint`.

    Raises:
      DataError: If the values of the file are in colour, or have other than 8 or 16 bits (DICOM: up
        to 16).
    """
    reader = _reader()
    from rfxray.data import canonical, stored

    try:
        values = reader.read_stored(path)
    except reader.Refused as refusal:
        raise DataError(f"{path}: --native: {refusal}") from None
    top, left, height, width = given.content_box
    inside = slice(top, top + height), slice(left, left + width)
    after, before = (to_uint16(image)[inside].astype(np.int32) for image in (edited, given.image))
    shape = values.values.shape
    free = _enlarged(~keep[inside], shape)
    for name, mask in masks.items():
        levels = files.read_png(mask)
        if levels.shape != shape:
            levels = _enlarged(levels[inside], shape)
        free &= (levels > 0) != (name == "keep")
    change = ((after - before) / 65535).astype(np.float32)
    contrast = canonical.contrast(given.decoded.pixels)
    return values, stored.carry_back(values, change, free, contrast)


def _enlarged(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The nearest pixels of an image [rows, columns] at another size."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for old, new in zip(image.shape, shape, strict=True)
    )
    return image[np.ix_(rows, columns)]


def _reader() -> ModuleType:
    """What turns files into squares; it needs the decoders of the extra `prep`."""
    require("prep", "cv2", "pydicom")
    from rfxray.data import radiograph

    return radiograph
