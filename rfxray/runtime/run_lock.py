"""The lock of a run: all of its hosts are one holder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rfxray.outputs.lock import Lock, locked, noted
from rfxray.runtime import distributed


@contextlib.contextmanager
def locked_run(workdir: Path, host: int) -> Iterator[Lock]:
    """Keeps other runs out of an existing workdir; all hosts must call it.

    Host 0 takes the lock. The others wait until it has it, or are ended by its refusal (see
    refusal.py), and note themselves beside it.

    Args:
      workdir: Folder of the run.
      host: Number of this host.

    Raises:
      ConfigError: If another run holds it.
    """
    with contextlib.ExitStack() as held:
        lock = held.enter_context(locked(workdir)) if host == 0 else None
        distributed.barrier("the lock of the workdir")
        yield lock or held.enter_context(noted(workdir, host))
