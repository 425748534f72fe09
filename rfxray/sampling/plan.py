"""What a folder of samples is to hold: how many images of which indices, in which files and blocks.

A folder that was begun keeps its blocks. When it is extended (`--n 16`, then `--n 32`), the new
images form blocks of their own after the old ones, so that no finished image is drawn again.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int

from rfxray.errors import ConfigError
from rfxray.sampling.requests import Requests
from rfxray.sampling.tables import Table

# What is requested of the images of a folder, by their `Plan.positions`
Asks: TypeAlias = Requests | Table

FORMATS = ("png", "dicom", "array_record")

SHARD = 1024  # images of an ArrayRecord shard, rounded up to whole blocks


def refuse_range(n: int, first: int) -> None:
    """Raises a ConfigError unless n images from an index on are images of a seed."""
    if n < 1 or first < 0 or first + n > 2**32:
        raise ConfigError(
            "--n must be at least 1, --first-index at least 0, and their sum at most 2³² "
            f"(got --n {n} and --first-index {first})"
        )


class Part(NamedTuple):
    """Images that are finished together: their numbers, the size of the blocks that they are drawn
    in, and the number of images of the folder when they were planned, at which a block wraps."""

    numbers: range
    block: int
    n: int

    def blocks(self) -> list[Int[np.ndarray, " block"]]:
        """Numbers of the images of each block; the last wraps to the first images of the folder."""
        starts = range(self.numbers.start, self.numbers.stop, self.block)
        return [np.arange(start, start + self.block) % self.n for start in starts]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a folder is to hold.

    Attributes:
      n: Number of images.
      first: Index of the first image among those of the seed.
      block: Number of images drawn at once; a folder that was begun keeps its own.
      format: One of `FORMATS`.
      names: Names of the files, without their ending; they are numbered if empty.
      cells: Number of images of each index, one after another: the cells of a table.
      earlier: (number of images, block) of each smaller plan that the folder was begun with.
    """

    n: int
    first: int
    block: int
    format: str
    names: tuple[str, ...] = ()
    cells: int = 1
    earlier: tuple[tuple[int, int], ...] = ()

    def __post_init__(self):
        if self.format not in FORMATS:
            raise ConfigError(f"no format {self.format!r}, only {', '.join(FORMATS)}")
        if self.names and self.format == "array_record":
            raise ConfigError("--file-names is for files, and array_record has none of an image")
        refuse_range(self.n, self.first)

    @property
    def parts(self) -> list[Part]:
        """The parts, in order."""
        parts, done = [], 0
        for n, block in (*self.earlier, (self.n, self.block)):
            size = block
            if self.format == "array_record":
                size *= -(-SHARD // block)
            parts += [
                Part(range(start, min(start + size, n)), block, n) for start in range(done, n, size)
            ]
            done = n
        return parts

    def positions(self, numbers: Int[np.ndarray, "*images"]) -> Int[np.ndarray, "*images"]:
        """Places of images, by number, among all that could be requested; see `indices`."""
        return np.asarray(self.first * self.cells + numbers)

    def indices(self, numbers: Int[np.ndarray, " images"]) -> Int[np.ndarray, " images"]:
        """Index of the noise of each image."""
        return self.positions(numbers) // self.cells

    def file(self, number: int) -> str:
        """Name of the file of an image."""
        stem = self.names[number] if self.names else f"sample_{number:05d}"
        return f"{stem}.{'dcm' if self.format == 'dicom' else 'png'}"

    def begun(self, there: Mapping[str, Any], out: Path) -> "Plan":
        """The plan in the blocks that a folder was begun with.

        Args:
          there: What the folder's `plan.json` says; {} of a new one.
          out: Folder, for the error.

        Raises:
          ConfigError: If the folder holds more images, or is a data set and holds fewer.
        """
        if not there:
            return self
        n, block = there["n"], there["block"]
        earlier = tuple((each[0], each[1]) for each in there["earlier"])
        if self.n == n:
            return dataclasses.replace(self, block=block, earlier=earlier)
        images = f"{n:,} images"
        if self.n < n:
            raise ConfigError(
                f"{out} holds {images} or is to hold them, and {self.n:,} are requested; request "
                f"{n} or more to extend it, or choose another --out"
            )
        if self.format == "array_record":
            raise ConfigError(
                f"{out} is a data set of {images}, which cannot be extended; write the others by "
                f"--first-index {self.first + n} into another --out, and train on both"
            )
        return dataclasses.replace(self, earlier=(*earlier, (n, block)))
