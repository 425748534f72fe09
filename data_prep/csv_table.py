"""Published CSV tables, read row by row; and where in a raw folder they lie."""

import csv
import difflib
import gzip
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rfxray.errors import ConfigError, DataError

csv.field_size_limit(1 << 24)  # a report in a cell may exceed the default of 128 KiB


def rows(
    path: Path, columns: Mapping[str, str | Sequence[str]], optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str] | None]]:
    """(line number, our name → cell) of every row; None for the cells of one that is too short.

    Args:
      path: a CSV (`,`, `;` or tab; UTF-8; gzipped where its name ends in .gz).
      columns: our name → the header, or the headers of different editions.
      optional: those of our names that a table may lack; their cells are then empty.

    Raises:
      DataError: where the table is missing or unreadable.
      ConfigError: where it lacks a column.
    """
    if not path.is_file():
        raise DataError(f"no table {path}")
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            delimiter = max(",;\t", key=first.count)
            header = [cell.strip() for cell in next(csv.reader([first], delimiter=delimiter), [])]
            at, missing = {}, {}
            for name, wanted in columns.items():
                editions = (wanted,) if isinstance(wanted, str) else wanted
                found = next((edition for edition in editions if edition in header), editions[0])
                if found not in header and name in optional:
                    missing[name] = ""
                else:
                    at[name] = _position(header, found, path)
            table = csv.reader(file, delimiter=delimiter)
            last = max(at.values(), default=0)
            for cells in table:
                if cells:
                    row = {name: cells[i] for name, i in at.items()} if len(cells) > last else None
                    yield table.line_num + 1, row and {**row, **missing}
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason}); convert it first") from None
    except (csv.Error, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from None


def find(root: Path, *patterns: str) -> Path | None:
    """The first file of a raw folder that a pattern names, gzipped or not; None where none does.

    Patterns in order of preference; of several files the last by name, so the newer edition.
    """
    for pattern in patterns:
        found = [p for end in ("", ".gz") for p in root.glob(pattern + end) if p.is_file()]
        if found:
            return max(found)
    return None


def require(root: Path, *patterns: str) -> Path:
    """`find`, or DataError with what was looked for."""
    found = find(root, *patterns)
    if found is None:
        if not root.is_dir():
            raise DataError(f"no folder {root}")
        raise DataError(f"{root} has no {' or '.join(patterns)}; is it the root of the raw set?")
    return found


def _position(header: Sequence[str], wanted: str, path: Path) -> int:
    if header.count(wanted) == 1:
        return header.index(wanted)
    if wanted in header:
        raise ConfigError(f"{path} has {header.count(wanted)} columns {wanted!r}; rename one")
    near = difflib.get_close_matches(wanted, header, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(header)}"
    raise ConfigError(f"{path} has no column {wanted!r}; {hint}")
