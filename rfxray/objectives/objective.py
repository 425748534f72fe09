"""What every objective offers to training, sampling and evaluation, whatever its kind."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import clu.metrics
import jax
import jax.numpy as jnp
import optax

from rfxray.attributes.vocabulary import NUM_ATTRIBUTES, Attributes

# `image` [batch, height, width, channels] float32, `attributes` [batch, 19] float32, `known`
# [batch, 19] bool, `index` [batch] uint32.
Batch = Mapping[str, jax.Array]
# Parameters of every part, by its name; the network itself is `model`.
Parts = Mapping[str, optax.Params]
# (params, x [batch, ...], t [batch], attributes) → dx/dt, float32 like x.
Velocity = Callable[[Parts, jax.Array, jax.Array, Attributes], jax.Array]


class Outcome(NamedTuple):
    """What an objective makes of a batch.

    Attributes:
      losses: [batch] float32, one of each example.
      observed: What the metrics are made of: arguments of their `from_model_output` by name, arrays
        [batch, ...] or tuples of them.
    """

    losses: jax.Array
    observed: Mapping[str, jax.Array | tuple[jax.Array, ...]]


# (params of every part, batch, keys [batch], training) → Outcome. The keys are typed PRNG keys, one
# for each example; without training nothing is dropped.
Loss = Callable[[Parts, Batch, jax.Array, bool], Outcome]


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """What a run minimises, as pure functions; the networks were arguments of its builder.

    Attributes:
      losses: Loss that each trained part minimises over its own parameters, by the part's name; the
        parts are updated at once, each by its own optimizer. `model` comes first.
      metrics: Accumulators of what the loss of `model` observes, by name.
      averaged: Parts that EMA profiles are kept of: what a sampler reads.
      velocity: Velocity field of the averaged parts, if samples are drawn by an ODE.
      show: Function (params of the averaged parts, batch, keys) → images [batch, columns, height,
        width] float32 in [-1, 1], what a sample grid shows if there is no velocity.
    """

    losses: Mapping[str, Loss]
    metrics: Mapping[str, type[clu.metrics.Metric]]
    averaged: tuple[str, ...] = ("model",)
    velocity: Velocity | None = None
    show: Callable[[Parts, Batch, jax.Array], jax.Array] | None = None


def batch_shapes(n: int, input_shape: tuple[int, int, int]) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays of a batch of n examples of height, width and channels."""
    return {
        "image": jax.ShapeDtypeStruct((n, *input_shape), jnp.float32),
        "attributes": jax.ShapeDtypeStruct((n, NUM_ATTRIBUTES), jnp.float32),
        "known": jax.ShapeDtypeStruct((n, NUM_ATTRIBUTES), jnp.bool),
        "index": jax.ShapeDtypeStruct((n,), jnp.uint32),
    }
