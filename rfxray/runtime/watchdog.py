"""A heartbeat for every host, and a report when a step takes far longer than it should.

Both live in `workdir/status/`: `heartbeat-host-i.json` is written anew every few seconds by a
thread of its own, so that a person or a script sees where each host stands even when the training
loop does not move; `stall-host-i.txt` gets the stack of every thread when that lasts too long.
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
from rfxray.outputs.files import write_whole

# Seconds between two heartbeats; an object of a bucket should not be written much more often.
BEAT = 10.0


# Seconds that the first step may take: it compiles, and no median is known before it.
FIRST = 1800.0


# Steps that the median is taken over.
RECENT = 101


class Watchdog:
    """Watches the training loop of this process.

    Args:
      workdir: of the run.
      say: takes a line for the log.
      host, hosts: which process this is, of how many.
      step: where the loop begins.
      factor, seconds: standing still is reported after `factor` times the median step and at least
        `seconds`; with 0 seconds never.
      give_up: seconds of standing still after which the process ends with code 75, since only a
        fresh one can go on; 0 for never.
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
        """The loop turns to `what`: data, device, checkpoint, …; a step begins with its data."""
        self._doing, self._since, self._reported = what, time.monotonic(), False
        if what == "data":
            self._begun = self._since

    def done(self, step: int) -> None:
        """A step is done: its time since `doing("data")` counts towards the median."""
        self._step = step
        self._durations.append(time.monotonic() - self._begun)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.doing("nothing more")
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
        """Acts on `still` seconds without a move."""
        limit = max(self._seconds, FIRST)
        if self._durations:
            limit = max(self._seconds, self._factor * statistics.median(self._durations))
        if self._seconds and still > limit and not self._reported:
            self._reported = True
            file = self._folder / f"stall-host-{self._host}.txt"
            # Storage may be what stands still: giving up must not hang on it.
            with contextlib.suppress(OSError), file.open("a") as stacks:
                print(f"# {self._doing}, step {self._step + 1}", file=stacks, flush=True)
                faulthandler.dump_traceback(stacks, all_threads=True)
            self._say(
                f"stall: host {self._host} has waited {still:.0f} s for {self._doing} at step "
                f"{self._step + 1} (a step takes {self._median():.3g} s); stacks in {file}"
                f"{self._behind()}"
            )
        if self._give_up and still > max(limit, self._give_up):
            self._say(f"stall: gave up after {still:.0f} s; run the same command again to go on")
            self._beat()
            sys.stdout.flush()
            os._exit(Preempted.exit_code)  # whatever the loop waits for may never come

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
        except OSError as error:  # a full disk is the saving's to report, not a reason to go blind
            print(f"no heartbeat: {error}", file=sys.stderr, flush=True)

    def _behind(self) -> str:
        """Which hosts are a step behind or have not been heard of, by their heartbeats."""
        late = []
        for host in range(self._hosts):
            try:
                beat = json.loads((self._folder / f"heartbeat-host-{host}.json").read_text())
            except (OSError, ValueError):
                late.append(f"host {host} was never heard of")
                continue
            silent = time.time() - beat["time"]
            if beat["step"] < self._step or silent > 6 * BEAT:
                late.append(
                    f"host {host} stands at step {beat['step']} ({beat['doing']}), "
                    f"last heard of {silent:.0f} s ago"
                )
        return "".join(f"; {line}" for line in late)
