"""Requests to stop (SIGTERM, Ctrl-C, a closed terminal), heard from the first line of a command.

A command hears them before it imports JAX, which takes seconds: `rfxray NAME` by `commands.table`,
`python -m PACKAGE.NAME` by `hear_from_the_start` in the `__init__` of the package. A request ends
it with one line and code 75; everything that it writes is whole, or continued by the same command.
What can do better, such as a training that saves first, calls `hear` again.

Python runs the handler of a signal between two bytecodes of the main thread, so a compilation or a
loading library would delay it by minutes. A thread therefore reads the signals from a pipe
(`signal.set_wakeup_fd`) and reacts. Nothing is raised in the main thread: whatever it happens to be
in, such as a callback of the garbage collector, might swallow an exception.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from rfxray.errors import Preempted

Reaction = Callable[[int], None]

# SIGHUP, the end of a terminal, is left out if it is ignored on entry (nohup).
NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

# Seconds that the functions in `farewells` may take: the storage may be what hangs.
FAREWELL = 2.0

# Seconds that the main thread may wait for a reaction to a signal.
HANDLED = 1.0

# Functions that `leave` calls, the last first, such as one that frees a lock. They run in a thread.
farewells: list[Callable[[], None]] = []

_reaction: Reaction | None = None
_before: dict[int, Any] = {}  # handlers of the signals that are heard
_pipe: tuple[int, int] | None = None
_mask: set[int] = set()  # signals that were blocked before a fork
_busy = False  # the reader is reacting


def hear(reaction: Reaction | None, numbers: tuple[int, ...] = NUMBERS) -> Reaction | None:
    """Sets what a request to stop does from now on; returns what it did before.

    Handlers that a library has set since are replaced.

    Args:
      reaction: Function that is called with the number of the signal, in a thread; None restores
        the handlers that were there before the first call.
      numbers: Signals that are heard.
    """
    global _reaction
    if threading.current_thread() is not threading.main_thread():
        return None  # signals belong to the owner of the main thread, such as a notebook
    previous, _reaction = _reaction, reaction
    if reaction is None:
        _forget()
        return previous
    _open()
    for number in numbers:
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue
        _before.setdefault(number, signal.getsignal(number))
        signal.signal(number, _handle)
    return previous


def hear_from_the_start() -> None:
    """Hears requests to stop if Python is about to run a module of a package that it imports.

    While `python -m` imports the packages around a module, `sys.argv[0]` is `-m`
    (docs.python.org/3/using/cmdline.html). At any other time this does nothing.
    """
    if sys.argv[:1] == ["-m"]:
        words = sys.orig_argv
        hear(ending(words[words.index("-m") + 1] if "-m" in words else "rfxray"))


def hear_again() -> None:
    """Takes the signals back from a library that has set handlers of its own, if any are heard."""
    if _reaction is not None:
        hear(_reaction)


def ending(command: str) -> Reaction:
    """The reaction that ends the process with one line and code 75.

    Args:
      command: Name that the line begins with, such as `rfxray.train`.
    """

    def react(number: int) -> None:
        name = signal.Signals(number).name
        end(f"{command}: stopped: asked to by {name}; rerun the command to continue")

    return react


def end(line: str) -> NoReturn:
    """Prints a line to stderr and ends the process with code 75, from any thread."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())
    leave(Preempted.exit_code)


def leave(code: int) -> NoReturn:
    """Ends the process at once with a code, from any thread; calls `farewells` before."""
    last = threading.Thread(target=_say_farewell, daemon=True)
    with contextlib.suppress(RuntimeError):  # the interpreter is ending
        last.start()
        last.join(FAREWELL)
    os._exit(code)


def _say_farewell() -> None:
    for function in reversed(farewells):  # the logs are written before the lock is free
        with contextlib.suppress(Exception):
            function()
    with contextlib.suppress(Exception):
        sys.stdout.flush()


def _open() -> None:
    """Opens the pipe that signals are read from, and starts its reader."""
    global _pipe
    if _pipe is None:
        _pipe = os.pipe()
        for end_ in _pipe:
            os.set_blocking(end_, False)
        threading.Thread(target=_read, name="stop signals", daemon=True).start()
        # After such an end Python's tracker process removes the semaphores of worker processes, and
        # would warn of each kind. It takes these options when it starts.
        sys.warnoptions.append("ignore:resource_tracker:UserWarning")
        # A signal to a forked child must not reach this process through the pipe.
        os.register_at_fork(
            before=_hold, after_in_parent=_release, after_in_child=lambda: (_forget(), _release())
        )
    signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)


def _forget() -> None:
    global _reaction
    _reaction = None
    signal.set_wakeup_fd(-1)
    for number, handler in _before.items():
        # None: set by a library in C, so that Python does not know it.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
    _before.clear()


def _hold() -> None:
    global _mask
    _mask = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask)


def _handle(number, frame) -> None:
    """Waits for the reaction: the main thread goes on with what it decides."""
    assert _pipe is not None
    until = time.monotonic() + HANDLED
    while (select.select([_pipe[0]], [], [], 0)[0] or _busy) and time.monotonic() < until:
        time.sleep(0.001)


def _read() -> None:
    global _busy
    assert _pipe is not None
    while True:
        select.select([_pipe[0]], [], [])
        _busy = True
        for number in os.read(_pipe[0], 64):
            if _reaction is not None and number in NUMBERS:
                _reaction(number)
        _busy = False
