"""Long drills, and a short form of the longest one."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import chaos

ROOT = Path(__file__).resolve().parents[1]


def test_run_killed_between_steps_and_while_saving_ends_bitwise_same(tmp_path):
    kinds = ("between steps", "while it saves")
    outcomes = chaos.run(2, seed=1, folder=tmp_path, kinds=kinds, steps=84)
    assert [outcome.code for outcome in outcomes] == [-9, -9]
    assert all(outcome.step >= outcome.resumed for outcome in outcomes)


@pytest.mark.drill
@pytest.mark.parametrize(
    ("command", "ending"),
    [
        (["tests.chaos", "--kills", "18"], "bitwise the same run"),
        (["tests.corruption"], "every damage came out as specified"),
    ],
)
def test_long_drill_passes(command, ending):
    run = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=1500
    )
    print(run.stdout)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip().endswith(ending)
