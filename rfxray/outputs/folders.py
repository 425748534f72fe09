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


@contextlib.contextmanager
def held(out: Path, names: Collection[str]) -> Iterator[None]:
    """Keeps other processes from writing a folder of results while one is being made.

    What killed processes left there is removed. If the block raises an error, a folder that it
    made, and that is still empty, is removed too.

    Args:
      out: Folder; it is created if needed.
      names: Names of the files that may be in it.

    Raises:
      ConfigError: If there is something else in it, or another process is writing it.
      SaveFailed: If the disk refuses.
    """
    refuse_others(out, names)
    new = not out.exists()
    try:
        with contextlib.ExitStack() as until_done:
            with files.saving(out):
                out.mkdir(parents=True, exist_ok=True)
                until_done.enter_context(lock.locked(out))
                files.remove_temporary(out)
            refuse_others(out, names)  # again: somebody may have been first
            yield
    except BaseException:
        if new:
            with contextlib.suppress(OSError):  # it has content
                out.rmdir()
        raise


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
    if any(not (files.is_temporary(path) or lock.is_lock(path)) for path in others):
        raise ConfigError(
            f"{out} is not empty and was not written by this command; choose another --out"
        )
