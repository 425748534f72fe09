"""Requests to stop: every host stops at the same step, within a time limit."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable

import jax
from jax.experimental import multihost_utils

from rfxray import stop_signals


class StopRequest:
    """Hears SIGTERM, SIGINT and SIGHUP while its context is entered: the loop, and the last save.

    With one host the signal is recorded; with several it is passed to the coordination service,
    which chooses a step that all hosts can stop and save at. A second SIGINT ends the process at
    once.

    Args:
      seconds: Seconds to save in, from the signal on (several hosts: from the step at which they
        stop). Then the process exits unsaved, before the sender of the signal kills it in the
        middle of a write.
      noted: Function that is called once, when the host is asked to stop; in any thread.
    """

    def __init__(self, seconds: float, noted: Callable[[], None] = lambda: None):
        self._seconds, self._noted = seconds, noted
        self._asked, self._interrupted = threading.Event(), False
        self._over = threading.Event()
        self._limit = threading.Thread(target=self._give_up, name="stop limit", daemon=True)
        self._before = contextlib.ExitStack()

    def __enter__(self) -> "StopRequest":
        self._limit.start()
        if jax.process_count() == 1:
            before = stop_signals.hear(self._note)
        else:  # the runtime itself handles SIGTERM
            before = stop_signals.hear(self._pass_on, (signal.SIGINT, signal.SIGHUP))
        self._before.callback(stop_signals.hear, before)
        return self

    def __exit__(self, *_: object) -> None:
        self._before.close()
        self._over.set()
        self._asked.set()

    def agreed(self, step: int) -> bool:
        """Whether to stop at this step, the same on every host; call it before every step."""
        if jax.process_count() == 1:
            return self._asked.is_set()
        if multihost_utils.reached_preemption_sync_point(step):
            self._noted()
            self._asked.set()
        return self._asked.is_set()

    def _note(self, number: int) -> None:
        if not self._asked.is_set():
            self._noted()
            self._asked.set()
        self._end_if_repeated(number)

    def _pass_on(self, number: int) -> None:
        self._end_if_repeated(number)
        os.kill(os.getpid(), signal.SIGTERM)

    def _end_if_repeated(self, number: int) -> None:
        if number == signal.SIGINT and self._interrupted:
            self._end("at a second Ctrl-C")
        self._interrupted |= number == signal.SIGINT

    def _give_up(self) -> None:
        self._asked.wait()
        if not self._over.wait(self._seconds):
            self._end(f"{self._seconds:.0f} s after the request to stop")

    def _end(self, when: str) -> None:
        stop_signals.end(
            f"rfxray.train: stopped: not saved {when}; rerun the command to resume from the last "
            "checkpoint"
        )
