"""Classification: the network reads the attributes of an image, each as well as it is known.

The loss of an example is the mean over its known attributes of the cross-entropy of their value, or
for age of the absolute error in units of 25 years. What is unknown or uncertain has no loss, and an
example that knows none of the attributes has a loss of 0. Images are moved and their grey is
changed a little, each by its own key; they are never mirrored, because the heart has a side.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float, Key

from rfxray.arrays import AnyArray
from rfxray.attributes.vocabulary import ATTRIBUTES, FINDING_NAMES, NAMES
from rfxray.errors import ConfigError
from rfxray.objectives.objective import Batch, Objective, Outcome, Parts

AGE_SCALE, AGE_CENTRE = 25.0, 50.0  # years: about the spread and the mean of ages
FINDINGS = "findings"  # stands for all 14
_WIDTHS = tuple(len(attribute.values) or 1 for attribute in ATTRIBUTES)


def names_of(chosen: Sequence[str]) -> tuple[str, ...]:
    """The attributes that `objective.attributes` chooses, in the order of the vocabulary.

    Raises:
      ConfigError: If there is no such attribute, or none.
    """
    named = {name for word in chosen for name in (FINDING_NAMES if word == FINDINGS else (word,))}
    if unknown := named - set(NAMES):
        raise ConfigError(
            f"objective.attributes has no {min(unknown)!r}, only {FINDINGS} and {', '.join(NAMES)}"
        )
    return tuple(name for name in NAMES if name in named)


def build(
    section: ml_collections.ConfigDict, networks: Mapping[str, Callable[..., jax.Array]]
) -> Objective:
    """The objective of a config's `objective` section.

    Args:
      section: Keys of the section, see `config.schema`.
      networks: Network `model`: `(params, image) → outputs` [batch, outputs], those of each
        attribute in the order of the vocabulary.

    Raises:
      ConfigError: If an attribute does not exist, a share is too large, or another part is given.
    """
    if set(networks) != {"model"}:
        raise ConfigError(
            f"objective.kind=classification trains only the model (got parts {', '.join(networks)})"
        )
    for key, limit in (("shift", 0.5), ("contrast", 1.0)):
        if section[key] >= limit:
            raise ConfigError(f"objective.{key} must be below {limit:g} (got {section[key]:g})")
    network = networks["model"]
    learned = np.array([name in names_of(section.attributes) for name in NAMES])

    def loss(params: Parts, batch: Batch, keys: Key[Array, " batch"], training: bool) -> Outcome:
        image = jnp.asarray(batch["image"])
        if training:
            image = changed(keys, image, section.shift, section.contrast)
        outputs = network(params["model"], image)
        known = jnp.asarray(batch["known"]) & learned
        each = errors(outputs, jnp.asarray(batch["attributes"]))
        summed = jnp.where(known, each, 0).sum(-1)
        return Outcome(summed / jnp.maximum(known.sum(-1), 1), {})

    return Objective(losses={"model": loss}, metrics={})


def errors(
    outputs: Float[Array, "batch outputs"], values: Float[Array, "batch attributes"]
) -> Float[Array, "batch attributes"]:
    """The loss of every attribute, whether its value is known or not."""
    found = []
    for number, part in enumerate(jnp.split(outputs, np.cumsum(_WIDTHS)[:-1], axis=-1)):
        value = values[:, number]
        if ATTRIBUTES[number].continuous:
            found.append(jnp.abs(part[:, 0] - (value - AGE_CENTRE) / AGE_SCALE))
        else:
            here = jax.nn.one_hot(value.astype(jnp.int32), part.shape[-1])
            found.append(-(jax.nn.log_softmax(part) * here).sum(-1))
    return jnp.stack(found, -1)


def changed(
    keys: Key[AnyArray, " batch"],
    image: Float[Array, "batch size size 1"],
    shift: float,
    contrast: float,
) -> Float[Array, "batch size size 1"]:
    """Images in [-1, 1], each moved and with another contrast and brightness, by its key.

    Args:
      keys: A key for each image.
      image: Images, about [-1, 1].
      shift: Largest distance that an image is moved along each side, a share of that side; what
        comes in repeats the edge.
      contrast: Largest change of the grey: a factor of 1 ± this, and an offset of ± half of it.
    """
    most = round(shift * image.shape[1])

    def one(key: Key[AnyArray, ""], x: Float[Array, "size size 1"]) -> Float[Array, "size size 1"]:
        for_place, for_grey = jax.random.split(key)
        if most:
            row, column = jax.random.randint(for_place, (2,), 0, 2 * most + 1)
            wide = jnp.pad(x, ((most, most), (most, most), (0, 0)), "edge")
            x = jax.lax.dynamic_slice(wide, (row, column, 0), x.shape)
        factor, offset = jax.random.uniform(for_grey, (2,), minval=-contrast, maxval=contrast)
        return jnp.clip(x * (1 + factor) + offset / 2, -1, 1)

    return jax.vmap(one)(keys, image)
