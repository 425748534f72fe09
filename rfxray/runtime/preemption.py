"""Being asked to stop: one answer on every host, at the same step, within a time."""

import os
import signal
import sys
import threading

import jax
from jax.experimental import multihost_utils

from rfxray.errors import Preempted


class StopRequest:
    """Listens to SIGTERM and SIGINT from now on.

    A process alone notes the signal. Of several hosts each hands it to the coordination service,
    which names the step that all of them will have reached: they stop, and save, at that one. A
    second SIGINT ends the process at once, as it would without this.

    Args:
      seconds: after the signal, in which a process alone has to be done: else it ends without
        having saved, before whoever sent the signal kills it in the middle of something.
    """

    def __init__(self, seconds: float):
        self._asked, self._timer = False, threading.Timer(seconds, self._give_up)
        self._timer.daemon = True
        self._seconds = seconds
        # Of several hosts the runtime itself listens to SIGTERM.
        alone = jax.process_count() == 1
        for number in (signal.SIGTERM, signal.SIGINT) if alone else (signal.SIGINT,):
            signal.signal(number, self._note if alone else self._pass_on)

    def agreed(self, step: int) -> bool:
        """Whether to stop at this step, the same on every host; to be asked before every step."""
        if jax.process_count() == 1:
            return self._asked
        return multihost_utils.reached_preemption_sync_point(step)

    def saved(self) -> None:
        """All is saved: the time is not running any more."""
        self._timer.cancel()

    def _note(self, number, frame):
        if not self._asked:
            self._asked = True
            self._timer.start()
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _pass_on(self, number, frame):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    def _give_up(self):
        print(
            f"rfxray.train: stopped: asked to stop {self._seconds:.0f} s ago and still not saved; "
            "run the same command again to go on from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(Preempted.exit_code)
