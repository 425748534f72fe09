"""Features of an oracle, the network that reads attributes back from phantoms.

It saw phantoms only, so its features tell phantoms apart, not radiographs of patients.
"""

from pathlib import Path

import jax
import numpy as np

from rfxray.evaluate import classifier
from rfxray.evaluate.extractors.extractor import Extractor, Preprocessing, weights_hash


def open_weights(weights: Path | None) -> Extractor:
    """The extractor of an oracle that `rfxray oracle` trained.

    Args:
      weights: Path of its npz file; by default that of the package, which reads phantoms of 64².

    Raises:
      DataError: If there is no oracle in it.
    """
    oracle = classifier.load(weights or classifier.PACKAGED)
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
