"""A table of images: the same noise under each value of one attribute, or of two."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from einops import rearrange

from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import Attributes, Values
from rfxray.data import pixels
from rfxray.errors import ConfigError
from rfxray.outputs import contact_sheet

MOST = 10_000  # images of a table: 10 GB at 512²


@dataclasses.dataclass(frozen=True)
class Table:
    """What a table shows.

    Attributes:
      axes: Values of the attribute that varies by row and, if there are two, of that by column.
      asked: Further attributes, the same for every image.
      n: Number of images of each cell; each has a noise of its own.
      first: Index of the first noise among those of the seed.

    Raises:
      ConfigError: Unless there are one or two axes.
    """

    axes: Mapping[str, Sequence[str]]
    asked: Values
    n: int
    first: int = 0

    def __post_init__(self):
        if len(self.axes) not in (1, 2):
            raise ConfigError(f"--grid takes rows and columns, not {len(self.axes)} attributes")
        if self.images > MOST:
            raise ConfigError(
                f"a --grid of {self.images:,} images; it is held in memory, so {MOST:,} at most: "
                "lower --n, or use --csv"
            )

    @property
    def images(self) -> int:
        """Number of images of the whole table."""
        return self.n * self.cells

    @property
    def cells(self) -> int:
        """Number of cells."""
        return math.prod(map(len, self.axes.values()))

    @functools.cached_property
    def attributes(self) -> Attributes:
        """Attributes of each cell, [cells, 19]; columns vary fastest, then rows."""
        cells = itertools.product(*self.axes.values())
        asked = [{**self.asked, **dict(zip(self.axes, cell, strict=True))} for cell in cells]
        return vocabulary.stack([vocabulary.encode(cell) for cell in asked])

    def rows(self, numbers: np.ndarray) -> Attributes:
        """The attributes of images, [n, 19], from their places [n]: cell after cell under the
        noise of index 0, then of index 1, …"""
        return self.attributes.rows(np.asarray(numbers) % self.cells)

    def note(self, number: int) -> Mapping[str, str]:
        """Nothing: a table has no notes."""
        return {}

    def sheet(self, images: np.ndarray, heading: str) -> np.ndarray:
        """The images [images, height, width], in [−1, 1], as one labelled [height, width] uint8."""
        (name, values), *more = self.axes.items()
        columns = [f"{name}={value}" for name, values in more for value in values]
        cells = rearrange(
            pixels.to_uint8(images),
            "(n r c) h w -> (n r) c h w",
            n=self.n,
            r=len(values),
            c=max(1, len(columns)),
        )
        rows = [f"{name}={value}" for value in values] * self.n
        return contact_sheet.table(cells, rows, columns, heading)


def parse_axes(texts: Sequence[str], asked: Mapping[str, str]) -> dict[str, list[str]]:
    """`["age=20,50"]` as `{"age": ["20", "50"]}`, checked.

    Raises:
      ConfigError: For a wrong name or value, or an attribute that is given twice or also set.
    """
    axes: dict[str, list[str]] = {}
    for text in texts:
        name, separator, values = text.partition("=")
        if not separator or not values:
            raise ConfigError(f"--grid {text!r} is not NAME=VALUE,VALUE,…, such as age=20,50,80")
        name = vocabulary.lookup(name).name
        if name in axes or name in asked:
            raise ConfigError(f"--grid {name} is given twice, or by --set too")
        axes[name] = [vocabulary.written(name, value) for value in values.split(",")]
        if len({*axes[name]}) < len(axes[name]):
            raise ConfigError(f"--grid {text!r} has a value twice; give each once")
    return axes
