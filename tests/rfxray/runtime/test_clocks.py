"""Clocks that differ between the machines of a run: no age and no order depends on them."""

import dataclasses
import io
import os
import time

import pytest

from rfxray.runtime import babysit, status
from rfxray.runtime.status import Status

PLAN = babysit.Plan("slice", "gs://b/run", ("--config", "x"), 60, 180, 300, 2, delete=False)
HOURS = 3600.0
SKEWS = (0.0, -900.0, 900.0, -5 * HOURS, 5 * HOURS)


class Pod:
    """Two hosts that report every minute, and a machine with another clock that looks at them.

    Args:
      skew: Seconds by which the clock of the watching machine is ahead.
      script: `script(seconds, attempt)`: reports as (code, silent) of each host.
    """

    def __init__(self, skew: float, script, attempt: str = "20260101T000000Z"):
        self.now, self._skew, self._script, self.attempt = 0.0, skew, script, attempt
        self.begun, self.started = 0.0, []

    def day(self) -> float:
        return 2e9 + self.now + self._skew

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def clock(self) -> float:
        return self.now

    def read(self, script: str, *_: str) -> str:
        if script == "slice":
            return "ready"
        lines = []
        for host, (code, silent) in enumerate(self._script(self.now - self.begun, self.started)):
            written = min(self.now, silent) // 60 * 60
            ended = None if code is None else f"exit {code}"
            step = int(written)
            lines.append(Status(host, 2, self.attempt, code, ended, step, 2e9 + written).line())
        return "".join(lines)

    def call(self, script: str, *_: str, **settings: str) -> bool:
        if script == "run":
            self.started.append((self.now, settings["ATTEMPT"]))
            self.attempt, self.begun = settings["ATTEMPT"], self.now
        return True

    def watch(self) -> babysit.End:
        with pytest.raises(babysit.End) as end:
            babysit.babysit(PLAN, self, self.sleep, self.clock, self.day)
        return end.value


@pytest.mark.parametrize("skew", SKEWS)
def test_healthy_run_is_never_judged_lost_and_the_skew_is_said_once(skew, capsys):
    always = float("inf")
    pod = Pod(skew, lambda t, _: [(0 if t > 8 * HOURS else None, always)] * 2)
    assert pod.watch().code == 0
    assert pod.started == []
    said = [line for line in capsys.readouterr().out.splitlines() if "clock:" in line]
    assert len(said) == bool(skew)
    if skew:
        word = "ahead of" if skew < 0 else "behind"
        least = abs(skew) - (60 if skew > 0 else 0)  # the time between two looks
        assert f"host 0 is at least {least:.0f} s {word}" in said[0]


@pytest.mark.parametrize("skew", SKEWS)
def test_hosts_that_fall_silent_are_resumed_as_soon_under_every_skew(skew):
    def script(seconds, started):
        return [(0, float("inf"))] * 2 if started else [(None, HOURS)] * 2

    pod = Pod(skew, script)
    assert pod.watch().code == 0
    ((at, _),) = pod.started
    assert HOURS + 180 < at <= HOURS + 180 + 2 * 60


@pytest.mark.parametrize("skew", SKEWS)
def test_hosts_have_their_grace_after_the_first_has_ended(skew):
    """One host ends; the other saves for 4 minutes more, of the 5 that it has."""

    def script(seconds, started):
        if started:
            return [(0, float("inf"))] * 2
        other = (75, HOURS + 240) if seconds > HOURS + 240 else (None, float("inf"))
        return [(75, HOURS) if seconds > HOURS else (None, float("inf")), other]

    pod = Pod(skew, script)
    assert pod.watch().code == 0
    ((at, _),) = pod.started
    assert at > HOURS + 240


@pytest.mark.parametrize("latest", ["20990101T000000Z", "20990101T000000Z.0007"])
def test_new_attempt_sorts_after_one_that_a_clock_ahead_has_named(latest):
    first = babysit.attempt_after(latest, 2e9, 1)
    second = babysit.attempt_after(first, 2e9, 2)
    assert latest < first < second
    assert len(second) == len("20990101T000000Z.0007")


def test_ages_of_report_files_are_by_the_clock_of_their_file_system(tmp_path, capsys):
    file = tmp_path / "host-0.json"
    for wrong in (-9e5, 9e5):  # what the host believes
        file.write_text(Status(0, 1, "a", None, None, 3, time.time() + wrong).line())
        status.main([str(file)])
        assert capsys.readouterr().out.startswith("running 0 3 a ")
    os.utime(file, (0, time.time() - 181))
    status.main([str(file)])
    assert capsys.readouterr().out.startswith("lost 75 3 a ")


def test_report_from_the_future_on_stdin_is_said(monkeypatch, capsys):
    report = Status(0, 1, "a", None, None, 3, time.time() + 900)
    monkeypatch.setattr("sys.stdin", io.StringIO(report.line()))
    status.main([])
    out, err = capsys.readouterr()
    assert out.startswith("running")
    assert "clock: that of host 0 is at least 900 s ahead of the clock of this machine" in err


def test_missing_report_file_is_one_line(capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        status.main([str(tmp_path / "host-0.json")])
    assert end.value.code == 78
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_report_keeps_its_content_when_it_is_dated():
    report = Status(0, 1, "a", None, None, 3, 5.0)
    changes = status.Changes()
    assert changes.dated([report], 7.0, 5.0) == [dataclasses.replace(report, time=7.0)]
    assert changes.dated([report], 9.0, 7.0) == [dataclasses.replace(report, time=7.0)]
