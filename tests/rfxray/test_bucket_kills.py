"""A training on a mounted bucket, killed at five moments: what was closed is there, and counts."""

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from tests import chaos

EVERY = 0.5  # seconds between two appends
SLACK = 3.0  # seconds that a busy machine may add
LATER = 20  # steps after the last kill

KEYS = ("log_every=1", "checkpoint_every=50", "optim.learning_rate=1e-4")

# Numbers that depend on the clock.
CLOCK = {"time", "images_per_s", "tokens_per_s", "data_wait", "eta_s", "save_wait", "goodput"}
CLOCK |= {"hours/trained", "hours/since_start"}

MOMENTS = {
    "while it compiles": " a new run",
    "between steps": chaos.TRAINS,
    "while it saves": "saving a checkpoint",
    "after a save": "saving a checkpoint",
    "while it stops": chaos.TRAINS,
}


@pytest.fixture
def start(environment, tiny_arguments, tiny_data, tmp_path):
    """`start(steps)`: a trainer on the bucket."""
    started = []

    def begin(steps: int) -> chaos.Trainer:
        keys = (f"data.dirs={tiny_data}", f"steps={steps}", *KEYS)
        flags = tiny_arguments(tmp_path / "bucket" / "run", *keys)
        mount = [sys.executable, "-m", "tests.bucket", str(tmp_path / "bucket"), str(EVERY)]
        started.append(chaos.Trainer([*mount, "rfxray.train", *flags], environment()))
        return started[-1]

    yield begin
    for trainer in started:
        trainer.process.kill()


def rows(workdir: Path) -> list[dict]:
    file = workdir / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def numbers(workdir: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in rows(workdir)]


def saved(workdir: Path) -> int:
    """The last finished checkpoint."""
    folders = (workdir / "checkpoints").glob("*")
    return max((int(p.name) for p in folders if p.name.isdecimal()), default=0)


@pytest.mark.drill
def test_training_killed_on_a_bucket_has_its_rows_and_ends_as_undisturbed(
    start, environment, tiny_arguments, tiny_data, tmp_path
):
    workdir, begun = tmp_path / "bucket" / "run", time.time()
    (tmp_path / "bucket").mkdir()
    for moment, line in MOMENTS.items():
        before = saved(workdir)
        trainer = start(1_000_000)
        assert trainer.wait_for(line if moment != "while it compiles" or not before else "resumed")
        if moment == "between steps":
            while not (rows(workdir) and rows(workdir)[-1]["step"] > before + 5):
                time.sleep(0.1)
            time.sleep(EVERY + SLACK)
        if moment == "after a save":
            assert trainer.wait_for(line, 2)  # the first one is finished
        if moment == "while it stops":
            trainer.process.send_signal(signal.SIGTERM)
        trainer.process.kill()
        trainer.process.wait()
        end = time.monotonic() - trainer.begun
        steps = [row["step"] for row in rows(workdir)]
        assert len(steps) == len(set(steps))
        assert set(range(1, saved(workdir) + 1)) <= set(steps), moment
        due = end - EVERY - SLACK
        old = [text for at, text in trainer.lines if at < due and "/1000000" in text]
        logged = (workdir / "run.log").read_text() if old else ""
        for text in old:
            step = int(text.split("step ")[1].split("/")[0])
            assert step in steps, (moment, step)
            assert text in logged, (moment, text)
        if moment == "between steps":
            assert old

    last = saved(workdir) + LATER
    trainer = start(last)
    assert trainer.process.wait(300) == 0, trainer.lines[-5:]
    seconds = time.time() - begun
    undisturbed = tmp_path / "whole"
    keys = (f"data.dirs={tiny_data}", f"steps={last}", *KEYS)
    whole = chaos.Trainer(
        [sys.executable, "-m", "rfxray.train", *tiny_arguments(undisturbed, *keys)], environment()
    )
    assert whole.process.wait(300) == 0, whole.lines[-5:]
    assert numbers(workdir) == numbers(undisturbed)
    for folder in (workdir, undisturbed):
        found = rows(folder)
        # Every row counts its own seconds, once, and those of lost steps count nowhere. A start
        # may add the moment between the last row and the checkpoint.
        taken = sum(8 / row["images_per_s"] for row in found if row["images_per_s"])
        assert 0 <= 3600 * found[-1]["hours/trained"] - taken < len(MOMENTS)
        hours = [row["hours/since_start"] for row in found]
        assert hours == sorted(hours)
        assert found[-1]["goodput"] == pytest.approx(
            found[-1]["hours/trained"] / found[-1]["hours/since_start"]
        )
    since = 3600 * rows(workdir)[-1]["hours/since_start"]
    assert seconds - 30 < since < seconds
