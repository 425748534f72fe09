"""What of a config is the identity of a run: what a checkpoint must agree with."""

from collections.abc import Mapping

import ml_collections

from rfxray.config.schema import flatten, is_frozen, keys_of


def identity_of(
    config: ml_collections.ConfigDict, data_fingerprint: str, weights: Mapping[str, str] = {}
) -> dict[str, object]:
    """The identity of a run as flat JSON values.

    Every key that is not runtime, with data sets and given weights by content instead of by path;
    `steps` counts if the learning rate before the end depends on it.

    Args:
      config: Config of the run.
      data_fingerprint: Fingerprint of its data.
      weights: Hash of the weights that each key of given weights names, by the key.
    """
    keys = keys_of(config)
    same: dict[str, object] = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in flatten(config).items()
        if not keys[key].runtime
    }
    if any(optim.schedule == "cosine" for optim in _optims(config)):
        same["steps"] = config.steps
    same["data.fingerprint"] = data_fingerprint
    return same | dict(weights)


def decays_otherwise(config: ml_collections.ConfigDict, steps: int, step: int) -> bool:
    """Whether the first `step` steps of a run of `steps` had another learning rate than they have
    under this config: wsd may be lengthened or shortened only until one of the decays begins."""
    if steps == config.steps:
        return False
    return any(
        optim.schedule == "wsd" and step - 1 > min(steps, config.steps) - optim.decay
        for optim in _optims(config)
    )


def _optims(config: ml_collections.ConfigDict) -> list[ml_collections.ConfigDict]:
    trained = [part for part in config.parts.values() if not is_frozen(part)]
    return [config.optim, *(part.optim for part in trained)]
