"""A small vision transformer that predicts the hidden parts of an image from the rest.

The trunk is that of DINOv2 (`networks.vit`), so the parameters have its published names, and what
is hidden is its mask token; a linear layer turns each token into the pixels of its patch (SimMIM,
arXiv 2111.09886). What it learns is in its hidden states: `features` is the mean of one block.
"""

import jax
import jax.numpy as jnp
import ml_collections
from einops import rearrange, reduce
from jaxtyping import Array, Bool, Float, Key

from rfxray.arrays import AnyArray, Params
from rfxray.errors import ConfigError
from rfxray.networks import vit
from rfxray.networks.network import Network
from rfxray.networks.vit import Vit

_STD = 0.02  # of fresh matrices and embeddings, as in SimMIM


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
        return {name: _fresh(each, name, size) for each, (name, size) in named}

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
    pixels = tokens @ params["head.weight"] + params["head.bias"]
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
) -> Float[Array, "n width"]:
    """Mean over the patches of whole images in [-1, 1], after the last norm."""
    return vit.apply(shape, params, _colour(images), ("patches",))["patches"].mean(1)


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
    found["embeddings.mask_token"] = (1, shape.width)
    return found | {"head.weight": (shape.width, shape.patch**2), "head.bias": (shape.patch**2,)}


def _fresh(key: Key[Array, ""], name: str, size: tuple[int, ...]) -> Float[Array, "..."]:
    if name.endswith("bias"):
        return jnp.zeros(size)
    if len(size) == 1:  # scales of norms and of layers
        return jnp.ones(size)
    return _STD * jax.random.normal(key, size)
