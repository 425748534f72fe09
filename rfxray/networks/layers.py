"""Parameters and embeddings that networks share."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rfxray.arrays import AnyArray
from rfxray.attributes import conditioning, vocabulary
from rfxray.attributes.vocabulary import Attributes


def parameter(
    rngs: nnx.Rngs,
    shape: tuple[int, ...],
    axes: tuple[str | None, ...],
    fan_in: int | None = None,
    std: float | None = None,
) -> nnx.Param:
    """A float32 parameter: normal with this std, or with std 1/√fan_in, or zeros."""
    scale = std if std is not None else (fan_in**-0.5 if fan_in else 0.0)
    value = scale * jax.random.normal(rngs.params(), shape) if scale else jnp.zeros(shape)
    return nnx.Param(value, axes=axes)


def exact(equation: str, *operands: Float[AnyArray, "..."]) -> Float[Array, "..."]:
    """An einsum of float32 arrays in float32 on every device.

    The default precision of an accelerator is lower: one pass in bfloat16 on a TPU, TF32 on a GPU,
    with relative errors of 2⁻⁹ and 2⁻¹¹. The products outside of attention and SwiGLU are float32
    for a reason: conditioning resolves steps of 1/1000 in t, and an error of an x-prediction is
    divided by t, so multiplied by up to 20. Even in six passes they are 0.3% of the FLOPs of a step
    of XL.
    """
    return jnp.einsum(equation, *operands, precision=jax.lax.Precision.HIGHEST)


@jax.custom_vjp
def gradients_once(*arrays: Float[Array, "..."]) -> tuple[Float[Array, "..."], ...]:
    """The arrays unchanged; keeps the compiler from recomputing their gradients at every use.

    XLA for TPUs fuses element-wise work into the products that read its result, which repeats the
    work for every tile: compiled for v5p, the product that reads SwiGLU's gradient took 114 ms of a
    step of XL by XLA's own estimate, and 81 ms with the gradient written once and read.
    """
    return arrays


gradients_once.defvjp(
    lambda *arrays: (arrays, None), lambda _, gradients: jax.lax.optimization_barrier(gradients)
)


def sinusoid(
    x: Float[AnyArray, " batch"], width: int, longest: float
) -> Float[Array, "batch {width}"]:
    """Sines and cosines [batch, width] of numbers [batch], with periods from 2π to 2π·longest."""
    frequencies = longest ** -(np.arange(width // 2, dtype=np.float32) / (width // 2))
    angles = x[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def places(side: int, width: int) -> Float[np.ndarray, "{side**2} {width}"]:
    """A fixed embedding of each token's position in the image, [side², width] float32.

    Rotary embedding encodes relative position only, and at t = 1 every token is pure noise, so the
    network could not know where in the chest a token is. Coordinates are fractions of the image, so
    a position keeps its embedding at another resolution. Periods are 4 to 1/16 images.
    """
    frequencies = 2 * np.pi * 2.0 ** np.linspace(-2, 4, -(-width // 4))
    at = (np.arange(side) + 0.5) / side
    row, column = np.meshgrid(at, at, indexing="ij")
    angles = [p.reshape(-1, 1) * frequencies for p in (row, column)]
    waves = np.concatenate([f(a) for a in angles for f in (np.cos, np.sin)], axis=-1)
    return waves[:, :width].astype(np.float32)


class Embedder(nnx.Module):
    """Embeds a number: sinusoids through a two-layer perceptron."""

    FREQUENCIES = 256

    def __init__(self, width: int, longest: float, rngs: nnx.Rngs):
        self.longest = longest
        self.inner = parameter(rngs, (self.FREQUENCIES, width), (None, "embed"), fan_in=128)
        self.outer = parameter(rngs, (width, width), ("embed", None), fan_in=width)

    def __call__(self, x: Float[AnyArray, " batch"]) -> Float[Array, "batch width"]:
        h = exact("bf,fd->bd", sinusoid(x, self.FREQUENCIES, self.longest), self.inner[...])
        return exact("bd,de->be", jax.nn.silu(h), self.outer[...])


class Condition(nnx.Module):
    """Embeds time and attributes as one vector per example: the sum of their embeddings."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        # t enters as 1000·t, so that the fastest sinusoid resolves steps of 1/1000. Age enters as
        # age/5, with periods from 31 years on: nothing changes faster with age.
        self.time = Embedder(width, 1e4, rngs)
        self.age = Embedder(width, 30.0, rngs)
        std = vocabulary.NUM_ATTRIBUTES**-0.5
        self.table = parameter(rngs, (conditioning.NUM_ROWS, width), (None, "embed"), std=std)

    def __call__(
        self, t: Float[AnyArray, " batch"], attributes: Attributes
    ) -> Float[Array, "batch width"]:
        rows = conditioning.embedding_rows(attributes)
        age = vocabulary.INDEX["age"]
        known = attributes.known[:, age, None]
        c = self.time(1000.0 * t) + self.table[...][rows].sum(1)
        return c + jnp.where(known, self.age(attributes.values[:, age] / 5.0), 0.0)
