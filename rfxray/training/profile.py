"""A profile of some steps of a run."""

from pathlib import Path

import jax


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
