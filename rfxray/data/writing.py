"""Writes a planned data set: over processes of one machine, with progress, resumable.

- A `Plan` says which items go into which shard, in which order. It is data.
- `shards.make_shard` is one task: it makes the records of a shard and writes it.
- `manifest.publish` names the shards and writes what describes them.

`write_dataset` is the three in order. It maps the tasks over processes of one machine, or hands
that to another runner (`beam.py`). What makes its records in one process, in order (`sampling`
encodes or draws them on devices), calls `shards.write_shard` and `manifest.publish` itself.

A caller passes `make(items) -> Iterable[record | Dropped]`, a picklable top-level function (or a
`functools.partial` of one). It is called once per shard with the items of that shard, gives one
result for each item in order, and is a pure function of them: so a run that is killed at any moment
and started again ends in the same bytes, whatever the number of processes. An item is anything that
pickles and has a `repr` that says all that decides its record.

A directory is claimed by its `plan.json`; a run with another plan, or beside a running one, is
refused. While it is written, it holds `plan.json` and `partial/`; killed at any moment, the same
command continues with the shards that have no fragment yet.
"""

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from rfxray.command_line import Progress
from rfxray.data.manifest import publish, read_json, read_manifest
from rfxray.data.plan import Dropped, Plan
from rfxray.data.shards import is_written, make_shard
from rfxray.errors import ConfigError, Preempted, SaveFailed, refused_by_system
from rfxray.outputs.files import is_temporary, remove_temporary, saving, write_whole
from rfxray.outputs.lock import is_lock, locked


def write_dataset(
    plan: Plan,
    make: Callable[[Sequence[Any]], Iterable[dict | Dropped]],
    out: str | os.PathLike,
    *,
    workers: int = 1,
    command: str = "data_prep",
    beside: Collection[str] = (),
    run: Callable[..., None] | None = None,
) -> dict[str, Any]:
    """Writes the data set of `plan` into the directory `out`, or continues what a run began.

    Args:
      plan: What to write.
      make: Function that makes records, as the head of this file says.
      out: The tfds directory itself; new, empty, or begun with the same plan.
      workers: Processes; 1 works in this one.
      command: What its lines begin with.
      beside: Names of other things that may lie in `out`.
      run: Another runner in the place of `run_tasks`, called in the same way.

    Returns:
      The manifest.

    Raises:
      ConfigError: If `out` holds something else, or another process writes there.
      DataError: If no record is left, or what is there is damaged.
      SaveFailed: If the disk is full, or may not be written.
      Preempted: On Ctrl-C, or when a worker process died; the same command continues.
    """
    out = Path(out)
    with saving(out), claimed(out, beside):
        return write_claimed(plan, make, out, workers=workers, command=command, run=run)


def write_claimed(
    plan: Plan,
    make: Callable[[Sequence[Any]], Iterable[dict | Dropped]],
    out: Path,
    *,
    workers: int = 1,
    command: str = "data_prep",
    run: Callable[..., None] | None = None,
) -> dict[str, Any]:
    """`write_dataset` into a directory that the caller has `claimed`."""
    manifest = begin_writing(plan, out)
    if manifest is not None:
        print(f"{command}: {out} is complete already", file=sys.stderr)
        return manifest
    pending = [shard for shard in plan.shards if not is_written(out, shard)]
    finished = len(plan.shards) - len(pending)
    if finished:
        line = f"{command}: continuing in {out}, {finished} of {len(plan.shards)} shards are done"
        print(line, file=sys.stderr)
    there = os.path.abspath(out)  # as a worker elsewhere needs it
    tasks = [Task((s, there, plan.size, make), len(s.items)) for s in pending]
    total = sum(len(shard.items) for shard in plan.shards)
    done = total - sum(task.items for task in tasks)
    run = run or functools.partial(run_tasks, workers=workers)
    run(make_shard, tasks, folder=out / "partial", command=command, done=done)
    return publish(plan, out)


# ---------------------------------------------------------------------------------------------
# Processes


@dataclasses.dataclass(frozen=True)
class Task:
    """One piece of work: the arguments of its function, and how many items it has."""

    arguments: tuple
    items: int


def run_tasks(
    work: Callable[..., None],
    tasks: Sequence[Task],
    *,
    workers: int,
    folder: Path,
    command: str,
    done: int = 0,
) -> None:
    """Calls `work(*task.arguments, advance)` for every task, over processes, with progress.

    Args:
      work: Top-level function; it calls `advance()` after each item and leaves its result in a
        file, whole or not at all.
      tasks: Tasks, in the order in which they are begun.
      workers: Processes; 1 works in this one.
      folder: Folder of the results; other runners keep their own files there.
      command: What its lines begin with.
      done: Items that an earlier run did.

    Raises:
      Preempted: On Ctrl-C, or when a worker process died.
    """
    total = done + sum(task.items for task in tasks)
    with Progress(command, total, done) as progress:
        try:
            if workers <= 1 or len(tasks) <= 1:
                for task in tasks:
                    work(*task.arguments, progress.advance)
            else:
                _run_parallel(work, tasks, workers, progress, done)
        except KeyboardInterrupt:
            raise Preempted("interrupted; the same command continues where it stopped") from None


def _run_parallel(work, tasks, workers, progress, done) -> None:
    spawn = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
    counter = spawn.Value("q", 0)
    pool = futures.ProcessPoolExecutor(
        min(workers, len(tasks)), spawn, initializer=_start_worker, initargs=(counter,)
    )
    try:
        waiting = {pool.submit(work, *task.arguments, _count_one) for task in tasks}
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


_counter: Any = None  # a shared counter, in a worker


def _start_worker(counter) -> None:
    """Prepares a worker: it counts its items, and ends with Ctrl-C and with its parent."""
    global _counter
    _counter = counter
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    # A worker holds both ends of the pool's queue, so it would wait for ever for a dead parent.
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)


def _count_one() -> None:
    with _counter.get_lock():
        _counter.value += 1


# ---------------------------------------------------------------------------------------------
# The directory


@contextlib.contextmanager
def claimed(out: Path, beside: Collection[str] = ()):
    """Makes the directory `out` if there is none, and keeps other processes from it.

    Args:
      out: The directory.
      beside: Names of other things that may lie in it before a plan does.

    Raises:
      ConfigError: If it cannot be made, holds something else, or another process writes there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if isinstance(refused_by_system(error), SaveFailed):
            raise  # a full disk
        raise ConfigError(f"cannot create --out {out}: {error.strerror}") from None
    with locked(out):
        there = [path for path in out.iterdir() if not (is_temporary(path) or is_lock(path))]
        names = {path.name for path in there}
        if "plan.json" not in names and names - set(beside):
            raise ConfigError(
                f"{out} has files in it but no plan.json, so no data set was begun there; give "
                f"another --out"
            )
        yield


def begin_writing(plan: Plan, out: Path) -> dict[str, Any] | None:
    """Begins, or continues, a data set in a directory that the caller has `claimed`.

    Returns:
      The manifest if it is complete, and then without what a kill after the manifest left; else
      None, with a folder for its shards.

    Raises:
      ConfigError: If the directory was begun with another plan.
      DataError: If what is there is damaged.
    """
    refuse_another(out, plan.identity)
    if not (out / "plan.json").exists():
        write_whole(out / "plan.json", json.dumps(plan.identity, indent=1, ensure_ascii=False))
    partial, manifest = out / "partial", read_manifest(out)
    if manifest is not None:
        shutil.rmtree(partial, ignore_errors=True)
        return manifest
    partial.mkdir(exist_ok=True)
    for folder in (out, partial):
        remove_temporary(folder)
    return None


def refuse_another(out: Path, identity: Mapping[str, Any]) -> None:
    """Compares a plan, or as much of its identity as is known by now, with that of a directory.

    Raises:
      ConfigError: If the directory was begun with another.
    """
    ours = out / "plan.json"
    if ours.exists():
        there = {key: value for key, value in read_json(ours).items() if key in identity}
        difference = _first_difference(there, identity)
        if difference:
            raise ConfigError(
                f"{out} holds a data set of another plan: {difference}; give another --out, or "
                f"delete it"
            )


def _first_difference(there: Any, here: Any, where: str = "") -> str:
    """What differs first between two JSON values, in words; empty if they are equal."""
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
        return "the inputs differ"
    return f"{where} is {there!r} there and {here!r} here"
