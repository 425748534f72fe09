"""A grid of samples: the same noise and the same requested attributes at every step."""

import jax
import ml_collections
import numpy as np
from einops import rearrange

from rfxray.attributes.vocabulary import Attributes, settle
from rfxray.checkpoints.weights import ema_name
from rfxray.data.pixels import to_uint8
from rfxray.errors import ConfigError
from rfxray.outputs import contact_sheet
from rfxray.runtime import sharding
from rfxray.sampling.sampler import make_sampler
from rfxray.sampling.settings import Settings
from rfxray.training.evaluators.evaluator import Context, Evaluator, Findings
from rfxray.training.state import State
from rfxray.training.step import VALIDATION, example_keys


def build(section: ml_collections.ConfigDict, context: Context) -> Evaluator:
    """Builds the evaluator that makes the image `samples` with the first EMA profile.

    It samples the objective's velocity under the attributes of the first examples of a split. An
    objective without a velocity shows these examples with its function `show`.

    Raises:
      ConfigError: If the objective has neither.
    """
    recipe = context.recipe
    objective, profile = recipe.objective, ema_name(recipe.sigmas[0])
    n = section.n + -section.n % context.batch_multiple
    examples = context.first_examples(section.split, n)
    whole = sharding.replicated(context.mesh)

    if objective.velocity is not None:
        settings = Settings(recipe.seed, section.steps, section.solver, section.guidance)
        sampler = make_sampler(objective.velocity, recipe.model.input_shape, settings)
        draw = jax.jit(sampler, out_shardings=whole)
        indices = np.arange(n, dtype=np.uint32)
        attributes = settle(Attributes(examples["attributes"], examples["known"]))
        seed, weight = np.uint32(recipe.seed), np.float32(section.guidance)

        def evaluate(state: State) -> Findings:
            drawn = np.asarray(draw(state["ema"][profile], seed, weight, indices, attributes))
            images = context.images(drawn)
            return Findings(images={"samples": contact_sheet.grid(to_uint8(images[..., 0]))})

        return evaluate

    if objective.show is None:
        raise ConfigError(
            "the objective has nothing to show in a sample grid; set evaluators.sample_grid.every=0"
        )
    keys = example_keys(recipe.seed, VALIDATION, examples["index"])
    show = jax.jit(objective.show, out_shardings=whole)

    def evaluate_shown(state: State) -> Findings:
        params = {**state["params"], **state["ema"][profile]}
        rows = to_uint8(np.asarray(show(params, examples, keys)))
        columns = rows.shape[1]
        grid = contact_sheet.grid(rearrange(rows, "n columns h w -> (n columns) h w"), columns)
        return Findings(images={"samples": grid})

    return evaluate_shown
