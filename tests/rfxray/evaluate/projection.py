"""The smallest extractor: a seeded random projection of a 16² image."""

import jax
import jax.numpy as jnp
import numpy as np

from rfxray.evaluate.extractors.extractor import Extractor, Preprocessing, weights_hash

SIZE = 16


def projection(width: int = 8, seed: int = 0, name: str = "projection", log: list | None = None):
    """An extractor; `log` gets the number of images of each call."""
    weights = np.random.default_rng(seed).normal(size=(SIZE * SIZE, width)).astype(np.float32)

    @jax.jit
    def project(images):
        return jnp.tanh(images.reshape(len(images), -1) @ weights / SIZE)

    def features(images):
        if log is not None:
            log.append(len(images))
        return np.asarray(project(images))

    return Extractor(
        name=name,
        hash=weights_hash({"projection": weights}),
        width=width,
        preprocessing=Preprocessing(SIZE, "pad", "area", False, 1, (0.5,), (0.25,)),
        features=features,
        trained_on=("phantom",),
    )
