"""The weights of a run without its optimizer: one EMA profile."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from rfxray.arrays import AnyArray
from rfxray.checkpoints.store import Store, fingerprint
from rfxray.config import json_text
from rfxray.errors import ConfigError, DataError


def ema_name(sigma: float) -> str:
    """The name of an EMA profile in files and flags: 0.05 → "0.050"."""
    return f"{sigma:.3f}"


def exact_ema_name(sigma: float) -> str:
    """The name of the EMA profile of a request.

    Raises:
      ConfigError: If it has more than three decimals: the name would be that of another profile.
    """
    name = ema_name(sigma)
    if abs(float(name) - sigma) > 1e-9:
        raise ConfigError(
            f"no EMA profile {sigma:g}: profiles have three decimals; the nearest name is {name}"
        )
    return name


def digest(meta: Mapping, item: str) -> str:
    """sha256 of the arrays of an item, hex: the same for the same arrays in any folder.

    It is made of the name, dtype and fingerprint of every array, which `Store.restore` compared
    with the arrays, so it costs nothing at any size.

    Args:
      meta: Meta of the step, from `Store.meta`.
      item: Name of the item, such as `ema_0.050`; it is not part of the digest.
    """
    return _digest(
        (name.removeprefix(item), meta["dtypes"][name], meta["fingerprints"][name])
        for name in meta["dtypes"]
        if name.split("/")[0] == item
    )


def digest_of(params: PyTree[AnyArray], rounded_to: str = "float32") -> str:
    """The `digest` of arrays in memory.

    Args:
      params: Parameters by part, float32.
      rounded_to: Dtype that each array is rounded to first, one at a time.
    """

    def one(leaf: AnyArray) -> int:
        if rounded_to != "float32":
            # In NumPy: a compiler may leave out a conversion there and back.
            leaf = np.asarray(leaf).astype(rounded_to).astype(np.float32)
        return int(fingerprint(leaf))

    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return _digest(
        (f"/{jax.tree_util.keystr(path, simple=True, separator='/')}", str(leaf.dtype), one(leaf))
        for path, leaf in leaves
    )


def _digest(arrays: Iterable[tuple[str, str, int]]) -> str:
    """sha256 of the name, dtype and fingerprint of arrays, hex."""
    return hashlib.sha256(json.dumps(sorted(arrays)).encode()).hexdigest()


def ema_item(name: str) -> str:
    """The item of a step that holds the EMA profile of that name."""
    return f"ema_{name}"


def read_config(workdir: Path) -> dict:
    """The `config.json` of a workdir as nested dicts.

    Raises:
      DataError: If it is missing or damaged.
    """
    file = workdir / "config.json"
    if not file.is_file():
        raise DataError(
            f"{workdir} is not a workdir of rfxray.train, nor a folder of rfxray export (no "
            "config.json)"
        )
    try:
        found = json_text.parse(file.read_text())
    except ValueError as error:
        raise DataError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{file} holds no object; copy it from the run again")
    return found


class Restored(NamedTuple):
    """One EMA profile of a run: parameters by part, step, `digest` of the parameters, and the
    identity of the run (`config.identity`), with the fingerprint of its training data."""

    params: Mapping[str, PyTree[jax.Array]]
    step: int
    digest: str
    identity: Mapping[str, object]

    @property
    def data_fingerprint(self) -> str:
        return str(self.identity["data.fingerprint"])


def restore_ema(workdir: Path, abstract: Mapping, name: str, step: int | None = None) -> Restored:
    """The averaged parts of one EMA profile.

    Args:
      workdir: Folder of the run.
      abstract: Parts by name, as `jax.ShapeDtypeStruct` with the shardings to restore to.
      name: Name of the profile, such as `0.050`, of the run or of `rfxray.posthoc_ema`.
      step: Step of a checkpoint or a snapshot; None for the newest checkpoint.

    Raises:
      ConfigError: If the step or the profile does not exist, with those that do.
      DataError: If there is no checkpoint, or it is damaged.
    """
    item = ema_item(name)
    folders = [workdir / "posthoc" / name]
    if not folders[0].is_dir():
        folders = [workdir / "checkpoints", workdir / "ema"]
    stores = [Store(folder, (item,)) for folder in folders if folder.is_dir()]
    try:
        held = {number: store for store in reversed(stores) for number in store.steps()}
        steps = stores[0].steps() if stores else []
        if not (steps or held):
            raise DataError(f"{workdir} has no complete checkpoint yet")
        step = (max(steps or held)) if step is None else step
        if step not in held:
            raise ConfigError(f"{workdir} has no checkpoint of step {step}, only {sorted(held)}")
        meta = held[step].meta(step)
        profiles = sorted(
            {k.split("/")[0].removeprefix("ema_") for k in meta["dtypes"]} - {"state"}
        )
        if name not in profiles:
            raise ConfigError(
                f"{workdir} has no EMA profile {name}, only {', '.join(profiles)}; "
                "rfxray.posthoc_ema makes others from snapshots"
            )
        params = held[step].restore(step, {item: abstract}, meta)[item]
        return Restored(params, step, digest(meta, item), meta["identity"])
    finally:
        for store in stores:
            store.close()
