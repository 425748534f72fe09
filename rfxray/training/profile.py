"""A profile of some steps of a run."""

from pathlib import Path

import jax


class Trace:
    """A profile of some steps in `workdir/profile`, for XProf (TensorBoard) or Perfetto.

    Args:
      workdir: Folder of the run.
      first: First step of the trace, counted from 1; 0 for no trace.
      steps: Number of steps.
    """

    def __init__(self, workdir: Path, first: int, steps: int):
        self._folder, self._first, self._last = workdir / "profile", first, first + steps - 1
        self._running = False

    def before(self, step: int) -> None:
        """Starts the trace if it begins with this step; call it before every step."""
        if step == self._first:
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._running = True

    def after(self, step: int, result: jax.Array, last: bool = False) -> str | None:
        """Writes the trace after its last step and returns a log line; call it after every step.

        Args:
          step: Number of the step.
          result: Any output of the step.
          last: Whether this is the last step of the run, which ends the trace early.
        """
        if not self._running or not (last or step == self._last):
            return None
        result.block_until_ready()
        jax.profiler.stop_trace()
        self._running = False
        return f"step {step}: a trace of {step - self._first + 1} steps in {self._folder}"
