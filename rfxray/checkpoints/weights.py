"""The weights of a run without its optimizer: one EMA profile."""

import json
from pathlib import Path

from rfxray.checkpoints.store import Store
from rfxray.errors import ConfigError, DataError


def ema_name(sigma: float) -> str:
    """The name of an EMA profile in files and flags: 0.05 → "0.050"."""
    return f"{sigma:.3f}"


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
        raise DataError(f"{workdir} is not a workdir of rfxray.train (no config.json)")
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise DataError(f"{file} is not valid JSON: {error}") from error


def restore_ema(workdir: Path, abstract: dict, name: str, step: int | None = None):
    """The averaged parts of one EMA profile: (params by part, step).

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
        return held[step].restore(step, {item: abstract}, meta)[item], step
    finally:
        for store in stores:
            store.close()
