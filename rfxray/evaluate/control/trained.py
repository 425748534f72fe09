"""A classifier of `rfxray train --config classifier` as a judge: `--classifier run=WORKDIR`."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfxray.arrays import AnyArray, Params
from rfxray.attributes.vocabulary import INDEX, lookup
from rfxray.checkpoints import weights
from rfxray.config.load import from_json
from rfxray.errors import ConfigError
from rfxray.evaluate.extractors import resident
from rfxray.evaluate.extractors.extractor import Extractor, Preprocessing
from rfxray.networks import classifier, kinds
from rfxray.objectives import classification


def open_run(workdir: Path) -> tuple[Extractor, tuple[str, ...]]:
    """The answers of a classifier, by its first EMA profile, and the attributes that it learned.

    Args:
      workdir: Workdir of `rfxray train`.

    Raises:
      ConfigError: If it is not one of a classifier.
      DataError: If it is not a workdir, or is damaged.
    """
    config = from_json(weights.read_config(workdir))
    if (got := config.model.kind) != "classifier":
        raise ConfigError(
            f"{workdir} trains a network of kind {got}; run=WORKDIR reads one of rfxray train "
            "--config classifier"
        )
    network = kinds.build(config.model)
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
        for name, leaf in network.shapes.items()
    }
    profile = weights.ema_name(config.ema_sigmas[0])
    found = weights.restore_ema(workdir, {"model": shapes}, profile)
    names = classification.names_of(config.objective.attributes)
    answer = functools.partial(answers, network.apply, names)
    extractor = Extractor(
        name="run answers",
        hash=found.digest,
        width=sum(classifier.outputs(lookup(name)) for name in names),
        preprocessing=Preprocessing(config.model.size, "pad", "area", False, 1, (0.5,), (0.5,)),
        features=resident.of_images(answer, jax.device_get(found.params["model"])),
        trained_on=(),
    )
    return extractor, names


def answers(
    apply, names: tuple[str, ...], params: Params, images: Float[AnyArray, "n size size 1"]
) -> Float[Array, "n width"]:
    """The probability of each value of these attributes, and years of age, side by side."""
    parts = jnp.split(apply(params, images), classifier.ENDS[:-1], axis=-1)
    found = []
    for name in names:
        own = parts[INDEX[name]]
        if lookup(name).continuous:
            years = own * classification.AGE_SCALE + classification.AGE_CENTRE
            found.append(jnp.clip(years, lookup(name).low, lookup(name).high))
        else:
            found.append(jax.nn.softmax(own))
    return jnp.concatenate(found, -1)
