"""How one host ends a run of several: it says so to all others first, and all end with its code.

A host that only exits leaves the others in a collective or a barrier. They end later, with a
traceback of Gloo or gRPC, or by the coordination service (134), and nobody says why. So a refusal
is written to the key-value store of the coordination service, which needs no collective: the hosts
may be in different places. A thread of every host looks for it. The first refusal wins: every host
prints it and ends with its code. The host with the service ends last, because its end would abort
the others.
"""

import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

import jax

from rfxray import stop_signals
from rfxray.errors import ConfigError, HostMissing, HostsDiffer, Preempted, RfxrayError, first_line
from rfxray.runtime import distributed

# Seconds between two looks for a refusal: 256 hosts then ask the first one 256 times a second.
LOOK = 1.0

# Seconds that a host which ends waits for the others to hear of it; a dead host never does.
PATIENCE = 20.0

_FIRST = "rfxray/refusal/first"
_command = "rfxray.train"  # what its lines begin with
_ending = threading.Lock()  # held by the thread that ends this process
_listening = threading.Event()


# What the runtime says if another host is gone: Gloo, gRPC and the coordination service.
_GONE = re.compile(
    r"gloo|connection|peer|socket|coordination|heartbeat|UNAVAILABLE|ABORTED|DEADLINE_EXCEEDED",
    re.IGNORECASE,
)


@contextlib.contextmanager
def travels(command: str = "rfxray.train"):
    """Ends all hosts of the run if this one fails; on one host it does nothing.

    A host that fails before it has joined the others joins them to say so. What all hosts do
    together (to finish, to stop when asked) passes through: their normal exits wait for each other.

    Args:
      command: Name that the line of an error begins with.
    """
    global _command
    _command = command
    try:
        yield
    except BaseException as error:
        code = _code(error)
        if code == 0 or isinstance(error, Preempted):
            raise
        line = _line(error)
        if distributed.joined():
            if code == 1:
                traceback.print_exc()
            leave(code, line, everywhere=isinstance(error, HostsDiffer))
        if distributed.tried():  # a normal exit would wait for the others as well
            _show(error, code, line)
            _exit(code)
        if not isinstance(error, KeyboardInterrupt) and _several():
            _show(error, code, f"{_this_host()}{line}")
            with contextlib.suppress(BaseException):  # such as Ctrl-C, while it waits
                distributed.join()
                leave(code, line, shown=True)
            _exit(code)
        raise


def _this_host() -> str:
    """`host 1: `, or nothing before a host of a slice knows its number."""
    number = distributed.place()[0] if distributed.joined() else os.environ.get("JAX_PROCESS_ID")
    return "" if number is None else f"host {number}: "


def _several() -> bool:
    """Whether there are other hosts to join; their description may be what is wrong."""
    with contextlib.suppress(ConfigError):
        which = distributed.described()
        return which is not None and which.get("num_processes", 2) > 1
    return False


def listen() -> None:
    """From now on, ends this process if another host ends the run; on one host it does nothing."""
    if not distributed.joined() or _listening.is_set():
        return
    _listening.set()

    def look():
        while (client := distributed.service()) is not None:
            time.sleep(LOOK)
            # At the end of the run the client is closed under this thread.
            with contextlib.suppress(Exception):
                if found := client.key_value_dir_get("rfxray/refusal"):
                    leave(**json.loads(found[0][1]), everywhere=True)

    threading.Thread(target=look, name="refusals", daemon=True).start()


def hear_stops() -> None:
    """From now on, a request to stop this host ends all of them, which would wait for it.

    For commands that continue where they stopped; a training saves first (`runtime.preemption`).
    Call it after `distributed.start`, because JAX takes SIGTERM when hosts join.
    """
    if distributed.joined():
        stop_signals.hear(_end_all)
    else:
        stop_signals.hear_again()


def _end_all(number: int) -> None:
    name = signal.Signals(number).name
    leave(Preempted.exit_code, f"stopped: asked to by {name}; rerun the command to continue")


def leave(code: int = 0, line: str = "", everywhere: bool = False, shown: bool = False) -> NoReturn:
    """Ends this process, after the others know why. On one host it only prints and exits.

    Args:
      code: Exit code, unless another host was quicker.
      line: Reason.
      everywhere: Whether the line stays as it is, without the name of this host.
      shown: Whether the reason is printed already.
    """
    if not _ending.acquire(blocking=False):
        threading.Event().wait()  # the other thread ends the process
    if distributed.joined() and not everywhere:
        line = f"{_this_host()}{line}"
    first = {"code": code, "line": line}

    def talk():
        with contextlib.suppress(Exception):  # the service is gone, and nobody hears anything
            first.update(_first(first))
        if not shown or first["line"] != line:
            print(f"{_command}: error: {first['line']}", file=sys.stderr, flush=True)
        with contextlib.suppress(Exception):
            _wait_for_others()

    if distributed.joined():
        talking = threading.Thread(target=talk, daemon=True)
        talking.start()
        talking.join(4 * PATIENCE)  # a call may hang if the network does
    elif not shown:
        print(f"{_command}: error: {line}", file=sys.stderr, flush=True)
    _exit(first["code"])


def _first(own: dict) -> dict:
    """The first refusal of the run: this host's own, unless another was quicker."""
    client = distributed.service()
    with contextlib.suppress(Exception):  # there is one already
        client.key_value_set(_FIRST, json.dumps(own))
    return json.loads(client.blocking_key_value_get(_FIRST, int(1000 * PATIENCE)))


def _wait_for_others() -> None:
    """Returns when this host may exit: everybody has heard, and the first host is the last."""
    client, (me, hosts) = distributed.service(), distributed.place()

    def count(name: str) -> int:
        return len(client.key_value_dir_get(f"rfxray/{name}"))

    # An exit breaks the connections of a collective, which the others must not notice first.
    client.key_value_set(f"rfxray/heard/{me}", "1")
    _until(lambda: count("heard") == hosts)
    if me == 0:
        alive = count("heard")
        _until(lambda: count("gone") >= alive - 1)
        time.sleep(0.2)  # from the word to the exit
    else:
        client.key_value_set(f"rfxray/gone/{me}", "1")


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true() and time.monotonic() < end:
        time.sleep(0.05)


def _code(error: BaseException) -> int:
    if isinstance(error, RfxrayError):
        return error.exit_code
    if _peer_gone(error):
        return HostMissing.exit_code
    code = error.code if isinstance(error, SystemExit) else 1
    return code if isinstance(code, int) else int(code is not None)  # as Python does


def _line(error: BaseException) -> str:
    if isinstance(error, SystemExit):  # the parser of the flags has said why
        return first_line(error.__cause__ or f"exit {error.code}")
    if isinstance(error, RfxrayError):
        return " ".join(str(error).split())
    if _peer_gone(error):
        return f"another host is gone ({first_line(error)}); rerun the command to resume"
    return f"{type(error).__name__}: {first_line(error)}"


def _peer_gone(error: BaseException) -> bool:
    """Whether an error of the runtime says that another host has left in the middle of a step."""
    runtime = isinstance(error, jax.errors.JaxRuntimeError)
    return runtime and distributed.joined() and bool(_GONE.search(str(error)))


def _show(error: BaseException, code: int, line: str) -> None:
    if code == 1:
        traceback.print_exc()
    elif not isinstance(error, SystemExit):
        print(f"{_command}: error: {line}", file=sys.stderr, flush=True)


def _exit(code: int) -> NoReturn:
    """Exits at once: a normal exit would wait for the other hosts."""
    sys.stdout.flush()
    sys.stderr.flush()
    stop_signals.leave(code)
