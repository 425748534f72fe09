"""Which width of the average draws the nearest samples: many widths, judged on the same noise.

Karras et al. 2024 (arXiv 2312.02696, §3) choose the width after training, by a distance of
features. The lowest of several distances is low by chance too, so every width is judged again on
fresh noise, and how often the chosen one stays the best is part of the result.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from rfxray.checkpoints import exported
from rfxray.checkpoints.weights import ema_name, read_config
from rfxray.config.load import from_json
from rfxray.errors import ConfigError
from rfxray.runtime import distributed, sharding
from rfxray.training import recipe as recipes
from rfxray.training import reconstruction, state
from rfxray.training.evaluators import fidelity
from rfxray.training.evaluators.evaluator import Context
from rfxray.training.run_data import open_data

FRESH = 3  # further seeds of the noise, unless more are asked for


@dataclasses.dataclass(frozen=True)
class Width:
    """An average and how far its samples are from held-out images.

    Attributes:
      sigma: Its relative width.
      error: Relative error of the profile.
      distances: Distances by name, with the noise of the run's seed and of fresh ones.
    """

    sigma: float
    error: float
    distances: Sequence[Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Widths beside each other.

    Attributes:
      step: Step at which the averages end.
      by: Distance that chooses: FD64 where there are enough images for it, else KID.
      widths: All widths, in the order in which they were given.
      chosen: The width that is the best with the run's seed.
      folder: Folder of its average; None for one that the run keeps.
    """

    step: int
    by: str
    widths: Sequence[Width]
    chosen: float
    folder: Path | None

    @property
    def fresh(self) -> int:
        """Number of fresh seeds."""
        return len(self.widths[0].distances) - 1

    @property
    def best(self) -> list[float]:
        """The best width on each seed, the run's first."""
        return [
            min(self.widths, key=lambda width: width.distances[n][self.by]).sigma
            for n in range(1 + self.fresh)
        ]

    @property
    def confirmed(self) -> int:
        """On how many of the fresh seeds the chosen width is the best as well."""
        return self.best[1:].count(self.chosen)

    @property
    def agreement(self) -> tuple[int, int]:
        """How often a width that is the best on one seed is the best on another one too.

        Returns:
          Number of ordered pairs of seeds that agree, and of all.
        """
        best = self.best
        return sum(best.count(each) - 1 for each in best), len(best) * (len(best) - 1)

    def entry(self) -> dict[str, Any]:
        """All of it as JSON values; of the folder only the name."""
        folder = self.folder and self.folder.name
        return {**dataclasses.asdict(self), "confirmed": self.confirmed, "folder": folder}

    def table(self) -> str:
        """Markdown, a line for each width."""
        lines = [
            f"| width | profile error | {self.by} | {' | '.join(['fresh'] * self.fresh)} |",
            "|---" * (self.fresh + 3) + "|",
        ]
        for each in self.widths:
            cells = [f"{found[self.by]:.4g}" for found in each.distances]
            lines.append(f"| {each.sigma} | {each.error:.1e} | {' | '.join(cells)} |")
        return "\n".join(lines)


def sweep(
    workdir: Path,
    sigmas: Sequence[float],
    step: int | None = None,
    allow_kinds: Sequence[str] = (),
    fresh: int = FRESH,
) -> Sweep:
    """Judges averages of a run as its evaluator `fidelity` does, and writes the best one.

    Args:
      workdir: Path of a run that keeps snapshots.
      sigmas: Relative widths; those that the run keeps may be among them.
      step: Step of one of the snapshots; the newest when None.
      allow_kinds: Foreign kinds that the run's config may name, see `config.kinds`.
      fresh: Number of further seeds, at least 1.

    Raises:
      ConfigError: If a width is out of range, the step has no snapshot, the snapshots are too few
        for a width, or the run has no samples to judge.
      DataError: If there are no snapshots, or one, or the data, is damaged.
      SaveFailed: If the average cannot be written.
    """
    config = from_json(read_config(workdir), allow_kinds)
    if "fidelity" not in config.evaluators:
        raise ConfigError(
            f"the config of {workdir} has no evaluators.fidelity, which says how widths are judged"
        )
    _, hosts = distributed.place()
    if hosts > 1:
        raise ConfigError(f"widths are compared by one process (this is one of {hosts})")
    mixes = reconstruction.mixes(workdir, config, sigmas, step)
    recipe = recipes.build(config)
    section = config.evaluators.fidelity
    mixture = open_data(config, recipe.model.input_shape)
    mixture.require_split(section.split, "config.evaluators.fidelity.split")
    mesh = sharding.make_mesh(1, jax.device_count(), 1)
    vae = None if mixture.latents is None else workdir / exported.VAE
    judge = fidelity.judge(section, Context(recipe, mixture, mesh, 0, 1, vae))
    abstract = state.abstract(recipe, mesh)["ema"][ema_name(config.ema_sigmas[0])]
    widths, by, best = [], "", None
    with jax.set_mesh(mesh):
        for mix in mixes:
            params, meta = reconstruction.average(workdir, mix, abstract)
            seeds = range(recipe.seed, recipe.seed + 1 + fresh)
            found = [judge(params, seed) for seed in seeds]
            widths.append(Width(mix.sigma, mix.error, found))
            by = "FD64" if "FD64" in found[0] else "KID"
            if best is None or found[0][by] < best[0]:
                best = found[0][by], mix, params, meta
    assert best is not None  # there is a width
    _, mix, params, meta = best
    kept = ema_name(mix.sigma) in map(ema_name, config.ema_sigmas)
    folder = None if kept else reconstruction.write(workdir, mix, params, meta)
    return Sweep(mix.step, by, widths, mix.sigma, folder)
