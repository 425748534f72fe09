"""Metrics that the train step accumulates on the device between two log steps."""

import clu.metrics
import jax
import numpy as np

from rfxray.objectives.objective import Objective


def collection(objective: Objective) -> type[clu.metrics.Collection]:
    """The class of a run's accumulators.

    It has mean loss, gradient norm and update norm of `model`, the metrics of the objective, and
    `NAME_loss` and `NAME_grad_norm` of every other part.
    """
    means = ["loss", "grad_norm", "update_norm"]
    for part in objective.losses:
        if part != "model":
            means += [f"{part}_loss", f"{part}_grad_norm"]
    averages = {name: clu.metrics.Average.from_output(name) for name in means}
    return clu.metrics.Collection.create(**averages, **objective.metrics)


def fresh(
    metrics: type[clu.metrics.Collection], place: jax.sharding.Sharding
) -> clu.metrics.Collection:
    """Empty accumulators on the devices of a sharding."""
    return jax.device_put(metrics.empty(), place)


def accumulated(metrics: clu.metrics.Collection) -> jax.Array:
    """Number of steps in the accumulators, a scalar that is ready when the last of them is."""
    return vars(metrics)["loss"].count


def scalars(metrics: clu.metrics.Collection) -> dict[str, float]:
    """Fetches accumulators as named numbers, without those that saw no example."""
    metrics = jax.device_get(metrics)
    if not accumulated(metrics):  # every step was skipped
        return {}
    named: dict[str, float] = {}
    for name, value in metrics.compute().items():
        several = value if isinstance(value, dict) else {name: value}
        named |= {key: float(number) for key, number in several.items() if not np.isnan(number)}
    return named
