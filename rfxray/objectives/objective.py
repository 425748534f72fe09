"""The interface of every objective to training, sampling and evaluation."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import clu.metrics
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from rfxray.arrays import AnyArray, Params
from rfxray.attributes.vocabulary import NUM_ATTRIBUTES, Attributes

# `image` [batch, height, width, channels] float32, `content_box` [batch, 4] int32 (top, left,
# height and width of the radiograph in its square, pixels), `attributes` [batch, 19] float32,
# `known` [batch, 19] bool, `index` [batch] uint32.
Batch: TypeAlias = Mapping[str, Shaped[AnyArray, "batch ..."]]
# Parameters of every part, by name; the network that is sampled from is `model`.
Parts: TypeAlias = Mapping[str, Params]
# (params, x [batch, ...], t [batch], attributes) → dx/dt, float32 like x.
Velocity: TypeAlias = Callable[
    [Parts, Float[Array, "batch ..."], Float[Array, " batch"], Attributes],
    Float[Array, "batch ..."],
]


class Outcome(NamedTuple):
    """Result of a loss on a batch.

    Attributes:
      losses: Losses [batch] float32, one per example.
      observed: Inputs of the metrics: arguments of their `from_model_output` by name, arrays
        [batch, ...] or tuples of them.
    """

    losses: Float[Array, " batch"]
    observed: Mapping[str, jax.Array | tuple[jax.Array, ...]]


# (params of every part, batch, keys [batch], training) → Outcome. The keys are typed PRNG keys, one
# per example; without training nothing is dropped.
Loss: TypeAlias = Callable[[Parts, Batch, Key[Array, " batch"], bool], Outcome]


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """What a run minimises, as pure functions; its builder gets the networks as arguments.

    Attributes:
      losses: Loss that each trained part minimises over its own parameters, by name of the part;
        `model` comes first. All parts are updated at once, each by its own optimizer.
      metrics: Accumulators of what the loss of `model` observes, by name.
      averaged: Parts with EMA profiles, which a sampler reads.
      velocity: Velocity field of the averaged parts, if samples are drawn by an ODE.
      show: Function (params of every part, batch, keys) → images [batch, columns, height,
        width] float32 in [-1, 1] for a sample grid, if there is no velocity.
    """

    losses: Mapping[str, Loss]
    metrics: Mapping[str, type[clu.metrics.Metric]]
    averaged: tuple[str, ...] = ("model",)
    velocity: Velocity | None = None
    show: (
        Callable[[Parts, Batch, Key[Array, " batch"]], Float[Array, "batch columns height width"]]
        | None
    ) = None


def batch_shapes(n: int, input_shape: tuple[int, int, int]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch of n examples with input_shape: height, width, channels."""
    return {
        "image": jax.ShapeDtypeStruct((n, *input_shape), jnp.float32),
        "content_box": jax.ShapeDtypeStruct((n, 4), jnp.int32),
        "attributes": jax.ShapeDtypeStruct((n, NUM_ATTRIBUTES), jnp.float32),
        "known": jax.ShapeDtypeStruct((n, NUM_ATTRIBUTES), jnp.bool),
        "index": jax.ShapeDtypeStruct((n,), jnp.uint32),
    }
