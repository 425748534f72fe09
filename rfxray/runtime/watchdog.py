"""A heartbeat of every host, and a report when a step takes far longer than usual.

Both are in `workdir/status/`. A separate thread rewrites `heartbeat-host-i.json` every few seconds,
so that a person or a script sees what each host does even if the training loop hangs; it writes the
stack of every thread to `stall-host-i.txt` if that lasts too long.
"""

import contextlib
import faulthandler
import json
import os
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from rfxray.errors import Preempted
from rfxray.outputs.files import clock_of, write_whole
from rfxray.runtime import refusal

# Seconds between two heartbeats; an object of a bucket should not be written much more often.
BEAT = 10.0


# Seconds that the first step may take: there is no median before it.
FIRST = 1800.0


# Number of steps that the median is taken over.
RECENT = 101


class Watchdog:
    """Watches the training loop of this process.

    Args:
      workdir: Folder of the run.
      say: Function that logs a line.
      host, hosts: Number of this host, and of all hosts.
      step: Step at which the loop starts.
      factor, seconds: Limits of a stall, which is reported after `factor` times the median step and
        at least `seconds`; never if `seconds` is 0.
      give_up: Seconds of a stall after which the process exits with code 75, since only a new
        process can recover; 0 for never.
    """

    def __init__(
        self,
        workdir: Path,
        say: Callable[[str], None],
        host: int,
        hosts: int,
        step: int,
        factor: float,
        seconds: float,
        give_up: float,
    ):
        self._folder, self._say, self._host, self._hosts = workdir / "status", say, host, hosts
        self._factor, self._seconds, self._give_up = factor, seconds, give_up
        self._durations = deque(maxlen=RECENT)
        self._step, self._doing, self._since = step, "starting", time.monotonic()
        self._reported = False
        self._over = threading.Event()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def doing(self, what: str) -> None:
        """Sets what the loop does now: data, the device, the checkpoint, …; data starts a step."""
        self._doing, self._since, self._reported = what, time.monotonic(), False
        if what == "data":
            self._begun = self._since

    def done(self, step: int) -> None:
        """Ends a step; the time since `doing("data")` enters the median."""
        self._step = step
        self._durations.append(time.monotonic() - self._begun)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.doing("finished")
        self._over.set()
        self._thread.join()
        self._beat()

    def _run(self) -> None:
        beaten = -BEAT
        while not self._over.wait(min(1.0, self._seconds / 4 or 1.0)):
            if time.monotonic() - beaten >= BEAT:
                beaten = time.monotonic()
                self._beat()
            self._judge(time.monotonic() - self._since)

    def _judge(self, still: float) -> None:
        """Acts on `still` seconds without progress."""
        limit = max(self._seconds, FIRST)
        if self._durations:
            limit = max(self._seconds, self._factor * statistics.median(self._durations))
        if self._seconds and still > limit and not self._reported:
            self._reported = True
            file = self._folder / f"stall-host-{self._host}.txt"
            # Storage may be what hangs, and giving up must not depend on it.
            with contextlib.suppress(OSError), file.open("a") as stacks:
                print(f"# {self._doing}, step {self._step + 1}", file=stacks, flush=True)
                faulthandler.dump_traceback(stacks, all_threads=True)
            self._say(
                f"stall: host {self._host} has waited {still:.0f} s for {self._doing} at step "
                f"{self._step + 1} (a step takes {self._median():.3g} s); stacks in {file}"
                f"{self._behind()}"
            )
        if self._give_up and still > max(limit, self._give_up):
            line = f"stall: gave up after {still:.0f} s; rerun the command to resume"
            self._say(line)
            self._beat()
            refusal.leave(Preempted.exit_code, line, shown=True)

    def _median(self) -> float:
        return statistics.median(self._durations) if self._durations else float("nan")

    def _beat(self) -> None:
        beat = {
            "host": self._host,
            "step": self._step,
            "doing": self._doing,
            "seconds": round(time.monotonic() - self._since, 1),
            "time": time.time(),
            "pid": os.getpid(),
        }
        file = self._folder / f"heartbeat-host-{self._host}.json"
        try:
            write_whole(file, json.dumps(beat) + "\n", durable=False)
        except OSError as error:  # the checkpoint writer reports a full disk; keep watching
            print(f"no heartbeat: {error}", file=sys.stderr, flush=True)

    def _behind(self) -> str:
        """Text that names the hosts that are a step behind or silent, by their heartbeats.

        How long a host was silent is measured by the clock of the file system: the clocks of hosts
        differ.
        """
        late = []
        for host in range(self._hosts):
            file = self._folder / f"heartbeat-host-{host}.json"
            try:
                beat = json.loads(file.read_text())
                silent = clock_of(self._folder) - file.stat().st_mtime
            except (OSError, ValueError):
                late.append(f"host {host} has no heartbeat")
                continue
            if beat["step"] < self._step or silent > 6 * BEAT:
                late.append(
                    f"host {host} is at step {beat['step']} ({beat['doing']}), "
                    f"last heartbeat {silent:.0f} s ago"
                )
        return "".join(f"; {line}" for line in late)
