"""A vision transformer of photographs or radiographs (`networks.vit`) as a judge of grey images.

A perceptual loss compares its states. Published weights belong to it (`training.frozen`), so it is
built from the shape that they have.
"""

import math

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float, Key

from rfxray.arrays import AnyArray, Params
from rfxray.errors import ConfigError
from rfxray.networks import interpolation, torch_weights, vit
from rfxray.networks.network import Network
from rfxray.networks.vit import Vit

_STD = 0.02  # of fresh parameters, which published ones replace


def build(section: ml_collections.ConfigDict) -> Network:
    """The network of a config's `model` section.

    `apply(params, image, method="hidden")` takes images [batch, height, width, 1] float32 in
    [-1, 1], resizes them as Pillow does (bicubic, antialiased), and gives the states of all tokens
    after every block, before the last norm: [depth, batch, 1 + patches, width] float32.

    Raises:
      ConfigError: If the patch does not divide the size, or the heads the width.
    """
    shape = trunk(section)
    shapes = torch_weights.laid_out(vit.shapes(shape))
    mean, std = (np.asarray(section[key], np.float32) for key in ("mean", "std"))
    blocks = [f"block_{i + 1}" for i in range(shape.depth)]

    def init(key: Key[Array, ""]) -> Params:
        sizes = [math.prod(size) for size in shapes.values()]
        # One draw for all: as many as there are tensors compile for long.
        drawn = jnp.split(_STD * jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
        named = zip(shapes.items(), drawn, strict=True)
        return {name: part.reshape(size) for (name, size), part in named}

    def apply(
        params: Params, image: Float[AnyArray, "batch rows columns 1"], method: str
    ) -> Float[Array, "depth batch tokens width"]:
        if method != "hidden":
            raise ConfigError(f"method must be hidden (got {method!r})")
        x = jnp.asarray(image)
        if x.shape[1:3] != (section.size, section.size):
            with jax.default_matmul_precision("highest"):
                x = interpolation.resize(x, section.size, section.size, "bicubic_antialias")
        colour = (jnp.repeat(0.5 * x + 0.5, 3, -1) - mean) / std
        found = vit.apply(shape, params, colour, blocks, remat=section.remat == "block")
        return jnp.stack([found[name] for name in blocks])

    return Network(
        init=init,
        apply=apply,
        shapes={name: jax.ShapeDtypeStruct(size, jnp.float32) for name, size in shapes.items()},
        axes={name: (None,) * (len(size) - 1) + ("embed",) for name, size in shapes.items()},
        input_shape=(section.size, section.size, 1),
        tokens=(section.size // section.patch) ** 2,
    )


def trunk(section: ml_collections.ConfigDict) -> Vit:
    """The shape of the transformer of a `model` section.

    Raises:
      ConfigError: If the patch does not divide the size, or the heads the width.
    """
    for key, whole in (("patch", "size"), ("heads", "width")):
        if section[whole] % section[key]:
            raise ConfigError(f"{key} must divide {whole}={section[whole]} (got {section[key]})")
    for key in ("mean", "std"):
        if len(section[key]) not in (1, 3) or (key == "std" and min(section[key]) <= 0):
            raise ConfigError(f"{key} must have 1 or 3 entries, std above 0 (got {section[key]})")
    return Vit(
        width=section.width,
        depth=section.depth,
        heads=section.heads,
        mlp=4 * section.width,
        patch=section.patch,
        side=section.side,
    )
