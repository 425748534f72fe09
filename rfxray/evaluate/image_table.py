"""A table that describes a folder of images: which are read, their patients and attributes.

It is a CSV in UTF-8 with a column `image` (a path below the folder; a name of a file, or that
without its ending, is enough if it is unique), and perhaps `patient` and attributes. Every row must
have its file. Other columns are not read, and are named.
"""

import csv
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from rfxray.attributes import vocabulary
from rfxray.attributes.spellings import BLANK
from rfxray.attributes.vocabulary import Attributes
from rfxray.errors import ConfigError, DataError, first_line

_READ = ("image", "patient", *vocabulary.NAMES)
_SHOWN = 5  # columns of a note


@dataclasses.dataclass(frozen=True)
class Described:
    """The images of a table, in the order of their names.

    Attributes:
      names: Paths below the folder, [n].
      patients: Patients, "" if unknown, [n].
      attributes: Attributes, [n, 19].
      notes: Remarks for people about what was not read.
    """

    names: list[str]
    patients: list[str]
    attributes: Attributes
    notes: list[str]


def read(folder: Path, table: Path, found: Sequence[str]) -> Described:
    """Reads a table.

    Args:
      folder: Folder of the images.
      table: Path of the CSV.
      found: Paths of the images below the folder.

    Raises:
      DataError: With the line, if the table does not fit the folder.
    """
    header, rows = _cells(table)
    there = set(found)
    by_name: dict[str, set[str]] = {}
    for name in found:
        for alias in (name, Path(name).name, Path(name).stem):
            by_name.setdefault(alias, set()).add(name)
    known: dict[str, tuple[str, Attributes]] = {}
    for line, cells in rows:
        row = dict(zip(header, cells, strict=True))
        image = row["image"]
        match = [image] if image in there else sorted(by_name.get(image, ()))
        if len(match) != 1:
            how = "has no such file" if not match else f"has {len(match)} such files"
            raise DataError(f"{table} line {line} names {image!r}, and {folder} {how}; correct it")
        if match[0] in known:
            raise DataError(f"{table} line {line} names {image!r} a second time; keep one row")
        given = {name: row[name] for name in vocabulary.NAMES if name in row}
        given = {name: cell for name, cell in given.items() if cell.lower() not in BLANK}
        try:
            attributes = vocabulary.encode(given)
        except ConfigError as error:
            raise DataError(f"{table} line {line}: {error}") from error
        patient = row.get("patient", "")
        known[match[0]] = ("" if patient.lower() in BLANK else patient, attributes)
    names = sorted(known)
    notes = []
    if unlisted := len(found) - len(names):
        notes.append(f"{unlisted} files are not in {table.name}, so not in the set")
    if unread := [name for name in header if name not in _READ]:
        more = f" and {len(unread) - _SHOWN} more" if len(unread) > _SHOWN else ""
        notes.append(f"columns of {table.name} not read: {', '.join(unread[:_SHOWN])}{more}")
    stacked = vocabulary.stack([known[name][1] for name in names])
    return Described(names, [known[name][0] for name in names], stacked, notes)


def _cells(table: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the cells of each row with the number of its line; blank lines are none."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{table} cannot be read ({first_line(error)}); give a CSV in UTF-8"
        ) from error
    lines = [(number, cells) for number, cells in lines if any(cells)]
    header = lines[0][1] if lines else []
    if "image" not in header or len(lines) < 2:
        raise DataError(
            f"{table} must have a header with a column image, separated by commas, and rows"
        )
    for name in header:
        plain = re.sub(r"[\s-]+", "_", name).lower()
        if plain != name and plain in _READ:
            raise DataError(f"{table} has a column {name!r}; write it {plain}, or remove it")
        if name in _READ and header.count(name) > 1:
            raise DataError(f"{table} has two columns {name}; keep one")
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise DataError(
                f"{table} line {number} has {len(cells)} cells, and the header {len(header)}; "
                "correct it (a comma within a cell needs quotes)"
            )
    return header, lines[1:]
