"""Where a run is, and how that is saved: the log first, then a checkpoint."""

import dataclasses

import clu.metrics
import jax

from rfxray.checkpoints.run import Checkpoints
from rfxray.training import state as states
from rfxray.training.run_log import Writer
from rfxray.training.skip_report import SkipReport


@dataclasses.dataclass
class Current:
    """Where a run is.

    Attributes:
      step: Optimizer steps taken.
      position: Examples seen: the place in the order of the data.
      state: The train state.
      metrics: What was accumulated since the last log step.
      trained: Seconds of training, without steps that were lost.
    """

    step: int
    position: int
    state: states.State
    metrics: clu.metrics.Collection
    trained: float = 0.0


def report_skips(
    current: Current, skips: SkipReport, checkpoints: Checkpoints, writer: Writer
) -> None:
    """Says which steps were skipped; a NonFiniteError, the state saved, if they are too many."""
    guard = jax.device_get(current.state["guard"])
    lines, too_many = skips.new(guard)
    for text in lines:
        writer.say(text)
    if too_many:
        write(current, checkpoints, writer)
        before = checkpoints.before_skips()
        checkpoints.close()
        raise skips.too_many(guard, current.step, before)


def save(current: Current, skips: SkipReport, checkpoints: Checkpoints, writer: Writer) -> float:
    """Starts a checkpoint and returns the seconds that it made the loop wait."""
    report_skips(current, skips, checkpoints, writer)  # the log has every skip that is saved
    return write(current, checkpoints, writer)


def write(current: Current, checkpoints: Checkpoints, writer: Writer) -> float:
    """Like `save`, without a look at skipped steps."""
    writer.flush()  # a resumed run does not log these steps again
    return checkpoints.save(
        current.step, current.state, current.metrics, current.position, current.trained
    )
