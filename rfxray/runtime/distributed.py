"""Starting JAX on every host, agreement between hosts, and a safe exit."""

import contextlib
import os
import re
import sys
import threading
import traceback

import jax
import numpy as np
from jax._src import clusters, distributed  # slice detection and the client have no public names
from jax.experimental import multihost_utils

from rfxray.errors import ConfigError, HostMissing, Preempted, first_line
from rfxray.runtime import compile_cache

# Seconds that a host waits for the others. The hosts of a slice start within a minute of each
# other; a launcher should not pay for a slice longer than five minutes while a host is missing.
HOST_TIMEOUT = 300


# Seconds without a heartbeat after which a host counts as dead and the others exit.
HEARTBEAT_TIMEOUT = 100


def start() -> None:
    """Joins the other hosts of the run and turns on the persistent compilation cache.

    Raises:
      ConfigError: If `JAX_PLATFORMS` names what is not installed; see also `join`.
      HostMissing: See `join`.
    """
    join()
    compile_cache.start()
    try:
        jax.local_devices()
    except RuntimeError as error:  # other failures may pass, and keep their traceback
        if "known backends" not in str(error):
            raise
        raise ConfigError(
            f"JAX has no platform JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS')} here; unset it, "
            f"or install the extra of that platform ({first_line(error)})"
        ) from error


def join() -> None:
    """Initializes `jax.distributed` on a TPU slice, or on the hosts that the environment describes.

    A TPU slice knows its hosts. Elsewhere every process sets `JAX_COORDINATOR_ADDRESS` (host:port
    of the first), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`; without them there is one process.
    `RFXRAY_HOST_TIMEOUT` changes the 300 seconds of waiting, `RFXRAY_HEARTBEAT_TIMEOUT` the 100
    seconds after which a silent host ends the run.

    Raises:
      ConfigError: If the variables are incomplete.
      HostMissing: If a host does not join in time.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if not address and (os.environ.get("JAX_PLATFORMS") == "cpu" or not _on_slice()):
        return
    which, timeout, silence = {}, HOST_TIMEOUT, HEARTBEAT_TIMEOUT
    try:
        timeout = int(os.environ.get("RFXRAY_HOST_TIMEOUT", HOST_TIMEOUT))
        silence = int(os.environ.get("RFXRAY_HEARTBEAT_TIMEOUT", HEARTBEAT_TIMEOUT))
        if address:
            which["coordinator_address"] = address
            which["num_processes"] = int(os.environ["JAX_NUM_PROCESSES"])
            which["process_id"] = int(os.environ["JAX_PROCESS_ID"])
    except (KeyError, ValueError) as error:
        raise ConfigError(
            "several hosts need JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and "
            f"JAX_PROCESS_ID as numbers: {error}"
        ) from error
    who = "host {process_id} of {num_processes}".format(**which) if address else "a host of a slice"
    print(f"rfxray: {who} waits up to {timeout} s for the others", file=sys.stderr, flush=True)
    # Processes on CPUs need it for collectives.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
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
        raise HostMissing(
            f"{who}: not every host joined within {timeout} s; check that each one runs the same "
            f"command and can reach {address or 'the first host'}{reason}"
        )


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


def barrier(name: str, seconds: float = HOST_TIMEOUT) -> None:
    """Waits until every process has reached the barrier of that name.

    Raises:
      HostMissing: After that many seconds, with the hosts that did not reach it.
    """
    client = distributed.global_state.client
    if jax.process_count() == 1 or client is None:
        return
    try:
        client.wait_at_barrier(f"rfxray: {name}", timeout_in_ms=int(1000 * seconds))
    except Exception as error:  # the runtime raises several types for this
        absent = sorted({int(n) for n in re.findall(r"task:(\d+)", str(error))})
        who = f"host {', '.join(map(str, absent))}" if absent else "a host"
        raise HostMissing(f"{who} did not reach {name!r} within {seconds:.0f} s") from error


@contextlib.contextmanager
def leaving():
    """On several hosts, exits at once if only this one failed.

    A normal exit would wait for the other hosts, which wait for this one in the middle of a step.
    The runtime ends them when the heartbeat of this one is missing.
    """
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        code = code if isinstance(code, int) else int(code is not None)  # as Python does
        # `jax.process_count()` could start to wait for the others.
        single = distributed.global_state.client is None
        together = code == 0 or isinstance(error.__context__, Preempted)
        if not (single or together):
            if not isinstance(error, SystemExit):
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        raise
