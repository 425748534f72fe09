"""A residual network that reads attributes from an image.

Pre-activation blocks (arXiv 1603.05027) with group norm (arXiv 1803.08494): what is read from an
image does not depend on its batch. The first convolution halves the sides, and so does each level.
Heads read the mean and the maximum of the last maps: the size of what is everywhere, and the
strongest response to what is small.
"""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float, Key

from rfxray.arrays import AnyArray, Params
from rfxray.attributes.vocabulary import ATTRIBUTES, Attribute
from rfxray.errors import ConfigError
from rfxray.networks.network import Network

_EPSILON = 1e-6


def outputs(attribute: Attribute) -> int:
    """Number of outputs about an attribute: a logit for each value, or one number."""
    return len(attribute.values) or 1


OUTPUTS = sum(map(outputs, ATTRIBUTES))
ENDS = tuple(int(end) for end in np.cumsum([outputs(attribute) for attribute in ATTRIBUTES]))


def build(section: ml_collections.ConfigDict) -> Network:
    """The network of a config's `model` section: `apply(params, image) → outputs`.

    The image is [batch, size, size, 1] float32 in [-1, 1]. The outputs are [batch, OUTPUTS]
    float32: those of each attribute in the order of the vocabulary, the last of which ends at
    `ENDS`.

    Raises:
      ConfigError: If the groups do not divide the width, or the image has too few pixels.
    """
    if section.width % section.groups:
        raise ConfigError(
            f"model.groups must divide model.width={section.width} (got {section.groups})"
        )
    if section.size % 2 ** len(section.multipliers):
        raise ConfigError(
            f"model.size must be a multiple of {2 ** len(section.multipliers)}, because each of "
            f"model.multipliers={tuple(section.multipliers)} halves the sides (got {section.size})"
        )
    shapes = _shapes(section)
    groups, levels, blocks = section.groups, len(section.multipliers), section.blocks

    def init(key: Key[Array, ""]) -> Params:
        keys = jax.random.split(key, len(shapes))
        named = zip(keys, shapes.items(), strict=True)
        return {name: _fresh(each, name, shape) for each, (name, shape) in named}

    def apply(
        params: Params, image: Float[AnyArray, "batch size size 1"]
    ) -> Float[Array, "batch outputs"]:
        x = _convolve(params["stem.kernel"], jnp.asarray(image), 2)
        for level in range(levels):
            for block in range(blocks):
                name = f"levels.{level}.{block}"
                stride = 2 if level and not block else 1
                y = jax.nn.silu(_group_norm(params, f"{name}.norm1", x, groups))
                if f"{name}.skip.kernel" in params:
                    x = _convolve(params[f"{name}.skip.kernel"], _halved(y, stride), 1)
                y = _convolve(params[f"{name}.conv1.kernel"], y, stride)
                y = jax.nn.silu(_group_norm(params, f"{name}.norm2", y, groups))
                x = x + _convolve(params[f"{name}.conv2.kernel"], y, 1)
        x = jax.nn.silu(_group_norm(params, "norm", x, groups))
        seen = jnp.concatenate([x.mean((1, 2)), x.max((1, 2))], -1)
        return seen @ params["heads.kernel"] + params["heads.bias"]

    return Network(
        init=init,
        apply=apply,
        shapes={name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()},
        axes={name: (None,) * len(shape) for name, shape in shapes.items()},
        input_shape=(section.size, section.size, 1),
    )


def _shapes(section: ml_collections.ConfigDict) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters; a convolution is [height, width, in, out]."""
    widths = [section.width * each for each in section.multipliers]
    found: dict[str, tuple[int, ...]] = {"stem.kernel": (3, 3, 1, widths[0])}
    of = widths[0]
    for level, to in enumerate(widths):
        for block in range(section.blocks):
            name = f"levels.{level}.{block}"
            found |= _norm(f"{name}.norm1", of)
            found[f"{name}.conv1.kernel"] = (3, 3, of, to)
            found |= _norm(f"{name}.norm2", to)
            found[f"{name}.conv2.kernel"] = (3, 3, to, to)
            if of != to or (level and not block):
                found[f"{name}.skip.kernel"] = (1, 1, of, to)
            of = to
    return found | _norm("norm", of) | {"heads.kernel": (2 * of, OUTPUTS), "heads.bias": (OUTPUTS,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.scale": (width,), f"{name}.bias": (width,)}


def _fresh(key: Key[Array, ""], name: str, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Scales of 1 and biases of 0; kernels by He et al. (2015), and heads that begin at chance."""
    if name.endswith(("scale", "bias")) or name == "heads.kernel":
        return jnp.full(shape, float(name.endswith("scale")))
    fan_in = int(np.prod(shape[:-1]))
    gain = 1.0 if name.endswith("skip.kernel") else 2.0
    return (gain / fan_in) ** 0.5 * jax.random.normal(key, shape)


def _halved(
    x: Float[Array, "batch height width channels"], stride: int
) -> Float[Array, "batch rows columns channels"]:
    """Means of the cells of stride² pixels."""
    if stride == 1:
        return x
    window = (1, stride, stride, 1)
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, window, "VALID") / stride**2


def _convolve(
    kernel: Float[AnyArray, "side side in out"],
    x: Float[Array, "batch height width in"],
    stride: int,
) -> Float[Array, "batch rows columns out"]:
    edge = (kernel.shape[0] - 1) // 2
    return jax.lax.conv_general_dilated(
        x,
        jnp.asarray(kernel),
        (stride, stride),
        ((edge, edge), (edge, edge)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _group_norm(
    params: Params, name: str, x: Float[Array, "batch height width channels"], groups: int
) -> Float[Array, "batch height width channels"]:
    y = x.reshape(*x.shape[:3], groups, -1)
    mean = y.mean((1, 2, 4), keepdims=True)
    variance = jnp.square(y - mean).mean((1, 2, 4), keepdims=True)
    y = ((y - mean) * jax.lax.rsqrt(variance + _EPSILON)).reshape(x.shape)
    return y * params[f"{name}.scale"] + params[f"{name}.bias"]
