"""PatchGAN: a discriminator that judges each patch of an image (arXiv 1611.07004, §3.2.2).

Convolutions of 4 × 4 that halve the sides, two that do not, and one logit for each overlapping
patch; with three layers a patch has 70 pixels. The published networks normalise by the statistics
of the batch. Here they are those of the image (group norm, arXiv 1803.08494): the loss of an image
then does not depend on which images share its batch, its device or its piece of the batch.
"""

import math

import jax
import jax.numpy as jnp
import ml_collections
from einops import rearrange
from jaxtyping import Array, Float, Key

from rfxray.arrays import AnyArray, Params
from rfxray.errors import ConfigError
from rfxray.networks.network import Network

_SIDE = 4  # of every kernel, with a border of 1
_STD = 0.02  # of fresh kernels and of the scales of norms, as in pix2pix
_SLOPE = 0.2  # of the leaky ReLU
_WIDEST = 8  # times the width of the first layer
_GROUPS = 16  # of a norm at most
_EPSILON = 1e-6


def build(section: ml_collections.ConfigDict) -> Network:
    """The network of a config's `model` section: `apply(params, image) → logits`.

    The image is [batch, height, width, 1] float32 in [-1, 1], the logits are [batch, rows, columns,
    1] float32, above 0 for an image that is taken for a real one.
    """
    shapes = _shapes(section.width, section.layers)
    least = _smallest(section.layers)

    def init(key: Key[Array, ""]) -> Params:
        keys = jax.random.split(key, len(shapes))
        named = zip(keys, shapes.items(), strict=True)
        return {name: _fresh(each, name, shape) for each, (name, shape) in named}

    def apply(
        params: Params, image: Float[AnyArray, "batch height width 1"]
    ) -> Float[Array, "batch rows columns 1"]:
        if min(image.shape[1:3]) < least:
            raise ConfigError(
                f"a discriminator of {section.layers} layers judges images of {least} × {least} "
                f"pixels and above (got {image.shape[1]} × {image.shape[2]}); set fewer layers"
            )
        x = jnp.asarray(image)
        for i in range(section.layers + 1):
            x = _convolve(params, f"layers.{i}", x, 2 if i < section.layers else 1)
            if i:
                x = _group_norm(params, f"norms.{i}", x)
            x = jax.nn.leaky_relu(x, _SLOPE)
        return _convolve(params, "logit", x, 1)

    return Network(
        init=init,
        apply=apply,
        shapes={name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()},
        axes={name: (None,) * (len(s) - 1) + ("embed",) for name, s in shapes.items()},
        input_shape=(least, least, 1),
    )


def _smallest(layers: int) -> int:
    """Side of the smallest image that has a logit."""
    return 3 * 2**layers  # two convolutions without a stride take a pixel each


def _shapes(width: int, layers: int) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters; a convolution is [height, width, in, out]."""
    found: dict[str, tuple[int, ...]] = {}
    of = 1
    for i in range(layers + 1):
        to = width * min(2**i, _WIDEST)
        found[f"layers.{i}.kernel"] = (_SIDE, _SIDE, of, to)
        if i:  # the norm has a bias of its own
            found |= {f"norms.{i}.scale": (to,), f"norms.{i}.bias": (to,)}
        else:
            found[f"layers.{i}.bias"] = (to,)
        of = to
    return found | {"logit.kernel": (_SIDE, _SIDE, of, 1), "logit.bias": (1,)}


def _fresh(key: Key[Array, ""], name: str, shape: tuple[int, ...]) -> Float[Array, "..."]:
    if name.endswith("bias"):
        return jnp.zeros(shape)
    return float(name.endswith("scale")) + _STD * jax.random.normal(key, shape)


def _convolve(params: Params, name: str, x: Array, stride: int) -> Array:
    x = jax.lax.conv_general_dilated(
        x,
        params[f"{name}.kernel"],
        (stride, stride),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    bias = f"{name}.bias"
    return x + params[bias] if bias in params else x


def _group_norm(params: Params, name: str, x: Array) -> Array:
    groups = math.gcd(_GROUPS, x.shape[-1])
    y = rearrange(x, "n y x (g c) -> n y x g c", g=groups)
    mean = y.mean((1, 2, 4), keepdims=True)
    variance = jnp.square(y - mean).mean((1, 2, 4), keepdims=True)
    y = ((y - mean) * jax.lax.rsqrt(variance + _EPSILON)).reshape(x.shape)
    return y * params[f"{name}.scale"] + params[f"{name}.bias"]
