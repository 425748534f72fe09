"""The damaged records that a run has found, and the limit on their number."""

import contextlib
import fcntl
import json
import time
from pathlib import Path

from rfxray.errors import DataError


class Faults:
    """A file with a line for each damaged record that a run has found, and their limit.

    All readers of a run, threads and worker processes, append to the same file, so a record counts
    once, also over restarts.

    Args:
      path: Path of the file.
      tolerate: Number of damaged records that may be replaced by the next record.
    """

    def __init__(self, path: Path, tolerate: int):
        self._path, self._tolerate, self._said = path, tolerate, 0
        self._said = self.count

    @property
    def count(self) -> int:
        """Number of damaged records found so far."""
        return len(self._rows())

    def _rows(self) -> list[dict]:
        rows = []
        for line in self._path.read_text().splitlines() if self._path.exists() else ():
            with contextlib.suppress(ValueError):  # torn by a kill
                rows.append(json.loads(line))
        return rows

    def add(self, file: str, number: int, reason: str) -> None:
        """Adds a damaged record.

        Raises:
          DataError: If there are more than `tolerate` now.
        """
        row = {"file": file, "record": number}
        with self._path.open("a") as lines:
            fcntl.flock(
                lines, fcntl.LOCK_EX
            )  # until it is closed, so that readers count one at a time
            known = self._rows()
            if any(row.items() <= other.items() for other in known):
                return
            if len(known) >= self._tolerate:
                raise DataError(
                    f"record {number} of {file} is damaged ({reason}); restore the file, or "
                    "replace up to N damaged records by the next ones with "
                    f"--config.data.tolerate=N ({len(known)} of {self._tolerate} so far)"
                )
            torn = self._path.read_bytes()[-1:] not in (b"", b"\n")
            row |= {"reason": reason, "time": time.time()}
            lines.write("\n" * torn + json.dumps(row) + "\n")

    def new(self) -> list[str]:
        """Log lines for the records that were added since the last call."""
        rows = self._rows()
        fresh, self._said = rows[self._said :], len(rows)
        return [
            f"data: record {row['record']} of {row['file']} is damaged ({row['reason']}); the next "
            f"record replaces it ({len(rows)} of {self._tolerate} tolerated)"
            for row in fresh
        ]
