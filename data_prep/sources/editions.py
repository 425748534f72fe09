"""Which published tables of a raw folder are read, by their exact names.

A pattern such as `*train*.csv` would also take the table of another labeller or edition that lies
beside the one that is meant; so every edition is named, and what else is there is said.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.sources.entries import archives_in, packed, special
from rfxray.errors import DataError


class RawTables:
    """The tables of a raw folder, and which of them were read.

    Args:
      root: The folder.

    Raises:
      DataError: If there is no such folder.
    """

    def __init__(self, root: Path):
        if not root.is_dir():
            raise DataError(f"no folder {root}")
        self.root = root
        self._read: dict[str, None] = {}
        self._others: dict[str, None] = {}

    def find(self, *names: str) -> Path | None:
        """The first of some tables that is there, gzipped or not; None if none is.

        Args:
          names: Exact names relative to the folder, what is preferred first: newest edition first.

        Raises:
          DataError: If a name is not a file but a FIFO or the like.
        """
        found = []
        for name in (n + end for n in names for end in ("", ".gz")):
            path = self.root / name
            if kind := special(path):
                raise DataError(f"{path} is {kind}, not a table; put the file there")
            if path.is_file():
                found.append(name)
        if not found:
            return None
        self._read[found[0]] = None
        self._others |= dict.fromkeys(found[1:])
        return self.root / found[0]

    def require(self, *names: str) -> Path:
        """`find`, or DataError with what was looked for."""
        path = self.find(*names)
        if path is None:
            listed = " or ".join(dict.fromkeys(name.rpartition("/")[2] for name in names))
            raise DataError(f"{self.root} has no {listed}; {self._why_not()}")
        return path

    def labels(self, asked: str, *names: str) -> Path | None:
        """`find` of label tables, or the one of these that is asked for by its name; DataError if
        it is not there.
        """
        if not asked:
            return self.find(*names)
        path = self.require(*(name for name in names if name.rpartition("/")[2] == asked))
        self.beside(*names)
        return path

    def has(self, name: str) -> bool:
        """Whether a file of an edition is there, read or not."""
        return (self.root / name).is_file() or (self.root / f"{name}.gz").is_file()

    def beside(self, *names: str) -> None:
        """Notes tables that could be read and are not, if they are there."""
        for name in (n + end for n in names for end in ("", ".gz")):
            if (self.root / name).is_file() and name not in self._read:
                self._others[name] = None

    @property
    def notes(self) -> dict[str, Any]:
        """Names of the tables that were read, and of those that could be read instead."""
        others = [name for name in self._others if name not in self._read]
        return {"tables": list(self._read), "tables_not_read": others}

    def _why_not(self) -> str:
        if archives := archives_in(self.root):
            return f"it has {packed(archives)}"
        return "is it the root of the raw set?"


def named(folders: Sequence[str], *names: str) -> list[str]:
    """Each name in each folder, all folders of the first name first."""
    return [f"{folder}{name}" for name in names for folder in folders]
