import sys

import pytest

from rfxray import command_line
from rfxray.command_line import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves: `clock[0]` is the time in seconds."""
    now = [100.0]
    monkeypatch.setattr(command_line.time, "monotonic", lambda: now[0])
    return now


def test_progress_in_a_log_prints_a_line_at_intervals(clock, capsys):
    with Progress("rfxray.toy", 1_000) as progress:
        for _ in range(30):
            clock[0] += 1
            progress.advance(20)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "rfxray.toy: 200 of 1,000 images, 20/s, 0m 40s left",
        "rfxray.toy: 400 of 1,000 images, 20/s, 0m 30s left",
        "rfxray.toy: 600 of 1,000 images, 20/s, 0m 20s left",
    ]


def test_progress_rate_excludes_work_of_an_earlier_process(clock, capsys):
    with Progress("rfxray.toy", 100, 80, unit="step", seconds=5) as progress:
        progress.show(80)
        clock[0] += 10
        progress.show(85)
    assert capsys.readouterr().err == "rfxray.toy: 85 of 100 steps, 0.5/s, 0m 30s left\n"


@pytest.mark.parametrize("silent", [{"seconds": None}, {"shown": False}])
def test_progress_in_a_log_can_be_silent(clock, capsys, silent):
    with Progress("rfxray.toy", 10, **silent) as progress:
        clock[0] += 60
        progress.advance()
    assert capsys.readouterr().err == ""


def test_progress_on_a_terminal_is_only_a_bar(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("rfxray.toy", 10, 4) as progress:
        clock[0] += 60
        progress.advance(6)
    bar = capsys.readouterr().err
    assert "rfxray.toy: 100%" in bar
    assert "10/10" in bar
    assert " of " not in bar
