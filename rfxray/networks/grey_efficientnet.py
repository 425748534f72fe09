"""EfficientNet-Lite0 of photographs as a judge of grey images.

A perceptual loss compares its features. They are one state, after the last block: those by which
`rfxray evaluate fidelity` compares sets, and no map of an earlier block.
"""

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float, Key

from rfxray.arrays import AnyArray, Params
from rfxray.errors import ConfigError
from rfxray.networks import interpolation, torch_weights
from rfxray.networks.convnets import efficientnet
from rfxray.networks.network import Network

_MEAN, _STD = 0.498, 0.502  # of the published weights, as the extractor has them


def build(section: ml_collections.ConfigDict) -> Network:
    """The network of a config's `model` section.

    `apply(params, image, method="hidden")` takes images [batch, height, width, 1] float32 in
    [-1, 1], resizes them as Pillow does (bicubic, antialiased) and clips what the filter makes
    beyond: [1, batch, 1, 1280] float32, the mean over each of the last maps.
    """
    shapes = torch_weights.laid_out(efficientnet._shapes())
    side = section.size

    def init(key: Key[Array, ""]) -> Params:
        del key  # published parameters replace these
        return {name: jnp.ones(shape) for name, shape in shapes.items()}

    def apply(
        params: Params, image: Float[AnyArray, "batch rows columns 1"], method: str
    ) -> Float[Array, "1 batch 1 features"]:
        if method != "hidden":
            raise ConfigError(f"method must be hidden (got {method!r})")
        x = 0.5 * jnp.asarray(image) + 0.5
        if x.shape[1:3] != (side, side):
            with jax.default_matmul_precision("highest"):
                x = interpolation.resize(x, side, side, "bicubic_antialias")
        colour = (jnp.repeat(jnp.clip(x, 0, 1), 3, -1) - _MEAN) / _STD
        return efficientnet.apply(params, colour)[None, :, None]

    return Network(
        init=init,
        apply=apply,
        shapes={name: jax.ShapeDtypeStruct(size, jnp.float32) for name, size in shapes.items()},
        axes={name: (None,) * len(size) for name, size in shapes.items()},
        input_shape=(side, side, 1),
    )
