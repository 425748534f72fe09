"""The lock of a folder: one process at a time writes a run, a data set or a set of samples.

It is two locks. `flock` on the folder ends with its holder, however that ends, but on a bucket
(gcsfuse) or a network file system it often binds one machine only. `.lock` in the folder names the
holder to every machine, and the holder renews it every `BEAT` seconds.

| a start finds | it |
|---|---|
| no holder, or one of this machine that is gone | takes the lock |
| a holder elsewhere that renews `.lock` | is refused, with its name |
| a holder elsewhere that does not, in `PATIENCE` seconds | takes the lock over |
| a holder that is stopping | waits until it is gone, then takes the lock |

Clocks of machines differ, so no age is computed: a start watches whether `.lock` changes. A holder
that lost its lock (it was suspended, or cut off from the storage, or two starts came at once where
`flock` does not bind) finds another name in `.lock` when it renews it, and ends with 75.
"""

import contextlib
import dataclasses
import fcntl
import functools
import itertools
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from rfxray import stop_signals
from rfxray.errors import ConfigError

NAME = ".lock"

# Seconds between two renewals; an object of a bucket should not be written much more often.
BEAT = 10.0

# Seconds without a change after which a holder elsewhere counts as gone: three renewals.
PATIENCE = 30.0

# Seconds that a holder of this machine has to write its name, after it has the `flock`.
NAMED = 2.0


@dataclasses.dataclass(frozen=True)
class Holder:
    """Content of `.lock`.

    Attributes:
      host: Name of the machine.
      pid: Number of the process there.
      since: Time at which it took the lock, by its own clock.
      machine: Boot and process namespace in which `pid` is valid.
      started: Start of the process in ticks of that boot: a later process with this number has
        another; 0 if unknown.
      token: Random name of this holding.
      stopping: Whether it was asked to stop and is saving.
      beat: Number of renewals.
    """

    host: str
    pid: int
    since: str
    machine: str
    started: int
    token: str
    stopping: bool = False
    beat: int = 0

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}, since {self.since}"

    def here(self) -> bool:
        """Whether it runs, or ran, on this machine since its last boot."""
        return self.machine == machine()

    def gone(self) -> bool:
        """Whether it ran on this machine and has ended."""
        if not self.here():
            return False
        started = _started(self.pid)
        return started is None or bool(started and self.started and started != self.started)

    def line(self) -> str:
        """The content of `.lock`."""
        return json.dumps(dataclasses.asdict(self)) + "\n"


def myself() -> Holder:
    """This process, as the holder of another lock."""
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    pid = os.getpid()
    started = _started(pid)
    return Holder(socket.gethostname(), pid, since, machine(), started or 0, uuid.uuid4().hex[:12])


@functools.cache
def machine() -> str:
    """Name of this boot of this machine and of its process namespace (a container has its own)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def _started(pid: int) -> int | None:
    """Start of a process of this machine, ticks since boot: 0 if unknown, None if it has ended."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else int(rest[18])
    except (OSError, ValueError):  # not Linux, gone, or hidden from other users
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return 0


def is_lock(path: Path) -> bool:
    """Whether a file is a lock, or was left by a killed process that was writing one."""
    return path.name.startswith(NAME)


def read(file: Path) -> Holder | None:
    """The holder that a lock file names: None if there is no file, number 0 if it names none.

    Raises:
      OSError: If it cannot be read, such as while a bucket replaces it.
    """
    try:
        text = file.read_text()
    except FileNotFoundError:
        return None
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return Holder("an unknown host", 0, "an unknown time", "", 0, token=text[:100])


@contextlib.contextmanager
def locked(folder: Path) -> Iterator["Lock"]:
    """Keeps other processes from writing an existing folder.

    Raises:
      ConfigError: If another process holds it.
      OSError: If the folder cannot be written.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        _wait(folder, handle)
        lock = Lock(folder / NAME)
        try:
            yield lock
        finally:
            lock.release()
    finally:
        os.close(handle)


@contextlib.contextmanager
def noted(folder: Path, host: int) -> Iterator["Lock"]:
    """Notes another host of the run that holds the lock of a folder, for `runtime.stop`."""
    lock = Lock(folder / f"{NAME}-host-{host}")
    try:
        yield lock
    finally:
        lock.release()


def _wait(folder: Path, handle: int) -> None:
    """Returns when the lock may be taken; raises a ConfigError if another process keeps it."""
    known, changed, said = None, time.monotonic(), False
    while True:
        bound = _flock(handle) is False  # by another process
        holder = known
        with contextlib.suppress(OSError):
            holder = read(folder / NAME)
        moved = known is not None and holder != known
        if holder != known:
            known, changed = holder, time.monotonic()
        quiet = time.monotonic() - changed
        if holder is None:
            if not bound:
                return
            if quiet > NAMED:
                raise ConfigError(f"another process is writing {folder}; wait for it, or stop it")
        else:
            gone, here = holder.gone(), bound or holder.here()
            if not bound and gone:
                return _say(f"{folder} was held by {holder}, which is gone: taken over")
            if not here and quiet > PATIENCE:
                return _say(f"{folder} was held by {holder}, silent for {quiet:.0f} s: taken over")
            # What is stopping saves first; what is gone may leave workers that are about to end.
            leaving = holder.stopping or gone
            if (here and not leaving) or (moved and not leaving) or (here and quiet > PATIENCE):
                raise ConfigError(
                    f"another process is writing {folder}: {holder}; wait for it, or stop it"
                )
            if not said:
                said = True
                doing = "to be gone" if leaving else f"up to {PATIENCE:.0f} s for a sign of life"
                _say(f"{folder} is held by {holder}: waiting for it {doing}")
        time.sleep(min(BEAT / 20, 0.5))


def _flock(handle: int) -> bool | None:
    """Whether this process has the `flock` now; None if the file system has none."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


class Lock:
    """A lock that this process holds, until `release`.

    Args:
      file: File that names the holder.

    Raises:
      OSError: If the file cannot be written.
    """

    def __init__(self, file: Path):
        self._file, self._holder = file, myself()
        self._news = threading.Event()
        self._stopping = self._over = self._failing = False
        for left in file.parent.glob(f"{file.name}.*.new"):  # of killed processes
            left.unlink(missing_ok=True)
        self._write()
        stop_signals.farewells.append(self._remove)
        self._thread = threading.Thread(target=self._renew, name="lock", daemon=True)
        self._thread.start()

    @property
    def token(self) -> str:
        """Random name of this holding, which the file has as well."""
        return self._holder.token

    def stopping(self) -> None:
        """Lets others know that this process is saving and will be gone; returns at once."""
        self._stopping = True
        self._news.set()

    def release(self) -> None:
        """Gives the lock back."""
        self._over = True
        self._news.set()
        self._thread.join(PATIENCE)  # longer only if the storage hangs
        stop_signals.farewells.remove(self._remove)
        self._remove()

    def _renew(self) -> None:
        # Soon after the beginning, because two processes may have begun at once.
        for pause in itertools.chain((BEAT / 10, BEAT / 3), itertools.repeat(BEAT)):
            self._news.wait(pause)
            self._news.clear()
            if self._over:
                return
            try:
                self._end_if_lost()
                beat = self._holder.beat + 1
                self._holder = dataclasses.replace(self._holder, beat=beat, stopping=self._stopping)
                self._write()
                self._failing = False
            except OSError as error:  # the checkpoint writer reports a full disk; keep the lock
                if not self._failing:
                    _say(f"{self._file} is not renewed: {error.strerror or error}")
                self._failing = True

    def _end_if_lost(self) -> None:
        there = read(self._file)
        if there is not None and there.pid and there.token != self._holder.token:
            stop_signals.farewells.clear()  # nothing more may be written here
            stop_signals.end(
                f"rfxray: stopped: {self._file.parent} was taken over by {there}; rerun the "
                "command when that process has ended"
            )

    def _write(self) -> None:
        # Not `files.write_whole`: whoever holds the folder may remove all temporary files.
        fresh = self._file.with_name(f"{self._file.name}.{self._holder.token}.new")
        try:
            fresh.write_text(self._holder.line())
            fresh.replace(self._file)
        except OSError:
            with contextlib.suppress(OSError):  # the disk may refuse that as well
                fresh.unlink(missing_ok=True)
            raise

    def _remove(self) -> None:
        self._over = True
        with contextlib.suppress(OSError):
            there = read(self._file)
            if there is not None and there.token == self._holder.token:
                self._file.unlink(missing_ok=True)


def _say(line: str) -> None:
    print(f"rfxray: {line}", file=sys.stderr, flush=True)
