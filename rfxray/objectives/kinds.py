"""The objectives that a config can name."""

from collections.abc import Callable, Mapping

import jax
import ml_collections

from rfxray.config import kinds
from rfxray.objectives import flow_matching
from rfxray.objectives.objective import Objective

# (section of the config, `apply` of the network of every part) → Objective
Build = Callable[[ml_collections.ConfigDict, Mapping[str, Callable[..., jax.Array]]], Objective]

KINDS: dict[str, Build] = {"flow_matching": flow_matching.build}


def build(
    section: ml_collections.ConfigDict, networks: Mapping[str, Callable[..., jax.Array]]
) -> Objective:
    """The objective of a config's `objective` section.

    Args:
      section: Its keys.
      networks: `Network.apply` of every part, by its name.

    Raises:
      ConfigError: If there is no such kind, or its keys or parts cannot go together.
    """
    return kinds.lookup(section.kind, KINDS, "objective")(section, networks)
