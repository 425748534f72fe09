"""What lies below a folder of radiographs, found without opening a file that is none."""

import contextlib
import functools
import os
import posixpath
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_prep.sources.entries import entries, is_archive, is_file, is_folder, packed, special
from rfxray.data.radiograph import EXTENSIONS
from rfxray.errors import DataError

LEFTOVER = ".azdownload"  # AzCopy's mark on what it has not finished


class FileIndex:
    """The image files of a folder, to be found by path or by name.

    They are known by their extension, at any depth, through links to other folders too. A file
    without one, such as an archive's `IM0001` or `1.2.840.1`, or with .ima or .dic counts if it
    says it is DICOM. A folder that several names lead to is entered once, by the name that is no
    link if there is one; `at` finds its files by the other names too.

    Attributes:
      paths: Image files relative to the folder, with forward slashes, sorted.
      leftovers: What a broken download left behind, likewise.
      special: What is not a file, by path, and what it is instead: a FIFO, a link to nothing, …
      archives: Packed files, sorted.

    Raises:
      DataError: If the folder is missing or unreadable, or has no image.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.own_name = plain(os.path.abspath(folder)).rpartition("/")[2]
        if not self.folder.is_dir():
            raise DataError(f"no folder {folder}")
        self.special: dict[str, str] = {}
        self.archives: list[str] = []
        self._second_names: dict[str, str] = {}
        found = sorted(self._walk())
        self.archives.sort()
        self._named: set[str] = set()
        self.paths = [path for path in found if LEFTOVER not in path.lower()]
        self.leftovers = [path for path in found if LEFTOVER in path.lower()]
        if not self.paths:
            hint = f", but {packed(self.archives)}" if self.archives else ""
            raise DataError(f"{folder} has no file ending in {', '.join(EXTENSIONS)}{hint}")
        self.by_path: dict[str, list[str]] = {}
        for path in (*self.paths, *sorted(self.special)):
            self.by_path.setdefault(bare(path), []).append(path)

    def at(self, path: str) -> list[str]:
        """The files at a path without extension, as `bare` gives it."""
        found = self.by_path.get(path)
        seen = set()
        while not found and self._second_names and path not in seen:
            seen.add(path)
            for second, first in self._second_names.items():
                if path.startswith(f"{second}/"):
                    path = posixpath.join(first, path[len(second) + 1 :])
                    break
            found = self.by_path.get(path)
        return found or []

    @functools.cached_property
    def by_name(self) -> dict[str, list[str]]:
        """The files by their name without extension, whatever folder they are in."""
        return self.below(None)

    def below(self, depth: int | None) -> dict[str, list[str]]:
        """The files by their path without its first `depth` folders, or without any folder."""
        found: dict[str, list[str]] = {}
        for path, files in self.by_path.items():
            parts = path.split("/", -1 if depth is None else depth)
            if depth is None or len(parts) > depth:
                found.setdefault(parts[-1], []).extend(files)
        return found

    def name(self, *paths: str) -> None:
        """Notes that rows mean these files."""
        self._named.update(paths)

    def unnamed(self) -> list[str]:
        """The files that no row has meant so far, by itself or among others."""
        return [path for path in self.paths if path not in self._named]

    def unnamed_special(self) -> Mapping[str, str]:
        """As `unnamed`, of what is not a file: by path, what it is instead."""
        return {path: kind for path, kind in self.special.items() if path not in self._named}

    def _walk(self) -> Iterator[str]:
        """The images and leftovers; on the way, all else that is kept of the folder."""
        top = os.path.realpath(self.folder)
        entered = {top: ""}  # real path → our name for it
        tops = [("", top)]
        for begin, target in tops:  # which grows: links are followed after all that is not a link
            if begin and (first := _known(target, entered)) is not None:
                self._second_names[_plain_folder(begin)] = _plain_folder(first)
                continue
            entered[target] = begin
            pending = [(begin, target)]
            while pending:
                prefix, real = pending.pop()
                for entry in entries(os.path.join(self.folder, prefix)):
                    path = f"{prefix}/{entry.name}" if prefix else entry.name
                    if is_folder(entry):
                        if entry.is_symlink():
                            tops.append((path, os.path.realpath(entry.path)))
                        elif (inner := os.path.join(real, entry.name)) in entered:
                            self._second_names[_plain_folder(path)] = _plain_folder(entered[inner])
                        else:
                            pending.append((path, inner))
                    elif self._is_image(entry, path):
                        yield path

    def _is_image(self, entry: os.DirEntry, path: str) -> bool:
        if not is_file(entry):
            self.special[path] = special(entry.path) or "not a file"
            return False
        name = entry.name.lower()
        if name.endswith(EXTENSIONS) or LEFTOVER in name:
            return True
        if is_archive(name):
            self.archives.append(path)
            return False
        return _is_nameless_dicom(entry.path, entry.name)


def plain(path: str) -> str:
    """One form of what Unicode can write in two, as tables and disks of different systems do."""
    return unicodedata.normalize("NFC", path)


def normal(path: str) -> str:
    """A path of a table with forward slashes and without detours."""
    return posixpath.normpath(plain(path.replace("\\", "/")))


def bare(path: str) -> str:
    """The path in its one form, without the extension of an image."""
    path = normal(path)
    if path.lower().endswith(EXTENSIONS):
        return path.rpartition(".")[0]
    return path


def _known(real: str, entered: Mapping[str, str]) -> str | None:
    """Our name for a folder that was entered, by itself or with one above it; else None."""
    above, below = real, ""
    while above not in entered:
        above, separator, name = above.rpartition("/")
        if not separator:
            return None
        below = f"{name}/{below}" if below else name
    return posixpath.join(entered[above], below).rstrip("/")


def _plain_folder(path: str) -> str:
    return plain(path.replace(os.sep, "/"))


def _is_nameless_dicom(path: str, name: str) -> bool:
    _, dot, extension = name.rpartition(".")
    if dot and not extension.isdigit() and extension.lower() not in ("ima", "dic"):
        return False
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"
    return False
