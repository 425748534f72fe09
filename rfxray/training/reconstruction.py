"""An average of any width, reconstructed from the snapshots of a run."""

import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rfxray.checkpoints.store import Store
from rfxray.checkpoints.weights import ema_item, ema_name, read_config
from rfxray.command_line import Progress
from rfxray.config.load import from_json
from rfxray.errors import ConfigError, DataError
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
    if not 0 < sigma <= 0.25:
        raise ConfigError(f"--sigma must be in (0, 0.25] (got {sigma})")
    config = from_json(read_config(workdir), allow_kinds)
    name, kept = ema_name(sigma), [ema_name(s) for s in config.ema_sigmas]
    if name in kept:
        raise ConfigError(f"{workdir} already keeps the profile {name}; sample with --ema {sigma}")
    if not (workdir / "ema").is_dir():
        raise DataError(f"{workdir} has no snapshots; train with --config.ema_every=N to keep them")

    snapshots = Store(workdir / "ema", tuple(map(ema_item, kept)))
    there = snapshots.steps()
    step = max(there, default=None) if step is None else step
    if step not in there:
        raise ConfigError(f"{workdir / 'ema'} has no snapshot of step {step}, only {there}")
    pairs = [(n, width) for n in there if n <= step for width in config.ema_sigmas]
    ends, widths = zip(*pairs, strict=True)
    weights, error = coefficients(ends, widths, step, sigma)
    if error > REFUSED:
        raise ConfigError(
            f"--sigma {sigma} has a relative error of {error:.2f} with {len(pairs)} snapshots of "
            f"widths {', '.join(kept)}, more than {REFUSED}; choose a width nearer to these, a "
            "later --step, or train with more snapshots (a lower --config.ema_every)"
        )
    mesh = sharding.make_mesh(1, jax.device_count(), 1)
    abstract = state.abstract(recipe.build(config), mesh)["ema"][kept[0]]
    total, meta = None, {}
    with Progress("rfxray.posthoc_ema", len(pairs), unit="average") as progress:
        for (n, width), weight in zip(pairs, weights, strict=True):
            item, meta = ema_item(ema_name(width)), snapshots.meta(n)
            params = snapshots.restore(n, {item: abstract}, meta)[item]
            total = jax.tree.map(jnp.zeros_like, params) if total is None else total
            total = _add(total, np.float32(weight), params)
            progress.advance()
    snapshots.close()

    # The last snapshot is that of the step, so its meta describes the run there.
    made = {"sigma": sigma, "of": pairs, "weights": weights.tolist(), "error": error}
    item = ema_item(name)
    out = Store(workdir / "posthoc" / name, (item,), create=True)
    out.save(step, {item: total}, meta | {"posthoc": made})
    out.wait()
    out.close()
    return out.folder / str(step), error


@functools.partial(jax.jit, donate_argnums=0)
def _add(total: optax.Params, weight: np.float32, params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda a, b: a + weight * b, total, params)
