"""Masked image modelling: the network predicts the covered parts of an image from the rest.

SimMIM (arXiv 2111.09886): a share of the image is covered by square cells, and the loss is the mean
absolute error over the covered pixels. No label is read, so features that it learns know only
the images of the training split.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Bool, Float, Key

from rfxray.arrays import AnyArray
from rfxray.errors import ConfigError
from rfxray.objectives.objective import Batch, Objective, Outcome, Parts


def build(
    section: ml_collections.ConfigDict, networks: Mapping[str, Callable[..., jax.Array]]
) -> Objective:
    """The objective of a config's `objective` section.

    Args:
      section: Keys of the section, see `config.schema`.
      networks: Network `model`: `(params, image, covered) → image`, with `covered` bool like the
        image.

    Raises:
      ConfigError: If the share leaves nothing, or another part is given.
    """
    if not 0 < section.share < 1:
        raise ConfigError(f"objective.share must be above 0 and below 1 (got {section.share})")
    if set(networks) != {"model"}:
        raise ConfigError(
            f"objective.kind=masked_image trains only the model (got parts {', '.join(networks)})"
        )
    network = networks["model"]

    def loss(params: Parts, batch: Batch, keys: Key[Array, " batch"], training: bool) -> Outcome:
        image = batch["image"]
        covered = cover(keys, image.shape[1], section.cell, section.share)
        made = network(params["model"], image, covered)
        apart = jnp.where(covered, jnp.abs(made - image), 0).sum((1, 2, 3))
        return Outcome(apart / covered.sum((1, 2, 3)), {})

    def show(
        params: Parts, batch: Batch, keys: Key[Array, " batch"]
    ) -> Float[Array, "batch columns height width"]:
        image = batch["image"]
        covered = cover(keys, image.shape[1], section.cell, section.share)
        seen = jnp.where(covered, 0, image)
        made = jnp.where(covered, network(params["model"], image, covered), image)
        return jnp.clip(jnp.stack([image, seen, made], 1)[..., 0], -1, 1)

    return Objective(losses={"model": loss}, metrics={}, show=show)


def cover(
    keys: Key[AnyArray, " batch"], size: int, cell: int, share: float
) -> Bool[Array, "batch size size 1"]:
    """Which pixels are covered: the same number of square cells in every image, drawn by its key.

    Raises:
      ConfigError: If the cells do not tile the image, or would cover all of it or nothing.
    """
    if size % cell:
        raise ConfigError(f"objective.cell must divide the side of the image, {size} (got {cell})")
    side = size // cell
    count = round(share * side**2)
    if not 0 < count < side**2:
        raise ConfigError(
            f"objective.share={share} covers {count} of {side**2} cells; change it, or lower "
            f"objective.cell={cell}"
        )

    def one(key: Key[AnyArray, ""]) -> Bool[Array, "side side"]:
        order = jax.random.permutation(key, side**2)
        return (order < count).reshape(side, side)

    cells = jax.vmap(one)(keys)
    return jnp.repeat(jnp.repeat(cells, cell, 1), cell, 2)[..., None]
