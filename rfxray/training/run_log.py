"""Log lines, scalars and images of a run, written to its workdir."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from rfxray.command_line import duration
from rfxray.outputs import journal
from rfxray.outputs.files import append, ends_a_line, save_png, write_whole
from rfxray.training import events


class Writer:
    """Writes scalars and images to `metrics.jsonl`, TensorBoard events and the console.

    The files are closed every few seconds, see `Journal`. Only the first host writes; on other
    hosts every method except `alarm` does nothing. A context manager.
    """

    def __init__(self, workdir: Path, step: int = 0, every: float | None = None):
        """Starts the files of a workdir.

        Args:
          workdir: Folder of the run, which exists.
          step: Step at which the run resumes. Later lines of `metrics.jsonl` belong to steps that
            will be taken again: they are moved to `metrics.set_aside.jsonl`.
          every: Seconds for which lines may be only in memory; see `Journal`.
        """
        self._active = jax.process_index() == 0
        if not self._active:
            return
        self._workdir = workdir
        self._metrics, self._log = workdir / "metrics.jsonl", workdir / "run.log"
        _set_aside_after(self._metrics, step)
        (workdir / "tensorboard").mkdir(exist_ok=True)
        self._events = events.new_file(workdir / "tensorboard")
        self._journal = journal.Journal(every)
        if not ends_a_line(self._log):
            self._journal.add(self._log, b"\n")  # a kill tore its last line
        self._journal.add(self._events, events.beginning(step + 1))

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: object) -> None:
        if self._active:
            self._journal.__exit__(*error)

    def say(self, line: str) -> None:
        """Writes a line to the console and to `run.log`."""
        if not self._active:
            return
        stamp = time.strftime("%H:%M:%S")
        self._journal.add(self._log, f"{time.strftime('%Y-%m-%d')} {stamp} {line}\n".encode())
        print(f"{stamp} {line}", flush=True)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if not self._active:
            return
        row = json.dumps({"step": step, "time": time.time(), **values}) + "\n"
        self._journal.add(self._metrics, row.encode())
        for name, value in values.items():
            self._journal.add(self._events, events.scalar(step, name, value))

    def alarm(self, line: str) -> None:
        """Writes a line that matters on any host."""
        if self._active:
            self.say(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def findings(
        self, step: int, scalars: Mapping[str, float], images: Mapping[str, np.ndarray]
    ) -> None:
        """Writes scalars and images [height, width] uint8 of an evaluator.

        Images become PNG files in `workdir/NAME/` and entries of TensorBoard.
        """
        if not self._active:
            return
        if scalars:
            self.scalars(step, scalars)
            self.say(f"step {step}: " + ", ".join(f"{k} {v:.4f}" for k, v in scalars.items()))
        for name, image in images.items():
            file = self._workdir / name / f"step_{step:08d}.png"
            file.parent.mkdir(exist_ok=True)
            save_png(file, image)
            self._journal.add(self._events, events.image(step, name, image))
            self.say(f"step {step}: {file}")

    def flush(self) -> None:
        """Writes what was logged so far.

        A checkpoint follows it: what is logged of its steps is written before the checkpoint is
        there, since a run that resumes from it does not log these steps again.

        Raises:
          SaveFailed, ConfigError: If that, or a write in the background, failed.
        """
        if self._active:
            self._journal.flush()

    def check(self) -> None:
        """Raises a SaveFailed or ConfigError if a write in the background failed."""
        if self._active:
            self._journal.check()

    def close(self) -> None:
        if self._active:
            self._journal.close()


def _set_aside_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    kept = []
    aside = []
    for line in text.splitlines():
        try:
            (kept if json.loads(line)["step"] <= step else aside).append(line)
        except (ValueError, KeyError, TypeError):  # torn by a kill
            aside.append(line)
    if aside or not text.endswith("\n"):
        append(path.with_suffix(".set_aside.jsonl"), "".join(f"{x}\n" for x in aside).encode())
        write_whole(path, "".join(line + "\n" for line in kept))


def line(step: int, steps: int, values: dict[str, float]) -> str:
    """The log line of a log step."""
    mfu = f"MFU {values['mfu']:.1%}  " if "mfu" in values else ""
    loss = "every step skipped  "
    if "loss" in values:
        loss = f"loss {values['loss']:.4f}  grad {values['grad_norm']:.3f}  "
    return (
        f"step {step}/{steps}  {loss}"
        f"{values['images_per_s']:.1f} images/s  {values['tokens_per_s']:,.0f} tokens/s  "
        f"{mfu}{values['tokens_seen']:.3g} tokens seen  data wait {values['data_wait']:.1%}  "
        f"save wait {values['save_wait']:.1%}  "
        f"ETA {duration(values['eta_s'])}"
    )
