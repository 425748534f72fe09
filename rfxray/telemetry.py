"""What a run says of itself: metrics on the device, and where they are written.

Metrics are accumulated on the device by the train step and fetched at log steps only; the host adds
what it alone can know, rates and waiting times.
"""

import json
import sys
import time
from pathlib import Path

import clu.metrics
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from rfxray.pictures import save_png

# The loss is also kept by timestep, in equal bins of t: a mean hides which end of the path learns.
T_BINS = 4


@flax.struct.dataclass
class LossByTimestep(clu.metrics.Metric):
    """Mean loss in each of `T_BINS` equal bins of t: [T_BINS] float32."""

    total: jax.Array
    count: jax.Array

    @classmethod
    def empty(cls):
        return cls(jnp.zeros(T_BINS), jnp.zeros(T_BINS))

    @classmethod
    def from_model_output(cls, loss_by_t, **_):
        loss, t = loss_by_t
        within = jax.nn.one_hot(jnp.minimum((t * T_BINS).astype(jnp.int32), T_BINS - 1), T_BINS)
        return cls(loss @ within, within.sum(0))

    def merge(self, other):
        return type(self)(self.total + other.total, self.count + other.count)

    def compute(self):
        return self.total / jnp.maximum(self.count, 1.0)


@flax.struct.dataclass
class TrainMetrics(clu.metrics.Collection):
    """What the train step accumulates between two log steps."""

    loss: clu.metrics.Average.from_output("loss")
    loss_by_t: LossByTimestep
    grad_norm: clu.metrics.Average.from_output("grad_norm")
    update_norm: clu.metrics.Average.from_output("update_norm")


def fresh_metrics(place: jax.sharding.Sharding) -> TrainMetrics:
    """Empty accumulators at that place."""
    return jax.device_put(TrainMetrics.empty(), place)


def scalars(metrics: TrainMetrics) -> dict[str, float]:
    """Fetched accumulators as named numbers; what saw no example is left out."""
    metrics = jax.device_get(metrics)
    if not metrics.loss.count:  # every step was skipped
        return {}
    values = metrics.compute()
    by_t = values.pop("loss_by_t")
    named = {name: float(value) for name, value in values.items()}
    for i, value in enumerate(np.asarray(by_t)):
        if metrics.loss_by_t.count[i]:
            named[f"loss_t/{i / T_BINS:.2f}-{(i + 1) / T_BINS:.2f}"] = float(value)
    return named


class Meter:
    """Rates between two log steps: images and tokens per second, share spent waiting for data.

    Args:
      step, steps: where the run stands and ends.
      batch_size: examples of a step.
      tokens: of an example.
      flops: of the model in one step, see flops.py.
      devices: that share the step.
      peak: operations per second of one device; without it (a CPU) nothing is said per chip.

    Attributes:
      seconds: of training in the last reading.
    """

    def __init__(
        self,
        step: int,
        steps: int,
        batch_size: int,
        tokens: int,
        flops: float = 0.0,
        devices: int = 1,
        peak: float | None = None,
    ):
        self.steps, self.batch_size, self.tokens = steps, batch_size, tokens
        self.flops, self.devices, self.peak = flops, devices, peak
        self.seconds = 0.0
        self.restart(step)

    def restart(self, step: int) -> None:
        """Counts from `step` and from now."""
        self._step, self._start, self._waited, self._aside = step, time.perf_counter(), 0.0, 0.0

    def wait(self, iterator):
        """The next item of an iterator, with the time it took counted as waiting for data."""
        begin = time.perf_counter()
        item = next(iterator)
        self._waited += time.perf_counter() - begin
        return item

    def aside(self, begin: float) -> None:
        """Takes the time since `begin` out of the rates: validation, pictures, a blocking save."""
        self._aside += time.perf_counter() - begin

    def read(self, step: int) -> dict[str, float]:
        """The rates since the last reading."""
        seconds = max(1e-9, time.perf_counter() - self._start - self._aside)
        images = (step - self._step) * self.batch_size
        rates = {
            "images_per_s": images / seconds,
            "tokens_per_s": images * self.tokens / seconds,
            "data_wait": self._waited / seconds,
            "eta_s": (self.steps - step) * self.batch_size * seconds / max(1, images),
        }
        if self.peak:
            rates["tokens_per_s_per_chip"] = rates["tokens_per_s"] / self.devices
            done = (step - self._step) * self.flops
            rates["mfu"] = done / seconds / self.devices / self.peak
        self.seconds = seconds
        self.restart(step)
        return rates


class Goodput:
    """Hours of training against hours since the run began, over all its restarts.

    Training whose steps were lost and taken again does not count, nor do start-up, compiling,
    validation, pictures and blocking saves. Both are kept in `metrics.jsonl`, so make it after the
    `Writer`, which moves the lines of lost steps out of that file.
    """

    def __init__(self, workdir: Path):
        self._trained, self._began = 0.0, time.time()
        for name in ("metrics.set_aside.jsonl", "metrics.jsonl"):
            for row in _rows(workdir / name):
                if "hours/trained" in row:
                    self._began = min(self._began, row["time"] - 3600 * row["hours/since_start"])
                    self._trained = 3600 * row["hours/trained"] * (name == "metrics.jsonl")

    def read(self, seconds: float) -> dict[str, float]:
        """The hours so far and their ratio, after `seconds` more of training."""
        self._trained += seconds
        elapsed = max(1e-9, time.time() - self._began)
        return {
            "hours/trained": self._trained / 3600,
            "hours/since_start": elapsed / 3600,
            "goodput": self._trained / elapsed,
        }


class Trace:
    """A profile of some steps in `workdir/profile`, for XProf (TensorBoard) or Perfetto.

    Args:
      workdir: of the run.
      first: the first step of the trace, counted from 1; 0 for none.
      steps: how many.
    """

    def __init__(self, workdir: Path, first: int, steps: int):
        self._folder, self._first, self._last = workdir / "profile", first, first + steps - 1
        self._running = False

    def before(self, step: int) -> None:
        """To be called before the step of that number is taken."""
        if step == self._first:
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._running = True

    def after(self, step: int, result: jax.Array, last: bool = False) -> str | None:
        """To be called after it: a line that says where the trace lies, once it is written.

        Args:
          step: taken.
          result: of it.
          last: no step comes after it, so that the trace is what it is.
        """
        if not self._running or not (last or step == self._last):  # resumed in its middle: none
            return None
        result.block_until_ready()
        jax.profiler.stop_trace()
        self._running = False
        return f"step {step}: a trace of {step - self._first + 1} steps in {self._folder}"


class Writer:
    """Scalars and pictures to `metrics.jsonl`, TensorBoard events and the console.

    Only the first host writes; on the others every method does nothing.
    """

    def __init__(self, workdir: Path, step: int = 0):
        """Opens the files of a workdir.

        Args:
          workdir: an existing directory.
          step: the step that a resumed run goes on from. Lines of `metrics.jsonl` after it belong
            to steps that will be taken again: they are moved to `metrics.set_aside.jsonl`.
        """
        self._active = jax.process_index() == 0
        if not self._active:
            return
        self._path = workdir / "metrics.jsonl"
        _set_aside_after(self._path, step)
        self._lines = self._path.open("a", buffering=1)
        self._log = (workdir / "run.log").open("a", buffering=1)
        self._board = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=step + 1, write_to_disk=True
        )

    def say(self, line: str) -> None:
        """A line on the console and in `run.log`."""
        if not self._active:
            return
        stamp = time.strftime("%H:%M:%S")
        print(f"{stamp} {line}", flush=True)
        self._log.write(f"{time.strftime('%Y-%m-%d')} {stamp} {line}\n")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        if not self._active:
            return
        self._lines.write(json.dumps({"step": step, "time": time.time(), **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def alarm(self, line: str) -> None:
        """A line that matters on whichever host it arises."""
        if self._active:
            self.say(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def image(self, step: int, name: str, file: Path, image: np.ndarray) -> None:
        """A picture, [height, width] uint8, to a PNG file and TensorBoard."""
        if self._active:
            save_png(file, image)
            self._board.add_image(name, image[None], step)

    def close(self) -> None:
        if self._active:
            for file in (self._lines, self._log, self._board):
                file.close()


def _rows(path: Path) -> list[dict]:
    """The lines of a metrics file that parse; a kill may have torn one."""
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
            kept.append(line) if json.loads(line)["step"] <= step else aside.append(line)
        except (ValueError, KeyError, TypeError):  # torn by a kill
            aside.append(line)
    if aside or not text.endswith("\n"):
        with path.with_suffix(".set_aside.jsonl").open("a") as file:
            file.writelines(line + "\n" for line in aside)
        replacement = path.with_suffix(".jsonl.new")
        replacement.write_text("".join(line + "\n" for line in kept))
        replacement.replace(path)


class Bar:
    """Progress of the training loop: one line that is redrawn, on a terminal only."""

    def __init__(self, step: int, steps: int):
        on_terminal = sys.stderr.isatty() and jax.process_index() == 0
        self._bar = tqdm(total=steps, initial=step, unit="step", disable=not on_terminal)

    def advance(self) -> None:
        self._bar.update()

    def close(self) -> None:
        self._bar.close()


def duration(seconds: float) -> str:
    """Seconds as a person reads them: `3d 04h`, `2h 05m`, `1m 09s`."""
    s = round(seconds)
    for unit, size, next_unit, next_size in (("d", 86400, "h", 3600), ("h", 3600, "m", 60)):
        if s >= size:
            return f"{s // size}{unit} {s % size // next_size:02d}{next_unit}"
    return f"{s // 60}m {s % 60:02d}s"


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
