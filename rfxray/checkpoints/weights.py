"""The weights of a run without its optimizer: one EMA profile."""

import json
from pathlib import Path

from rfxray.checkpoints.store import Store
from rfxray.errors import ConfigError, DataError


def ema_name(sigma: float) -> str:
    """The name under which an EMA profile is stored and asked for: 0.05 → "0.050"."""
    return f"{sigma:.3f}"


def ema_item(name: str) -> str:
    """The item of a step that holds the EMA profile of that name."""
    return f"ema_{name}"


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
    """The averaged parts of one EMA profile: (params by part, step).

    Args:
      workdir: Path of a run.
      abstract: The parts as `jax.ShapeDtypeStruct` with the sharding to restore to, by name.
      name: of the profile, such as `0.050`: one of the run's, or one of `rfxray.posthoc_ema`.
      step: which, of the checkpoints or the snapshots; the newest checkpoint when None.

    Raises:
      ConfigError: for a step or a profile that is not there, with those that are.
      DataError: where there is no checkpoint, or it is not what was saved.
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
            raise DataError(f"{workdir} holds no complete checkpoint yet")
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
                "rfxray.posthoc_ema makes others out of snapshots"
            )
        return held[step].restore(step, {item: abstract}, meta)[item], step
    finally:
        for store in stores:
            store.close()
