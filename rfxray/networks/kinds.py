"""The networks that a config can name."""

import functools
from collections.abc import Callable
from typing import TypeAlias

import ml_collections

from rfxray.config import kinds
from rfxray.networks import (
    classifier,
    decoder_lora,
    grey_efficientnet,
    grey_vit,
    masked_vit,
    patch_discriminator,
    radit,
    vae,
)
from rfxray.networks.network import Network

# section of the config → Network
Build: TypeAlias = Callable[[ml_collections.ConfigDict], Network]

KINDS: dict[str, Build] = {
    "radit": radit.build,
    "masked_vit": masked_vit.build,
    "vae": vae.build,
    "decoder_lora": decoder_lora.build,
    "grey_vit": grey_vit.build,
    "grey_efficientnet": grey_efficientnet.build,
    "patch_discriminator": patch_discriminator.build,
    "classifier": classifier.build,
}


@functools.lru_cache(maxsize=32)
def build(section: ml_collections.FrozenConfigDict) -> Network:
    """The network of a config's `model` section; the same object for equal sections.

    Raises:
      ConfigError: If there is no such kind, or its keys contradict each other.
    """
    return kinds.lookup(section.kind, KINDS, "network")(section)
