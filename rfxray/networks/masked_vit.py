"""A small vision transformer that predicts the covered parts of an image from the rest.

The trunk is that of DINOv2 (`networks.vit`), so its parameters have the published names, and what
is covered is its mask token (SimMIM, arXiv 2111.09886). The mean of the patches that are seen is
the code of the image, and a decoder of one block draws the patches from the code and their places
only. So the code has to describe the whole image. With a decoder that sees every token, as MAE has
(arXiv 2111.06377), the network fills gaps from their neighbours: after 2,000 steps of 16 phantoms a
linear probe of its mean ranked views with an area under the curve of .88, and .98 before training.
"""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from einops import rearrange, reduce
from jaxtyping import Array, Bool, Float, Key

from rfxray.arrays import AnyArray, Params
from rfxray.errors import ConfigError
from rfxray.networks import vit
from rfxray.networks.network import Network
from rfxray.networks.vit import Vit

_STD = 0.02  # of fresh matrices and embeddings, as in SimMIM
_PLACE = 0.5  # height of the waves that the places of patches begin with
_DECODER = "decoder.layer.0"


def build(section: ml_collections.ConfigDict) -> Network:
    """The network of a config's `model` section.

    `apply(params, image, covered)` predicts an image from the pixels that are not covered (see
    `predict`), and `apply(params, image, method="hidden")` gives the states of the patches after
    every block (see `hidden`).

    Raises:
      ConfigError: If the patch does not divide the size, or the heads the width.
    """
    shape = trunk(section)
    shapes = _shapes(shape)

    def init(key: Key[Array, ""]) -> Params:
        keys = jax.random.split(key, len(shapes))
        named = zip(keys, shapes.items(), strict=True)
        return {name: _fresh(shape, each, name, size) for each, (name, size) in named}

    def apply(
        params: Params,
        image: Float[AnyArray, "batch size size 1"],
        covered: Bool[AnyArray, "batch size size 1"] | None = None,
        method: str = "predict",
    ) -> Float[Array, "..."]:
        if method == "hidden":
            return hidden(shape, params, image)
        if method != "predict":
            raise ConfigError(f"method must be predict or hidden (got {method!r})")
        if covered is None:
            raise ConfigError("to predict an image, say which pixels are covered")
        return predict(shape, params, image, covered)

    return Network(
        init=init,
        apply=apply,
        shapes=jax.eval_shape(init, jax.random.key(0)),
        axes={name: (None,) * (len(size) - 1) + ("embed",) for name, size in shapes.items()},
        input_shape=(section.size, section.size, 1),
        tokens=shape.side**2,
    )


def trunk(section: ml_collections.ConfigDict) -> Vit:
    """The shape of the trunk of a `model` section.

    Raises:
      ConfigError: If the patch does not divide the size, or the heads the width.
    """
    for key, whole in (("patch", "size"), ("heads", "width")):
        if section[whole] % section[key]:
            raise ConfigError(
                f"model.{key} must divide model.{whole}={section[whole]} (got {section[key]})"
            )
    return Vit(
        width=section.width,
        depth=section.depth,
        heads=section.heads,
        mlp=4 * section.width,
        patch=section.patch,
        side=section.size // section.patch,
    )


def predict(
    shape: Vit,
    params: Params,
    image: Float[AnyArray, "n size size 1"],
    covered: Bool[AnyArray, "n size size 1"],
) -> Float[Array, "n size size 1"]:
    """An image made from the pixels that are not covered: these are all that the result knows."""
    seen = jnp.where(covered, 0, image)
    whole = reduce(covered, "n (r p) (s q) 1 -> n (r s)", "min", p=shape.patch, q=shape.patch)
    tokens = vit.apply(shape, params, _colour(seen), ("patches",), whole)["patches"]
    left = ~whole[..., None]
    code = (tokens * left).sum(1, keepdims=True) / jnp.maximum(left.sum(1, keepdims=True), 1)
    x = vit.block(shape, params, _DECODER, code + params["decoder.position_embeddings"])
    x = vit.norm(shape, params, "decoder.layernorm", x)
    pixels = x @ params["head.weight"] + params["head.bias"]
    return rearrange(pixels, "n (r s) (p q) -> n (r p) (s q) 1", r=shape.side, p=shape.patch)


def hidden(
    shape: Vit, params: Params, images: Float[AnyArray, "n size size 1"]
) -> Float[Array, "depth n patches width"]:
    """States of the patches of whole images in [-1, 1] after every block, before the last norm."""
    blocks = [f"block_{i + 1}" for i in range(shape.depth)]
    found = vit.apply(shape, params, _colour(images), blocks)
    return jnp.stack([found[name][:, 1:] for name in blocks])


def features(
    shape: Vit, params: Params, images: Float[AnyArray, "n size size 1"]
) -> Float[Array, "n features"]:
    """What the network knows of whole images in [-1, 1]: the code, and how the patches differ.

    That is the mean over the patches after the last norm, then their standard deviation after every
    block. The code has no room for small things. With the deviations, linear probes of 15
    attributes of phantoms have a mean area under the curve of .90, without them .79.
    """
    blocks = [f"block_{i + 1}" for i in range(shape.depth)]
    found = vit.apply(shape, params, _colour(images), (*blocks, "patches"))
    spread = [found[name][:, 1:].std(1) for name in blocks]
    return jnp.concatenate([found["patches"].mean(1), *spread], -1)


def _colour(images: Float[AnyArray, "n size size 1"]) -> Float[Array, "n size size 3"]:
    return jnp.repeat(jnp.asarray(images), 3, -1)  # the trunk reads three channels


def _shapes(shape: Vit) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters, in JAX's layout."""
    found = {}
    for name, size in vit.shapes(shape).items():
        if name.endswith(".weight") and len(size) == 4:
            size = (size[2], size[3], size[1], size[0])
        elif name.endswith(".weight"):
            size = size[::-1]
        found[name] = size
    first = "encoder.layer.0"
    block = {name.removeprefix(first): size for name, size in found.items() if first in name}
    return found | {
        "embeddings.mask_token": (1, shape.width),
        "decoder.position_embeddings": (1, shape.side**2, shape.width),
        **{_DECODER + name: size for name, size in block.items()},
        "decoder.layernorm.weight": (shape.width,),
        "decoder.layernorm.bias": (shape.width,),
        "head.weight": (shape.width, shape.patch**2),
        "head.bias": (shape.patch**2,),
    }


def _fresh(
    shape: Vit, key: Key[Array, ""], name: str, size: tuple[int, ...]
) -> Float[Array, "..."]:
    if name.endswith("position_embeddings"):
        places = jnp.asarray(_places(shape.side, shape.width))
        return jnp.concatenate([jnp.zeros((size[1] - len(places), shape.width)), places])[None]
    if name.endswith("bias"):
        return jnp.zeros(size)
    if len(size) == 1:  # scales of norms and of layers
        return jnp.ones(size)
    return _STD * jax.random.normal(key, size)


def _places(side: int, width: int) -> Float[np.ndarray, "places width"]:
    """Sines and cosines of row and column, as MAE begins with; a quarter of the width each."""
    waves = 10_000.0 ** -np.linspace(0, 1, width // 4, endpoint=False)
    angles = np.arange(side)[:, None] * waves
    along = np.concatenate([np.sin(angles), np.cos(angles)], 1)
    pairs = np.concatenate([along.repeat(side, 0), np.tile(along, (side, 1))], 1)
    return (_PLACE * np.pad(pairs, ((0, 0), (0, width - pairs.shape[1])))).astype(np.float32)
