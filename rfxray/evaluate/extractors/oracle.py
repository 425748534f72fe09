"""Features of an oracle, the network that reads attributes back from phantoms.

It saw phantoms only, so its features tell phantoms apart, not radiographs of patients.
"""

from pathlib import Path

import jax
import numpy as np

from rfxray.errors import ConfigError
from rfxray.evaluate import classifier
from rfxray.evaluate.extractors.extractor import Extractor, Preprocessing, weights_hash


def open_weights(weights: Path | None) -> Extractor:
    """The extractor of an oracle that `rfxray oracle` trained.

    Args:
      weights: Path of its npz file.

    Raises:
      ConfigError: Without a file.
      DataError: If there is no oracle in it.
    """
    if weights is None:
        raise ConfigError(
            "the extractor oracle needs its weights: oracle=FILE.npz, made by "
            "`rfxray oracle --out FILE.npz`"
        )
    oracle = classifier.load(weights)
    leaves = jax.tree_util.tree_leaves_with_path(oracle.weights)
    named = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    width = named["['heads']['kernel']"].shape[0]
    preprocessing = Preprocessing(oracle.size, "pad", "area", False, 1, (0.5,), (0.5,))
    return Extractor(
        name="oracle",
        hash=weights_hash(named),
        width=width,
        preprocessing=preprocessing,
        features=lambda images: oracle.features(np.asarray(images)[..., 0]),
        trained_on=("phantom",),
    )
