"""Flow matching: the network learns the velocity of a rectified flow from data to noise.

The path, its timesteps and the loss are those of flow.py. Attributes are dropped at random, so that
one network learns every conditional that guidance needs.
"""

import itertools
from collections.abc import Callable, Mapping

import clu.metrics
import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float, Key, PyTree

from rfxray.attributes import conditioning
from rfxray.attributes.vocabulary import Attributes
from rfxray.errors import ConfigError
from rfxray.objectives import flow
from rfxray.objectives.objective import Batch, Objective, Outcome, Parts

# Equal bins of t in which the loss is also averaged: one mean hides which timesteps improve.
T_BINS = 4


@flax.struct.dataclass
class LossByTimestep(clu.metrics.Metric):
    """Mean loss in each of `T_BINS` equal bins of t: [T_BINS] float32."""

    # Float[Array, "bins"], but JAX also makes trees of shapes and shardings of this class.
    total: PyTree
    count: PyTree

    @classmethod
    def empty(cls) -> "LossByTimestep":
        return cls(jnp.zeros(T_BINS), jnp.zeros(T_BINS))

    @classmethod
    def from_model_output(
        cls,
        loss_by_t: tuple[Float[Array, " batch"], Float[Array, " batch"]],
        **_: object,
    ) -> "LossByTimestep":
        loss, t = loss_by_t
        within = jax.nn.one_hot(jnp.minimum((t * T_BINS).astype(jnp.int32), T_BINS - 1), T_BINS)
        # Not a matrix product, which an accelerator would compute in bfloat16 or TF32.
        return cls((loss[:, None] * within).sum(0), within.sum(0))

    def merge(  # pyright: ignore[reportIncompatibleMethodOverride]  clu means Self
        self, other: "LossByTimestep"
    ) -> "LossByTimestep":
        return type(self)(self.total + other.total, self.count + other.count)

    def compute(  # pyright: ignore[reportIncompatibleMethodOverride]  a clu collection takes any value
        self,
    ) -> dict[str, Float[Array, ""]]:
        """The mean of each bin by name, NaN for a bin without examples."""
        mean = jnp.where(self.count > 0, self.total / jnp.maximum(self.count, 1.0), jnp.nan)
        edges = [i / T_BINS for i in range(T_BINS + 1)]
        names = [f"loss_t/{a:.2f}-{b:.2f}" for a, b in itertools.pairwise(edges)]
        return dict(zip(names, mean, strict=True))


def build(
    section: ml_collections.ConfigDict, networks: Mapping[str, Callable[..., jax.Array]]
) -> Objective:
    """The objective of a config's `objective` section.

    Args:
      section: Keys of the section, see `config.schema`.
      networks: Network `model`: `(params, x_t, t [batch], attributes) → prediction` like x_t.

    Raises:
      ConfigError: If the shares of dropped examples exceed 1, or another part is given.
    """
    if section.drop_all + section.drop_each > 1:
        raise ConfigError(
            "objective.drop_all and objective.drop_each are shares of the examples, at most 1 "
            f"together (got {section.drop_all} and {section.drop_each})"
        )
    if set(networks) != {"model"}:
        raise ConfigError(
            f"objective.kind=flow_matching trains only the model (got parts {', '.join(networks)})"
        )
    network = networks["model"]

    def velocity(
        params: Parts,
        x: Float[Array, " batch *shape"],
        t: Float[Array, " batch"],
        attributes: Attributes,
    ) -> Float[Array, " batch *shape"]:
        output = network(params["model"], x, t, attributes)
        return flow.velocity(output, x, t, section.prediction)

    def loss(params: Parts, batch: Batch, keys: Key[Array, " batch"], training: bool) -> Outcome:
        x = batch["image"]
        split = jax.vmap(lambda key: jax.random.split(key, 3))(keys)
        for_t, for_noise, for_drop = split.swapaxes(0, 1)
        t = flow.sample_timestep(for_t, section.t_mean, section.t_std, section.shift)
        noise = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(for_noise)
        attributes = Attributes(batch["attributes"], batch["known"])
        if training:
            attributes = conditioning.drop(
                for_drop, attributes, section.drop_all, section.drop_each
            )
        found = velocity(params, flow.interpolate(x, noise, t), t, attributes)
        losses = flow.loss(found, x, noise)
        return Outcome(losses, {"loss_by_t": (losses, t)})

    return Objective(
        losses={"model": loss}, metrics={"loss_by_t": LossByTimestep}, velocity=velocity
    )
