"""A folder of image files and one CSV table that describes them."""

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data_prep.columns import split_of
from data_prep.csv_table import rows
from data_prep.shards import Dropped
from data_prep.table import Table, TableBuilder
from rfxray.conditioning import INDEX
from rfxray.errors import ConfigError, DataError
from rfxray.ingest import EXTENSIONS

LEFTOVER = ".azdownload"  # AzCopy's mark on what it has not finished


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
    given = [attribute for attribute in columns if attribute in INDEX]
    builder = TableBuilder(name, mapped)
    told_source = builder.cell("source", source, "--set-source")
    taken: set[str] = set()
    for line, cells in rows(Path(metadata), columns):
        if cells is None:
            builder.drop(f"line {line}", "a row with too few cells")
            continue
        image = cells["image"].strip()
        path, reason = files.find(image)
        if path in taken:
            reason = "the file of an earlier row"
        if reason:
            builder.drop(image or f"line {line}", reason)
            continue
        taken.add(path)
        values = dict(told_source)
        for attribute in given:
            values |= builder.cell(attribute, cells[attribute], f"column {columns[attribute]}")
        builder.add(
            path,
            values,
            patient=cells.get("patient", "").strip(),
            study=cells.get("study", "").strip(),
            image=image,
            split=_official(cells, mapped, metadata),
            length=files.size(path),
        )
    if not len(builder):
        raise DataError(_nothing_matches(images, metadata, files, builder.dropped))
    builder.dropped += [
        Dropped(path, "no row in the table") for path in files.paths if path not in taken
    ]
    builder.dropped += [
        Dropped(path, "a leftover of a broken download") for path in files.leftovers
    ]
    return builder.table(files=len(files.paths), matched=len(builder))


class FileIndex:
    """The image files of a folder, to be found by path or by stem.

    Attributes:
      paths: relative to the folder, with forward slashes, sorted.
      leftovers: what a broken download left behind, likewise.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise DataError(f"no folder {folder}")
        found = sorted(self._walk())
        self.paths = [path for path in found if LEFTOVER not in path.lower()]
        self.leftovers = [path for path in found if LEFTOVER in path.lower()]
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
        further up, such as `SET/train/a/b.jpg` for `train/a/b.jpg`, or further down, such as
        `train/a/b.jpg` for `PNG/train/a/b.jpg`; or a bare name, which is looked for at any depth.
        Among files that differ in their extension alone, the cell's own decides.
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
        if not found and len(parts) > 2:
            found = self._by_tail.get(bare)
        if not found:
            return "", "no file"
        name = image.rpartition("/")[2]
        exact = [path for path in found if path.rpartition("/")[2] == name] or found
        if len(exact) > 1:
            return "", f"several files: {exact[0]} and {exact[1]}"
        return exact[0], ""

    @functools.cached_property
    def _by_tail(self) -> dict[str, list[str]]:
        """The files by their path without its first one or two folders."""
        found: dict[str, list[str]] = {}
        for bare, paths in self._by_path.items():
            for folders in (1, 2):
                tail = bare.split("/", folders)
                if len(tail) > folders:
                    found.setdefault(tail[-1], []).extend(paths)
        return found

    def size(self, path: str) -> int:
        """Bytes of a file; 0 for one that cannot be asked, which decoding will say."""
        with contextlib.suppress(OSError):
            return os.path.getsize(os.path.join(self.folder, path))
        return 0

    def _walk(self) -> Iterator[str]:
        for directory, _, names in os.walk(self.folder):
            prefix = directory[len(str(self.folder)) :].lstrip(os.sep).replace(os.sep, "/")
            for name in names:
                if name.lower().endswith(EXTENSIONS) or LEFTOVER in name.lower():
                    yield f"{prefix}/{name}" if prefix else name


def _without_extension(path: str) -> str:
    for extension in EXTENSIONS:
        if path.lower().endswith(extension):
            return path[: -len(extension)]
    return path


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
