"""Starting JAX, what its hosts have to agree on, and leaving it."""

import contextlib
import os
import re
import sys
import threading
import traceback
from pathlib import Path

import jax
import numpy as np
from jax._src import clusters, distributed  # who is on a slice, the client: no public names
from jax.experimental import multihost_utils

from rfxray.errors import ConfigError, HostMissing, Preempted, first_line

# Seconds that a host waits for the others. The hosts of a slice start within a minute of each
# other; the longest that a launcher should burn a slice on a host that is not there is five.
HOST_TIMEOUT = 300


# Seconds without a sign of life after which a host counts as dead and the others end.
HEARTBEAT_TIMEOUT = 100


def start() -> None:
    """Joins the other hosts of the run, and turns on the persistent compilation cache.

    A restart is otherwise bound by compiling. `JAX_COMPILATION_CACHE_DIR` moves the cache; set it
    to the empty string to go without.

    Raises:
      HostMissing: see `join`.
    """
    join()
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rfxray" / "jax"
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(default))
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def join() -> None:
    """`jax.distributed` on every host of a TPU slice, or of whatever the environment describes.

    A TPU slice says by itself which hosts it has. Elsewhere every process sets
    `JAX_COORDINATOR_ADDRESS` (host:port of the first), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`;
    without them a process is alone. `RFXRAY_HOST_TIMEOUT` changes the 300 seconds of waiting,
    `RFXRAY_HEARTBEAT_TIMEOUT` the 100 seconds after which a silent host ends the run.

    Raises:
      ConfigError: where the variables are not complete.
      HostMissing: where a host has not come in time.
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
    # Without it, processes on CPUs cannot reduce over each other.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # The runtime aborts the process when its own time is up, so ours is taken beside it.
    failure: list[Exception] = []

    def initialize():
        try:
            jax.distributed.initialize(
                **which,
                initialization_timeout=10 * timeout,
                heartbeat_timeout_seconds=silence,
            )
        except Exception as error:  # the runtime raises several kinds for what is one fact here
            failure.append(error)

    waiting = threading.Thread(target=initialize, daemon=True)
    waiting.start()
    waiting.join(timeout)
    if waiting.is_alive() or failure:
        reason = f" ({first_line(failure[0])})" if failure else ""
        raise HostMissing(
            f"{who}: not every host came within {timeout} s; is each one running the same command, "
            f"and does it reach {address or 'the first host'}?{reason}"
        )


def _on_slice() -> bool:
    """Whether this is a host of a TPU slice. JAX knows the chips by their PCI numbers: their device
    files have other names from generation to generation (/dev/accel0, /dev/vfio/0)."""
    return any(c.is_env_present() for c in (clusters.GkeTpuCluster, clusters.GceTpuCluster))


def all_agree(good: bool) -> bool:
    """Whether every process says so; each one has to call it."""
    if jax.process_count() == 1:
        return good
    return bool(multihost_utils.process_allgather(np.array(good)).all())


def first_says(yes: bool) -> bool:
    """What the first process says; each one has to call it."""
    return bool(multihost_utils.broadcast_one_to_all(np.array(yes)))


def barrier(name: str, seconds: float = HOST_TIMEOUT) -> None:
    """Waits until every process has come to the barrier of that name.

    Raises:
      HostMissing: after that many seconds, with the hosts that did not come.
    """
    client = distributed.global_state.client
    if jax.process_count() == 1 or client is None:
        return
    try:
        client.wait_at_barrier(f"rfxray: {name}", timeout_in_ms=int(1000 * seconds))
    except Exception as error:  # the runtime raises several kinds for what is one fact here
        absent = sorted({int(n) for n in re.findall(r"task:(\d+)", str(error))})
        who = f"host {', '.join(map(str, absent))}" if absent else "a host"
        raise HostMissing(f"{who} did not come to {name!r} within {seconds:.0f} s") from error


@contextlib.contextmanager
def leaving():
    """Ends this process at once where, of several hosts, it fails alone.

    An orderly end waits for the other hosts, and they wait for this one in the middle of a step.
    The runtime ends them when it misses it.
    """
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        code = code if isinstance(code, int) else int(code is not None)  # as Python ends
        # Asking JAX for the number of processes would begin to wait for them.
        alone = distributed.global_state.client is None
        together = code == 0 or isinstance(error.__context__, Preempted)
        if not (alone or together):
            if not isinstance(error, SystemExit):
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        raise
