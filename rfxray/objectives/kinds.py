"""The objectives that a config can name."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax
import ml_collections

from rfxray.config import kinds
from rfxray.objectives import autoencoding, classification, flow_matching, masked_image
from rfxray.objectives.objective import Objective

# (section of the config, `apply` of the network of every part) → Objective
Build: TypeAlias = Callable[
    [ml_collections.ConfigDict, Mapping[str, Callable[..., jax.Array]]], Objective
]

KINDS: dict[str, Build] = {
    "flow_matching": flow_matching.build,
    "masked_image": masked_image.build,
    "autoencoding": autoencoding.build,
    "classification": classification.build,
}


def build(
    section: ml_collections.ConfigDict, networks: Mapping[str, Callable[..., jax.Array]]
) -> Objective:
    """The objective of a config's `objective` section.

    Args:
      section: Keys of the section.
      networks: Function `Network.apply` of every part, by name.

    Raises:
      ConfigError: If there is no such kind, or its keys or parts contradict each other.
    """
    return kinds.lookup(section.kind, KINDS, "objective")(section, networks)
