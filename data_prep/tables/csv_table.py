"""Published CSV tables, read row by row."""

import contextlib
import csv
import difflib
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from rfxray.errors import ConfigError, DataError

MISFIT = "a row of too few or too many cells"


csv.field_size_limit(1 << 24)  # a report in a cell may exceed the default of 128 KiB


def rows(
    path: Path, columns: Mapping[str, str | Sequence[str]], optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str] | None]]:
    """(number of its last line, our name → cell) of every row.

    The cells of a row are None where it is a `MISFIT`: shorter than the header (to its last name),
    or longer by a cell with something in it, so that its values may stand under the wrong names.

    Args:
      path: Path of a CSV (`,`, `;` or tab; in an encoding of `opened`).
      columns: Header, or the headers of different editions, by our name.
      optional: Those of our names that a table may lack; their cells are then empty.

    Raises:
      DataError: Where the table is missing or unreadable.
      ConfigError: Where it lacks a column.
    """
    with opened(path) as file:
        header, table, skipped = _header(file)
        at, missing = {}, {}
        for name, wanted in columns.items():
            editions = (wanted,) if isinstance(wanted, str) else wanted
            found = next((edition for edition in editions if edition in header), editions[0])
            if found not in header and name in optional:
                missing[name] = ""
            else:
                at[name] = _position(header, found, path)
        named = max((i for i, name in enumerate(header, 1) if name), default=0)
        end = skipped + table.line_num
        try:
            for cells in table:
                end = skipped + table.line_num
                if not cells:
                    continue
                if len(cells) < named or any(map(str.strip, cells[len(header) :])):
                    yield end, None
                else:
                    yield end, {name: cells[i] for name, i in at.items()} | missing
        except csv.Error as error:  # one wrong quote would swallow the rows that follow
            raise DataError(
                f"{path} line {end + 1} is not valid CSV ({error}); check for a missing or extra "
                "quotation mark"
            ) from None


def header(path: Path) -> list[str]:
    """What the columns of a table are called."""
    with opened(path) as file:
        return _header(file)[0]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """A text file, gzipped or not: UTF-8, or UTF-16 with its byte order mark, as Excel writes it.

    Raises:
      DataError: Where it is missing or, then or while it is read, no such file.
    """
    if not path.is_file():  # opening a FIFO would wait for its writer
        what = "is not a regular file" if path.exists() else "is missing"
        raise DataError(f"no table {path}: it {what}")
    try:
        with contextlib.ExitStack() as stack:
            data = stack.enter_context(open(path, "rb"))
            if data.peek(2)[:2] == b"\x1f\x8b":
                data = stack.enter_context(gzip.GzipFile(fileobj=data))
            start = data.peek(4)[:4]
            if start == b"PK\x03\x04":
                raise DataError(f"{path} is a workbook or ZIP file, not text; export it as CSV")
            utf16 = start[:2] in (b"\xff\xfe", b"\xfe\xff")
            if not utf16 and b"\0" in start:
                raise DataError(
                    f"{path} is not UTF-8 (it has zero bytes, like UTF-16 without a byte "
                    f"order mark); convert it, for example by iconv -f UTF-16LE -t UTF-8 {path} "
                    "> new.csv"
                )
            encoding = "utf-16" if utf16 else "utf-8-sig"
            yield stack.enter_context(io.TextIOWrapper(data, encoding, newline=""))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 ({error.reason}); convert it from its encoding, for example by "
            f"iconv -f WINDOWS-1252 -t UTF-8 {path} > new.csv"
        ) from None
    except (csv.Error, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from None


def _header(file: TextIO):
    """The header, the reader of the rows below it, and how many lines stand above it."""
    skipped, delimiter = 0, ""
    for line in file:
        if marked := re.match(r"sep=(.)\s*$", line):  # Excel's own
            delimiter = marked[1]
        elif line.strip():
            break
        skipped += 1
    else:
        line = ""
    delimiter = delimiter or max(",;\t", key=re.sub(r'"[^"]*"', "", line).count)
    table = csv.reader(itertools.chain([line], file), delimiter=delimiter, strict=True)
    return [cell.strip() for cell in next(table, [])], table, skipped


def _position(header: Sequence[str], wanted: str, path: Path) -> int:
    if header.count(wanted) == 1:
        return header.index(wanted)
    if wanted in header:
        raise ConfigError(f"{path} has {header.count(wanted)} columns {wanted!r}; rename one")
    near = difflib.get_close_matches(wanted, header, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(header)}"
    raise ConfigError(f"{path} has no column {wanted!r}; {hint}")
