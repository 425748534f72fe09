"""Features of a network that was trained without labels on radiographs of one's own.

`rfxray train --config masked` trains it on the training split of a data set, and `rfxray export`
makes the folder that is read here. Features are those of `masked_vit.features`. It has seen
radiographs, as no network of photographs has; for a model of the same data its figures are
circular, and are printed as such.
"""

import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import ml_collections
import numpy as np

from rfxray.checkpoints import exported, safetensors
from rfxray.config.load import from_json
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate.extractors import resident
from rfxray.evaluate.extractors.extractor import Extractor, Preprocessing, weights_hash
from rfxray.networks import kinds, masked_vit


def open_weights(weights: Path | None) -> Extractor:
    """The extractor of an exported run.

    Args:
      weights: Folder that `rfxray export` wrote.

    Raises:
      ConfigError: Without a folder.
      DataError: If it is damaged, of another network, or does not state its training data.
    """
    if weights is None:
        raise ConfigError(
            "the extractor ssl needs its weights: ssl=FOLDER, which `rfxray export` wrote of a run "
            "of `rfxray train --config masked`"
        )
    tree, facts = exported.read(weights)
    if (kind := tree["model"]["kind"]) != "masked_vit":
        raise DataError(
            f"{weights} is an export of a network of kind {kind}; ssl=FOLDER reads masked_vit, "
            "which `rfxray train --config masked` trains"
        )
    if not facts.trained_on:
        raise DataError(
            f"{weights} does not state its training data, so nobody knows for which models its "
            "figures are circular; export its run again with --data"
        )
    section = from_json(tree).model
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
        for name, leaf in kinds.build(section).shapes.items()
    }
    restored = safetensors.restore(weights / exported.MODEL, {"model": shapes})["model"]
    params = {name: np.asarray(leaf) for name, leaf in restored.items()}
    return of_network(section, params, facts.trained_on)


def of_network(
    section: ml_collections.ConfigDict,
    params: Mapping[str, np.ndarray],
    trained_on: tuple[str, ...],
) -> Extractor:
    """The extractor of a network in memory.

    Args:
      section: The `model` section of its config.
      params: Parameters by name.
      trained_on: Sources of the data that it was trained on.
    """
    return Extractor(
        name="ssl",
        hash=weights_hash(params),
        width=(section.depth + 1) * section.width,
        preprocessing=Preprocessing(section.size, "pad", "area", False, 1, (0.5,), (0.5,)),
        features=resident.of_images(
            functools.partial(masked_vit.features, masked_vit.trunk(section)), params
        ),
        trained_on=trained_on,
    )
