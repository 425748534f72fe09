"""Checkpoints: Orbax, asynchronous, and strict about what is restored.

A step holds the items `state` (parameters, optimizer, step, metric accumulators), one `ema_*` for
each profile, so that a sampler reads only the one it wants, and `meta`, a JSON of everything that a
restore asserts: the identity of the run, its config and versions, the data position, and the dtype
and fingerprint of every array. Orbax casts dtypes and passes flipped bits silently; the last two
are there to catch that.
"""

import importlib.metadata
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax import serialization
from orbax.checkpoint.checkpoint_managers import preservation_policy

from rfxray.errors import ConfigError, DataError

_PACKAGES = ("rfxray", "jax", "flax", "optax", "orbax-checkpoint", "grain")


@jax.jit
def fingerprint(tree):
    """A checksum of every array: a uint32 scalar each, the same on any mesh.

    The sum of each element's bits times an odd weight of its own, so any single changed element
    changes it. Weights come from one iota per dimension: raveling would gather a sharded array
    (2.1 GiB against 132 MiB, measured on one layer of 8 shards).
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


def _named(tree) -> dict:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _items(state: dict, metrics) -> dict:
    """The array items of a step, by name."""
    state = dict(state)
    ema = {f"ema_{name}": params for name, params in state.pop("ema").items()}
    return {"state": {**state, "metrics": serialization.to_state_dict(metrics)}, **ema}


def _manager(workdir: Path, items: tuple[str, ...], keep: int | None, create: bool):
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preservation_policy.LatestN(keep) if keep else None,
        create=create,
        cleanup_tmp_directories=create,
    )
    return ocp.CheckpointManager(
        (workdir / "checkpoints").absolute(), item_names=(*items, "meta"), options=options
    )


class Checkpoints:
    """The checkpoints of one run.

    Args:
      workdir: of the run; steps lie in its `checkpoints/`.
      config: the run's config.
      identity: what a restored step must agree with, from `config.identity`.
      state, metrics: the state, real or abstract, whose layout is saved and restored.
    """

    def __init__(self, workdir: Path, config, identity: dict, state, metrics):
        self._workdir, self._config, self._identity = workdir, config, identity
        layout = _items(state, metrics)
        self._abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, layout)
        self._metrics = metrics
        self._manager = _manager(workdir, tuple(layout), config.checkpoint_keep, create=True)

    def latest(self) -> int | None:
        """The newest complete step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state, metrics, position: int) -> None:
        """Starts to save a step; returns once the arrays may be overwritten.

        Args:
          step: optimizer steps done.
          state, metrics: as the train step returned them.
          position: of the data, in examples.
        """
        items = _items(state, metrics)
        meta = {
            "step": step,
            "position": position,
            "identity": self._identity,
            "config": json.loads(self._config.to_json_best_effort()),
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
            "dtypes": {k: str(v.dtype) for k, v in _named(items).items()},
            "fingerprints": {k: int(v) for k, v in _named(fingerprint(items)).items()},
        }
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        self._manager.save(step, args=ocp.args.Composite(meta=ocp.args.JsonSave(meta), **args))

    def restore(self, step: int):
        """(state, metrics, position) of a step, placed as the run's own.

        Raises:
          ConfigError: where the step was made by another run, with the keys that differ.
          DataError: where it cannot be read or is not what was saved.
        """
        meta = _read_meta(self._manager, self._workdir, step)
        refuse_difference(meta["identity"], self._identity, f"{self._workdir} (step {step})")
        items = _restore(self._manager, self._workdir, step, self._abstract, meta)
        state = dict(items.pop("state"))
        metrics = serialization.from_state_dict(self._metrics, state.pop("metrics"))
        state["ema"] = {name.removeprefix("ema_"): tree for name, tree in items.items()}
        return state, metrics, meta["position"]

    def check(self) -> None:
        """Raises what a save in the background has met."""
        self._manager.check_for_errors()

    def close(self) -> None:
        """Waits for the save in the background."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()
        self._manager.close()


def refuse_difference(there: dict, here: dict, where: str) -> None:
    """Raises a ConfigError that lists the identity keys in which a checkpoint is of another run."""
    keys = [key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key)]
    if not keys:
        return
    lines = ", ".join(f"{k}: {there.get(k)} there, {here.get(k)} here" for k in keys)
    raise ConfigError(
        f"the checkpoint in {where} belongs to another run ({lines}); "
        "give this one another --workdir, or the config that made it"
    )


def read_config(workdir: Path) -> dict:
    """The `config.json` of a workdir as nested dicts.

    Raises:
      DataError: where it is missing or torn.
    """
    file = workdir / "config.json"
    if not file.is_file():
        raise DataError(f"{workdir} is no workdir of rfxray.train: it has no config.json")
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise DataError(f"{file} does not parse: {error}") from error


def restore_ema(workdir: Path, abstract: dict, name: str, step: int | None = None):
    """The parameters of one EMA profile: (params, step).

    Args:
      workdir: of a run.
      abstract: the parameters as `jax.ShapeDtypeStruct` with the sharding to restore to.
      name: of the profile, such as `0.050`.
      step: which; the newest when None.

    Raises:
      ConfigError: for a step or a profile that is not there, with those that are.
      DataError: where there is no checkpoint, or it is not what was saved.
    """
    item = f"ema_{name}"
    if not (workdir / "checkpoints").is_dir():
        raise DataError(f"{workdir} holds no checkpoint yet")
    with _manager(workdir, (item,), None, create=False) as manager:
        steps = sorted(manager.all_steps())
        if not steps:
            raise DataError(f"{workdir} holds no complete checkpoint yet")
        step = steps[-1] if step is None else step
        if step not in steps:
            raise ConfigError(f"{workdir} has no checkpoint of step {step}, only {steps}")
        meta = _read_meta(manager, workdir, step)
        profiles = sorted(
            {k.split("/")[0].removeprefix("ema_") for k in meta["dtypes"]} - {"state"}
        )
        if name not in profiles:
            raise ConfigError(f"{workdir} has no EMA profile {name}, only {', '.join(profiles)}")
        return _restore(manager, workdir, step, {item: abstract}, meta)[item], step


def _read_meta(manager, workdir: Path, step: int) -> dict:
    try:
        meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
        return {key: meta[key] for key in ("identity", "position", "dtypes", "fingerprints")}
    except Exception as error:  # Orbax raises many kinds for what is one fact here
        raise _damaged(workdir, step, error) from error


def _restore(manager, workdir: Path, step: int, abstract: dict, meta: dict) -> dict:
    """Array items of a step, checked leaf by leaf against its meta."""
    wanted = {name: str(leaf.dtype) for name, leaf in _named(abstract).items()}
    stored = {k: v for k, v in meta["dtypes"].items() if k.split("/")[0] in abstract}
    where = f"the checkpoint in {workdir} (step {step})"
    if wanted.keys() != stored.keys():
        some = sorted(wanted.keys() ^ stored.keys())
        raise ConfigError(
            f"{where} holds other arrays than this version of the model: {', '.join(some[:4])}"
            f"{' …' if len(some) > 4 else ''}"
        )
    for name, dtype in wanted.items():
        if stored[name] != dtype:
            raise ConfigError(f"{where} stores {name} as {stored[name]}, not as {dtype}")
    args = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
    try:
        restored = manager.restore(step, args=ocp.args.Composite(**args))
    except Exception as error:
        raise _damaged(workdir, step, error) from error
    items = {name: restored[name] for name in abstract}
    for name, value in _named(fingerprint(items)).items():
        if int(value) != meta["fingerprints"][name]:
            raise _damaged(workdir, step, f"{name} is not what was saved")
    return items


def _damaged(workdir: Path, step: int, reason) -> DataError:
    first = str(reason).strip().split("\n")[0][:200]
    return DataError(
        f"the checkpoint {workdir}/checkpoints/{step} is damaged ({first}); move it away to go on "
        "from the one before it"
    )
