"""What an extractor is: how an image is prepared for it, and what it answers.

A distance depends on the resize path as much as on the network (Parmar et al. 2022, "On Aliased
Resizing and Surprising Subtleties in GAN Evaluation"), so the path is data, and its text is printed
beside every figure.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image

from rfxray.errors import DataError

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The way from an image to the input of a network.

    Attributes:
      size: Side of the input, pixels.
      fit: Way to a square: `pad` with black, centred; `crop` to the shorter side, centred, before
        the resize; `cover`, the same after it, with the longer side rounded down, as transformers
        does; `squash` both sides to `size`.
      filter: Filter of the resize. All are antialiased, as Pillow's; `area` is its box filter.
      quantise: Whether the image is rounded to 8 bits before the resize and after it, as a file or
        a library of 8-bit images does. Otherwise it stays float32.
      channels: Number of equal channels.
      mean: Value that is subtracted from an image in [0, 1], for each channel.
      std: Value that the difference is divided by, for each channel.
    """

    size: int
    fit: Literal["pad", "crop", "cover", "squash"]
    filter: Literal["bicubic", "bilinear", "area"]
    quantise: bool
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std need one value for each of {self.channels} channels")

    def __str__(self) -> str:
        """The resize path in words: the same text for the same path, so that it can be hashed."""
        fit = {
            "pad": "padded to a square with black",
            "crop": "cropped to a square, centred",
            "cover": "cropped to a square, centred, after the resize",
            "squash": "squashed",
        }
        depth = "8 bits" if self.quantise else "float32"
        mean, std = (" ".join(map(repr, dict.fromkeys(v))) for v in (self.mean, self.std))
        return (
            f"{fit[self.fit]}, {self.size}x{self.size} {self.filter} antialiased "
            f"in {depth}, {self.channels} channels, (x - [{mean}]) / [{std}]"
        )

    def prepare(self, image: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "size size channels"]:
        """Prepares one image; nothing depends on what else is in a batch.

        What lies outside the content of an image is black (0), before the mean is subtracted: the
        padding that is added here, and the padding that an image already has. Values that a bicubic
        filter makes beyond [0, 1] are clipped, as clean-fid does.

        Args:
          image: [h, w] float32 in [0, 1].

        Returns:
          [size, size, channels] float32.

        Raises:
          DataError: If it is not one grey image, or has values outside [0, 1].
        """
        image = np.asarray(image, np.float32)
        if image.ndim != 2 or not image.size:
            raise DataError(f"an extractor reads images [h, w], not {list(image.shape)}")
        if not (image.min() >= 0 and image.max() <= 1):  # NaN fails both
            raise DataError(
                f"an extractor reads values in [0, 1], not {image.min():g} to {image.max():g}"
            )
        shape = _covering(image, self.size) if self.fit == "cover" else (self.size, self.size)
        resized = resize(_fitted(image, self.fit), shape, self.filter, self.quantise)
        if self.fit == "cover":
            resized = _centre(resized, self.size)
        channels = np.repeat(resized[..., None], self.channels, -1)
        return (channels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)


def resize(
    image: Float[np.ndarray, "h w"], shape: tuple[int, int], filter: str, quantise: bool
) -> Float[np.ndarray, "height width"]:
    """An image in [0, 1] at another size, antialiased.

    Args:
      image: [h, w] float32 in [0, 1].
      shape: Height and width of the result, pixels.
      filter: `bicubic`, `bilinear` or `area`.
      quantise: Whether it passes through 8 bits before and after.

    Returns:
      [height, width] float32 in [0, 1].
    """
    height, width = shape
    if quantise:
        grey = Image.fromarray(np.round(image * 255).astype(np.uint8))
        return np.asarray(grey.resize((width, height), _FILTERS[filter]), np.float32) / 255
    grey = Image.fromarray(np.ascontiguousarray(image, np.float32))
    return np.asarray(grey.resize((width, height), _FILTERS[filter])).clip(0, 1)


def _covering(image: np.ndarray, size: int) -> tuple[int, int]:
    """Height and width of an image at which its shorter side is `size`."""
    height, width = image.shape
    shorter = min(height, width)
    return size * height // shorter, size * width // shorter


def _centre(image: np.ndarray, side: int) -> np.ndarray:
    top, left = ((length - side) // 2 for length in image.shape)
    return image[top : top + side, left : left + side]


def _fitted(image: np.ndarray, fit: str) -> np.ndarray:
    height, width = image.shape
    if fit in ("squash", "cover") or height == width:
        return image
    if fit == "crop":
        return _centre(image, min(height, width))
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side), np.float32)
    square[top : top + height, left : left + width] = image
    return square


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A network that turns images into features.

    Attributes:
      name: Name by which it is opened, without its weights.
      hash: SHA-256 of its weights by content, hex; see `weights_hash`.
      width: Number of features of an image.
      preprocessing: Way from an image to its input.
      features: Function from images [n, size, size, channels] float32, prepared, to [n, width]
        float32, both on the host.
      trained_on: Names of the data sets that its weights were fitted to.
      scores: Function from the same images to named scores, each [n] float32, if it has any.
      classes: Matrix [width, classes] float32 from features to the logits of the Inception score,
        for the network that has one.
    """

    name: str
    hash: str
    width: int
    preprocessing: Preprocessing
    features: Callable[[np.ndarray], np.ndarray]
    trained_on: tuple[str, ...]
    scores: Callable[[np.ndarray], dict[str, np.ndarray]] | None = None
    classes: np.ndarray | None = None


def weights_hash(weights: Mapping[str, Any]) -> str:
    """SHA-256 of named arrays, hex: of name, shape, dtype and bytes of each, in order of names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.asarray(weights[name])
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{name} {list(array.shape)} {array.dtype.name}\n".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()
