"""What a caller in Python gives: attributes as mappings, images as arrays or of Pillow."""

from collections.abc import Mapping, Sequence, Sized
from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from PIL import Image

from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import Attributes, Values
from rfxray.data.pixels import to_float, to_uint8
from rfxray.errors import ConfigError
from rfxray.sampling.interventions import before_and_after

# `{"view": "PA"}` for every image, or one such mapping or row for each
Asked: TypeAlias = Values | Sequence[Values] | Attributes

# One image or several
AnyImages: TypeAlias = np.ndarray | Image.Image | Sequence[np.ndarray | Image.Image]


def rows_of(attributes: Asked, n: int | None = None) -> Attributes:
    """Attributes as NumPy rows [n, 19].

    Args:
      attributes: Mapping for every image, or one for each, or rows.
      n: Number of images that a single mapping is for; one when None.

    Raises:
      ConfigError: For a wrong name or value, with the number of its mapping, or findings that
        contradict each other.
    """
    if isinstance(attributes, Attributes):  # a tuple, so a sequence too
        return vocabulary.requested(attributes)
    if isinstance(attributes, Mapping):
        row = vocabulary.stack([vocabulary.encode(attributes)])
        return row.rows(np.zeros(1 if n is None else max(0, n), int))
    rows = []
    for number, values in enumerate(attributes):
        try:
            rows.append(vocabulary.encode(values))
        except ConfigError as error:
            raise ConfigError(f"image {number}: {error}") from None
    if not rows:
        raise ConfigError("no attributes: the list is empty; {} requests nothing of an image")
    return vocabulary.stack(rows)


def pair_of(source: Asked, target: Asked, n: int) -> tuple[Attributes, Attributes]:
    """The attributes [n, 19] of n images, and those after an edit.

    Args:
      source: What the images show, as far as it is known.
      target: Rows of what they are to show; or a mapping of what is to change, for every image, or
        one for each: the rest then follows as in `before_and_after`.
      n: Number of images.

    Raises:
      ConfigError: For a wrong name or value, or other than n rows.
    """
    before = rows_of(source, n)
    if isinstance(target, Attributes):
        after = rows_of(target)
    else:
        changes = [target] * n if isinstance(target, Mapping) else list(target)
        if isinstance(source, Attributes):
            # As given: what No Finding says of a pathology may be changed with it.
            shown = [vocabulary.decode(source.rows(i)) for i in range(len(before.values))]
        else:
            shown = [source] * n if isinstance(source, Mapping) else list(source)
        _refuse_count(n, shown, changes)
        after = [before_and_after(*each)[1].rows(0) for each in zip(shown, changes, strict=True)]
        after = vocabulary.stack(after)
    _refuse_count(n, before.values, after.values)
    return before, after


def _refuse_count(n: int, *rows: Sized) -> None:
    for each in rows:
        if len(each) != n:
            raise ConfigError(f"{len(each)} rows of attributes for {n} images; give one for each")


def images_of(images: AnyImages, size: int) -> Float[np.ndarray, "n size size"]:
    """Images [n, size, size] float32 in [−1, 1].

    Args:
      images: Arrays [height, width] or [n, height, width] of float in [−1, 1], uint8 or uint16, or
        grey images of Pillow; one or several.
      size: Side of the model's images, pixels.

    Raises:
      ConfigError: For another size, colour, other numbers, or none.
    """
    if isinstance(images, Image.Image) or (isinstance(images, np.ndarray) and images.ndim == 2):
        images = [images]
    arrays = [_pixels(image) for image in images]
    for array in arrays:
        if array.shape != (size, size):
            found = " × ".join(map(str, array.shape))
            raise ConfigError(
                f"an image of {found} pixels for a model of {size} × {size}; "
                "sampling.read_square(file, model.size).image is one of a radiograph"
            )
    if not arrays:
        raise ConfigError("no images: give an array, an image of Pillow, or a list of them")
    return np.stack(arrays)


def _pixels(image: object) -> np.ndarray:
    """One image as float32 in [−1, 1]."""
    if isinstance(image, Image.Image):
        if image.mode not in ("L", "1") and not image.mode.startswith("I;16"):
            raise ConfigError(
                f"an image of Pillow in mode {image.mode}; give grey (L or I;16), such as by "
                "image.convert('L')"
            )
        image = np.asarray(image.convert("L") if image.mode == "1" else image)
    array = np.asarray(image)
    if array.dtype == np.uint8:
        return to_float(array.astype(np.uint16) * 257)
    if array.dtype == np.uint16:
        return to_float(array)
    if array.dtype.kind != "f":
        raise ConfigError(f"an array of {array.dtype}; give float in [−1, 1], uint8 or uint16")
    if not (np.abs(array) <= 1).all():  # False for NaN
        raise ConfigError("pixels outside of −1 to 1, or not finite; give float in [−1, 1]")
    return array.astype(np.float32)


def to_pil(images: np.ndarray) -> list[Image.Image]:
    """Images [n, height, width] or [height, width] in [−1, 1] as 8-bit grey images of Pillow.

    A file that Pillow writes of them does not say that they are synthetic; those of `save` do, and
    have 16 bits.
    """
    levels = to_uint8(np.asarray(images))
    return [Image.fromarray(image) for image in (levels[None] if levels.ndim == 2 else levels)]
