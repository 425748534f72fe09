"""Folders of results: what may be in them before, and those written whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from rfxray.errors import ConfigError
from rfxray.outputs import files, lock


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Makes a folder that is absent or empty.

    The files are written into a folder beside it, `.NAME.tmp`, which is locked and gets the final
    name when the block ends. If the block raises an error, it is removed; what a killed process
    leaves there, the next one for the same `out` removes.

    Yields:
      Path of the folder to write into.

    Raises:
      ConfigError: If `out` is not an empty folder, or another process is writing it.
      OSError: If the disk refuses.
    """
    out = Path(os.path.realpath(out))
    refuse_content(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.tmp")
    beside.mkdir(exist_ok=True)
    inside = beside / "whole"
    try:
        with lock.locked(beside):
            shutil.rmtree(inside, ignore_errors=True)
            inside.mkdir()
            try:
                yield inside
                files.sync(inside)
                refuse_content(out)
                os.rename(inside, out)  # over an empty folder only
            except BaseException:
                shutil.rmtree(inside, ignore_errors=True)
                raise
            files.sync(out.parent)
    finally:
        with contextlib.suppress(OSError):  # another process is there by now
            beside.rmdir()


def refuse_content(out: Path) -> None:
    """Raises a ConfigError unless a folder is absent or empty."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        what = "is not empty" if out.is_dir() else "is a file"
        raise ConfigError(f"{out} {what}; choose another --out")


def refuse_others(out: Path, names: Collection[str]) -> None:
    """Raises a ConfigError unless a folder is absent, empty or holds only files of these names."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; give a folder by --out")
    others = [] if not out.exists() else [p for p in out.iterdir() if p.name not in names]
    if any(not files.is_temporary(path) for path in others):
        raise ConfigError(
            f"{out} is not empty and was not written by this command; choose another --out"
        )
