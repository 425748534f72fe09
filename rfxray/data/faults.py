"""The damaged records that a run has met, and how many may be."""

import contextlib
import fcntl
import json
import time
from pathlib import Path

from rfxray.errors import DataError

# ---------------------------------------------------------------------------------------------
# Damaged records


class Faults:
    """The damaged records that a run has met: a file with a line for each, and how many may be.

    Every reader of a run, threads and worker processes alike, appends to the one file, so that a
    record counts once, also over restarts.

    Args:
      path: of the file.
      tolerate: how many records the next one may stand in for.
    """

    def __init__(self, path: Path, tolerate: int):
        self._path, self._tolerate, self._said = path, tolerate, 0
        self._said = self.count

    @property
    def count(self) -> int:
        """Damaged records met so far."""
        return len(self._rows())

    def _rows(self) -> list[dict]:
        rows = []
        for line in self._path.read_text().splitlines() if self._path.exists() else ():
            with contextlib.suppress(ValueError):  # torn by a kill
                rows.append(json.loads(line))
        return rows

    def add(self, file: str, number: int, reason: str) -> None:
        """Notes a damaged record.

        Raises:
          DataError: where it is one too many.
        """
        row = {"file": file, "record": number}
        with self._path.open("a") as lines:
            fcntl.flock(lines, fcntl.LOCK_EX)  # until it is closed: readers count one by one
            known = self._rows()
            if any(row.items() <= other.items() for other in known):
                return
            if len(known) >= self._tolerate:
                raise DataError(
                    f"record {number} of {file} is damaged ({reason}); restore the file, or let "
                    f"the next record stand in for up to N of them with --config.data.tolerate=N "
                    f"({len(known)} of {self._tolerate} so far)"
                )
            torn = self._path.read_bytes()[-1:] not in (b"", b"\n")
            row |= {"reason": reason, "time": time.time()}
            lines.write("\n" * torn + json.dumps(row) + "\n")

    def new(self) -> list[str]:
        """A line for each record that was added since the last call."""
        rows = self._rows()
        fresh, self._said = rows[self._said :], len(rows)
        return [
            f"data: record {row['record']} of {row['file']} is damaged ({row['reason']}); the next "
            f"one stands in ({len(rows)} of {self._tolerate} tolerated)"
            for row in fresh
        ]
