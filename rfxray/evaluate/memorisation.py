"""The training images nearest to samples: a first look at what a model memorised."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
from einops import rearrange

from rfxray.data import pixels
from rfxray.data.dataset import Dataset, stored
from rfxray.data.pixels import to_float
from rfxray.errors import ConfigError
from rfxray.outputs import contact_sheet, files

_BLOCK = 1024  # training images compared at once


@dataclasses.dataclass(frozen=True)
class Nearest:
    """For each sample, the training image at the least distance.

    Attributes:
      images: Training images, [n, height, width] float32 in [−1, 1].
      keys: Keys of their records, [n].
      distances: Root mean square differences of pixels, [n] float32, 0 for a copy and at most 2.
    """

    images: np.ndarray
    keys: list[str]
    distances: np.ndarray


def check(dataset: Dataset, size: int, split: str = "train") -> None:
    """Raises a ConfigError if samples of that size, pixels, cannot be compared with that split."""
    if dataset.size != size:
        raise ConfigError(
            f"samples of {size}² cannot be compared with {dataset.path} of {dataset.size}²"
        )
    if split not in dataset.shards:
        raise ConfigError(f"data set {dataset.path} has no split {split!r}")


def nearest(images: np.ndarray, dataset: Dataset, split: str = "train") -> Nearest:
    """Compares samples with every image of a split, streaming it in blocks.

    Args:
      images: Samples, [n, size, size] float32 in [−1, 1].
      dataset: Data set that the model was trained on.
      split: Name of its split.

    Raises:
      ConfigError: As `check`.
    """
    check(dataset, images.shape[-1], split)
    n = len(images)
    samples = images.reshape(n, -1)
    best, found, keys = np.full(n, np.inf), np.zeros_like(images), [""] * n
    records = stored(dataset, split)
    while block := list(itertools.islice(records, _BLOCK)):
        real = np.stack([to_float(record["image"]) for record in block])
        flat = real.reshape(len(real), -1)
        # |a − b|² = |a|² − 2ab + |b|², so that the comparison is one matrix product.
        squares = (samples**2).sum(1)[:, None] - 2 * samples @ flat.T + (flat**2).sum(1)
        squares = np.maximum(squares, 0) / samples.shape[1]
        closest = squares.argmin(1)
        for i in np.flatnonzero(squares.min(1) < best):
            best[i], found[i] = squares[i, closest[i]], real[closest[i]]
            keys[i] = block[closest[i]]["key"]
    return Nearest(found, keys, np.sqrt(best).astype(np.float32))


def save_nearest(
    images: np.ndarray, dataset: Dataset, out: Path, of: int, split: str = "train"
) -> str:
    """Writes `nearest.png`, and says in a line how near the training images are.

    Args:
      images: Samples, [n, size, size] float32 in [−1, 1]: the first ones of a folder.
      dataset: Data set that the model was trained on.
      out: Folder of the samples.
      of: Number of samples in the folder.
      split: Name of its split.

    Raises:
      ConfigError: As `check`.
    """
    near = nearest(images, dataset, split)
    files.save_png(out / "nearest.png", sheet(images, near))
    closest = int(near.distances.argmin())
    which = "each" if len(images) == of else f"each of the first {len(images)}"
    return (
        f"nearest.png shows the training image nearest to {which}; root mean square distance "
        f"{near.distances.mean():.3f} on average, least {near.distances[closest]:.3f} "
        f"(image {closest} to {near.keys[closest]})"
    )


def sheet(images: np.ndarray, near: Nearest, pairs: int = 4) -> np.ndarray:
    """Every sample with its nearest training image to the right of it: [height, width] uint8."""
    blank = -len(images) % pairs
    both = np.stack([images, near.images], axis=1)
    both = np.pad(both, ((0, blank), (0, 0), (0, 0), (0, 0)), constant_values=-1)
    cells = rearrange(pixels.to_uint8(both), "(r c) two h w -> r (c two) h w", c=pairs)
    return contact_sheet.table(cells, columns=["synthetic", "nearest"] * pairs)
