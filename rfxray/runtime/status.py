"""What the supervisor of each host reports, and what the reports of all hosts mean together.

A report is one line of JSON in `workdir/status/host-i.json`. This module needs the standard library
alone: launch/tpu/babysit.sh runs it on a machine where nothing is installed.

    gcloud storage cat …/status/host-*.json | python3 -m rfxray.runtime.status --attempt A
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterable

# A code that a person has to look at outweighs the 75 of hosts that it took along.
STOPS = (78, 65, 70)


@dataclasses.dataclass(frozen=True)
class Status:
    """One host in one attempt at the run.

    Attributes:
      host, hosts: which one, of how many.
      attempt: of the run; a later one sorts after an earlier one.
      code: that the trainer ended with, mapped to an exit code of errors.py; None while it runs.
      ended: how it ended by its own account, such as `exit 75` or `SIGKILL`; None while it runs.
      step: the last one that its heartbeat told of in this attempt, or None.
      time: of the report, in seconds since 1970.
    """

    host: int
    hosts: int
    attempt: str
    code: int | None
    ended: str | None
    step: int | None
    time: float

    def line(self) -> str:
        """The report as it is stored."""
        return json.dumps(dataclasses.asdict(self)) + "\n"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is to be done.

    Attributes:
      word: `none` (no report), `running`, `lost` (reports that are too old), `resume`, `finished`
        or `stop`.
      code: of the exit for `finished` and `stop`, 75 for `resume` and `lost`; else 0.
      step: the last one of any host, −1 where none is known.
      attempt: that was judged, `-` where there is none.
      why: for a person.
    """

    word: str
    code: int
    step: int
    attempt: str
    why: str


def parse(lines: Iterable[str]) -> list[Status]:
    """Reports from their lines; one that does not parse is named on stderr and left out."""
    found = []
    for line in filter(str.strip, lines):
        try:
            found.append(Status(**json.loads(line)))
        except (ValueError, TypeError) as error:
            print(
                f"rfxray.runtime.status: no report: {line.strip()[:200]!r} ({error})",
                file=sys.stderr,
            )
    return found


def judge(
    statuses: Iterable[Status], now: float, stale: float, grace: float, attempt: str | None = None
) -> Verdict:
    """What the reports of all hosts mean together.

    Args:
      statuses: of any attempts.
      now: seconds since 1970.
      stale: seconds after which a report of a running host counts for nothing.
      grace: seconds that hosts may go on after the first has ended.
      attempt: the one to judge; the latest where None.
    """
    statuses = list(statuses)
    attempt = attempt or max((s.attempt for s in statuses), default="-")
    mine = [s for s in statuses if s.attempt == attempt]
    if not mine:
        return Verdict("none", 0, -1, attempt, "no report")
    step = max((s.step for s in mine if s.step is not None), default=-1)
    ended = [s for s in mine if s.code is not None]
    alive = [s for s in mine if s.code is None and now - s.time <= stale]

    def verdict(word: str, code: int, why: str) -> Verdict:
        return Verdict(word, code, step, attempt, why)

    for code in STOPS:
        for s in ended:
            if s.code == code:
                return verdict("stop", code, f"host {s.host} of {s.hosts} ended with {s.ended}")
    if len(ended) == mine[0].hosts and all(s.code == 0 for s in ended):
        return verdict("finished", 0, f"{len(ended)} of {mine[0].hosts} hosts finished")
    if ended and (not alive or now - min(s.time for s in ended) > grace):
        why = ", ".join(f"host {s.host}: {s.ended}" for s in ended[:4])
        return verdict("resume", 75, f"{len(ended)} of {mine[0].hosts} hosts ended ({why})")
    if alive:
        return verdict("running", 0, f"{len(alive)} of {mine[0].hosts} hosts report")
    return verdict("lost", 75, f"no host has reported for {stale:.0f} s")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m rfxray.runtime.status", description=__doc__)
    parser.add_argument("--attempt", default="", help="the one to judge; the latest by default")
    parser.add_argument("--stale", type=float, default=600, metavar="SECONDS")
    parser.add_argument("--grace", type=float, default=300, metavar="SECONDS")
    arguments = parser.parse_args(argv)
    verdict = judge(
        parse(sys.stdin), time.time(), arguments.stale, arguments.grace, arguments.attempt or None
    )
    print(verdict.word, verdict.code, verdict.step, verdict.attempt, verdict.why)


if __name__ == "__main__":
    main()
