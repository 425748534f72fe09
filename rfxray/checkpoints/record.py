"""What a workdir remembers of its run: when it began, and whether it ever finished a save."""

import dataclasses
import json
from pathlib import Path

from rfxray.errors import DataError
from rfxray.outputs.files import write_whole


@dataclasses.dataclass(frozen=True)
class Record:
    """The content of `workdir/run.json`.

    Attributes:
      began: Time of day at which the first process of the run started, seconds since 1970.
      first_save: Step of the first checkpoint that was finished; None if there was none.
    """

    began: float
    first_save: int | None = None

    def write(self, workdir: Path) -> None:
        write_whole(workdir / "run.json", json.dumps(dataclasses.asdict(self)) + "\n")


def read(workdir: Path) -> Record | None:
    """The record of a workdir; None if no run began there.

    Raises:
      DataError: If it is damaged.
    """
    file = workdir / "run.json"
    if not file.exists():
        return None
    try:
        return Record(**json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{file} is damaged ({error}); if {workdir / 'checkpoints'} holds the checkpoints of "
            "this run, delete it: a resumed run writes it again"
        ) from error
