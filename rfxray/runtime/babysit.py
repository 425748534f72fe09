"""Keeps a run on a preemptible slice going until it ends. Called by launch/tpu/babysit.sh.

It reads only the reports of the hosts in the bucket and the state of the slice. The scripts of
launch/tpu make all calls of gcloud. This module needs only the standard library, because it runs on
a machine on which nothing is installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rfxray import stop_signals
from rfxray.printing_flags import add_version
from rfxray.runtime import status

SCRIPTS = Path(__file__).resolve().parents[2] / "launch" / "tpu"
NO_REPORTS = status.Verdict("none", 0, -1, "-", "no report")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to watch, with which limits.

    Attributes:
      name: Name of the slice.
      run: Folder of the run in the bucket, `gs://…`.
      flags: Flags of rfxray.train.
      poll: Seconds between two checks.
      stale: Seconds after which a host that does not report counts as lost.
      grace: Seconds that hosts may continue after the first has ended.
      futile: Attempts in a row without progress after which it gives up.
      delete: Whether the slice is deleted at the end.
    """

    name: str
    run: str
    flags: tuple[str, ...]
    poll: int
    stale: int
    grace: int
    futile: int
    delete: bool


class End(Exception):
    """The end of the babysitter: its exit code and why."""

    def __init__(self, code: int, why: str):
        super().__init__(why)
        self.code = code


def say(line: str) -> None:
    print(f"babysit.sh: {line}", flush=True)


class Scripts:
    """The scripts of launch/tpu, one at a time."""

    def __init__(self):
        self._running: subprocess.Popen | None = None
        self._starting = threading.Lock()

    def call(self, script: str, *words: str, **settings: str) -> bool:
        """Whether a script succeeded; its output is shown.

        Args:
          script: Name without `.sh`.
          words: Arguments.
          settings: Settings of env.sh for this call, without the prefix `RFXRAY_`.
        """
        given = {f"RFXRAY_{name}": value for name, value in settings.items()}
        code, _ = self._run(script, words, env={**os.environ, **given})
        return code == 0

    def read(self, script: str, *words: str) -> str | None:
        """What a script prints, or None if it failed."""
        code, output = self._run(script, words, stdout=subprocess.PIPE, text=True)
        return None if code else output

    def stop(self) -> None:
        """Asks the script that runs now to stop, and waits for it; no other will start."""
        self._starting.acquire()
        if running := self._running:
            running.terminate()
            running.wait()

    def _run(self, script: str, words: Sequence[str], **how: Any) -> tuple[int, str]:
        command = ["bash", str(SCRIPTS / f"{script}.sh"), *words]
        with self._starting:
            self._running = subprocess.Popen(command, **how)
        with self._running as running:
            output, _ = running.communicate()
        return running.returncode, output


def read_reports(scripts: Scripts, run: str) -> list[status.Status]:
    """The reports of all hosts.

    Raises:
      End: If they cannot be fetched, or none can be parsed.
    """
    text = scripts.read("logs", "--status")
    if text is None:
        raise End(75, "the reports could not be read")
    found = status.parse(text.splitlines())
    if text.strip() and not found:
        raise End(
            78,
            f"the reports in {run}/status were written by another version of rfxray; use its "
            "babysit.sh, or move them away after its hosts have stopped",
        )
    return found


def babysit(
    plan: Plan,
    scripts: Scripts,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    day: Callable[[], float] = time.time,
) -> None:
    """Creates the slice, installs and starts the run, and resumes it after every interruption.

    Args:
      plan: What to watch.
      scripts: Scripts that act on the cloud.
      sleep: Function that waits for some seconds.
      clock: Function that returns monotonic seconds.
      day: Function that returns the time of day; it names attempts, and measures nothing.

    Raises:
      End: Always; this is the only way that it returns.
    """
    verdict = NO_REPORTS
    ours = ""  # the attempt being watched
    fresh = False  # the slice is new or the attempt did not start, so there are no reports of it
    latest = ""  # of all attempts that reports name
    changes = status.Changes()
    began, furthest = 0.0, -1
    stuck = failed = starts = 0
    while True:
        if fresh:
            verdict = dataclasses.replace(verdict, word="none")
        else:
            reports = read_reports(scripts, plan.run)
            latest = max((report.attempt for report in reports), default=latest)
            reports = changes.dated(reports, clock(), day())
            while changes.notes:
                say(changes.notes.pop())
            verdict = status.judge(reports, clock(), plan.stale, plan.grace, ours or None)
        if ours and verdict.word == "stop":
            raise End(verdict.code, f"stopped at step {verdict.step}: {verdict.why}")
        if ours and verdict.word == "finished":
            raise End(0, f"finished at step {verdict.step}")
        if not ours and verdict.word == "running":  # started before this babysitter
            ours, began = verdict.attempt, clock()
            say(f"watching attempt {ours}, which is already running")
        if verdict.step > furthest:
            furthest, stuck = verdict.step, 0

        state = (scripts.read("slice") or "").strip()
        if not state:
            raise End(75, f"the state of {plan.name} could not be read")
        if state in ("gone", "absent"):
            say(f"{plan.name} is {state}; the last known step is {furthest}")
            if state == "gone" and not scripts.call("delete", "--now"):
                raise End(75, f"{plan.name} could not be deleted")
            if not scripts.call("create"):
                raise End(75, f"{plan.name} could not be created")
            fresh, failed = True, 0
            continue
        if state == "coming":
            say(f"waiting for {plan.name}")
            sleep(plan.poll)
            continue

        # The slice is ready. An attempt that has just started may not have reported yet.
        expected = ours and not fresh and clock() - began < plan.stale
        if verdict.word == "running" or (verdict.word == "none" and expected):
            sleep(plan.poll)
            continue
        if ours and not fresh:
            stuck += 1
            say(f"attempt {ours}: {verdict.why}; the last step is {verdict.step}")
            if stuck > plan.futile:
                raise End(
                    75,
                    f"{plan.futile} attempts in a row made no progress beyond step {furthest}; see "
                    "logs.sh",
                )
        if failed > plan.futile:
            raise End(
                75,
                f"{plan.name} is ready, but {failed} attempts in a row could not be started; see "
                "the messages above",
            )
        starts += 1
        ours = attempt_after(max(latest, ours), day(), starts)
        if scripts.call("setup") and scripts.call("run", "--", *plan.flags, ATTEMPT=ours):
            began, fresh, failed = clock(), False, 0
        else:
            # Either the slice was preempted, which the next check shows, or the start failed.
            failed, fresh = failed + 1, True
            say(f"attempt {ours} could not be started; checking {plan.name} again")
            sleep(plan.poll)


def attempt_after(latest: str, day: float, starts: int) -> str:
    """The name of a new attempt, which sorts after the latest one whatever the clock says."""
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(day))}.{starts:04d}"
    if name > latest:
        return name
    stem, _, number = latest.rpartition(".")
    return f"{stem}.{int(number) + 1:04d}" if stem and number.isdecimal() else f"{latest}.0001"


def finish(plan: Plan, scripts: Scripts, end: End) -> int:
    """Deletes the slice if requested and reports how the run ended; returns the exit code."""
    if plan.delete and not scripts.call("delete", "--now"):
        print(f"babysit.sh: {plan.name} was not deleted and still costs money", file=sys.stderr)
    where = (
        "the run is in" if end.code == 0 else f"exit code {end.code}; see docs/operations.md and"
    )
    say(f"{end}; {where} {plan.run}")
    return end.code


def parse(argv: Sequence[str] | None = None) -> Plan:
    parser = argparse.ArgumentParser(prog="babysit.sh", description=__doc__)
    add_version(parser)
    parser.add_argument("--name", required=True)
    parser.add_argument("--run", required=True)
    for setting in ("poll", "stale", "grace", "futile"):
        parser.add_argument(f"--{setting}", required=True, type=int)
    parser.add_argument("--delete", action="store_true")
    parser.add_argument("flags", nargs="+", help="flags of rfxray.train, after --")
    given = vars(parser.parse_args(argv))
    return Plan(**{**given, "flags": tuple(given["flags"])})


def main(argv: Sequence[str] | None = None) -> None:
    plan, scripts = parse(argv), Scripts()

    def react(number: int) -> None:
        scripts.stop()
        stop_signals.end(
            "babysit.sh: stopped; the run and its slice continue, rerun the command to watch them"
        )

    stop_signals.hear(react)
    try:
        babysit(plan, scripts)
    except End as end:
        sys.exit(finish(plan, scripts, end))


if __name__ == "__main__":
    main()
