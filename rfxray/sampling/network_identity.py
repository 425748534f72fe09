"""What identifies a network by content."""

import hashlib
import json
from collections.abc import Mapping, Sequence

import ml_collections

from rfxray.config.schema import flatten, keys_of

# Sections of a config that decide what is computed: of a network that is sampled from, since its
# objective says what it predicts, and of one that is only applied.
SAMPLED, APPLIED = ("model", "objective", "parts"), ("model",)


def identity(
    config: ml_collections.FrozenConfigDict,
    digest: str,
    sections: Sequence[str] = SAMPLED,
    latents: Mapping[str, object] | None = None,
) -> str:
    """sha256 of all that decides the velocity of a network, hex; no path is part of it.

    Args:
      config: Config of the run: keys that are not runtime count.
      digest: Digest of the parameters, from `weights.restore_ema`.
      sections: Sections of the config that decide what the network computes.
      latents: What the run records of its latents, see `data.latents.Latents.entry`.
    """
    keys = keys_of(config)
    decides = {
        key: value
        for key, value in flatten(config).items()
        if key.split(".")[0] in sections and not keys[key].runtime
    }
    space = [] if latents is None else [{name: latents[name] for name in ("vae", "statistics")}]
    text = json.dumps([digest, decides, *space], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
