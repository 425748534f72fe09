"""Brings a run on a preemptible slice to its end. Called by launch/tpu/babysit.sh.

Only two things are looked at: the reports of the hosts in the bucket, and the state of the slice.
All calls of gcloud are made by the scripts of launch/tpu. This module needs the standard library
only, because it runs on a machine where nothing is installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rfxray.runtime import status

SCRIPTS = Path(__file__).resolve().parents[2] / "launch" / "tpu"
NO_REPORTS = status.Verdict("none", 0, -1, "-", "no report")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is watched, and how patiently.

    Attributes:
      name: Name of the slice.
      run: Folder of the run in the bucket, `gs://…`.
      flags: Flags of rfxray.train.
      poll: Seconds between two looks.
      stale: Seconds after which a silent host counts as lost.
      grace: Seconds that hosts may continue after the first has ended.
      futile: Attempts in a row without a step forward before it gives up.
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
    """The scripts of launch/tpu."""

    def call(self, script: str, *words: str, **settings: str) -> bool:
        """Whether a script succeeded; what it says is shown.

        Args:
          script: Name without `.sh`.
          words: Arguments.
          settings: Settings of env.sh for this call, without the prefix `RFXRAY_`.
        """
        given = {f"RFXRAY_{name}": value for name, value in settings.items()}
        return subprocess.call(self._command(script, words), env={**os.environ, **given}) == 0

    def read(self, script: str, *words: str) -> str | None:
        """What a script prints, or None if it failed."""
        done = subprocess.run(self._command(script, words), stdout=subprocess.PIPE, text=True)
        return None if done.returncode else done.stdout

    def _command(self, script: str, words: Sequence[str]) -> list[str]:
        return ["bash", str(SCRIPTS / f"{script}.sh"), *words]


def read_reports(scripts: Scripts, run: str) -> list[status.Status]:
    """The report of every host.

    Raises:
      End: If they cannot be fetched, or none of them can be read.
    """
    text = scripts.read("logs", "--status")
    if text is None:
        raise End(75, "the reports could not be read")
    found = status.parse(text.splitlines())
    if text.strip() and not found:
        raise End(
            78,
            f"no report in {run}/status can be read, so another version of rfxray wrote them; run "
            "its babysit.sh, or move them away once its hosts are stopped",
        )
    return found


def babysit(
    plan: Plan,
    scripts: Scripts,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Creates the slice, installs, starts, and resumes after every interruption.

    Args:
      plan: What is watched.
      scripts: What acts on the cloud.
      sleep: Waits for some seconds.
      clock: Seconds that only grow.

    Raises:
      End: At the end, which every path leads to.
    """
    verdict = NO_REPORTS
    ours = ""  # attempt that is watched
    fresh = False  # the slice is new, or the attempt did not start: no report can be of it
    began, furthest = 0.0, -1
    stuck = failed = starts = 0
    while True:
        if fresh:
            verdict = dataclasses.replace(verdict, word="none")
        else:
            reports = read_reports(scripts, plan.run)
            verdict = status.judge(reports, time.time(), plan.stale, plan.grace, ours or None)
        if ours and verdict.word == "stop":
            raise End(verdict.code, f"stopped at step {verdict.step}: {verdict.why}")
        if ours and verdict.word == "finished":
            raise End(0, f"finished at step {verdict.step}")
        if not ours and verdict.word == "running":  # started before this babysitter
            ours, began = verdict.attempt, clock()
            say(f"goes on with attempt {ours}")
        if verdict.step > furthest:
            furthest, stuck = verdict.step, 0

        state = (scripts.read("slice") or "").strip()
        if not state:
            raise End(75, f"the state of {plan.name} could not be read")
        if state in ("gone", "absent"):
            say(f"{plan.name} is {state}; the last step known is {furthest}")
            if state == "gone" and not scripts.call("delete", "--now"):
                raise End(75, f"{plan.name} could not be deleted")
            if not scripts.call("create"):
                raise End(75, f"{plan.name} could not be created")
            fresh, failed = True, 0
            continue
        if state == "coming":
            say(f"waits for {plan.name}")
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
                    f"{plan.futile} attempts in a row came no further than step {furthest}; see "
                    "logs.sh",
                )
        if failed > plan.futile:
            raise End(
                75,
                f"{plan.name} is ready, and {failed} attempts in a row could not be started; see "
                "above",
            )
        starts += 1
        ours = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.{starts:04d}"
        if scripts.call("setup") and scripts.call("run", "--", *plan.flags, ATTEMPT=ours):
            began, fresh, failed = clock(), False, 0
        else:
            # Preempted meanwhile, which the next look shows, or a fault of its own.
            failed, fresh = failed + 1, True
            say(f"attempt {ours} could not be started; looks at {plan.name} again")
            sleep(plan.poll)


def finish(plan: Plan, scripts: Scripts, end: End) -> int:
    """Deletes the slice if asked, and says how the run ended; returns the exit code."""
    if plan.delete and not scripts.call("delete", "--now"):
        print("babysit.sh: the slice was not deleted; it costs", file=sys.stderr)
    where = (
        "the run is in" if end.code == 0 else f"exit code {end.code}; see docs/operations.md and"
    )
    say(f"{end}; {where} {plan.run}")
    return end.code


def parse(argv: Sequence[str] | None = None) -> Plan:
    parser = argparse.ArgumentParser(prog="babysit.sh", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--run", required=True)
    for setting in ("poll", "stale", "grace", "futile"):
        parser.add_argument(f"--{setting}", required=True, type=int)
    parser.add_argument("--delete", action="store_true")
    parser.add_argument("flags", nargs="+", help="of rfxray.train, after --")
    given = vars(parser.parse_args(argv))
    return Plan(**{**given, "flags": tuple(given["flags"])})


def main(argv: Sequence[str] | None = None) -> None:
    plan, scripts = parse(argv), Scripts()
    try:
        babysit(plan, scripts)
    except End as end:
        sys.exit(finish(plan, scripts, end))
    except KeyboardInterrupt:
        say("ended by Ctrl-C; the run and its slice go on, and the same command watches them again")
        sys.exit(130)


if __name__ == "__main__":
    main()
