"""Inputs and results of every evaluator."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from rfxray.arrays import AnyArray
from rfxray.data import batches
from rfxray.data.batches import Mixture
from rfxray.objectives.objective import Batch
from rfxray.runtime import sharding
from rfxray.sampling.autoencoder import open_space
from rfxray.training.recipe import Recipe
from rfxray.training.state import State


@dataclasses.dataclass(frozen=True)
class Findings:
    """Results of an evaluator at a step.

    Attributes:
      scalars: Numbers for metrics.jsonl and TensorBoard, by name.
      images: Images for `workdir/NAME/` and TensorBoard, [height, width] uint8, by name.
    """

    scalars: Mapping[str, float] = dataclasses.field(default_factory=dict)
    images: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


# Evaluates the state of a run; every host calls it at the same step.
Evaluator = Callable[[State], Findings]


@dataclasses.dataclass(frozen=True)
class Context:
    """What an evaluator may use.

    Attributes:
      recipe: Recipe of the run.
      mixture: Data of the run.
      mesh: Mesh of the run.
      host, hosts: Number of this host, and of all hosts.
      vae: Folder of the autoencoder that decodes latents, if the data are latents.
    """

    recipe: Recipe
    mixture: Mixture
    mesh: jax.sharding.Mesh
    host: int
    hosts: int
    vae: Path | None = None

    def images(self, x: Float[AnyArray, " n *shape"]) -> Float[np.ndarray, "n size size 1"]:
        """The images of what the network sees; an autoencoder is on the devices only meanwhile."""
        if self.vae is None or self.mixture.latents is None:
            return np.asarray(x)
        return np.asarray(open_space(self.vae, self.mixture.latents).images(x))

    @property
    def batch_multiple(self) -> int:
        """Number of examples that a batch on the mesh must be a multiple of."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    def fixed_batches(self, split: str, count: int) -> list[Batch]:
        """Batches of the first examples of a split, always the same, on the mesh."""
        rows = batches.fixed_batches(
            self.mixture, split, self.recipe.batch_size, count, self.host, self.hosts
        )
        return [sharding.global_batch(self.mesh, batch) for batch in rows]

    def first_examples(self, split: str, n: int) -> dict[str, np.ndarray]:
        """All of the first n examples of a split on every host; see `batches.first_examples`."""
        return batches.first_examples(self.mixture, split, n)
