"""Weights that stay on the devices that use them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def of_images(
    function: Callable[[Any, Any], Any], weights: Mapping[str, np.ndarray]
) -> Callable[[np.ndarray], np.ndarray]:
    """`function(weights, images)`, compiled, as a function of images on the host.

    Each device that is the default when it is called gets the weights once: the 346 MB of RAD-DINO
    would otherwise travel with every batch.
    """
    compiled = jax.jit(function)
    held: dict[Any, Any] = {}

    def run(images: np.ndarray) -> np.ndarray:
        there = jnp.asarray(images)
        (device,) = there.devices()
        if device not in held:
            held[device] = jax.device_put(dict(weights), device)
        return np.asarray(compiled(held[device], there))

    return run
