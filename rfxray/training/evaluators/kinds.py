"""The evaluators that a config can name: what looks at a run while it trains."""

from collections.abc import Callable, Mapping

import ml_collections

from rfxray.config import kinds
from rfxray.training.evaluators import sample_grid, validation_loss
from rfxray.training.evaluators.evaluator import Context, Evaluator

# (section of the config, what it may look at) → evaluator
Build = Callable[[ml_collections.ConfigDict, Context], Evaluator]

KINDS: dict[str, Build] = {
    "validation_loss": validation_loss.build,
    "sample_grid": sample_grid.build,
}


def build(
    sections: Mapping[str, ml_collections.ConfigDict], context: Context
) -> dict[str, tuple[int, Evaluator]]:
    """The evaluators of a config's `evaluators` section that are ever run.

    Returns:
      The steps between two runs and the evaluator, by its name.

    Raises:
      ConfigError: If a kind does not exist, or the data lacks a split that one reads.
    """
    return {
        name: (section.every, kinds.lookup(section.kind, KINDS, "evaluator")(section, context))
        for name, section in sections.items()
        if section.every
    }
