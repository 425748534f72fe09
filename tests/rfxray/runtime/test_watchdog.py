import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rfxray.runtime import watchdog
from rfxray.runtime.watchdog import Watchdog

ROOT = Path(__file__).resolve().parents[3]


class Clock:
    """Replaces `time`: advances only when a test says so, and counts the watchdog's calls."""

    time = staticmethod(time.time)

    def __init__(self):
        self.now, self.looks = 0.0, 0

    def monotonic(self) -> float:
        self.looks += threading.current_thread().name == "watchdog"
        return self.now

    def advance(self, seconds: float) -> None:
        """Advances the time and waits until the watchdog has looked at it."""
        self.now += seconds
        looks = self.looks
        wait_until(lambda: self.looks > looks + 4)


def wait_until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """(watchdog of host 1 of 3 after two quick steps, its log lines, its clock)."""
    lines, clock = [], Clock()
    monkeypatch.setattr(watchdog, "time", clock)
    about = {"host": 1, "hosts": 3, "step": 4, "factor": 3.0, "seconds": 0.2, "give_up": 0.0}
    with Watchdog(tmp_path, lines.append, **about) as watch:
        for step in (5, 6):
            watch.doing("data")
            watch.done(step)
        yield watch, lines, clock


def test_a_stall_is_reported_once_with_its_activity_and_stacks(watched, tmp_path):
    watch, lines, clock = watched
    watch.doing("data")
    clock.advance(7)
    clock.advance(7)
    (line,) = lines
    assert line.startswith("stall: host 1 has waited 7 s")
    assert "for data at step 7" in line
    assert "host 0 has no heartbeat; host 2 has no heartbeat" in line
    stacks = (tmp_path / "status" / "stall-host-1.txt").read_text()
    assert "# data, step 7" in stacks
    assert "test_watchdog.py" in stacks  # the stalled thread, by its file
    watch.done(7)
    watch.doing("the device")
    clock.advance(7)
    assert len(lines) == 2
    assert "for the device at step 8" in lines[1]


def test_a_stall_names_the_hosts_that_are_behind(watched, tmp_path):
    watch, lines, clock = watched
    beats = {0: (6, 0), 2: (3, 90)}
    for host, (step, silent) in beats.items():
        # What the host believes about the time does not matter, the file system dates the file.
        beat = {"step": step, "doing": "data", "time": time.time() + 9e5}
        file = tmp_path / "status" / f"heartbeat-host-{host}.json"
        file.write_text(json.dumps(beat))
        written = time.time() - silent
        os.utime(file, (written, written))
    watch.doing("the device")
    clock.advance(7)
    assert "host 2 is at step 3 (data), last heartbeat 90 s ago" in lines[0]
    assert "host 0" not in lines[0]


def test_a_loop_that_makes_progress_is_not_reported(watched):
    watch, lines, clock = watched
    for step in range(7, 17):
        watch.doing("data")
        clock.advance(0.15)  # 0.2 s in one step would be a stall, 1.5 s in ten steps are not
        watch.done(step)
    assert lines == []


def test_heartbeat_holds_step_and_activity(watched, tmp_path):
    watch, _, clock = watched
    file = tmp_path / "status" / "heartbeat-host-1.json"
    clock.advance(watchdog.BEAT)
    beat = json.loads(file.read_text())
    assert (beat["host"], beat["step"]) == (1, 6)
    watch.__exit__()
    assert json.loads(file.read_text())["doing"] == "finished"


@pytest.mark.parametrize("seconds", [0.1, 0.0])
def test_give_up_ends_the_process_with_75_with_or_without_reports(tmp_path, seconds):
    code = f"""
import time
from pathlib import Path
from rfxray.runtime.watchdog import Watchdog
limits = dict(factor=2.0, seconds={seconds}, give_up=0.3)
with Watchdog(Path({str(tmp_path)!r}), print, 0, 1, 0, **limits) as watch:
    watch.doing("data")
    watch.done(1)
    watch.doing("the device")
    time.sleep(600)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 75
    assert ("stall: host 0 has waited" in run.stdout) == bool(seconds)
    assert "gave up after" in run.stdout
