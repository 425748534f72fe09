"""Kills a training at bad moments and checks that it ends like an undisturbed one.

    python -m tests.chaos --kills 20 --seed 0

A trainer in its own process is killed at seeded random moments (before and while it restores,
between steps, while it writes a checkpoint, twice during a stop) and restarted with the same
command. After the last kill it runs to its end. Parameters, optimizer, both averages, the data
position and every logged number must be bitwise those of an undisturbed run.
"""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from rfxray.command_line import ArgumentParser

ROOT = Path(__file__).resolve().parents[1]
STEPS, SAVE, LOG = 240, 12, 2
TRAINS = "is the first of this process"  # logged after the first step of a process

# Each kill: (signal, moment). Most moments follow a line of the trainer's log.
KILLS = {
    "while it starts": (signal.SIGKILL, "starting"),
    "while it restores": (signal.SIGKILL, "restoring"),
    "between steps": (signal.SIGKILL, "step"),
    "while it saves": (signal.SIGKILL, "saving"),
    "asked by SIGTERM": (signal.SIGTERM, "step"),
    "asked by SIGINT": (signal.SIGINT, "step"),
    "SIGTERM while it saves": (signal.SIGTERM, "saving"),
    "SIGTERM, then SIGKILL": (signal.SIGKILL, "stopping"),
}


@dataclasses.dataclass
class Outcome:
    """One kill: its kind, the exit code, the last step, and the result of the next start."""

    kind: str
    code: int
    step: int
    resumed: int = 0
    seconds: float = float("nan")  # from the next start until it trains


class Trainer:
    """One start of the command: its log lines and their times."""

    def __init__(self, command: list[str], environment: dict):
        self.begun = time.monotonic()
        self.lines: list[tuple[float, str]] = []
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Background jobs of a shell ignore SIGINT, and so would this process.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self._news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            with self._news:
                self.lines.append((time.monotonic() - self.begun, line.rstrip()))
                self._news.notify_all()
        with self._news:
            self.lines.append((time.monotonic() - self.begun, "(ended)"))
            self._news.notify_all()

    def wait_for(self, what: str, count: int = 1) -> bool:
        """Waits until `count` log lines hold `what`; False if the process ended before."""
        with self._news:
            while sum(what in line for _, line in self.lines) < count:
                if self.lines and self.lines[-1][1] == "(ended)":
                    return False
                self._news.wait(120)
        return True

    def when(self, what: str) -> float:
        """Seconds from the start to the first line that holds `what`; nan if there is none."""
        return next((at for at, line in self.lines if what in line), float("nan"))

    def step(self) -> int:
        """The last step that was logged."""
        logged = [
            line.split("step ")[1].split("/")[0] for _, line in self.lines if "  loss " in line
        ]
        return int(logged[-1]) if logged else 0

    def resumed(self) -> int:
        """The step at which it resumed, 0 for a new run."""
        for _, line in self.lines:
            if "resumed at step" in line:
                return int(line.split()[-1])
        return 0


def kill_at(trainer: Trainer, kind: str, draw: random.Random, to_resume: float) -> bool:
    """Waits for the moment and sends the signal; False if the training ended before."""
    number, moment = KILLS[kind]
    if moment == "starting":
        time.sleep(draw.uniform(0.2, 0.8) * to_resume)
    elif moment == "restoring":
        # In the last second before a trainer logs that it resumed.
        time.sleep(max(0.0, to_resume - draw.uniform(0.0, 1.0)))
    elif moment == "saving":
        if not trainer.wait_for("saving a checkpoint", draw.randint(1, 2)):
            return False
        time.sleep(draw.uniform(0.0, 0.15))
    else:
        if not trainer.wait_for("  loss ", draw.randint(1, 3 * SAVE // LOG)):
            return False
        time.sleep(draw.uniform(0.0, 0.02))
    if moment == "stopping":
        trainer.process.send_signal(signal.SIGTERM)
        time.sleep(draw.uniform(0.0, 0.1))
    trainer.process.send_signal(number)
    return True


def run(
    kills: int, seed: int, folder: Path, kinds=tuple(KILLS), steps: int = STEPS
) -> list[Outcome]:
    """Runs the drill in a folder; returns the outcome of each kill.

    Raises:
      AssertionError: If the two runs differ in a bit.
    """
    data = make_data(folder)
    undisturbed, chaotic = folder / "undisturbed", folder / "chaotic"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    draw = random.Random(seed)
    first = Trainer(command(undisturbed, data, steps), environment)
    assert first.process.wait() == 0, "\n".join(line for _, line in first.lines[-20:])
    to_resume = first.when("a new run")

    outcomes: list[Outcome] = []
    pending = None
    while True:
        trainer = Trainer(command(chaotic, data, steps), environment)
        done = len(outcomes) == kills
        kind = None if done else kinds[len(outcomes) % len(kinds)]
        # If a run finishes before it is killed, `break_end` makes the next start resume earlier.
        struck = not done and kill_at(trainer, kind, draw, to_resume)
        code = trainer.process.wait()
        trainer.wait_for("(ended)")
        if pending is not None and trainer.when(TRAINS) == trainer.when(TRAINS):
            pending.resumed, pending.seconds = trainer.resumed(), trainer.when(TRAINS)
            pending = None
        if struck:
            expected = {-signal.SIGKILL, 0, 75}
            assert code in expected, (kind, code, trainer.lines[-5:])
            outcome = Outcome(kind, code, max(trainer.step(), trainer.resumed()))
            outcomes.append(outcome)
            pending = pending or outcome
        elif code != 0:
            raise AssertionError(f"{code}: " + "\n".join(line for _, line in trainer.lines[-20:]))
        elif done:
            break
        else:
            break_end(chaotic)
    compare(undisturbed, chaotic, steps)
    return outcomes


def break_end(workdir: Path) -> None:
    """Deletes all checkpoints of a finished run except the oldest, as if they were lost."""
    steps = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    for step in steps[1:]:
        shutil.rmtree(workdir / "checkpoints" / str(step))


def make_data(folder: Path) -> Path:
    from tests import conftest

    return conftest.write(
        folder / "data", train=range(conftest.TRAIN), validation=range(50, 50 + conftest.VALIDATION)
    )


def command(workdir: Path, data: Path, steps: int) -> list[str]:
    from tests import conftest

    keys = (
        *conftest.TINY,
        *(f"data.dirs={data}", f"steps={steps}", f"checkpoint_every={SAVE}", f"log_every={LOG}"),
        "evaluators.validation_loss.every=60",
        "evaluators.validation_loss.batches=1",
        f"ema_every={steps // 3}",
    )
    return [
        *(sys.executable, "-m", "rfxray.train", "--config", "configs/smoke.py"),
        *("--workdir", str(workdir), *(f"--config.{key}" for key in keys)),
    ]


CLOCK = {"time", "images_per_s", "tokens_per_s", "data_wait", "save_wait", "eta_s", "goodput"}
CLOCK |= {"hours/trained", "hours/since_start"}


def logged(workdir: Path) -> list[dict]:
    """Logged numbers, line by line, without those that depend on the clock."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCK} for line in lines]


def compare(undisturbed: Path, chaotic: Path, steps: int) -> None:
    """Raises an AssertionError if the two runs differ."""
    assert logged(undisturbed) == logged(chaotic), "the logged numbers differ"
    snapshots = [("ema", k * steps // 3) for k in (1, 2, 3)]
    for folder, step in (("checkpoints", steps), *snapshots):
        one, two = (
            json.loads((workdir / folder / str(step) / "meta" / "metadata").read_text())
            for workdir in (undisturbed, chaotic)
        )
        assert one["position"] == two["position"], "the data position differs"
        # Fingerprints cover every bit; the last restore compared them with the arrays.
        differ = [k for k, v in one["fingerprints"].items() if two["fingerprints"][k] != v]
        assert not differ, f"{folder}/{step} differs in {differ}"


def main() -> None:
    parser = ArgumentParser(prog="python -m tests.chaos", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = run(arguments.kills, arguments.seed, Path(folder))
    print(f"{'kill':<26}{'code':>6}{'at step':>9}{'resumed':>9}{'lost':>6}{'trains again':>14}")
    for o in outcomes:
        lost = max(0, o.step - o.resumed)
        print(f"{o.kind:<26}{o.code:>6}{o.step:>9}{o.resumed:>9}{lost:>6}{o.seconds:>12.1f} s")
    seconds = sorted(o.seconds for o in outcomes if o.seconds == o.seconds)
    lost = sum(max(0, o.step - o.resumed) for o in outcomes if o.seconds == o.seconds)
    print(
        f"{len(outcomes)} kills, {len(outcomes)} restarts, {lost} steps lost, "
        f"{seconds[len(seconds) // 2]:.1f} s (median) to be training again: bitwise the same run"
    )


if __name__ == "__main__":
    main()
