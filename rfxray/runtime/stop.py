"""Ends the trainers of this machine that write a workdir, found by their lock.

    python -m rfxray.runtime.stop --workdir W

A trainer outlives a supervisor that was killed, by a few steps or, if it hangs, for ever. Each is
asked to save and stop; one that is still there after `--seconds` is killed. Trainers on other
machines are left to the same command there. This module needs only the standard library.
"""

import argparse
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rfxray.outputs import lock


def running(workdir: Path) -> list[lock.Holder]:
    """The processes of this machine that hold a workdir as one of the hosts of a run."""
    found = []
    for file in sorted(workdir.glob(f"{lock.NAME}*")):
        with contextlib.suppress(OSError):  # a bucket may be replacing it
            holder = lock.read(file)
            if holder is not None and holder.pid and holder.here() and not holder.gone():
                found.append(holder)
    return found


def stop(workdir: Path, seconds: float, say: Callable[[str], None]) -> None:
    """Asks the trainers of this machine to stop, waits for them, and kills those that stay.

    Args:
      workdir: Folder of the run.
      seconds: Seconds until they are killed.
      say: Function that shows a line.
    """
    holders = running(workdir)
    for number, until in ((signal.SIGTERM, time.monotonic() + seconds), (signal.SIGKILL, None)):
        for holder in holders:
            say(f"process {holder.pid}: {number.name}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder.pid, number)
        while holders and (until is None or time.monotonic() < until):
            time.sleep(0.1)
            holders = [holder for holder in holders if not holder.gone()]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m rfxray.runtime.stop", description=__doc__)
    parser.add_argument("--workdir", required=True, type=Path, help="folder of the run")
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="time to save in (default: %(default)g)"
    )
    given = parser.parse_args(argv)
    stop(given.workdir, given.seconds, lambda line: print(f"stop: {line}", flush=True))


if __name__ == "__main__":
    main()
