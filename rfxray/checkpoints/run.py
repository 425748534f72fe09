"""The checkpoints of a run: what a step holds, and which may be gone on from.

A step holds the items `state` (parameters, optimizer, guard, step, metric accumulators), one
`ema_*` for each profile, so that a sampler reads only the one it wants, and `meta`, a JSON of
everything that a restore asserts: the identity of the run, its config and versions, the data
position, and what store.py needs to know the arrays again.

`workdir/checkpoints/` holds what a run goes on from, the newest few; `workdir/ema/` snapshots of
the averages, kept for ever: any other profile can be made from them after the run (Karras et al.
2024, arXiv 2312.02696, §3.2); `workdir/set_aside/` what was found damaged.
"""

import importlib.metadata
import json
import time
from collections.abc import Collection
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from flax import serialization

from rfxray.checkpoints.store import Store
from rfxray.checkpoints.weights import ema_item
from rfxray.config.identity import decays_otherwise
from rfxray.errors import ConfigError, DataError
from rfxray.runtime import distributed

_PACKAGES = ("rfxray", "jax", "flax", "optax", "orbax-checkpoint", "grain")


def _items(state: dict, metrics) -> dict:
    """The array items of a step, by name."""
    state = dict(state)
    ema = _ema_items(state.pop("ema"))
    return {"state": {**state, "metrics": serialization.to_state_dict(metrics)}, **ema}


def _ema_items(ema: dict) -> dict:
    return {ema_item(name): params for name, params in ema.items()}


class Checkpoints:
    """The checkpoints of one run.

    Args:
      workdir: of the run.
      config: the run's config.
      identity: what a restored step must agree with, from `config.identity`.
      state, metrics: the state, real or abstract, whose layout is saved and restored.
      allow: identity keys in which a restored step may differ, by the user's word.

    Attributes:
      changes: where and in which keys the run was changed by that.
    """

    def __init__(
        self,
        workdir: Path,
        config,
        identity: dict,
        state,
        metrics,
        allow: Collection[str] = (),
    ):
        self._workdir, self._config, self._identity = workdir, config, identity
        self._allow, self.changes = allow, []
        layout = _items(state, metrics)
        self._abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, layout)
        self._metrics = metrics
        self._steps = Store(
            workdir / "checkpoints",
            tuple(layout),
            keep=config.checkpoint_keep,
            keep_every=config.checkpoint_keep_every,
            create=True,
        )
        self._snapshots = None
        if config.ema_every or (workdir / "ema").is_dir():
            names = tuple(name for name in layout if name.startswith("ema_"))
            self._snapshots = Store(workdir / "ema", names, create=True)

    def latest(self) -> int | None:
        """The newest complete step, or None."""
        return max(self._steps.steps(), default=None)

    def save(self, step: int, state, metrics, position: int) -> float:
        """Starts to save a step; returns once the arrays may be overwritten.

        Args:
          step: steps taken.
          state, metrics: as the train step returned them.
          position: of the data, in examples.

        Returns:
          seconds that the caller waited beyond the steps that were under way.

        Raises:
          SaveFailed: as `check`.
        """
        jax.block_until_ready(state)
        begin = time.perf_counter()
        self._steps.save(step, _items(state, metrics), self._meta(step, position))
        return time.perf_counter() - begin

    def snapshot(self, step: int, state, position: int) -> float:
        """Starts to save the averages of a step into `ema/`, as `save` does; once is enough."""
        begin = time.perf_counter()
        if step not in self._snapshots.steps():
            self._snapshots.save(step, _ema_items(state["ema"]), self._meta(step, position))
        return time.perf_counter() - begin

    def _meta(self, step: int, position: int) -> dict:
        return {
            "step": step,
            "position": position,
            "identity": self._identity,
            "changes": self.changes,
            "config": json.loads(self._config.to_json_best_effort()),
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        }

    def resume(self):
        """The newest step that is whole, or None for a run that has none.

        Steps newer than it are damaged, and snapshots newer than it will be taken again, perhaps of
        other averages: they are moved to `workdir/set_aside/`, never deleted.

        Returns:
          (step, (state, metrics, position), lines that say what was set aside).

        Raises:
          ConfigError: where a step was made by another run, with the keys that differ.
          DataError: where there are steps and none is whole; they all stay where they are.
        """
        damaged = []
        for step in reversed(self._steps.steps()):
            try:
                restored = self.restore(step)
            except DataError as error:
                damaged.append((step, error))
                continue
            folder = self._workdir / "set_aside"
            lines = [
                f"set aside: {error}; it lies in {self._steps.set_aside(number, folder)} now"
                for number, error in damaged
            ]
            snapshots = self._snapshots.steps() if self._snapshots else []
            for number in (n for n in snapshots if n > step):
                target = self._snapshots.set_aside(number, folder / "ema")
                lines.append(f"set aside: the snapshot of step {number}; it lies in {target} now")
            return step, restored, lines
        if damaged:
            raise DataError(
                f"none of the {len(damaged)} checkpoints of {self._workdir} is whole: "
                + "; ".join(str(error) for _, error in damaged)
            )
        if any(self._workdir.glob("set_aside/[0-9]*")):
            raise DataError(
                f"{self._workdir} has no checkpoint but those in set_aside/; bring one back, or "
                "begin afresh in another --workdir"
            )
        return None

    def restore(self, step: int):
        """(state, metrics, position) of a step, placed as the run's own.

        Raises:
          ConfigError: where the step was made by another run, with the keys that differ.
          DataError: where it cannot be read or is not what was saved.
        """
        failure, meta = None, None
        try:
            meta = self._steps.meta(step)
        except DataError as error:
            failure = error
        if not distributed.all_agree(failure is None):
            raise failure or DataError(f"another host cannot read checkpoint {step}")
        where = f"{self._workdir} (step {step})"
        there, here = dict(meta["identity"]), dict(self._identity)
        steps = meta["config"]["steps"]
        if decays_otherwise(self._config, steps, step):
            there["steps"], here["steps"] = steps, self._config.steps
        changes = refuse_difference(there, here, where, self._allow)
        items = self._steps.restore(step, self._abstract, meta)
        self.changes = meta["changes"] + [f"from step {step} on, {line}" for line in changes]
        moved = any("batch_size:" in line for line in self.changes)
        if not moved and meta["position"] != step * self._config.batch_size:
            raise DataError(f"checkpoint {step} of {where} stands at example {meta['position']}")
        state = dict(items.pop("state"))
        metrics = serialization.from_state_dict(self._metrics, state.pop("metrics"))
        state["ema"] = {name.removeprefix("ema_"): tree for name, tree in items.items()}
        return state, metrics, meta["position"]

    def check(self) -> None:
        """Raises SaveFailed where a save in the background has failed."""
        for store in self._stores():
            store.check()

    def close(self) -> None:
        """Waits for the saves in the background; raises SaveFailed where one failed."""
        for store in self._stores():
            store.wait()
            store.close()

    def _stores(self) -> list[Store]:
        return [self._steps] + [self._snapshots] * bool(self._snapshots)


def refuse_difference(
    there: dict, here: dict, where: str, allow: Collection[str] = ()
) -> list[str]:
    """Raises a ConfigError that lists the identity keys in which a checkpoint is of another run.

    Args:
      there, here: the identities.
      where: the checkpoint, for the message.
      allow: keys that may differ.

    Returns:
      a line for each key that does differ and may.
    """
    keys = [key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key)]
    lines = {k: f"{k}: {there.get(k)} there, {here.get(k)} here" for k in keys}
    refused = [line for key, line in lines.items() if key not in allow]
    if refused:
        raise ConfigError(
            f"the checkpoint in {where} belongs to another run ({', '.join(refused)}); give this "
            "one another --workdir, or the config that made it, or --allow-change KEY for each"
        )
    return list(lines.values())
