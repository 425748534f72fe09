"""The lock of a run: all of its hosts are one holder."""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from rfxray.errors import ConfigError
from rfxray.outputs import lock as locks
from rfxray.outputs.lock import Lock, locked, noted
from rfxray.runtime import distributed

# Seconds until a host must see the lock that host 0 has written: a client of NFS may keep what it
# knows of a folder for 60 s (nfs(5), acdirmax).
SEEN = 60.0


@contextlib.contextmanager
def locked_run(workdir: Path, host: int, flag: str = "--workdir") -> Iterator[Lock]:
    """Keeps other runs out of an existing folder; all hosts must call it.

    Host 0 takes the lock. The others wait until it has it, or are ended by its refusal (see
    refusal.py), look for it, and note themselves beside it. So a path that is a folder of its own
    on each machine is found before anything is written there.

    Args:
      workdir: Folder of the run.
      host: Number of this host.
      flag: Name of the folder in an error.

    Raises:
      ConfigError: If another run holds it, or this host sees another folder than host 0.
    """
    with contextlib.ExitStack() as held:
        lock = None
        if host == 0:
            lock = held.enter_context(locked(workdir))
            for left in workdir.glob(f"{locks.NAME}-host-*"):  # of killed hosts
                left.unlink(missing_ok=True)
        if distributed.joined():
            _require_same_folder(workdir, lock, flag)
        yield lock or held.enter_context(noted(workdir, host))


def _require_same_folder(workdir: Path, lock: Lock | None, flag: str) -> None:
    """Raises a ConfigError on a host that does not see the lock of host 0."""
    own = f"{lock.token} {socket.gethostname()}" if lock is not None else None
    token, first = distributed.of_first("the lock of the workdir", own).split(" ", 1)
    end = time.monotonic() + SEEN
    while not _sees(workdir, token):
        if time.monotonic() > end:
            raise ConfigError(
                f"{flag} {workdir} on {socket.gethostname()} is not the folder of that path on "
                f"host 0 ({first}): its lock is not seen here; give a folder that all hosts share"
            )
        time.sleep(0.2)
    distributed.barrier("a look at the lock of the workdir")


def _sees(workdir: Path, token: str) -> bool:
    with contextlib.suppress(OSError):  # such as while it is replaced
        there = locks.read(workdir / locks.NAME)
        return there is not None and there.token == token
    return False
