"""What pictures are asked to be: one row of attributes a picture, from a table or by a plan."""

import csv
import dataclasses
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rfxray.attributes import vocabulary
from rfxray.attributes.states import known_from_states
from rfxray.attributes.vocabulary import ATTRIBUTES, INDEX
from rfxray.data.dataset import Dataset, Records
from rfxray.errors import ConfigError, DataError

DECADES = tuple(range(20, 90, 10))  # of `age_decade`: adults, to where the sets are dense


@dataclasses.dataclass(frozen=True)
class Requests:
    """Rows of attributes; picture k is asked row k, and what comes after the last starts again.

    Attributes:
      attributes: [rows, 19] float32.
      known: [rows, 19] bool.
      first: the picture that is asked the first row.
      ages: seed of years 0 to 9 that are added to each picture's age; None adds nothing.
    """

    attributes: np.ndarray
    known: np.ndarray
    first: int = 0
    ages: int | None = None

    def rows(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(attributes, known) of those pictures, each [n, 19]."""
        places = (np.asarray(numbers) - self.first) % len(self.attributes)
        attributes, known = self.attributes[places], self.known[places]
        if self.ages is not None:
            # By a counter, so that no picture needs those before it.
            attributes[:, INDEX["age"]] += [
                np.random.Generator(np.random.Philox(key=self.ages, counter=int(k))).integers(10)
                for k in numbers
            ]
        return attributes, known

    def fingerprint(self) -> str:
        """sha256 of all that decides what is asked, hex."""
        digest = hashlib.sha256(np.ascontiguousarray(self.attributes, "<f4"))
        digest.update(np.ascontiguousarray(self.known))
        if self.ages is not None:
            digest.update(str(self.ages).encode())
        return digest.hexdigest()


def alike(asked: Mapping[str, object]) -> Requests:
    """The same for every picture."""
    return _encoded([asked])


def from_csv(path: str | Path, asked: Mapping[str, object]) -> Requests:
    """A row of a CSV file a picture; its header names attributes, an empty cell is not told.

    Args:
      path: of the file.
      asked: what every picture is told besides.

    Raises:
      DataError: where the file cannot be read or has no row.
      ConfigError: for a column that is no attribute or is in `asked` too, a wrong value, or
        findings that contradict each other, with the line.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            lines = [(reader.line_num, row) for row in reader]
            header = reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table that can be read: {error}") from error
    if not lines:
        raise DataError(f"{path} holds no row below its header")
    names = {column: vocabulary.lookup(column).name for column in header}
    if len(set(names.values())) < len(header):
        raise ConfigError(f"{path}: two columns of its header name one attribute: {list(header)}")
    if both := [name for name in names.values() if name in asked]:
        raise ConfigError(f"{path} has a column {both[0]}, which --set says too; leave one out")
    rows = []
    for number, line in lines:
        if None in line or None in line.values():
            raise ConfigError(f"{path}, line {number}: not the {len(header)} cells of the header")
        told = {names[column]: cell for column, cell in line.items() if cell.strip()}
        try:
            rows.append(vocabulary.encode({**asked, **told}))
        except ConfigError as error:
            raise ConfigError(f"{path}, line {number}: {error}") from None
    return _stacked(rows)


def from_dataset(
    dataset: Dataset,
    split: str,
    asked: Mapping[str, object],
    n: int | None = None,
    first: int = 0,
) -> Requests:
    """What each radiograph of a data set is known to show, in its stored order.

    Args:
      dataset, split: of radiographs.
      asked: what every picture is told instead.
      n: only pictures first … first + n − 1 will be asked for, so no others are read; all are where
        it is None.
      first: see n.

    Raises:
      ConfigError: where there is no such split, or `asked` contradicts a row.
    """
    if not dataset.examples.get(split):
        raise ConfigError(f"data set {dataset.path} has no split {split!r}")
    records = Records(dataset, split)
    if n is None or n >= len(records):
        n, first = len(records), 0
    rows = []
    for number in range(first, first + n):
        record = records[number % len(records)]
        known = known_from_states(record["states"])
        told = vocabulary.decode(record["attributes"], known)
        if set(asked) & set(vocabulary.PATHOLOGY_NAMES):
            # It follows from what was found there, not from what is asked.
            told.pop("no_finding", None)
        rows.append(vocabulary.encode({**told, **asked}))
    return dataclasses.replace(_stacked(rows), first=first)


def balanced(names: Sequence[str], asked: Mapping[str, object], seed: int = 0) -> Requests:
    """Every combination of subgroups alike often (±1), one after another.

    Args:
      names: of categorical attributes, and `age_decade`: an age drawn evenly within a decade
        from 20 to 89.
      asked: what every picture is told besides.
      seed: of the ages.

    Raises:
      ConfigError: for an attribute that has no categories, is named twice, or is in `asked` too.
    """
    axes = {}
    for name in names:
        name = "age_decade" if name == "age_decade" else vocabulary.lookup(name).name
        values = DECADES if name == "age_decade" else ATTRIBUTES[INDEX[name]].values
        told = "age" if name == "age_decade" else name
        if not values:
            raise ConfigError(f"--balance {name} has no categories; for age it is age_decade")
        if told in axes or told in asked:
            raise ConfigError(f"--balance {name} is given twice, or by --set too")
        axes[told] = values
    cells = [dict(zip(axes, cell, strict=True)) for cell in itertools.product(*axes.values())]
    table = _encoded([{**asked, **cell} for cell in cells])
    return dataclasses.replace(table, ages=seed if "age" in axes else None)


def _encoded(rows: Sequence[Mapping[str, object]]) -> Requests:
    return _stacked([vocabulary.encode(row) for row in rows])


def _stacked(rows) -> Requests:
    return Requests(*(np.stack(part) for part in zip(*rows, strict=True)))
