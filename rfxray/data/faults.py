"""The damaged records that a run has found, and the limit on their number."""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

from rfxray.errors import DataError
from rfxray.outputs.files import append, ends_a_line


class Faults:
    """Files with a line for each damaged record that a run has found, and their limit.

    All readers of a host, threads and worker processes, append to the file of that host: on a
    mounted bucket two hosts that append to one file lose each other's lines. A record counts once,
    over all hosts and restarts.

    Args:
      path: Path of the file of this host.
      tolerate: Number of damaged records that may be replaced by the next record.
      hosts: Pattern of the names of all hosts' files, in the same folder; empty for this one only.
    """

    def __init__(self, path: Path, tolerate: int, hosts: str = ""):
        self._path, self._tolerate, self._names = path, tolerate, hosts or path.name
        self._said = self._rows().keys()

    @property
    def count(self) -> int:
        """Number of damaged records found so far."""
        return len(self._rows())

    def _rows(self) -> dict[tuple[str, int], dict]:
        rows = {}
        for path in sorted(self._path.parent.glob(self._names)):
            for line in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # torn by a kill
                    row = json.loads(line)
                    rows.setdefault((row["file"], row["record"]), row)
        return rows

    def add(self, file: str, number: int, reason: str) -> None:
        """Adds a damaged record.

        Raises:
          DataError: If there are more than `tolerate` now.
        """
        with _one_at_a_time(self._path):
            known = self._rows()
            if (file, number) in known:
                return
            if len(known) >= self._tolerate:
                raise DataError(
                    f"record {number} of {file} is damaged ({reason}); restore the file, or "
                    "replace up to N damaged records by the next ones with "
                    f"--config.data.tolerate=N ({len(known)} of {self._tolerate} so far)"
                )
            row = {"file": file, "record": number, "reason": reason, "time": time.time()}
            torn = "" if ends_a_line(self._path) else "\n"
            append(self._path, f"{torn}{json.dumps(row)}\n".encode())

    def new(self) -> list[str]:
        """Log lines for the records that were added since the last call."""
        rows = self._rows()
        fresh = [row for key, row in rows.items() if key not in self._said]
        self._said = rows.keys()
        return [
            f"data: record {row['record']} of {row['file']} is damaged ({row['reason']}); the next "
            f"record replaces it ({len(rows)} of {self._tolerate} tolerated)"
            for row in fresh
        ]


@contextlib.contextmanager
def _one_at_a_time(path: Path):
    """Lets one reader of this machine at a time append to a file.

    The lock is a file of the machine: a mounted bucket locks nothing, and gives what a file holds
    to others only once it is closed.
    """
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
    lock = Path(tempfile.gettempdir()) / f"rfxray-{os.getuid()}-{name}.lock"
    handle = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
