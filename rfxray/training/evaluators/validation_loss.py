"""The loss on held-out examples: always the same ones, with the same times and noise."""

import jax
import ml_collections
import numpy as np

from rfxray.checkpoints.weights import ema_name
from rfxray.objectives.objective import Batch, Parts
from rfxray.runtime import sharding
from rfxray.sampling import distance
from rfxray.training.evaluators.evaluator import Context, Evaluator, Findings
from rfxray.training.state import State
from rfxray.training.step import VALIDATION, example_keys


def build(section: ml_collections.ConfigDict, context: Context) -> Evaluator:
    """Builds the evaluator of `validation_loss/params` and, for the first EMA profile,
    `validation_loss/ema`; for an objective with a velocity also of the quantile of
    `sampling.distance`, which editing compares radiographs with."""
    recipe = context.recipe
    loss, profile = recipe.objective.losses["model"], ema_name(recipe.sigmas[0])
    fixed = context.fixed_batches(section.split, section.batches)

    @jax.jit
    def mean_loss(params: Parts, batch: Batch) -> jax.Array:
        keys = example_keys(recipe.seed, VALIDATION, batch["index"])
        return loss(params, batch, keys, False).losses.mean()

    velocity, quantile = recipe.objective.velocity, None
    if velocity is not None:
        whole = sharding.replicated(context.mesh)
        quantile = jax.jit(distance.losses(velocity), out_shardings=whole)

    def evaluate(state: State) -> Findings:
        # Parts that are not averaged, such as a discriminator, are used as they are.
        weights = {
            "params": state["params"],
            "ema": {**state["params"], **state["ema"][profile]},
        }
        losses = {name: [mean_loss(w, batch) for batch in fixed] for name, w in weights.items()}
        fetched = jax.device_get(losses)
        found = {f"validation_loss/{k}": float(np.mean(v)) for k, v in fetched.items()}
        if quantile is not None:
            each = [np.asarray(quantile(state["ema"][profile], b["image"])) for b in fixed]
            found[distance.NAME] = float(np.quantile(np.concatenate(each), distance.SHARE))
        return Findings(found)

    return evaluate
