"""The evaluators that a config can name, which evaluate a run while it trains."""

from collections.abc import Callable, Mapping

import ml_collections

from rfxray.config import kinds
from rfxray.training.evaluators import fidelity, sample_grid, validation_loss
from rfxray.training.evaluators.evaluator import Context, Evaluator

# (section of the config, context) → evaluator
Build = Callable[[ml_collections.ConfigDict, Context], Evaluator]

KINDS: dict[str, Build] = {
    "validation_loss": validation_loss.build,
    "sample_grid": sample_grid.build,
    "fidelity": fidelity.build,
}


def build(
    sections: Mapping[str, ml_collections.ConfigDict], context: Context
) -> dict[str, tuple[int, Evaluator]]:
    """Builds the evaluators of a config's `evaluators` section, except those with interval 0.

    Returns:
      Interval in steps and evaluator, by name.

    Raises:
      ConfigError: If a kind does not exist, or the data lacks a split that an evaluator reads.
    """
    return {
        name: (section.every, kinds.lookup(section.kind, KINDS, "evaluator")(section, context))
        for name, section in sections.items()
        if section.every
    }
