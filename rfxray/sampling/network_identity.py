"""What identifies a network by content."""

import hashlib
import json
from collections.abc import Mapping, Sequence

import ml_collections

from rfxray.arrays import Params
from rfxray.checkpoints import weights
from rfxray.config.schema import flatten, keys_of

# Sections of a config that decide what is computed: of a network that is sampled from, since its
# objective says what it predicts, and of one that is only applied.
SAMPLED, APPLIED = ("model", "objective", "parts"), ("model",)

# Tensors of an autoencoder that decide its latents, and keys of its section that do not.
_ENCODER = ("encoder.", "quant_conv.", "bn.")
_NOT_ENCODER = ("kind", "size", "decoder_multipliers", "remat")


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


def encoder_identity(
    section: ml_collections.ConfigDict, params: Params, dtype: str = "float32"
) -> str | None:
    """sha256 of all that decides the latents of an autoencoder, hex; None for another network.

    Autoencoders that differ in the decoder only have the same one.

    Args:
      section: Section `model` of its config.
      params: Its parameters by name, float32.
      dtype: Dtype that they are rounded to first.
    """
    if section.kind != "vae":
        return None
    own = {name: value for name, value in params.items() if name.startswith(_ENCODER)}
    decides = {key: value for key, value in section.items() if key not in _NOT_ENCODER}
    text = json.dumps([weights.digest_of(own, dtype), decides], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
