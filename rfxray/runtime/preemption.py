"""Requests to stop: every host stops at the same step, within a time limit."""

import os
import signal
import sys
import threading

import jax
from jax.experimental import multihost_utils

from rfxray.errors import Preempted


class StopRequest:
    """Handles SIGTERM and SIGINT from its creation on.

    With one host the signal is recorded; with several it is passed to the coordination service,
    which chooses a step that all hosts can stop and save at. A second SIGINT ends the process at
    once, as it would without this handler.

    Args:
      seconds: Seconds that a single process has to save after the signal. Then it exits unsaved,
        before the sender of the signal kills it in the middle of a write.
    """

    def __init__(self, seconds: float):
        self._asked, self._timer = False, threading.Timer(seconds, self._give_up)
        self._timer.daemon = True
        self._seconds = seconds
        # With several hosts the runtime itself handles SIGTERM.
        single = jax.process_count() == 1
        for number in (signal.SIGTERM, signal.SIGINT) if single else (signal.SIGINT,):
            signal.signal(number, self._note if single else self._pass_on)

    def agreed(self, step: int) -> bool:
        """Whether to stop at this step, the same on every host; call it before every step."""
        if jax.process_count() == 1:
            return self._asked
        return multihost_utils.reached_preemption_sync_point(step)

    def saved(self) -> None:
        """Ends the time limit, because everything is saved."""
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
            f"rfxray.train: stopped: not saved {self._seconds:.0f} s after the request to stop; "
            "rerun the command to resume from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(Preempted.exit_code)
