"""Reports of the supervisors of all hosts, and the verdict that follows from them.

A report is one line of JSON in `workdir/status/host-i.json`. This module needs only the standard
library, because launch/tpu/babysit.sh runs it on a machine on which nothing is installed.

    python3 -m rfxray.runtime.status --attempt A WORKDIR/status/host-*.json
    gcloud storage cat …/status/host-*.json | python3 -m rfxray.runtime.status --attempt A

Clocks of machines differ, so the time that a host writes into its report gives no age. The age of a
file is taken by the clock of its file system; the babysitter, which looks again and again, counts
from the moment that it saw the report change (`Changes`). Only for reports on stdin is the clock of
this machine compared with those of the hosts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence

from rfxray.printing_flags import add_version

# Seconds by which two clocks may differ unsaid. Clocks kept by NTP differ by far less than one.
SKEW = 60.0

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
      now: Current time, by the clock that the times of the reports are of.
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


class Changes:
    """When this process saw each report change, by its own monotonic clock.

    Attributes:
      notes: Lines about clocks that differ, which the caller takes out.
    """

    def __init__(self):
        self._known: dict[int, Status] = {}
        self._changed: dict[int, float] = {}
        self._looked: float | None = None
        self._said = 0.0
        self.notes: list[str] = []

    def dated(self, statuses: Iterable[Status], now: float, day: float) -> list[Status]:
        """The reports with the monotonic time of their last change in place of their own time.

        A report that is seen for the first time counts as new: its age is not known.

        Args:
          statuses: Reports of all hosts.
          now: Monotonic seconds.
          day: Time of day, seconds since 1970; only to say that a clock differs.
        """
        found = list(statuses)
        for report in found:
            if self._known.get(report.host) != report:
                # It was written since the last look, if there was one.
                since = self._looked if report.host in self._known else None
                self._compare(report, report.time if since is None else since, day)
                self._changed[report.host] = now
        self._known = {report.host: report for report in found}
        self._looked = day
        return [dataclasses.replace(r, time=self._changed[r.host]) for r in found]

    def _compare(self, report: Status, earliest: float, day: float) -> None:
        skew = report.time - min(max(report.time, earliest), day)
        if abs(skew) > SKEW and abs(skew - self._said) > SKEW:
            self._said = skew
            self.notes.append(skewed(report, skew))


def skewed(report: Status, skew: float) -> str:
    """The line about a host with a clock that is ahead of this machine's by `skew` seconds."""
    return (
        f"clock: that of host {report.host} is at least {abs(skew):.0f} s "
        f"{'ahead of' if skew > 0 else 'behind'} the clock of this machine; correct whichever is "
        "wrong (NTP)"
    )


def read(files: Sequence[str]) -> tuple[list[Status], float]:
    """Reports of files, dated by the clock of their file system, and the time by that clock.

    Raises:
      OSError: If a file cannot be read.
    """
    found = []
    for name in files:
        with open(name, encoding="utf-8") as file:
            changed = os.fstat(file.fileno()).st_mtime
            found += [dataclasses.replace(each, time=changed) for each in parse(file)]
    try:
        with tempfile.TemporaryFile(dir=os.path.dirname(files[0]) or ".") as probe:
            return found, os.fstat(probe.fileno()).st_mtime
    except OSError:  # a folder that this user only reads
        return found, time.time()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m rfxray.runtime.status", description=__doc__)
    add_version(parser)
    parser.add_argument("--attempt", default="", help="attempt to judge (default: the latest)")
    parser.add_argument(
        "--stale",
        type=float,
        default=180,
        metavar="SECONDS",
        help="age from which the report of a running host is ignored (default: %(default)s)",
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=300,
        metavar="SECONDS",
        help="time that hosts may continue after the first has ended (default: %(default)s)",
    )
    parser.add_argument("files", nargs="*", help="reports (default: those on stdin)")
    arguments = parser.parse_args(argv)
    if arguments.files:
        try:
            reports, now = read(arguments.files)
        except OSError as error:
            parser.exit(78, f"rfxray.runtime.status: error: {error}; give the files of W/status\n")
    else:
        reports, now = parse(sys.stdin), time.time()
        for report in reports:
            if report.time - now > SKEW:
                skew = report.time - now
                print(f"rfxray.runtime.status: {skewed(report, skew)}", file=sys.stderr)
    verdict = judge(reports, now, arguments.stale, arguments.grace, arguments.attempt or None)
    print(verdict.word, verdict.code, verdict.step, verdict.attempt, verdict.why)


if __name__ == "__main__":
    main()
