"""The finished parts of a benchmark as lines of JSON, so that its command continues."""

import json
from pathlib import Path
from typing import Any

from rfxray.outputs import files


def read(log: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; one that a kill tore is removed."""
    text = log.read_text() if log.exists() else ""
    if not files.ends_a_line(log):
        text = text[: text.rfind("\n") + 1]
        files.write_whole(log, text)
    return [json.loads(line) for line in text.splitlines()]


def add(log: Path, row: dict[str, Any]) -> None:
    """Adds a line."""
    files.append(log, (json.dumps(row) + "\n").encode())
