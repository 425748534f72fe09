"""What of a config is a run's identity."""

import ml_collections

from rfxray.config.schema import RUNTIME, flatten


def identity_of(config: ml_collections.ConfigDict, data_fingerprint: str) -> dict[str, object]:
    """What a checkpoint must agree with, as flat JSON values.

    Everything but the runtime keys, with the data sets by content instead of by path; `steps`
    counts where the learning rate before the end depends on it.
    """
    same = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in flatten(config).items()
        if not any(key == r or key.startswith(r + ".") for r in RUNTIME)
    }
    if config.optim.schedule == "cosine":
        same["steps"] = config.steps
    same["data.fingerprint"] = data_fingerprint
    return same


def decays_otherwise(config, steps: int, step: int) -> bool:
    """Whether the first `step` steps of a run of `steps` had another learning rate than they have
    under this config: wsd may be lengthened or shortened only until one of the decays begins."""
    begin = min(steps, config.steps) - config.optim.decay
    return config.optim.schedule == "wsd" and steps != config.steps and step - 1 > begin
