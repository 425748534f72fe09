"""A folder of saved steps in which damage is detected.

Orbax writes each step asynchronously and publishes it atomically. It does not detect flipped bytes,
and it casts dtypes silently, so two things are stored with its arrays: in the step's `meta`, the
dtype and fingerprint of every array, computed on the devices; in its `seal.json`, the size of every
file and the SHA-256 of those up to 16 MiB, computed before the step is published. Larger files hold
only arrays, which the fingerprints cover.
"""

import contextlib
import hashlib
import json
import logging
import math
import sys
import traceback
from collections.abc import Collection
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy
from orbax.checkpoint.path import step as step_names

from rfxray.errors import ConfigError, DataError, SaveFailed, first_line, refused_by_system
from rfxray.runtime import distributed

_SEAL = "seal.json"
_HASHED = 2**24  # bytes of the largest file that the seal hashes


@jax.jit
def fingerprint(tree):
    """A checksum of every array: one uint32 scalar each, the same on any mesh.

    It is the sum of each element's bits times an odd weight that depends on the element's position,
    so changing any single element changes it. The weights come from one iota per dimension, because
    raveling would gather a sharded array (2.1 GiB instead of 132 MiB, measured on one layer in 8
    shards).
    """

    def one(x):
        width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
        bits = jax.lax.bitcast_convert_type(x, width).astype(jnp.uint32)
        place = jnp.zeros(bits.shape, jnp.uint32)
        for d in range(bits.ndim):
            stride = jnp.uint32(math.prod(bits.shape[d + 1 :]) % 2**32)
            place += jax.lax.broadcasted_iota(jnp.uint32, bits.shape, d) * stride
        return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)

    return jax.tree.map(one, tree)


def seal(folder: Path) -> None:
    """Writes the size and checksum of every file of a step to its `seal.json`."""
    files = {
        str(file.relative_to(folder)): [file.stat().st_size, _hash(file)]
        for file in sorted(folder.rglob("*"))
        # Orbax writes the time of publishing into the latter and does not need it to restore.
        if file.is_file() and file.name not in (_SEAL, "_CHECKPOINT_METADATA")
    }
    about = {"files": files, "sha256": _digest(files)}  # the seal also detects its own damage
    (folder / _SEAL).write_text(json.dumps(about, indent=0) + "\n")


def _not_ours(record: logging.LogRecord) -> bool:
    """Drops the tracebacks of a failed save; `SaveFailed` is its one line.

    Orbax logs some, and the event loop those of its writes that fail after the first.
    """
    if not record.exc_info:
        return True
    frames = traceback.walk_tb(record.exc_info[2])
    files = [record.pathname, *(frame.f_code.co_filename for frame, _ in frames)]
    return not any("orbax" in file for file in files)


def _not_of_closed_loop(unraisable: "sys.UnraisableHookArgs") -> None:
    """Drops what TensorStore tells the event loop of a save that has failed and is closed."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


class _BeforeSteps(preservation_policy.PreservationPolicy):
    """Keeps the newest step from before each of some steps."""

    def __init__(self):
        self.steps: frozenset[int] = frozenset()

    def should_preserve(self, checkpoints, *, context):
        saved = [each.step for each in checkpoints]
        kept = {max((s for s in saved if s < step), default=None) for step in self.steps}
        return [step in kept for step in saved]


class Store:
    """The steps in one folder, each with items (trees of arrays) and a `meta`.

    Args:
      folder: Folder of the steps.
      items: Names of the items.
      keep: Number of newest steps to keep; None keeps all.
      keep_every: Interval of steps that are never deleted; 0 for none.
      create: Whether to create the folder and to delete what a killed save left behind.

    Attributes:
      saved: Step of the last save of this process that is known to be finished, or None.

    Raises:
      ConfigError: If the folder holds a name that is almost a step, such as `0006`, or it is to be
        created and cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        items: tuple[str, ...],
        keep: int | None = None,
        keep_every: int = 0,
        create: bool = False,
    ):
        self.folder, self._items = folder, (*items, "meta")
        self._saving: int | None = None
        self.saved: int | None = None
        for logger in ("absl", "asyncio"):
            logging.getLogger(logger).addFilter(_not_ours)
        if create:
            sys.unraisablehook = _not_of_closed_loop
        policies: list[preservation_policy.PreservationPolicy] = []
        self._before = _BeforeSteps()
        if keep:
            policies += [preservation_policy.LatestN(keep), self._before]
        if keep and keep_every:
            policies.append(preservation_policy.EveryNSteps(keep_every))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(policies)
            if policies
            else None,
            create=create,
            cleanup_tmp_directories=create,
            async_options=ocp.AsyncOptions(
                # Called after every file of a step is written and before the step is published.
                post_finalization_callback=self._seal,
                # If a folder cannot be made in the background, Orbax waits minutes for it.
                create_directories_asynchronously=False,
            ),
        )
        with self._saves() if create else contextlib.nullcontext():
            self._manager = ocp.CheckpointManager(
                folder.absolute(), item_names=self._items, options=options
            )
        _refuse_almost_steps(folder)

    def steps(self) -> list[int]:
        """The complete steps, in order."""
        return sorted(self._manager.all_steps())

    def keep_before(self, steps: Collection[int]) -> None:
        """From now on, keeps the newest step from before each of these as well."""
        self._before.steps = frozenset(steps)

    def save(self, step: int, items: dict, meta: dict) -> None:
        """Starts to save a step; returns when the arrays may be overwritten.

        Args:
          step: Number of the step.
          items: Trees of arrays by name.
          meta: JSON values to store with the step.

        Raises:
          SaveFailed: If this save cannot start or the one before it failed.
        """
        prints = jax.device_get(fingerprint(items))
        meta = meta | {
            "dtypes": {k: str(v.dtype) for k, v in _named(items).items()},
            "fingerprints": {k: int(v) for k, v in _named(prints).items()},
        }
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        self.wait()
        self._saving = step
        everything = ocp.args.Composite(meta=ocp.args.JsonSave(meta), **args)
        with self._saves():
            # Without `force` Orbax silently skips a step that is older than the newest one.
            self._manager.save(step, args=everything, force=True)

    def others(self) -> list[str]:
        """Names in the folder that are not steps, in order, without those of Orbax."""
        steps = {str(step) for step in self.steps()}
        names = sorted(path.name for path in self.folder.iterdir())
        return [n for n in names if n not in steps and step_names.TMP_DIR_SUFFIX not in n]

    def identity(self, step: int) -> dict | None:
        """The `identity` in the meta of a step, unchecked; None if it cannot be read."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return json.loads((self.folder / str(step) / "meta" / "metadata").read_text())[
                "identity"
            ]
        return None

    def meta(self, step: int) -> dict:
        """The meta of a step, after its files of these items are checked against its seal.

        Raises:
          DataError: If a file is missing or is not what was written.
        """
        try:
            self._check_seal(step)
            return json.loads((self.folder / str(step) / "meta" / "metadata").read_text())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(step, error) from error

    def restore(self, step: int, abstract: dict, meta: dict) -> dict:
        """Items of a step, each array checked against its meta.

        Args:
          step: Number of the step.
          abstract: Items to restore, trees of `jax.ShapeDtypeStruct` with shardings.
          meta: Meta of the step, from `meta`.

        Raises:
          ConfigError: If the step holds other arrays than these.
          DataError: If the arrays are not what was saved.
        """
        wanted = {name: str(leaf.dtype) for name, leaf in _named(abstract).items()}
        stored = {k: v for k, v in meta["dtypes"].items() if k.split("/")[0] in abstract}
        where = f"the checkpoint {self.folder / str(step)}"
        if wanted.keys() != stored.keys():
            some = sorted(wanted.keys() ^ stored.keys())
            raise ConfigError(
                f"{where} does not hold the arrays of this version of the model: "
                f"{', '.join(some[:4])}{' …' if len(some) > 4 else ''}"
            )
        for name, dtype in wanted.items():
            if stored[name] != dtype:
                raise ConfigError(f"{where} stores {name} as {stored[name]} instead of {dtype}")
        args = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
        failure, items = None, None
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**args))
            items = {name: restored[name] for name in abstract}
        except Exception as error:  # Orbax raises many types for this
            failure = error
        if not distributed.all_agree(failure is None):
            raise self._damaged(step, failure or "another host cannot read it") from failure
        assert items is not None
        for name, value in _named(jax.device_get(fingerprint(items))).items():
            if int(value) != meta["fingerprints"][name]:
                raise self._damaged(step, f"{name} is not what was saved")
        return items

    def set_aside(self, step: int, folder: Path) -> Path:
        """Moves a step into another folder, never over another step; returns its new path."""
        tries = 0
        while (target := folder / (f"{step}" + f"-{tries}" * bool(tries))).exists():
            tries += 1
        distributed.barrier(f"set aside {self.folder.name}/{step}")
        if jax.process_index() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            (self.folder / str(step)).rename(target)
        distributed.barrier(f"{self.folder.name}/{step} set aside")
        self._manager.reload()
        return target

    def check(self) -> None:
        """Raises SaveFailed if the save in the background has failed."""
        # Orbax reports a failure only to a call that waits for the save.
        if self._saving is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits for the save in the background; raises SaveFailed if it failed."""
        with self._saves():
            self._manager.wait_until_finished()
        self.saved, self._saving = self._saving or self.saved, None

    def close(self) -> None:
        self._manager.close()

    @contextlib.contextmanager
    def _saves(self):
        """Turns any exception of a save into SaveFailed, or ConfigError for a read-only folder."""
        try:
            yield
        except Exception as error:
            which = self.folder if self._saving is None else self.folder / str(self._saving)
            kind = type(refused_by_system(error) or SaveFailed())
            raise kind(
                f"the checkpoint {which} could not be saved ({type(error).__name__}: "
                f"{first_line(error)}); check free space and permissions, then rerun the command"
            ) from error

    def _seal(self) -> None:
        # The exact name, since a person may keep a folder `12.bak` beside. Orbax publishes a step
        # by renaming, or, in a bucket, by a file in its folder.
        names = (f"{self._saving}{step_names.TMP_DIR_SUFFIX}", str(self._saving))
        seal(next(self.folder / name for name in names if (self.folder / name).is_dir()))

    def _check_seal(self, step: int) -> None:
        folder = self.folder / str(step)
        about = json.loads((folder / _SEAL).read_text())
        if _digest(about["files"]) != about["sha256"]:
            raise ValueError(f"{_SEAL} is not what was written")
        for name, (size, digest) in about["files"].items():
            file = folder / name
            if file.parent != folder and name.split("/")[0] not in self._items:
                continue
            if not file.is_file():
                raise ValueError(f"{name} is missing")
            if (found := file.stat().st_size) != size:
                raise ValueError(f"{name} has {found} bytes instead of {size}")
            if _hash(file) != digest:
                raise ValueError(f"{name} is not what was written")

    def _damaged(self, step: int, reason) -> DataError:
        where = f"the checkpoint {self.folder / str(step)}"
        return DataError(f"{where} is damaged ({first_line(reason)})")


def _refuse_almost_steps(folder: Path) -> None:
    """Raises a ConfigError for names such as `0006`, which Orbax would silently ignore."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    for name in names:
        if name.isdecimal() and name != str(int(name)):
            raise ConfigError(
                f"{folder / name} is not the name of a step; rename it to {int(name)} to use it, "
                "or move it out of the folder"
            )


def _named(tree) -> dict:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _digest(files: dict) -> str:
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def _hash(file: Path) -> str | None:
    if file.stat().st_size > _HASHED:
        return None
    return hashlib.sha256(file.read_bytes()).hexdigest()
