"""A folder that behaves like a bucket that is mounted: a file appears when it is closed.

`mount(root)` redirects every file that Python opens for writing below `root` to a private copy, and
puts the copy in place on `close()`. A process that dies before leaves what was there before. As a
command it does that for a module:

    python -m tests.bucket ROOT SECONDS rfxray.train --workdir ROOT/run …

SECONDS is the pause between two appends to the log files.
"""

import builtins
import io
import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

_real = io.open


def mount(root: Path) -> None:
    """Makes files below a folder appear only when they are closed, from here on."""
    root = Path(os.path.realpath(root))

    def redirected(file, mode="r", *rest, **named):
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return _real(file, mode, *rest, **named)
        target = Path(os.path.realpath(file))
        if not target.is_relative_to(root):
            return _real(file, mode, *rest, **named)
        if "x" in mode and target.exists():
            raise FileExistsError(17, "File exists", str(target))
        copy = Path(tempfile.mkdtemp(), target.name)
        if target.exists() and "w" not in mode:
            _copy(target, copy)
        stream = _real(copy, mode, *rest, **named)
        finish = stream.close

        def close():
            if stream.closed:
                return
            finish()
            arriving = target.with_name(f"{target.name}.arriving")
            _copy(copy, arriving)
            arriving.replace(target)
            shutil.rmtree(copy.parent)

        stream.close = close
        return stream

    builtins.open = io.open = redirected  # pathlib calls io.open


def _copy(source: Path, target: Path) -> None:
    with _real(source, "rb") as old, _real(target, "wb") as new:
        shutil.copyfileobj(old, new)


if __name__ == "__main__":
    from rfxray.outputs import journal

    mount(Path(sys.argv[1]))
    journal.EVERY = float(sys.argv[2])
    sys.argv = sys.argv[3:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
