"""Rates between two log steps, and the share of time that was spent training."""

import time
from pathlib import Path

from rfxray.training.run_log import _rows


class Meter:
    """Rates between two log steps: images and tokens per second, share of time waiting for data.

    Args:
      step, steps: Current and last step of the run.
      batch_size: Examples of a step.
      tokens: Tokens of an example.
      flops: Model FLOPs of a step, see perf/flops.py.
      devices: Number of devices that share a step.
      peak: Peak FLOP/s of one device; None (such as for a CPU) leaves out the rates per chip.

    Attributes:
      seconds: Seconds of training in the last reading.
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
        """Starts a new interval at `step` and now."""
        self._step, self._start, self._waited, self._aside = step, time.perf_counter(), 0.0, 0.0

    def wait(self, iterator):
        """The next item of an iterator; the time it takes counts as waiting for data."""
        begin = time.perf_counter()
        item = next(iterator)
        self._waited += time.perf_counter() - begin
        return item

    def aside(self, begin: float) -> None:
        """Excludes the time since `begin` from the rates: evaluators, a blocking save."""
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
    """Hours of training relative to hours since the run began, over all restarts.

    Steps that were lost and taken again do not count, nor do start-up, compiling, evaluators and
    blocking saves. The hours are kept in `metrics.jsonl`, so create it after the `Writer`, which
    moves the lines of lost steps out of that file.
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
