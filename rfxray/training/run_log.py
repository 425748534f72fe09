"""Log lines, scalars and images of a run, written to its workdir."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from tensorboardX import SummaryWriter

from rfxray.command_line import duration
from rfxray.outputs.files import save_png, write_whole


class Writer:
    """Writes scalars and images to `metrics.jsonl`, TensorBoard events and the console.

    Only the first host writes; on other hosts every method except `alarm` does nothing.
    """

    def __init__(self, workdir: Path, step: int = 0):
        """Opens the files of a workdir.

        Args:
          workdir: Folder of the run, which exists.
          step: Step at which the run resumes. Later lines of `metrics.jsonl` belong to steps that
            will be taken again: they are moved to `metrics.set_aside.jsonl`.
        """
        self._active = jax.process_index() == 0
        if not self._active:
            return
        self._workdir = workdir
        self._path = workdir / "metrics.jsonl"
        _set_aside_after(self._path, step)
        self._lines = self._path.open("a", buffering=1)
        self._log = (workdir / "run.log").open("a", buffering=1)
        self._board = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=step + 1, write_to_disk=True
        )

    def say(self, line: str) -> None:
        """Writes a line to the console and to `run.log`."""
        if not self._active:
            return
        stamp = time.strftime("%H:%M:%S")
        print(f"{stamp} {line}", flush=True)
        self._log.write(f"{time.strftime('%Y-%m-%d')} {stamp} {line}\n")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if not self._active:
            return
        self._lines.write(json.dumps({"step": step, "time": time.time(), **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

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
            self._board.add_image(name, image[None], step)
            self.say(f"step {step}: {file}")

    def close(self) -> None:
        if self._active:
            for file in (self._lines, self._log, self._board):
                file.close()


def _rows(path: Path) -> list[dict]:
    """The rows of a metrics file, without lines that are not JSON, since a kill may tear one."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _set_aside_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    text = path.read_text(errors="replace")
    kept = []
    aside = []
    for line in text.splitlines():
        try:
            (kept if json.loads(line)["step"] <= step else aside).append(line)
        except (ValueError, KeyError, TypeError):  # torn by a kill
            aside.append(line)
    if aside or not text.endswith("\n"):
        with path.with_suffix(".set_aside.jsonl").open("a") as file:
            file.writelines(line + "\n" for line in aside)
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
