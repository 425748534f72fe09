"""An average of any width, reconstructed from the snapshots of a run."""

import dataclasses
import functools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from rfxray.checkpoints.store import Store
from rfxray.checkpoints.weights import ema_item, ema_name, read_config
from rfxray.command_line import Progress
from rfxray.config.load import from_json
from rfxray.errors import ConfigError, DataError
from rfxray.objectives.objective import Parts
from rfxray.outputs import files, lock
from rfxray.runtime import sharding
from rfxray.training import recipe, state
from rfxray.training.ema import coefficients

# Relative error of the profile. Four snapshots of the widths 0.05 and 0.10 have 0.04 for 0.07, 0.17
# for 0.03 and 0.66 for 0.01. Chosen by judgement: no effect on samples was measured.
WARNED, REFUSED = 0.05, 0.2


def reconstruct(
    workdir: Path, sigma: float, step: int | None = None, allow_kinds: Sequence[str] = ()
) -> tuple[Path, float]:
    """Writes the average of that width into `workdir/posthoc/`.

    Args:
      workdir: Path of a run that keeps snapshots.
      sigma: Relative width of the wanted profile.
      step: Step of one of the snapshots; the newest when None.
      allow_kinds: Foreign kinds that the run's config may name, see `config.kinds`.

    Returns:
      Where the result is, and the relative error of the profile.

    Raises:
      ConfigError: If the width is out of range or kept by the run itself, or the step has no
        snapshot, or the snapshots are too few for that width.
      DataError: If there are no snapshots, or one is damaged.
      SaveFailed: If the result cannot be written.
    """
    config = from_json(read_config(workdir), allow_kinds)
    name = ema_name(sigma)
    if name in (kept := [ema_name(s) for s in config.ema_sigmas]):
        raise ConfigError(f"{workdir} already keeps the profile {name}; sample with --ema {sigma}")
    (mix,) = mixes(workdir, config, [sigma], step)
    mesh = sharding.make_mesh(1, jax.device_count(), 1)
    abstract = state.abstract(recipe.build(config), mesh)["ema"][kept[0]]
    return write(workdir, mix, *average(workdir, mix, abstract)), mix.error


@dataclasses.dataclass(frozen=True)
class Mix:
    """An average as a sum of those that a run kept.

    Attributes:
      sigma: Its relative width.
      step: Step at which it ends.
      of: Step and width of each average of the sum.
      weights: Weight of each, of sum 1.
      error: Relative error of the profile.
    """

    sigma: float
    step: int
    of: list[tuple[int, float]]
    weights: np.ndarray
    error: float


def mixes(
    workdir: Path,
    config: ml_collections.FrozenConfigDict,
    sigmas: Sequence[float],
    step: int | None,
) -> list[Mix]:
    """The sums of those widths; see `reconstruct` for arguments and errors."""
    for sigma in sigmas:
        if not 0 < sigma <= 0.25:
            raise ConfigError(f"a width must be in (0, 0.25] (got {sigma})")
    if not (workdir / "ema").is_dir():
        raise DataError(f"{workdir} has no snapshots; train with --config.ema_every=N to keep them")
    kept = [ema_name(s) for s in config.ema_sigmas]
    snapshots = Store(workdir / "ema", tuple(map(ema_item, kept)))
    there = snapshots.steps()
    snapshots.close()
    step = max(there, default=None) if step is None else step
    if step not in there:
        raise ConfigError(f"{workdir / 'ema'} has no snapshot of step {step}, only {there}")
    pairs = [(n, width) for n in there if n <= step for width in config.ema_sigmas]
    ends, widths = zip(*pairs, strict=True)
    found = []
    for sigma in sigmas:
        weights, error = coefficients(ends, widths, step, sigma)
        if error > REFUSED:
            raise ConfigError(
                f"width {sigma} has a relative error of {error:.2f} with {len(pairs)} snapshots of "
                f"widths {', '.join(kept)}, more than {REFUSED}; choose a width nearer to these, a "
                "later --step, or train with more snapshots (a lower --config.ema_every)"
            )
        found.append(Mix(sigma, step, pairs, weights, error))
    return found


def average(workdir: Path, mix: Mix, abstract: Parts) -> tuple[Parts, dict]:
    """The weights of a sum, and the meta of its last snapshot, which describes the run there.

    Raises:
      DataError: If a snapshot is damaged.
    """
    items = {width: ema_item(ema_name(width)) for _, width in mix.of}
    snapshots = Store(workdir / "ema", tuple(items.values()))
    total: Parts = {}
    meta: dict = {}
    with Progress("rfxray.posthoc_ema", len(mix.of), unit="average") as progress:
        for (n, width), weight in zip(mix.of, mix.weights, strict=True):
            item, meta = items[width], snapshots.meta(n)
            params = snapshots.restore(n, {item: abstract}, meta)[item]
            total = total or jax.tree.map(jnp.zeros_like, params)
            total = _add(total, np.float32(weight), params)
            progress.advance()
    snapshots.close()
    return total, meta


def write(workdir: Path, mix: Mix, params: Parts, meta: dict) -> Path:
    """Writes an average into `workdir/posthoc/`, where samplers find it by its width.

    Raises:
      ConfigError: If another process is writing there.
      SaveFailed: If it cannot be written.
    """
    # Of its own: a trainer holds the lock of the run, and writes other folders of it.
    with files.saving(workdir):
        (workdir / "posthoc").mkdir(exist_ok=True)
        with lock.locked(workdir / "posthoc"):
            return _written(workdir, mix, params, meta)


def _written(workdir: Path, mix: Mix, params: Parts, meta: dict) -> Path:
    made = {"sigma": mix.sigma, "of": mix.of, "weights": mix.weights.tolist(), "error": mix.error}
    item = ema_item(ema_name(mix.sigma))
    out = Store(workdir / "posthoc" / ema_name(mix.sigma), (item,), create=True)
    folder = out.folder / str(mix.step)
    if mix.step in out.steps():  # an earlier command wrote it, perhaps of other snapshots
        if out.meta(mix.step)["posthoc"] == json.loads(json.dumps(made)):
            out.close()
            return folder
        shutil.rmtree(folder)
    out.save(mix.step, {item: params}, meta | {"posthoc": made})
    out.wait()
    out.close()
    return folder


@functools.partial(jax.jit, donate_argnums=0)
def _add(total: Parts, weight: np.float32, params: Parts) -> Parts:
    return jax.tree.map(lambda a, b: a + weight * b, total, params)
