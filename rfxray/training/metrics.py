"""What the train step accumulates on the device between two log steps."""

import clu.metrics
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

# The loss is also kept by timestep, in equal bins of t: a mean hides which end of the path learns.
T_BINS = 4


@flax.struct.dataclass
class LossByTimestep(clu.metrics.Metric):
    """Mean loss in each of `T_BINS` equal bins of t: [T_BINS] float32."""

    total: jax.Array
    count: jax.Array

    @classmethod
    def empty(cls):
        return cls(jnp.zeros(T_BINS), jnp.zeros(T_BINS))

    @classmethod
    def from_model_output(cls, loss_by_t, **_):
        loss, t = loss_by_t
        within = jax.nn.one_hot(jnp.minimum((t * T_BINS).astype(jnp.int32), T_BINS - 1), T_BINS)
        return cls(loss @ within, within.sum(0))

    def merge(self, other):
        return type(self)(self.total + other.total, self.count + other.count)

    def compute(self):
        return self.total / jnp.maximum(self.count, 1.0)


@flax.struct.dataclass
class TrainMetrics(clu.metrics.Collection):
    """What the train step accumulates between two log steps."""

    loss: clu.metrics.Average.from_output("loss")
    loss_by_t: LossByTimestep
    grad_norm: clu.metrics.Average.from_output("grad_norm")
    update_norm: clu.metrics.Average.from_output("update_norm")


def fresh_metrics(place: jax.sharding.Sharding) -> TrainMetrics:
    """Empty accumulators at that place."""
    return jax.device_put(TrainMetrics.empty(), place)


def scalars(metrics: TrainMetrics) -> dict[str, float]:
    """Fetched accumulators as named numbers; what saw no example is left out."""
    metrics = jax.device_get(metrics)
    if not metrics.loss.count:  # every step was skipped
        return {}
    values = metrics.compute()
    by_t = values.pop("loss_by_t")
    named = {name: float(value) for name, value in values.items()}
    for i, value in enumerate(np.asarray(by_t)):
        if metrics.loss_by_t.count[i]:
            named[f"loss_t/{i / T_BINS:.2f}-{(i + 1) / T_BINS:.2f}"] = float(value)
    return named
