"""Rates between two log steps, and the share of time that was spent training."""

import time
from pathlib import Path

from rfxray.command_line import duration
from rfxray.outputs.files import last_row


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

    def elapsed(self) -> float:
        """Seconds of training since the last reading."""
        return max(1e-9, time.perf_counter() - self._start - self._aside)

    def read(self, step: int) -> dict[str, float]:
        """The rates since the last reading."""
        seconds = self.elapsed()
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


# Seconds by which two clocks may differ unsaid. Clocks kept by NTP differ by far less than one.
SKEW = 60.0


class Goodput:
    """Hours of training relative to hours since the run began, over all restarts.

    Steps that were lost and taken again do not count, nor do start-up, compiling, evaluators and
    blocking saves. Within a process time is monotonic. Between two processes only the time of day
    is known, which may be wrong: the hours never fall, and of several estimates the smallest counts
    that is not below the last row, so that a clock that was once set back does no lasting harm.

    Args:
      workdir: Folder of the run. The `Writer` has moved the rows of lost steps out of its
        `metrics.jsonl`.
      trained: Seconds of training that the checkpoint records.
      began: Time of day at which the run began, seconds since 1970; None if not recorded.

    Attributes:
      trained: Seconds of training up to the last reading.
      notes: Log lines about clocks that disagree.
    """

    def __init__(self, workdir: Path, trained: float = 0.0, began: float | None = None):
        now, self._start = time.time(), time.perf_counter()
        rows = [last_row(workdir / f"metrics{kind}.jsonl") for kind in ("", ".set_aside")]
        self.trained = max(trained, 3600 * rows[0].get("hours/trained", 0.0))
        rows = [row for row in rows if "hours/since_start" in row]
        least = max((3600 * row["hours/since_start"] for row in rows), default=0.0)
        guesses = [3600 * row["hours/since_start"] + now - row["time"] for row in rows]
        guesses += [] if began is None else [now - began]
        self._before = min((guess for guess in guesses if guess >= least), default=least)
        self.notes = []
        if (wrong := max((abs(g - self._before) for g in guesses), default=0.0)) > SKEW:
            self.notes = [
                f"clock: the time of day of this and of earlier starts differs by "
                f"{duration(wrong)}, so a clock was set or is wrong; hours/since_start goes on "
                f"from {self._before / 3600:.2f}"
            ]

    def read(self, seconds: float) -> dict[str, float]:
        """The hours so far and their ratio, after `seconds` more of training."""
        self.trained += seconds
        elapsed = self._before + time.perf_counter() - self._start
        elapsed = max(elapsed, self.trained, 1e-9)
        return {
            "hours/trained": self.trained / 3600,
            "hours/since_start": elapsed / 3600,
            "goodput": self.trained / elapsed,
        }
