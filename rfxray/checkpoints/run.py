"""The checkpoints of a run: what a step holds, and from which one the run resumes.

A step holds the item `state` (parameters that are trained, optimizer, guard, step, metric
accumulators), one item `ema_*` for each profile, so that a sampler reads only the one it needs, and
`meta`, JSON with everything that a restore checks: the identity of the run, its config and
versions, the data position, and what store.py needs to verify the arrays.

`workdir/checkpoints/` holds the newest checkpoints, from which a run resumes; `workdir/ema/` holds
snapshots of the averages, never deleted, from which any other profile can be made after the run
(Karras et al. 2024, arXiv 2312.02696, §3.2); `workdir/set_aside/` holds what `resume` moved away;
`workdir/run.json` remembers that a save was finished (record.py).
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization
from jaxtyping import PyTree

from rfxray.checkpoints import record
from rfxray.checkpoints.store import Store
from rfxray.checkpoints.weights import ema_item
from rfxray.config.identity import decays_otherwise
from rfxray.errors import ConfigError, DataError, SaveFailed
from rfxray.runtime import distributed

_PACKAGES = ("rfxray", "jax", "flax", "optax", "orbax-checkpoint", "grain")


def _items(
    state: Mapping[str, PyTree], metrics: PyTree, left_out: Collection[str]
) -> dict[str, PyTree]:
    """The array items of a step, by name, without the parameters of some parts."""
    rest = dict(state)
    ema = _ema_items(rest.pop("ema"))
    rest["params"] = {name: p for name, p in rest["params"].items() if name not in left_out}
    return {"state": {**rest, "metrics": serialization.to_state_dict(metrics)}, **ema}


def _ema_items(ema: Mapping[str, PyTree]) -> dict[str, PyTree]:
    return {ema_item(name): params for name, params in ema.items()}


class Checkpoints:
    """The checkpoints of one run.

    Args:
      workdir: Folder of the run.
      config: Config of the run.
      identity: Identity that a restored step must have, from `config.identity`.
      state, metrics: State and accumulators, real or abstract, with the layout that is saved.
      allow: Identity keys in which a restored step may differ (`--allow-change`).
      not_saved: Parts of given weights, which nothing trains: the identity has their hash, and a
        restored state lacks their parameters.

    Attributes:
      changes: Lines that say at which step which of these keys changed.
      trained: Seconds of training up to the step that was restored.
      notes: Log lines about what was found in the folders.
    """

    def __init__(
        self,
        workdir: Path,
        config: ml_collections.FrozenConfigDict,
        identity: Mapping[str, object],
        state: Mapping[str, PyTree],
        metrics: PyTree,
        allow: Collection[str] = (),
        not_saved: Collection[str] = (),
    ):
        self._workdir, self._config, self._identity = workdir, config, identity
        self._allow, self.changes, self.trained, self.notes = allow, [], 0.0, []
        self._flagged: set[int] = set()  # skipped steps: see `_flag`
        self._record = record.read(workdir)
        self._not_saved = not_saved
        layout = _items(state, metrics, not_saved)
        self._abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, dict(state))
        self._metrics = metrics
        self._steps = Store(
            workdir / "checkpoints",
            tuple(layout),
            keep=config.checkpoint_keep,
            keep_every=config.checkpoint_keep_every,
            create=True,
        )
        self._snapshots: Store | None = None
        if config.ema_every or (workdir / "ema").is_dir():
            names = tuple(name for name in layout if name.startswith("ema_"))
            self._snapshots = Store(workdir / "ema", names, create=True)
        self.notes += [
            f"ignored in {store.folder}, since these are not names of steps: {', '.join(names)}"
            for store in self._stores()
            if (names := store.others())
        ]

    def latest(self) -> int | None:
        """The newest complete step, or None."""
        return max(self._steps.steps(), default=None)

    def kept(self) -> set[int]:
        """The steps of which averages of the weights are on disk."""
        return {step for store in self._stores() for step in store.steps()}

    @property
    def began(self) -> float:
        """Time of day at which the run began, seconds since 1970; now for a new run."""
        return time.time() if self._record is None else self._record.began

    def save(
        self,
        step: int,
        state: Mapping[str, PyTree],
        metrics: PyTree,
        position: int,
        trained: float = 0.0,
    ) -> float:
        """Starts to save a step; returns when the arrays may be overwritten.

        Args:
          step: Number of steps taken.
          state, metrics: State and accumulators that the train step returned.
          position: Position in the data, examples.
          trained: Seconds of training so far.

        Returns:
          Seconds that the caller waited, without the steps still running on the devices.

        Raises:
          SaveFailed: If this save cannot start or the one before it failed.
        """
        jax.block_until_ready(state)
        begin = time.perf_counter()
        self._flag(state)
        meta = self._meta(step, position) | {"trained": trained}
        self._steps.save(step, _items(state, metrics, self._not_saved), meta)
        self._remember(self._steps.saved)
        return time.perf_counter() - begin

    def _flag(self, state: Mapping[str, PyTree]) -> None:
        """Keeps a checkpoint from before each skipped step that may come to end the run.

        The parameters may have exploded before the first of them, and what is saved since then must
        not push the last good checkpoint out. The skips of one window end a run, and they are
        looked at before each save; the guard remembers the last ones only.
        """
        steps = np.asarray(jax.device_get(state["guard"]["steps"])).tolist()
        first = (self.latest() or 0) - self._config.skip.window
        self._flagged = {step for step in (*self._flagged, *steps) if step > max(first, 0)}
        self._steps.keep_before(self._flagged)

    def before_skips(self) -> str:
        """Says which checkpoint is the newest from before the skipped steps that end a run."""
        first = min(s for s in self._flagged if s > max(self._flagged) - self._config.skip.window)
        folder = self._workdir / "checkpoints"
        good = max((step for step in self._steps.steps() if step < first), default=None)
        if good is None:
            return f"no checkpoint in {folder} is from before the first of them, step {first}"
        return (
            f"the newest checkpoint from before the first of them, step {first}, is "
            f"{folder / str(good)} (step {good}); to resume from it, move the newer ones out of "
            f"{folder}"
        )

    def snapshot(self, step: int, state: Mapping[str, PyTree], position: int) -> float:
        """Starts to save the averages of a step into `ema/`, unless that is done; see `save`."""
        begin = time.perf_counter()
        assert self._snapshots is not None  # there is a store if the config keeps snapshots
        if step not in self._snapshots.steps():
            self._snapshots.save(step, _ema_items(state["ema"]), self._meta(step, position))
        return time.perf_counter() - begin

    def _meta(self, step: int, position: int) -> dict[str, object]:
        return {
            "step": step,
            "position": position,
            "identity": self._identity,
            "changes": self.changes,
            "config": json.loads(self._config.to_json_best_effort()),
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        }

    def resume(self) -> tuple[int, tuple[dict[str, PyTree], PyTree, int], list[str]] | None:
        """Restores the newest undamaged step, or returns None if the run has no steps.

        Newer steps are damaged. Newer snapshots will be taken again and may then hold other
        averages. Both are moved to `workdir/set_aside/`, never deleted.

        Returns:
          (step, (state, metrics, position), log lines that say what was moved).

        Raises:
          ConfigError: If a step or a snapshot was made by another run, with the keys that differ,
            or the checkpoints of this run are gone.
          DataError: If every step is damaged, or all were moved to `set_aside/`. Nothing is moved.
        """
        damaged = []
        for step in reversed(self._steps.steps()):
            try:
                restored = self.restore(step)
            except DataError as error:
                damaged.append((step, error))
                continue
            self._refuse_foreign_snapshots()
            lines = []
            for number, error in damaged:
                target = self._steps.set_aside(number, self._workdir / "set_aside")
                lines.append(f"moved the damaged checkpoint to {target}: {error}")
            lines += self._set_snapshots_aside(step)
            self._remember(step)
            return step, restored, lines
        if damaged:
            raise DataError(
                f"all {len(damaged)} checkpoints in {self._workdir} are damaged: "
                + "; ".join(str(error) for _, error in damaged)
            )
        if any(self._workdir.glob("set_aside/[0-9]*")):
            raise DataError(
                f"all checkpoints of {self._workdir} are in set_aside/; move one back, or start "
                "a new run in another --workdir"
            )
        first = self._record and self._record.first_save
        if not distributed.all_agree(first is None):
            raise ConfigError(
                f"{self._workdir / 'checkpoints'} has no checkpoint, but run.json says that this "
                f"run finished its first save at step {first}; move its checkpoints back, or start "
                "a new run in another --workdir"
            )
        self._refuse_foreign_snapshots()
        self.notes += self._set_snapshots_aside(0)
        if self._record is not None:
            self.notes.append("an earlier start ended before its first checkpoint: begins again")
        self._write(record.Record(self.began))
        return None

    def _refuse_foreign_snapshots(self) -> None:
        """Raises a ConfigError if a snapshot was made by another run."""
        if self._snapshots is None:
            return
        # A key that was changed with --allow-change differs in the snapshots before the change.
        changed = [key for key in self._identity if any(f" {key}: " in c for c in self.changes)]
        for step in self._snapshots.steps():
            there = self._snapshots.identity(step)
            if there is not None:
                where = f"{self._workdir} (snapshot ema/{step})"
                allow, remedy = [*self._allow, *changed], "move ema/ to another folder, or "
                refuse_difference(there, self._identity, where, allow, remedy)

    def _set_snapshots_aside(self, step: int) -> list[str]:
        """Moves the snapshots of later steps to `set_aside/`; returns log lines that say so."""
        lines = []
        if self._snapshots is not None:
            for number in (n for n in self._snapshots.steps() if n > step):
                target = self._snapshots.set_aside(number, self._workdir / "set_aside" / "ema")
                lines.append(f"moved the snapshot of step {number} to {target}: it is taken again")
        return lines

    def _remember(self, step: int | None) -> None:
        """Records that the save of a step was finished, once for a run."""
        found = self._record or record.Record(self.began)
        if step is not None and found.first_save is None:
            self._write(dataclasses.replace(found, first_save=step))

    def _write(self, new: record.Record) -> None:
        self._record = new
        if jax.process_index() == 0:
            new.write(self._workdir)

    def restore(self, step: int) -> tuple[dict[str, PyTree], PyTree, int]:
        """The (state, metrics, position) of a step, with the shardings of this run.

        The state has no parameters of parts that are not saved.

        Raises:
          ConfigError: If the step was made by another run, with the keys that differ.
          DataError: If it cannot be read or is not what was saved.
        """
        failure, meta = None, None
        try:
            meta = self._steps.meta(step)
        except DataError as error:
            failure = error
        if not distributed.all_agree(failure is None):
            raise failure or DataError(f"another host cannot read checkpoint {step}")
        assert meta is not None
        where = f"{self._workdir} (step {step})"
        there, here = dict(meta["identity"]), dict(self._identity)
        steps = meta["config"]["steps"]
        if decays_otherwise(self._config, steps, step):
            there["steps"], here["steps"] = steps, self._config.steps
        changes = refuse_difference(there, here, where, self._allow)
        # Checkpoints of earlier versions hold every part.
        saved = {name.split("/")[2] for name in meta["dtypes"] if name.startswith("state/params/")}
        layout = _items(self._abstract, self._metrics, set(self._not_saved) - saved)
        wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, layout)
        items = self._steps.restore(step, wanted, meta)
        self.trained = meta["trained"]
        self.changes = meta["changes"] + [f"from step {step} on, {line}" for line in changes]
        moved = any("batch_size:" in line for line in self.changes)
        if not moved and meta["position"] != step * self._config.batch_size:
            raise DataError(
                f"the checkpoint in {where} has data position {meta['position']} instead of "
                f"{step * self._config.batch_size} (step × batch_size)"
            )
        state = dict(items.pop("state"))
        kept = {name: p for name, p in state["params"].items() if name not in self._not_saved}
        state["params"] = kept
        metrics = serialization.from_state_dict(self._metrics, state.pop("metrics"))
        state["ema"] = {name.removeprefix("ema_"): tree for name, tree in items.items()}
        self._flag(state)
        return state, metrics, meta["position"]

    def check(self) -> None:
        """Raises SaveFailed if a save in the background has failed."""
        for store in self._stores():
            store.check()
        self._remember(self._steps.saved)

    def close(self) -> None:
        """Waits for the saves in the background; raises SaveFailed if one failed."""
        for store in self._stores():
            store.wait()
            store.close()
        self._remember(self._steps.saved)

    def settle(self) -> None:
        """Waits for the saves in the background when something else has ended the run."""
        for store in self._stores():
            with contextlib.suppress(SaveFailed):
                store.wait()

    def _stores(self) -> list[Store]:
        return [self._steps] if self._snapshots is None else [self._steps, self._snapshots]


def refuse_difference(
    there: Mapping[str, object],
    here: Mapping[str, object],
    where: str,
    allow: Collection[str] = (),
    remedy: str = "",
) -> list[str]:
    """Raises a ConfigError that lists the identity keys in which a checkpoint differs.

    Args:
      there, here: Identities of the checkpoint and of this run.
      where: Description of the checkpoint for the message.
      allow: Keys that may differ.
      remedy: Text of what else may be done.

    Returns:
      Lines for the keys that differ and are allowed to.
    """
    keys = [key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key)]
    lines = {k: f"{k}: {there.get(k)} there, {here.get(k)} here" for k in keys}
    refused = [line for key, line in lines.items() if key not in allow]
    if refused:
        raise ConfigError(
            f"the checkpoint in {where} belongs to another run ({', '.join(refused)}); {remedy}use "
            "another --workdir, or the config that made it, or --allow-change KEY for each key"
        )
    return list(lines.values())
