"""Writes a planned data set on one machine: over processes, with progress, resumable.

A directory is claimed by its `plan.json`; a run with another plan, or beside a running one, is
refused. Killed at any moment, the same command goes on with the shards that have no fragment yet.
"""

import contextlib
import fcntl
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.shards import (
    Dropped,
    Plan,
    Shard,
    is_temporary,
    publish,
    read_manifest,
    write_atomically,
    write_shard,
)
from rfxray.errors import ConfigError, Preempted

PLAIN_LINE_SECONDS = 10.0


def write_dataset(
    plan: Plan,
    make: Callable[[Sequence[Any]], Iterable[dict | Dropped]],
    out: str | os.PathLike,
    *,
    workers: int = 1,
    command: str = "data_prep",
) -> dict[str, Any]:
    """Writes the data set of `plan` into the directory `out`, going on where a run stopped.

    Args:
      plan: what to write.
      make: as the head of `shards.py` says.
      out: the tfds directory itself; new, empty, or begun with the same plan.
      workers: processes; 1 works in this one.
      command: what its lines begin with.

    Returns:
      The manifest.

    Raises:
      ConfigError: where `out` holds something else, or another process writes there.
      DataError: where no record is left.
      Preempted: on Ctrl-C, or when a worker process died; the same command goes on.
    """
    out = Path(out)
    with _claimed(out, plan):
        manifest = read_manifest(out)
        if manifest is not None:
            print(f"{command}: {out} is complete already", file=sys.stderr)
            shutil.rmtree(out / "partial", ignore_errors=True)
            return manifest
        partial = out / "partial"
        partial.mkdir(exist_ok=True)
        for path in (*out.iterdir(), *partial.iterdir()):
            if is_temporary(path):
                path.unlink(missing_ok=True)
        pending = [shard for shard in plan.shards if not _is_written(partial, shard)]
        finished = len(plan.shards) - len(pending)
        if finished:
            line = f"{command}: going on in {out}, {finished} of {len(plan.shards)} shards are done"
            print(line, file=sys.stderr)
        try:
            _run(plan, pending, make, out, workers, command)
            return publish(plan, out)
        except KeyboardInterrupt:
            raise Preempted("interrupted; the same command goes on from the last shard") from None


# ---------------------------------------------------------------------------------------------
# Processes


def _run(plan: Plan, pending: Sequence[Shard], make, out: Path, workers: int, command: str):
    total = sum(len(shard.items) for shard in plan.shards)
    todo = sum(len(shard.items) for shard in pending)
    with _Progress(command, total, total - todo) as progress:
        if workers <= 1 or len(pending) <= 1:
            done = itertools.count(total - todo + 1)
            for shard in pending:
                write_shard(shard, out, plan.size, make, lambda: progress.show(next(done)))
        else:
            _run_parallel(plan, pending, make, out, workers, progress, total - todo)


def _run_parallel(plan, pending, make, out, workers, progress, done) -> None:
    spawn = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
    counter = spawn.Value("q", 0)
    pool = futures.ProcessPoolExecutor(
        min(workers, len(pending)), spawn, initializer=_start_worker, initargs=(counter,)
    )
    try:
        waiting = {
            pool.submit(_write_in_worker, shard, os.fspath(out), plan.size, make)
            for shard in pending
        }
        while waiting:
            finished, waiting = futures.wait(
                waiting, timeout=0.5, return_when=futures.FIRST_EXCEPTION
            )
            for future in finished:
                future.result()
            progress.show(done + counter.value)
    except BrokenProcessPool:
        raise Preempted(
            "a worker process died, killed or out of memory; the finished shards are kept: run the "
            "same command again, with fewer --workers or smaller shards if it dies again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_counter = None


def _start_worker(counter) -> None:
    """Readies a worker: it counts its items, and dies with Ctrl-C and with its parent."""
    global _counter
    _counter = counter
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    # A worker holds both ends of the pool's queue, so it would wait for ever for a dead parent.
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _write_in_worker(shard, out, size, make) -> None:
    write_shard(shard, out, size, make, _count_one)


def _count_one() -> None:
    with _counter.get_lock():
        _counter.value += 1


class _Progress:
    """A bar on a terminal, a line every ten seconds in a log."""

    def __init__(self, command: str, total: int, done: int):
        self.command, self.total, self.first, self.done = command, total, done, done
        self.start = self.last = time.monotonic()
        self.bar = tqdm(total=total, initial=done, unit="image", desc=command, disable=None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()

    def show(self, done: int) -> None:
        self.bar.update(done - self.done)
        self.done = done
        now = time.monotonic()
        if not self.bar.disable or now - self.last < PLAIN_LINE_SECONDS:
            return
        self.last = now
        rate = (done - self.first) / (now - self.start)
        left = f", {(self.total - done) / rate / 60:.1f} min left" if rate else ""
        line = f"{self.command}: {done:,} of {self.total:,} images, {rate:,.0f} images/s{left}"
        print(line, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------
# The directory


@contextlib.contextmanager
def _claimed(out: Path, plan: Plan):
    """Makes `out` the directory of `plan` and keeps other processes from it, or refuses."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be made: {error.strerror}") from None
    handle = os.open(out, os.O_RDONLY)
    try:
        _lock(handle, out)
        ours = out / "plan.json"
        if ours.exists():
            difference = _first_difference(json.loads(ours.read_bytes()), plan.identity)
            if difference:
                raise ConfigError(
                    f"{out} holds a data set of another plan: {difference}; give another --out, or "
                    f"delete it"
                )
        elif any(not is_temporary(path) for path in out.iterdir()):
            raise ConfigError(
                f"{out} has files in it but no plan.json, so it is not ours to write; give another "
                f"--out"
            )
        else:
            write_atomically(ours, json.dumps(plan.identity, indent=1, ensure_ascii=False))
        yield
    finally:
        os.close(handle)


def _lock(handle: int, out: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"another process is writing {out}; wait for it, or end it") from None
    except OSError:
        pass  # a network file system without locks: writing twice gives the same bytes anyway


def _first_difference(there: Any, here: Any, where: str = "") -> str:
    """What differs first between two JSON values, in words; empty where they are equal."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys((*there, *here)):
            path = f"{where}.{key}" if where else key
            if key not in there or key not in here:
                return f"{path} is only {'here' if key in here else 'there'}"
            difference = _first_difference(there[key], here[key], path)
            if difference:
                return difference
        return ""
    if there == here:
        return ""
    if where == "inputs_sha256":
        return "its inputs were others"
    return f"{where} is {there!r} there and {here!r} here"


def _is_written(partial: Path, shard: Shard) -> bool:
    return (partial / f"{shard.stem}.json").exists()
