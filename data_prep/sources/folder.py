"""A folder of image files and one CSV table that describes them."""

import array
import contextlib
import csv
import difflib
import gzip
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_prep.columns import reader, split_of
from data_prep.ingest import EXTENSIONS
from data_prep.shards import Dropped
from data_prep.table import Row, Table, make_key, settle_no_finding
from rfxray.conditioning import INDEX, NAMES, NUM_ATTRIBUTES
from rfxray.errors import ConfigError, DataError
from rfxray.record import State

LISTED_CELLS = 1000  # of an attribute, in the manifest; a column of free text has no end of them
csv.field_size_limit(1 << 24)  # a report in a cell may exceed the default of 128 KiB


def read_folder(
    images: str | os.PathLike,
    metadata: str | os.PathLike,
    columns: Mapping[str, str],
    mapped: Mapping[tuple[str, str], str],
    name: str,
    source: str,
) -> Table:
    """Joins the table and the files.

    Args:
      images: the folder; its files are found by extension, at any depth.
      metadata: a CSV (`,`, `;` or tab; UTF-8; may be gzipped), one row an image.
      columns: our name → the table's header, as `columns.parse_columns` gives it.
      mapped: cells to read as something else, as `columns.parse_map` gives it.
      name: what keys and patients begin with.
      source: the value of the attribute `source`, where no column has it.

    Raises:
      DataError: where the folder or the table is missing or unreadable, or nothing matches.
      ConfigError: where the table has no column of a given header.
    """
    if "image" not in columns:
        raise ConfigError("say which column names the image file: --column image=HEADER")
    files = FileIndex(images)
    read = reader(mapped)
    at_source = INDEX["source"]
    given = [attribute for attribute in columns if attribute in INDEX]
    numbers, states = array.array("f"), array.array("b")
    named: list[tuple] = []
    dropped: list[Dropped] = []
    taken: set[str] = set()
    strange: dict[str, Counter] = {attribute: Counter() for attribute in given}
    without_patient = row_count = 0
    for line, cells in _rows(metadata, columns):
        row_count += 1
        if cells is None:
            dropped.append(Dropped(f"line {line}", "a row with too few cells"))
            continue
        image = cells["image"].strip()
        path, reason = files.find(image)
        if path in taken:
            reason = "the file of an earlier row"
        if reason:
            dropped.append(Dropped(image or f"line {line}", reason))
            continue
        taken.add(path)
        row_numbers = [0.0] * NUM_ATTRIBUTES
        row_states = [State.UNLABELLED] * NUM_ATTRIBUTES
        for attribute in given:
            understood = read(attribute, cells[attribute])
            if understood is None:
                strange[attribute][cells[attribute].strip()] += 1
            else:
                i = INDEX[attribute]
                row_numbers[i], row_states[i] = understood
        if row_states[at_source] == State.UNLABELLED:
            row_numbers[at_source], row_states[at_source] = read("source", source)
        numbers.extend(row_numbers)
        states.extend(row_states)
        patient = cells.get("patient", "").strip()
        without_patient += not patient
        key, patient = make_key(name, patient or image, cells.get("study", "").strip(), image)
        named.append((path, files.size(path), key, patient, _official(cells, mapped, metadata)))
    if not named:
        raise DataError(_nothing_matches(images, metadata, files, dropped))
    dropped += [Dropped(path, "no row in the table") for path in files.paths if path not in taken]
    numbers = np.frombuffer(numbers, np.float32).reshape(-1, NUM_ATTRIBUTES)
    states = np.frombuffer(states, np.int8).reshape(-1, NUM_ATTRIBUTES)
    numbers, states, no_finding = settle_no_finding(numbers, states)
    rows = [
        Row(*one, number.tobytes(), state.tobytes())
        for one, number, state in zip(named, numbers, states, strict=True)
    ]
    notes = {
        "rows": row_count,
        "files": len(files.paths),
        "matched": len(rows),
        "patients": len({row.patient for row in rows}),
        "without_patient": without_patient,
        "no_finding": no_finding,
        "not_understood": {a: _listed(strange[a]) for a in NAMES if strange.get(a)},
    }
    return Table(rows, dropped, notes)


class FileIndex:
    """The image files of a folder, to be found by path or by stem.

    Attributes:
      paths: relative to the folder, with forward slashes, sorted.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise DataError(f"no folder {folder}")
        self.paths = sorted(self._walk())
        if not self.paths:
            raise DataError(f"{folder} has no file ending in {', '.join(EXTENSIONS)}")
        self._by_path: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for path in self.paths:
            bare = _without_extension(path)
            self._by_path.setdefault(bare, []).append(path)
            self._by_stem.setdefault(bare.rpartition("/")[2], []).append(path)

    def find(self, image: str) -> tuple[str, str]:
        """The file that a table's cell means, as (path, "") or ("", reason).

        The cell is a path in the folder, with or without its extension; or one that begins
        further up, such as `SET/train/a/b.jpg` for `train/a/b.jpg`; or a bare name, which is looked
        for at any depth. Among files that differ in their extension alone, the cell's own decides.
        """
        if not image:
            return "", "a row that names no image"
        bare = _without_extension(image.removeprefix("./"))
        found = self._by_path.get(bare)
        if not found and "/" not in bare:
            found = self._by_stem.get(bare)
        parts = bare.split("/")
        for start in range(1, len(parts) - 1):  # a folder is kept: a bare name says too little
            found = found or self._by_path.get("/".join(parts[start:]))
        if not found:
            return "", "no file"
        name = image.rpartition("/")[2]
        exact = [path for path in found if path.rpartition("/")[2] == name] or found
        if len(exact) > 1:
            return "", f"several files: {exact[0]} and {exact[1]}"
        return exact[0], ""

    def size(self, path: str) -> int:
        """Bytes of a file; 0 for one that cannot be asked, which decoding will say."""
        with contextlib.suppress(OSError):
            return os.path.getsize(os.path.join(self.folder, path))
        return 0

    def _walk(self) -> Iterator[str]:
        for directory, _, names in os.walk(self.folder):
            prefix = directory[len(str(self.folder)) :].lstrip(os.sep).replace(os.sep, "/")
            for name in names:
                if name.lower().endswith(EXTENSIONS):
                    yield f"{prefix}/{name}" if prefix else name


def _without_extension(path: str) -> str:
    for extension in EXTENSIONS:
        if path.lower().endswith(extension):
            return path[: -len(extension)]
    return path


def _rows(
    metadata: str | os.PathLike, columns: Mapping[str, str]
) -> Iterator[tuple[int, dict[str, str] | None]]:
    """(line number, our name → cell) of every row; None for the cells of one that is too short."""
    metadata = Path(metadata)
    if not metadata.is_file():
        raise DataError(f"no table {metadata}")
    try:
        opened = gzip.open if metadata.suffix == ".gz" else open
        with opened(metadata, "rt", encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            delimiter = max(",;\t", key=first.count)
            header = [cell.strip() for cell in next(csv.reader([first], delimiter=delimiter), [])]
            at = {name: _position(header, wanted, metadata) for name, wanted in columns.items()}
            table = csv.reader(file, delimiter=delimiter)
            for cells in table:
                if cells:
                    whole = len(cells) > max(at.values())
                    row = {name: cells[i] for name, i in at.items()} if whole else None
                    yield table.line_num + 1, row
    except UnicodeDecodeError as error:
        raise DataError(f"{metadata} is not UTF-8 ({error.reason}); convert it first") from None
    except (csv.Error, OSError, EOFError) as error:
        raise DataError(f"{metadata} cannot be read as CSV: {error}") from None


def _position(header: Sequence[str], wanted: str, metadata: Path) -> int:
    if header.count(wanted) == 1:
        return header.index(wanted)
    if wanted in header:
        raise ConfigError(f"{metadata} has {header.count(wanted)} columns {wanted!r}; rename one")
    near = difflib.get_close_matches(wanted, header, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(header)}"
    raise ConfigError(f"{metadata} has no column {wanted!r}; {hint}")


def _official(cells: Mapping[str, str], mapped: Mapping, metadata: str | os.PathLike) -> str:
    if "split" not in cells:
        return ""
    cell = cells["split"].strip()
    split = split_of(mapped.get(("split", cell.lower()), cell))
    if split is None:
        raise ConfigError(
            f"{metadata} has a split {cell!r}, which is not train, validation or test; say what it "
            f"is: --map split:{cell}=test"
        )
    return split


def _nothing_matches(images, metadata, files: FileIndex, dropped: Sequence[Dropped]) -> str:
    if not dropped:
        return f"{metadata} has no rows"
    return (
        f"no row of {metadata} matches a file in {images}: the table has {dropped[0].key!r} "
        f"({dropped[0].reason}), the folder has {files.paths[0]!r}"
    )


def _listed(cells: Counter) -> dict[str, int]:
    listed = dict(cells.most_common(LISTED_CELLS))
    rest = cells.total() - sum(listed.values())
    return {**listed, "(others)": rest} if rest else listed
