"""A folder that refuses writes from a certain moment on, as a full or read-only disk does.

`refusing(root, first, number)` counts what Python does to write below `root`: opening a file for
writing, making a folder, renaming. From call `first` on, all of them fail with the error `number`.
Every second opening succeeds and fails in the middle of the first write, as when a disk fills up.
"""

import builtins
import contextlib
import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def refusing(root: Path, first: int, number: int) -> Iterator[list[str]]:
    """Refuses writes below a folder, from the call of that number (from 0) on.

    Yields:
      Paths of the calls so far; a test walks all calls until one run makes fewer than `first`.
    """
    root, calls, places = Path(os.path.realpath(root)), [], itertools.count()
    real = {name: getattr(os, name) for name in ("open", "mkdir", "rename", "replace")}
    opened = io.open

    def refused(path) -> bool:
        if isinstance(path, int) or not Path(os.path.realpath(path)).is_relative_to(root):
            return False
        calls.append(os.fspath(path))
        return len(calls) > first

    def fail(path) -> None:
        raise OSError(number, os.strerror(number), os.fspath(path))

    def open_stream(file, mode="r", *rest, **named):
        if not set(mode) & set("wax+") or not refused(file):
            return opened(file, mode, *rest, **named)
        if next(places) % 2:
            fail(file)
        stream = opened(file, mode, *rest, **named)
        write = stream.write

        def half(content):
            write(content[: len(content) // 2])
            fail(file)

        stream.write = half
        return stream

    def open_handle(path, flags, *rest, **named):
        if flags & (os.O_WRONLY | os.O_RDWR) and refused(path):
            fail(path)
        return real["open"](path, flags, *rest, **named)

    def change(name):
        def changed(path, *rest, **named):
            if refused(path):
                fail(path)
            return real[name](path, *rest, **named)

        return changed

    patches = {name: change(name) for name in ("mkdir", "rename", "replace")}
    try:
        builtins.open = io.open = open_stream
        for name, function in (patches | {"open": open_handle}).items():
            setattr(os, name, function)
        yield calls
    finally:
        builtins.open = io.open = opened
        for name, function in real.items():
            setattr(os, name, function)
