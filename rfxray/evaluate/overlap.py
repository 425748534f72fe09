"""What two sets share that are compared: the same picture, or the same patient."""

import numpy as np

from rfxray.errors import DataError
from rfxray.evaluate.pictures import Pictures


def refuse(
    first: Pictures, first_pixels: np.ndarray, second: Pictures, second_pixels: np.ndarray
) -> None:
    """Refuses two sets with a common picture.

    Args:
      first: A set of pictures.
      first_pixels: SHA-256 of the pixels of each of its pictures, [n] of 32 bytes.
      second: Another set.
      second_pixels: The same of the other set, [m].

    Raises:
      DataError: If a picture of both has the same key (of data sets of ours; names of files mean
        nothing elsewhere) or the same pixels, with the first one.
    """
    keys, pixels = _same(first, first_pixels, second, second_pixels)
    if not (keys | pixels).any():
        return
    what, which = ("keys", keys) if keys.any() else ("pixels", pixels)
    raise DataError(
        f"{first.name} and {second.name} overlap: {which.sum()} pictures of the same {what}, such "
        f"as {second.keys[int(which.argmax())]}; give two sets that share no picture"
    )


def shared(
    first: Pictures, first_pixels: np.ndarray, second: Pictures, second_pixels: np.ndarray
) -> int:
    """Number of pictures of the second set that are in the first one; see `refuse`."""
    keys, pixels = _same(first, first_pixels, second, second_pixels)
    return int((keys | pixels).sum())


def _same(
    first: Pictures, first_pixels: np.ndarray, second: Pictures, second_pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether a picture of the second set has the key, and the pixels, of one of the first."""
    keys = set(first.keys) if first.records and second.records else set()
    same_key = np.array([key in keys for key in second.keys], bool)
    return same_key, np.isin(second_pixels, first_pixels)


def repeated(pixels: np.ndarray) -> int:
    """Number of pictures of a set with the pixels of an earlier one of it."""
    return len(pixels) - len(np.unique(pixels))


def patients(pictures: Pictures, side: str) -> list[str]:
    """A name for the patient of each picture; a picture of unknown patient is one of its own.

    Args:
      pictures: A set of pictures.
      side: Name of the set, in front of patients that mean something only within it.

    Returns:
      [n] names.
    """
    prefix = "" if pictures.records else f"{side}: "
    named = enumerate(pictures.patients)
    return [f"{prefix}{name}" if name else f"{side}: picture {i}" for i, name in named]


def pairs(first: Pictures, second: Pictures) -> list[tuple[str, int, int]]:
    """Samples of two models that answer one request, by their keys and never by their places.

    Returns:
      Key, number in the first set, number in the second set, of each key that both have with the
      same requested attributes.
    """
    if first.attributes is None or second.attributes is None:
        return []
    places = {key: number for number, key in enumerate(second.keys)}
    found = []
    for one, key in enumerate(first.keys):
        other = places.get(key)
        if other is not None and all(
            np.array_equal(a[one], b[other])
            for a, b in zip(first.attributes, second.attributes, strict=True)
        ):
            found.append((key, one, other))
    return found
