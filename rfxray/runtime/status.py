"""Reports of the supervisors of all hosts, and the verdict that follows from them.

A report is one line of JSON in `workdir/status/host-i.json`. This module needs only the standard
library, because launch/tpu/babysit.sh runs it on a machine on which nothing is installed.

    gcloud storage cat …/status/host-*.json | python3 -m rfxray.runtime.status --attempt A
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterable

from rfxray.printing_flags import add_version

# Codes that a person has to look at; they outweigh the 75 of other hosts, which are a consequence.
STOPS = (78, 65, 70)


@dataclasses.dataclass(frozen=True)
class Status:
    """State of one host in one attempt at the run.

    Attributes:
      host, hosts: Number of the host, and of all hosts.
      attempt: Name of the attempt; later attempts sort after earlier ones.
      code: Exit code of errors.py for how the trainer ended; None while it runs.
      ended: Actual end of the trainer, such as `exit 75` or `SIGKILL`; None while it runs.
      step: Last step in its heartbeat in this attempt, or None.
      time: Time of the report, seconds since 1970.
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
    """What to do about the run.

    Attributes:
      word: One of `none` (no reports), `running`, `lost` (reports are too old), `resume`,
        `finished`, `stop`.
      code: Exit code for `finished` and `stop`, 75 for `resume` and `lost`, else 0.
      step: Last step of any host, −1 if none is known.
      attempt: Attempt that was judged, `-` if there is none.
      why: Reason, for a person.
    """

    word: str
    code: int
    step: int
    attempt: str
    why: str


def parse(lines: Iterable[str]) -> list[Status]:
    """Parses lines into reports; lines that are not reports are shown on stderr and skipped."""
    found = []
    for line in filter(str.strip, lines):
        try:
            found.append(Status(**json.loads(line)))
        except (ValueError, TypeError) as error:
            print(
                f"rfxray.runtime.status: not a report: {line.strip()[:200]!r} ({error})",
                file=sys.stderr,
            )
    return found


def judge(
    statuses: Iterable[Status], now: float, stale: float, grace: float, attempt: str | None = None
) -> Verdict:
    """The verdict on the reports of all hosts.

    Args:
      statuses: Reports of any attempts.
      now: Current time, seconds since 1970.
      stale: Seconds after which the report of a running host is ignored.
      grace: Seconds that hosts may continue after the first has ended.
      attempt: Attempt to judge; None for the latest.
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
    add_version(parser)
    parser.add_argument("--attempt", default="", help="attempt to judge (default: the latest)")
    parser.add_argument("--stale", type=float, default=180, metavar="SECONDS")
    parser.add_argument("--grace", type=float, default=300, metavar="SECONDS")
    arguments = parser.parse_args(argv)
    verdict = judge(
        parse(sys.stdin), time.time(), arguments.stale, arguments.grace, arguments.attempt or None
    )
    print(verdict.word, verdict.code, verdict.step, verdict.attempt, verdict.why)


if __name__ == "__main__":
    main()
