"""A folder of image files and one CSV table that describes them."""

import contextlib
import dataclasses
import functools
import os
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path

from data_prep.sources.findings import FindingsColumn
from data_prep.tables.columns import FINDINGS, split_of
from data_prep.tables.csv_table import MISFIT, rows
from data_prep.tables.description import Description
from data_prep.tables.table import Row, Table, TableBuilder, make_key
from data_prep.tables.table import dropped as drop_row
from rfxray.attributes.vocabulary import INDEX
from rfxray.data.plan import Dropped
from rfxray.data.radiograph import EXTENSIONS
from rfxray.errors import ConfigError, DataError

LEFTOVER = ".azdownload"  # AzCopy's mark on what it has not finished


def read_folder(images: str | os.PathLike, described: Description, name: str) -> Table:
    """Joins the table and the files.

    Args:
      images: Folder of the files; they are found by extension, at any depth.
      described: What the table says, one row per image.
      name: Beginning of keys and patients.

    Raises:
      DataError: where the folder or the table is missing or unreadable, or nothing matches.
      ConfigError: where the table has no column of a given header.
    """
    metadata, columns, mapped = described.metadata, described.columns, described.mapped
    if "image" not in columns:
        raise ConfigError(f"{metadata}: which column names the image file? --column image=HEADER")
    files = FileIndex(images)
    given = [attribute for attribute in columns if attribute in INDEX]
    builder = TableBuilder(name, mapped)
    listed = FindingsColumn(described, builder) if FINDINGS in columns else None
    told_source = builder.cell("source", described.source, "--set-source")
    named = []
    for line, cells in rows(Path(metadata), columns):
        if cells is None:
            builder.drop("", MISFIT, f"{Path(metadata).name} line {line}")
            continue
        image = cells["image"].strip()
        path, reason = files.find(image)
        if reason:
            reason, _, detail = reason.partition(": ")
            where = "" if image else f"{Path(metadata).name} line {line}"
            builder.drop(image, reason, detail or where, stage="files")
            continue
        named.append(image)
        values = told_source | (listed.values(cells[FINDINGS]) if listed else {})
        for attribute in given:
            values |= builder.cell(attribute, cells[attribute], f"column {columns[attribute]}")
        builder.add(
            path,
            values,
            patient=cells.get("patient", "").strip(),
            study=cells.get("study", "").strip(),
            image=image,
            split=_official(cells, mapped, metadata),
        )
    if not len(builder):
        raise DataError(_nothing_matches(images, metadata, files, builder.dropped))
    table = builder.table(files=len(files.paths))
    kept, others = one_row_a_file(table.rows, named)
    rows_of_others = (table.rows[i]._replace(path=named[i]) for i in others)
    dropped = [*table.dropped, *map(drop_row, rows_of_others, repeat("files"), others.values())]
    dropped += unnamed(name, files)
    notes = {
        **table.notes,
        "patients": len({row.patient for row in kept}),
        "matched": len(kept),
        "contradicting": contradicting(others.values()),
    }
    return dataclasses.replace(table, rows=kept, dropped=dropped, notes=notes)


def unnamed(name: str, files: "FileIndex") -> Iterator[Dropped]:
    """What of the files of a set goes to the ledger: those without a row, and leftovers."""
    for path in files.unnamed():
        yield Dropped(name, "", path, "files", "no row in the table")
    for path in files.leftovers:
        yield Dropped(name, "", path, "files", "a leftover of a broken download")


def one_row_a_file(rows: Sequence[Row], named: Sequence[str]) -> tuple[list[Row], dict[int, str]]:
    """The rows that keep their file, and by their index why the others do not.

    A row that names the file by its exact path goes before one that names only the end of it; if
    none does and several such names differ, nobody knows which row the file belongs to. Of what is
    left the first row stays, unless they name different patients: then none does.

    Args:
      rows: with the path of the file that was found.
      named: what the table calls that file, row by row.
    """
    first: dict[str, int] = {}
    claims: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        earlier = first.setdefault(row.path, i)
        if earlier != i:
            claims.setdefault(row.path, [earlier]).append(i)
    others = {}
    for path, claim in claims.items():
        exact = [i for i in claim if _bare(named[i]) == _bare(path)]
        if not exact and len({_bare(named[i]) for i in claim}) > 1:
            others |= dict.fromkeys(claim, f"ambiguous: several rows may mean {path}")
            continue
        left = exact or claim
        others |= {i: f"the file of another row: {path}" for i in claim if i not in left}
        if len({rows[i].patient for i in left if _has_patient(rows[i])}) > 1:
            others |= dict.fromkeys(left, "contradicts another row: the patients differ")
            continue
        for i in left[1:]:
            same = _told(rows[i]) == _told(rows[left[0]])
            others[i] = "the file of an earlier row" if same else "contradicts an earlier row"
    return [row for i, row in enumerate(rows) if i not in others], others


def contradicting(reasons: Iterable[str]) -> int:
    """How many of the reasons of `one_row_a_file` are contradictions."""
    return sum(reason.startswith("contradicts ") for reason in reasons)


def _told(row: Row) -> tuple[str, bytes, bytes]:
    return row.split, row.attributes, row.states


def _has_patient(row: Row) -> bool:
    """Whether the table names one; else the image counts as a patient of its own."""
    source, _, _, image = row.key.split("/", 3)
    return row.patient != make_key(source, image, "", image)[1]


class FileIndex:
    """The image files of a folder, to be found by path or by stem.

    They are known by their extension, at any depth, through links to other folders too. A file
    without one, such as an archive's `IM0001` or `1.2.840.1`, or with .ima or .dic counts where it
    says it is DICOM.

    Attributes:
      paths: relative to the folder, with forward slashes, sorted.
      leftovers: what a broken download left behind, likewise.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self._own_name = _plain(os.path.abspath(folder)).rpartition("/")[2]
        if not self.folder.is_dir():
            raise DataError(f"no folder {folder}")
        found = sorted(self._walk())
        self._named: set[str] = set()
        self.paths = [path for path in found if LEFTOVER not in path.lower()]
        self.leftovers = [path for path in found if LEFTOVER in path.lower()]
        if not self.paths:
            raise DataError(f"{folder} has no file ending in {', '.join(EXTENSIONS)}")
        self._by_path: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for path in self.paths:
            bare = _bare(path)
            self._by_path.setdefault(bare, []).append(path)
            self._by_stem.setdefault(bare.rpartition("/")[2], []).append(path)

    def find(self, image: str) -> tuple[str, str]:
        """The file that a table's cell means, as (path, "") or ("", reason).

        The cell is a path in the folder, with or without its extension; or one that begins
        further up, such as `SET/train/a/b.jpg` for `train/a/b.jpg` or `FOLDER/b.jpg` for `b.jpg` in
        a folder of that name, or further down, such as `train/a/b.jpg` for `PNG/train/a/b.jpg`; or
        a bare name, which is looked for at any depth. Among files that differ in their extension
        only, the cell's own decides.
        """
        if not image:
            return "", "a row that names no image"
        image, bare = _normal(image), _bare(image)
        found = self._by_path.get(bare)
        if not found and "/" not in bare:
            found = self._by_stem.get(bare)
        parts = bare.split("/")
        for start in range(len(parts) - 1):  # a folder is kept: a bare name says too little
            found = found or self._by_path.get("/".join(parts[start:]))
            if parts[start] == self._own_name:
                found = found or self._by_path.get("/".join(parts[start + 1 :]))
        if not found and len(parts) > 2:
            found = self._by_tail.get(bare)
        name = image.rpartition("/")[2]
        if not found:
            inside = not image.startswith(("/", "../"))
            if inside and os.path.isfile(os.path.join(self.folder, image)):
                return "", f"a format that is not read: {posixpath.splitext(name)[1] or name}"
            return "", "no file"
        exact = [path for path in found if _plain(path).rpartition("/")[2] == name] or found
        self._named.update(exact)
        if len(exact) > 1:
            return "", f"several files: {exact[0]} and {exact[1]}"
        return exact[0], ""

    def unnamed(self) -> list[str]:
        """The files that no cell has meant so far, by itself or among others."""
        return [path for path in self.paths if path not in self._named]

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

    def _walk(self) -> Iterator[str]:
        tops = [str(self.folder)]
        entered = [os.path.realpath(self.folder)]
        for top in tops:  # which grows: links are followed last, and none into what was entered
            for directory, folders, names in os.walk(top, onerror=_unreadable):
                prefix = directory[len(tops[0]) :].lstrip(os.sep).replace(os.sep, "/")
                for name in names:
                    is_image = name.lower().endswith(EXTENSIONS) or LEFTOVER in name.lower()
                    if is_image or _is_nameless_dicom(directory, name):
                        yield f"{prefix}/{name}" if prefix else name
                for link in sorted(os.path.join(directory, folder) for folder in folders):
                    if os.path.islink(link):
                        target = os.path.realpath(link)
                        if not any(_nested(target, other) for other in entered):
                            entered.append(target)
                            tops.append(link)


def _nested(one: str, other: str) -> bool:
    """Whether one of two folders lies in the other, or is it."""
    return os.path.commonpath((one, other)) in (one, other)


def _unreadable(error: OSError) -> None:
    raise DataError(f"the folder {error.filename} cannot be read: {error.strerror}")


def _is_nameless_dicom(directory: str, name: str) -> bool:
    _, dot, extension = name.rpartition(".")
    if dot and not extension.isdigit() and extension.lower() not in ("ima", "dic"):
        return False
    with contextlib.suppress(OSError), open(os.path.join(directory, name), "rb") as file:
        return file.read(132)[128:] == b"DICM"
    return False


def _plain(path: str) -> str:
    """One form of what Unicode can write in two, as tables and disks of different systems do."""
    return unicodedata.normalize("NFC", path)


def _normal(path: str) -> str:
    return posixpath.normpath(_plain(path.replace("\\", "/")))


def _bare(path: str) -> str:
    """The path in its one form, without the extension of an image."""
    path = _normal(path)
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
        f"no row of {metadata} matches a file in {images}: the table has {dropped[0].path!r} "
        f"({dropped[0].reason}), the folder has {files.paths[0]!r}"
    )
