"""What images are requested: one row of attributes for each image, from a table or by a plan."""

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from rfxray.attributes import spellings, vocabulary
from rfxray.attributes.states import known_from_states
from rfxray.attributes.vocabulary import ATTRIBUTES, INDEX, Attributes, Values
from rfxray.data.dataset import Dataset, Records
from rfxray.errors import ConfigError, DataError
from rfxray.sampling import completion
from rfxray.sampling.completion import Completer
from rfxray.sampling.file_names import file_stem, refuse_alike

NOTED = ("image_id", "path")  # columns of a table for the sidecar only
DECADES = tuple(range(20, 90, 10))  # of `age_decade`: adults, to where the sets are dense


@dataclasses.dataclass(frozen=True)
class Requests:
    """Rows of attributes: image k is requested with row k, and after the last row again the first.

    Attributes:
      attributes: The rows, [rows, 19].
      first: Index of the image that is requested with the first row.
      ages: Seed of the years, 0 to 9, that are added to the age of each image; None adds none.
      per_row: Number of images of each row, one after another, each with a noise of its own.
      notes: Further entries of `samples.json` only, for the images of each row; empty for nothing.
      names: Name of the file of each row, without its ending; empty for numbers.
      completion: What the rest of each row is drawn from; None leaves it unconditioned.
    """

    attributes: Attributes
    first: int = 0
    ages: int | None = None
    per_row: int = 1
    notes: tuple[Mapping[str, str], ...] = ()
    names: tuple[str, ...] = ()
    completion: Completer | None = None

    def __post_init__(self):
        object.__setattr__(self, "attributes", vocabulary.requested(self.attributes))

    @property
    def images(self) -> int:
        """Number of images until the first row is requested again."""
        return len(self.attributes.values) * self.per_row

    def rows(self, numbers: np.ndarray) -> Attributes:
        """The attributes of these images, [n, 19], from their indices [n].

        Raises:
          ConfigError: If nothing completes a row.
        """
        asked = self._asked(numbers)
        return asked if self.completion is None else self.completion.fill(asked, numbers)

    def _asked(self, numbers: np.ndarray) -> Attributes:
        places = self._place(np.asarray(numbers))
        values, known = map(np.asarray, self.attributes.rows(places))
        if self.ages is not None:
            # By a counter, so that no image needs those before it.
            values[:, INDEX["age"]] += [
                np.random.Generator(np.random.Philox(key=self.ages, counter=int(k))).integers(10)
                for k in numbers
            ]
        return Attributes(values, known)

    def note(self, number: int) -> Mapping[str, str]:
        """The note of an image, from its index; empty if there is none."""
        note = self.notes[self._place(number)] if self.notes else {}
        if self.completion is None:
            return note
        one = np.array([number])
        asked, filled = self._asked(one), self.rows(one)
        return {**note, "drawn": completion.drawn(asked.rows(0), filled.rows(0))}

    def name(self, number: int) -> str:
        """The name of the file of an image, if the rows have names."""
        name = self.names[self._place(number)]
        return name if self.per_row == 1 else f"{name}_{(number - self.first) % self.per_row}"

    def _place(self, numbers):
        """The row of each image."""
        return (numbers - self.first) // self.per_row % len(self.attributes.values)


def alike(asked: Values) -> Requests:
    """The same attributes for every image."""
    return _encoded([asked])


def from_csv(
    path: str | Path,
    asked: Values,
    per_row: int = 1,
    name_column: str | None = None,
    anonymous: bool = False,
) -> Requests:
    """A row of a CSV file for each image; the header names attributes, an empty cell requests none.

    Columns `image_id` and `path` are noted for the sidecar, which names the row of each image.

    Args:
      path: Path of the file.
      asked: Further attributes, the same for every image.
      per_row: Number of images of each row.
      name_column: Column that names the files; they are numbered when None.
      anonymous: Whether to note nothing of `image_id` and `path`.

    Raises:
      DataError: If the file cannot be read or has no row.
      ConfigError: For a column that is not an attribute or is also in `asked`, a wrong value, a
        name that cannot be that of a file, or findings that contradict each other, with the line.
    """
    header, lines = _read_csv(path)
    columns = _attribute_columns(path, header, name_column)
    if both := [name for name in columns.values() if name in asked]:
        raise ConfigError(f"{path} has a column {both[0]}, which --set gives too; leave one out")
    noted = [] if anonymous else [c for c in header if _folded(c) in NOTED]
    rows, stems = [], []
    for number, line in lines:
        values, where = dict(asked), f"line {number}"
        try:
            for column, name in columns.items():
                if line[column].strip().lower() not in spellings.BLANK:
                    where = f"line {number}, column {column}"
                    values[name] = vocabulary.written(name, line[column])
            where = f"line {number}"
            rows.append(vocabulary.encode(values))
            if name_column is not None:
                where = f"line {number}, column {name_column}"
                stems.append(file_stem(line[name_column]))
        except ConfigError as error:
            raise ConfigError(f"{path}, {where}: {error}") from None
    notes = tuple({_folded(c): line[c] for c in noted} for _, line in lines) if noted else ()
    try:
        refuse_alike(stems, [f"line {number}" for number, _ in lines])
    except ConfigError as error:
        raise ConfigError(f"{path}, {error}") from None
    return Requests(vocabulary.stack(rows), per_row=per_row, notes=notes, names=tuple(stems))


def _read_csv(path: str | Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and rows, each with the line that it ends on."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            lines = [(reader.line_num, row) for row in reader]
            header = list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from error
    if not lines:
        raise DataError(f"{path} has no row below its header")
    for number, line in lines:
        if None in line or None in line.values():
            raise ConfigError(f"{path}, line {number}: not the {len(header)} cells of the header")
    return header, lines


def _attribute_columns(path: str | Path, header: list[str], further: str | None) -> dict[str, str]:
    """The columns of attributes, with the name of each."""
    if further is not None and further not in header:
        raise ConfigError(f"{path} has no column {further!r} for --file-names, only {header}")
    columns: dict[str, str] = {}
    for place, column in enumerate(header, 1):
        if _folded(column) in NOTED or column == further:
            continue
        try:
            columns[column] = vocabulary.lookup(column).name
        except ConfigError as error:
            also = "image_id, path and the column of --file-names are read too"
            raise ConfigError(f"{path}, line 1, column {place}: {error} ({also})") from None
    # Two equal headers are one key, and two spellings of a name are one attribute.
    if len({_folded(column) for column in header}) < len(header):
        raise ConfigError(f"{path}: two columns of the header name one attribute: {header}")
    return columns


def _folded(column: str) -> str:
    return column.strip().lower().replace(" ", "_").replace("-", "_")


def from_dataset(
    dataset: Dataset,
    split: str,
    asked: Values,
    n: int | None = None,
    first: int = 0,
) -> Requests:
    """What each radiograph of a data set is known to show, in its stored order.

    Args:
      dataset: Data set of radiographs.
      split: Name of its split.
      asked: Attributes that replace those of the radiograph, the same for every image.
      n: Number of images: only first … first + n − 1 will be requested, so only their records are
        read; every record is read when None.
      first: Index of the first image, see n.

    Raises:
      ConfigError: If there is no such split, or `asked` contradicts a row.
    """
    if not dataset.examples.get(split):
        raise ConfigError(f"data set {dataset.path} has no split {split!r}")
    records = Records(dataset, split)
    if n is None or n >= len(records):
        n, first = len(records), 0
    rows = []
    for number in range(first, first + n):
        record = records.labels(number % len(records))
        shown = Attributes(record["attributes"], known_from_states(record["states"]))
        values = vocabulary.decode(shown)
        if set(asked) & set(vocabulary.PATHOLOGY_NAMES):
            # It follows from what was found there, not from what is requested.
            values.pop("no_finding", None)
        rows.append(vocabulary.encode({**values, **asked}))
    return Requests(vocabulary.stack(rows), first)


def balanced(names: Sequence[str], asked: Values, seed: int = 0) -> Requests:
    """Every combination of subgroups equally often (±1), in an order that is balanced throughout.

    After any number of images each attribute has shown its values equally often (±1), so that a
    run of fewer images than there are combinations is balanced too.

    Args:
      names: Names of categorical attributes, and `age_decade`: an age drawn uniformly within a
        decade from 20 to 89.
      asked: Further attributes, the same for every image.
      seed: Seed of the ages.

    Raises:
      ConfigError: For an attribute that has no categories, is named twice, or is also in `asked`.
    """
    axes: dict[str, tuple[str, ...] | tuple[int, ...]] = {}
    for name in names:
        name = "age_decade" if name == "age_decade" else vocabulary.lookup(name).name
        values = DECADES if name == "age_decade" else ATTRIBUTES[INDEX[name]].values
        attribute = "age" if name == "age_decade" else name
        if not values:
            raise ConfigError(f"--balance {name} has no categories; for age use age_decade")
        if attribute in axes or attribute in asked:
            raise ConfigError(f"--balance {name} is given twice, or by --set too")
        axes[attribute] = values
    order = spread([len(values) for values in axes.values()])
    cells = [
        {name: values[i] for (name, values), i in zip(axes.items(), cell, strict=True)}
        for cell in order
    ]
    table = _encoded([{**asked, **cell} for cell in cells])
    return dataclasses.replace(table, ages=seed if "age" in axes else None)


def spread(sizes: Sequence[int]) -> Int[np.ndarray, "cells axes"]:
    """Every cell of a table of these sizes once, in an order balanced (±1) in each axis throughout.

    Each axis counts through its values. Two axes with a common factor in their sizes would meet in
    a part of their cells only, so the later one skips a value each time that this part is through.
    """
    number = np.arange(math.prod(sizes))
    cells = np.empty((len(number), len(sizes)), int)
    done = 1  # cells of the axes so far
    # Axes that share a factor one after another: their skips come early.
    for axis in sorted(range(len(sizes)), key=lambda i: (sizes[i] % 2, sizes[i] % 3, -sizes[i])):
        size = sizes[axis]
        shared = math.gcd(done, size)
        skips = number // math.lcm(done, size) % shared
        cells[:, axis] = (number + skips) % size
        done *= size
    return cells


def _encoded(rows: Sequence[Values]) -> Requests:
    return Requests(vocabulary.stack([vocabulary.encode(row) for row in rows]))
