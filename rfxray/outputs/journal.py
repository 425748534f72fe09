"""Files that grow while a run lives: log lines, metrics, events."""

import contextlib
import threading
import time
from pathlib import Path

from rfxray import stop_signals
from rfxray.errors import RfxrayError, SaveFailed, first_line, refused_by_system
from rfxray.outputs.files import append

# Seconds for which what was added may be only in memory. A bucket stores an object again whenever
# it is appended to, so a large file is written less often: 16 MiB are 25,000 rows of metrics.
EVERY, LARGE, EVERY_IF_LARGE = 10.0, 2**24, 60.0


class Journal:
    """Appends to files, in a thread of its own, and closes them after every append.

    A file that is open from start to end is invisible on a mounted bucket while the run lives, and
    lost with the machine. Here at most the content of the last `every` seconds is lost, and nothing
    of what was added before a `flush`, nor when a request to stop ends the process. A context
    manager.

    Args:
      every: Seconds between two appends to a file, 10 when None; a large file is appended to every
        minute.
    """

    def __init__(self, every: float | None = None):
        self._every = EVERY if every is None else every
        self._new: dict[Path, bytearray] = {}
        self._sizes: dict[Path, int] = {}
        self._adding, self._writing = threading.Lock(), threading.Lock()
        self._failure: RfxrayError | None = None
        self._over = threading.Event()
        stop_signals.farewells.append(self.flush)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # What ended the run is the error to report.
        with contextlib.suppress(RfxrayError) if kind else contextlib.nullcontext():
            self.close()

    def add(self, path: Path, content: bytes) -> None:
        """Adds to the end of a file; returns at once."""
        with self._adding:
            self._new.setdefault(path, bytearray()).extend(content)

    def flush(self) -> None:
        """Writes what was added so far.

        Raises:
          SaveFailed, ConfigError: If that, or an append before it, failed. Nothing is written any
            more, since the file may end in a part of a line.
        """
        with self._writing:
            if self._failure is None:
                with self._adding:
                    new, self._new = self._new, {}
                try:
                    for path, content in new.items():
                        append(path, bytes(content))
                        self._sizes[path] = path.stat().st_size
                except OSError as error:
                    self._failure = refused_by_system(error) or SaveFailed(
                        f"{error.filename} cannot be written ({first_line(error)}); rerun the "
                        "command"
                    )
        self.check()

    def check(self) -> None:
        """Raises what an append in the background failed with; see `flush`."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Writes what is left and ends the thread; see `flush`."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(ValueError):  # closed before
            stop_signals.farewells.remove(self.flush)
        self.flush()

    def _run(self) -> None:
        written = -self._every
        while not self._over.wait(min(1.0, self._every)):
            large = max(self._sizes.values(), default=0) > LARGE
            pause = max(self._every, EVERY_IF_LARGE) if large else self._every
            if self._new and time.monotonic() - written >= pause:
                written = time.monotonic()
                with contextlib.suppress(RfxrayError):  # `check` tells the training loop
                    self.flush()
