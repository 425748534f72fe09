"""The data that a config names, opened and checked for its run."""

import ml_collections

from rfxray.data import batches


def open_data(
    config: ml_collections.FrozenConfigDict, shape: tuple[int, int, int]
) -> batches.Mixture:
    """The data of a run, checked against the shape that its network takes.

    Raises:
      DataError: If a data set is missing or damaged.
      ConfigError: If its images do not fit, or it lacks a split that is read.
    """
    data = config.data
    mixture = batches.open_mixture(
        data.dirs,
        data.weights,
        data.split,
        config.seed,
        data.closed_vocabulary_negatives,
        data.make,
    )
    mixture.require_shape(shape)
    for name, section in config.evaluators.items():
        if section.every and "split" in section:
            key = f"config.evaluators.{name}"
            mixture.require_split(section.split, f"{key}.split, or {key}.every=0")
    return mixture
