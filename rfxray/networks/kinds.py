"""The networks that a config can name, and what every network offers."""

import functools
from collections.abc import Callable

import ml_collections

from rfxray.config import kinds
from rfxray.networks import radit
from rfxray.networks.network import Network

KINDS: dict[str, Callable[[ml_collections.ConfigDict], Network]] = {"radit": radit.build}


@functools.lru_cache(maxsize=32)
def build(section: ml_collections.FrozenConfigDict) -> Network:
    """The network of a config's `model` section; the same object for equal sections.

    Raises:
      ConfigError: If there is no such kind, or its keys cannot go together.
    """
    return kinds.lookup(section.kind, KINDS, "network")(section)
