"""Starting JAX on every host, and how hosts wait for each other."""

import itertools
import os
import re
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax._src import clusters, distributed  # slice detection and the client have no public names
from jax.experimental import multihost_utils

from rfxray.errors import ConfigError, HostMissing, first_line
from rfxray.runtime import compile_cache

# Seconds that a host waits for the others. The hosts of a slice start within a minute of each
# other; a launcher should not pay for a slice longer than five minutes while a host is missing.
HOST_TIMEOUT = 300


# Seconds without a heartbeat after which a host counts as dead and the others exit.
HEARTBEAT_TIMEOUT = 100


_tried = _joined = False
_texts = itertools.count()  # of `of_first`


def start(on_join: Callable[[], None] = lambda: None) -> None:
    """Joins the other hosts of the run and turns on the persistent compilation cache.

    Args:
      on_join: Function that is called once the hosts have joined, before JAX looks for devices,
        which waits for all hosts.

    Raises:
      ConfigError: If `JAX_PLATFORMS` names what is not installed; see also `join`.
      HostMissing: See `join`.
    """
    join()
    on_join()
    compile_cache.start()
    try:
        jax.local_devices()
    except (RuntimeError, AssertionError) as error:
        # JAX asserts that a plugin of CUDA is there. Other failures may pass, and keep their
        # traceback, such as a TPU that is in use.
        absent = isinstance(error, AssertionError) or "Failed to open libtpu" in str(error)
        if not (absent or "known backends" in str(error)):
            raise
        raise ConfigError(
            f"JAX has no platform JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS')} here; unset it, "
            f"or install the extra of that platform ({first_line(error)})"
        ) from error


def start_one(command: str) -> None:
    """Like `start`, for a command that works in one process.

    Raises:
      ConfigError: If there are other hosts; see also `start`.
    """
    which = described()
    several = bool(which) and which["num_processes"] > 1
    if not several:
        start()
    if several or joined():  # a slice knows its hosts only now
        raise ConfigError(
            f"{command} works in one process, and this is one of several hosts; run it on one "
            "host, without JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        )


def join() -> None:
    """Initializes `jax.distributed` on a TPU slice, or on the hosts that the environment describes.

    A TPU slice knows its hosts. Elsewhere every process sets `JAX_COORDINATOR_ADDRESS` (host:port
    of the first), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`; without them there is one process.
    `RFXRAY_HOST_TIMEOUT` changes the 300 seconds of waiting, `RFXRAY_HEARTBEAT_TIMEOUT` the 100
    seconds after which a silent host ends the run.

    Raises:
      ConfigError: If the variables are incomplete or impossible.
      HostMissing: If a host does not join in time.
    """
    global _tried, _joined
    which = described()
    if which is None:
        return
    timeout = _number("RFXRAY_HOST_TIMEOUT", HOST_TIMEOUT, 1)
    silence = _number("RFXRAY_HEARTBEAT_TIMEOUT", HEARTBEAT_TIMEOUT, 1)
    if which.get("process_id") == 0:
        _refuse_used_port(which["coordinator_address"])
    _tried = True
    who = "host {process_id} of {num_processes}".format(**which) if which else "a host of a slice"
    print(f"rfxray: {who} waits up to {timeout} s for the others", file=sys.stderr, flush=True)
    # Processes on CPUs need it for collectives.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # All hosts stop at one step through this service; JAX_ENABLE_PREEMPTION_SERVICE may be off.
    jax.config.update("jax_enable_preemption_service", True)
    # The runtime aborts the process at its own timeout, so this timeout is taken in a thread.
    failure: list[Exception] = []

    def initialize():
        try:
            jax.distributed.initialize(
                **which,
                initialization_timeout=10 * timeout,
                heartbeat_timeout_seconds=silence,
            )
        except Exception as error:  # the runtime raises several types for this
            failure.append(error)

    waiting = threading.Thread(target=initialize, daemon=True)
    waiting.start()
    waiting.join(timeout)
    if waiting.is_alive() or failure:
        reason = f" ({first_line(failure[0])})" if failure else ""
        first = which.get("coordinator_address", "the first host")
        raise HostMissing(
            f"{who}: not every host joined within {timeout} s; check that each one runs the same "
            f"command and can reach {first}{reason}"
        )
    _joined = True


def described() -> dict[str, Any] | None:
    """The hosts that the environment describes, as arguments of `jax.distributed.initialize`.

    None is a process without other hosts; an empty dict is a TPU slice, which knows its hosts.

    Raises:
      ConfigError: If the variables are incomplete or impossible.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS", "")
    if not address:
        if os.environ.get("JAX_PLATFORMS") != "cpu" and _on_slice():
            return {}
        hosts, host = _number("JAX_NUM_PROCESSES", 1, 1), _number("JAX_PROCESS_ID", 0, 0)
        if hosts == 1 and host == 0:
            return None
        raise ConfigError(
            f"JAX_NUM_PROCESSES={hosts} and JAX_PROCESS_ID={host} describe a host of several, but "
            "JAX_COORDINATOR_ADDRESS is not set; give HOST:PORT of the first host"
        )
    if not re.fullmatch(r".+:\d{1,5}", address):
        raise ConfigError(f"JAX_COORDINATOR_ADDRESS={address} must be HOST:PORT of the first host")
    hosts, host = _number("JAX_NUM_PROCESSES", None, 1), _number("JAX_PROCESS_ID", None, 0)
    if host >= hosts:
        raise ConfigError(
            f"JAX_PROCESS_ID={host} must be below JAX_NUM_PROCESSES={hosts}; the first host is 0"
        )
    return {"coordinator_address": address, "num_processes": hosts, "process_id": host}


def _refuse_used_port(address: str) -> None:
    """Raises HostMissing if the port of the first host is taken: the runtime would abort."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", int(address.rpartition(":")[2])))
        except (OSError, OverflowError) as error:
            raise HostMissing(
                f"JAX_COORDINATOR_ADDRESS={address}: host 0 cannot use this port ({error}); is "
                "there another process with JAX_PROCESS_ID=0, or a run that has not ended?"
            ) from error


def _number(variable: str, default: int | None, least: int) -> int:
    """A whole number from the environment; a ConfigError if it is missing, none, or too small."""
    text = os.environ.get(variable) or ("" if default is None else str(default))
    if not re.fullmatch(r"\d{1,9}", text) or int(text) < least:
        raise ConfigError(
            f"{variable} must be a whole number, at least {least} (got {text or 'nothing'}); "
            "several hosts need JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and "
            "JAX_PROCESS_ID"
        )
    return int(text)


def service() -> Any:
    """The client of the coordination service, which holds keys and barriers; None after the end."""
    return distributed.global_state.client


def place() -> tuple[int, int]:
    """Number of this host, and of all hosts; does not wait for them, as JAX's calls may."""
    return distributed.global_state.process_id, distributed.global_state.num_processes


def joined() -> bool:
    """Whether this process has joined other hosts."""
    return _joined and place()[1] > 1


def tried() -> bool:
    """Whether `join` was called on one of several hosts."""
    return _tried


def _on_slice() -> bool:
    """Whether this is a host of a TPU slice. JAX recognises the chips by their PCI numbers: the
    names of their device files differ between generations (/dev/accel0, /dev/vfio/0)."""
    return any(c.is_env_present() for c in (clusters.GkeTpuCluster, clusters.GceTpuCluster))


def all_agree(good: bool) -> bool:
    """Whether it is true on every process; all of them must call it."""
    if jax.process_count() == 1:
        return good
    return bool(multihost_utils.process_allgather(np.array(good)).all())


def first_says(yes: bool) -> bool:
    """The value of the first process; all of them must call it."""
    return bool(multihost_utils.broadcast_one_to_all(np.array(yes)))


def of_first(name: str, text: str | None, seconds: float = HOST_TIMEOUT) -> str:
    """A text that host 0 gives, on every host. All hosts must call it, in the same order.

    Args:
      name: Name of the barrier behind which it is there.
      text: Text of host 0; None on the others.
      seconds: Seconds to wait for every host.

    Raises:
      HostMissing: After that many seconds, with the hosts that did not come.
    """
    key = f"rfxray/of_first/{next(_texts)}"
    if text is not None:
        service().key_value_set(key, text)
    barrier(name, seconds)
    return service().blocking_key_value_get(key, int(1000 * seconds))


def barrier(name: str, seconds: float = HOST_TIMEOUT) -> None:
    """Waits until every process has reached the barrier of that name.

    Raises:
      HostMissing: After that many seconds, with the hosts that did not reach it.
    """
    if not joined():
        return
    try:
        service().wait_at_barrier(f"rfxray: {name}", timeout_in_ms=int(1000 * seconds))
    except Exception as error:  # the runtime raises several types for this
        absent = sorted({int(n) for n in re.findall(r"task:(\d+)", str(error))})
        who = f"host {', '.join(map(str, absent))}" if absent else "a host"
        raise HostMissing(f"{who} did not reach {name!r} within {seconds:.0f} s") from error
