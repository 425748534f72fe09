"""Parameters and embeddings that networks are built of."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rfxray.attributes import conditioning, vocabulary
from rfxray.attributes.vocabulary import Attributes


def parameter(rngs, shape, axes, fan_in=None, std=None):
    """A float32 parameter: normal of the given std, or of 1/√fan_in, or zeros."""
    scale = std if std is not None else (fan_in**-0.5 if fan_in else 0.0)
    value = scale * jax.random.normal(rngs.params(), shape) if scale else jnp.zeros(shape)
    return nnx.Param(value, axes=axes)


@jax.custom_vjp
def gradients_once(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The arrays, whose gradients the compiler may not compute again where they are used.

    XLA for TPUs moves element-wise work into the products that read its result, where it is done
    anew for every tile: compiled for v5p, the product behind SwiGLU's gradient took 114 ms of a
    step of XL by XLA's own estimate, and 81 with the gradient written once and read.
    """
    return arrays


gradients_once.defvjp(
    lambda *arrays: (arrays, None), lambda _, gradients: jax.lax.optimization_barrier(gradients)
)


def sinusoid(x: jax.Array, width: int, longest: float) -> jax.Array:
    """[batch] numbers as [batch, width] sines and cosines with periods from 2π to 2π·longest."""
    frequencies = longest ** -(np.arange(width // 2, dtype=np.float32) / (width // 2))
    angles = x[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def places(side: int, width: int) -> np.ndarray:
    """A fixed embedding of each token's place in the picture, [side², width] float32.

    Rotary embedding tells tokens only where they lie to each other, and at t = 1 all of them hold
    noise alike; a chest has its parts in their places. Coordinates are fractions of the picture, so
    a place keeps its embedding at another resolution. Periods run from 4 pictures to 1/16 of one.
    """
    frequencies = 2 * np.pi * 2.0 ** np.linspace(-2, 4, -(-width // 4))
    at = (np.arange(side) + 0.5) / side
    row, column = np.meshgrid(at, at, indexing="ij")
    angles = [p.reshape(-1, 1) * frequencies for p in (row, column)]
    waves = np.concatenate([f(a) for a in angles for f in (np.cos, np.sin)], axis=-1)
    return waves[:, :width].astype(np.float32)


class Embedder(nnx.Module):
    """A number as a vector: sinusoids through a two-layer perceptron."""

    FREQUENCIES = 256

    def __init__(self, width: int, longest: float, rngs: nnx.Rngs):
        self.longest = longest
        self.inner = parameter(rngs, (self.FREQUENCIES, width), (None, "embed"), fan_in=128)
        self.outer = parameter(rngs, (width, width), ("embed", None), fan_in=width)

    def __call__(self, x: jax.Array) -> jax.Array:
        h = sinusoid(x, self.FREQUENCIES, self.longest) @ self.inner[...]
        return jax.nn.silu(h) @ self.outer[...]


class Condition(nnx.Module):
    """Time and attributes as one vector per example: one embedding per attribute, summed."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        # t enters as 1000·t, so that the fastest sinusoid tells steps of 1/1000 apart; age as
        # age/5, whose sinusoids have periods from 31 years: nothing changes faster with age.
        self.time = Embedder(width, 1e4, rngs)
        self.age = Embedder(width, 30.0, rngs)
        std = vocabulary.NUM_ATTRIBUTES**-0.5
        self.table = parameter(rngs, (conditioning.NUM_ROWS, width), (None, "embed"), std=std)

    def __call__(self, t: jax.Array, attributes: Attributes) -> jax.Array:
        rows = conditioning.embedding_rows(attributes)
        age = vocabulary.INDEX["age"]
        told = attributes.known[:, age, None]
        c = self.time(1000.0 * t) + self.table[...][rows].sum(1)
        return c + jnp.where(told, self.age(attributes.values[:, age] / 5.0), 0.0)
