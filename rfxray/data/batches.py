"""From ArrayRecord shards to batches: Grain, TensorFlow-free, position = step.

The order of examples is a pure function of (seed, epoch, position): every epoch is a global shuffle
of its own, several data sets are interleaved by weight, and every example carries its place in that
endless order as `index`. Host h of n reads the places h, h + n, … of each global batch, so any
number of hosts reads the same global batches and the position is one integer, step · batch_size.
A damaged record may be replaced by the next of its shards, the same one on any number of hosts.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from rfxray.attributes import states
from rfxray.data.dataset import Dataset, Records, open_dataset
from rfxray.data.faults import Faults
from rfxray.data.pixels import to_float
from rfxray.errors import ConfigError, Preempted


def open_datasets(config) -> tuple[Dataset, ...]:
    """The data sets of a run's config, checked against its model.

    Raises:
      DataError: where one is missing.
      ConfigError: where its pictures are not what the model takes, or it lacks the split.
    """
    datasets = tuple(open_dataset(d, config.data.make) for d in config.data.dirs)
    for dataset in datasets:
        if dataset.size != config.model.size or config.model.channels != 1:
            what = "set config.model.size, or build the data set at that size"
            if config.model.channels != 1:
                what = "no encoder of latents is here yet, so take a config of pixels (space=pixel)"
            raise ConfigError(
                f"data set {dataset.path} holds {dataset.size}² × 1 pictures and the model takes "
                f"{config.model.size}² × {config.model.channels}; {what}"
            )
        for key, split in (("data", config.data.split), ("eval", config.eval.split)):
            if (key == "data" or config.eval.every) and not dataset.examples.get(split):
                have = ", ".join(dataset.examples) or "none"
                off = "" if key == "data" else ", or config.eval.every=0"
                raise ConfigError(
                    f"data set {dataset.path} has no split {split!r}, only {have}; "
                    f"set config.{key}.split{off}"
                )
    return datasets


def fingerprint(datasets: tuple[Dataset, ...]) -> str:
    """What the data of a run is, by content, in the order of the mixture."""
    return "+".join(dataset.fingerprint for dataset in datasets)


class _Decoder:
    """(place in the order, record) → what the train step takes of it."""

    def __init__(self, closed_vocabulary_negatives: bool):
        self._closed = closed_vocabulary_negatives

    def __call__(self, index: int, example: dict) -> dict[str, np.ndarray]:
        known = states.known_from_states(example["states"], self._closed)
        return {
            "image": to_float(example["image"])[..., None],
            "attributes": np.where(known, example["attributes"], 0).astype(np.float32),
            "known": known,
            "index": np.uint32(index),
        }

    def __setstate__(self, state):
        # Grain's worker processes unpickle what they run, and say nothing else of their birth.
        self.__dict__.update(state)
        if multiprocessing.parent_process() is not None:
            _live_as_long_as_the_trainer()


def _live_as_long_as_the_trainer() -> None:
    """What stops a job is often sent to all of its processes: the trainer alone answers it, since
    it needs its readers until it has saved. Where it was killed they end too."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    trainer = multiprocessing.parent_process()

    def follow():
        trainer.join()
        os._exit(Preempted.exit_code)

    threading.Thread(target=follow, daemon=True).start()


def _order(config, datasets, split: str, shuffle: bool, faults=None) -> grain.MapDataset:
    """The endless order of records, as a dataset that maps a position to a record."""
    parts = []
    for number, dataset in enumerate(datasets):
        part = grain.MapDataset.source(Records(dataset, split, faults))
        if shuffle:
            part = part.seed(config.seed + number).shuffle()
        parts.append(part.repeat())
    return grain.MapDataset.mix(parts, config.data.weights) if len(parts) > 1 else parts[0]


def _examples(config, datasets, split: str, shuffle: bool, faults=None) -> grain.MapDataset:
    """The same order, of what the train step takes."""
    decoder = _Decoder(config.data.closed_vocabulary_negatives)
    return _order(config, datasets, split, shuffle, faults).map_with_index(decoder)


def records_at(
    config, datasets: tuple[Dataset, ...], positions: Sequence[int], faults: Faults | None = None
) -> list[dict]:
    """The training records at some places of the endless order, keys and states included."""
    order = _order(config, datasets, config.data.split, shuffle=True, faults=faults)
    return [order[int(position)] for position in positions]


def train_batches(
    config,
    datasets: tuple[Dataset, ...],
    position: int = 0,
    host: int = 0,
    hosts: int = 1,
    faults: Faults | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """This host's rows of every global batch, from a position on, for ever.

    Args:
      config, datasets: of the run.
      position: examples that the run has seen.
      host, hosts: whose rows.
      faults: lets records stand in for damaged ones; without it the first one raises.

    Returns:
      an iterator of `image` [rows, size, size, 1] float32 in [−1, 1], `attributes` [rows, 19]
      float32, `known` [rows, 19] bool, `index` [rows] uint32; rows = batch_size / hosts. Its
      `get_state()` is the data position, the same on every host.
    """
    workers = config.data.workers
    if workers:
        # Grain's worker processes read absl flags, which no absl program has parsed here.
        from absl import flags

        flags.FLAGS.mark_as_parsed()
    iterator = iter(
        grain.experimental.ElasticIterator(
            _examples(config, datasets, config.data.split, shuffle=True, faults=faults),
            config.batch_size,
            grain.sharding.ShardOptions(host, hosts),
            # The default buffer counts up to 500 batches, which is no bound on memory.
            read_options=grain.ReadOptions(
                num_threads=config.data.threads, prefetch_buffer_size=config.data.prefetch
            ),
            multiprocessing_options=grain.MultiprocessingOptions(num_workers=workers)
            if workers
            else None,
        )
    )
    iterator.set_state({"global_next_index": position})
    return iterator


def validation_batches(
    config,
    datasets: tuple[Dataset, ...],
    host: int = 0,
    hosts: int = 1,
    faults: Faults | None = None,
) -> list[dict[str, np.ndarray]]:
    """This host's rows of the `eval.batches` batches that every validation loss is taken on.

    The first examples of the validation split in their stored order, repeated where there are
    fewer; the place in that order is the `index`, so a repeated picture meets another noise.
    """
    examples = _examples(config, datasets, config.eval.split, shuffle=False, faults=faults)
    size = config.batch_size
    return [
        {
            key: np.stack([rows[key] for rows in batch])
            for key in ("image", "attributes", "known", "index")
        }
        for start in range(0, config.eval.batches * size, size)
        for batch in [[examples[i] for i in range(start + host, start + size, hosts)]]
    ]


def requests(
    config, datasets: tuple[Dataset, ...], multiple: int = 1, faults: Faults | None = None
) -> dict[str, np.ndarray]:
    """What the sample grid asks for: the attributes of the first held-out examples.

    Of the training split where there is no validation.

    Args:
      config, datasets: of the run.
      multiple: `samples.n` is rounded up to one of it.
      faults: as for `batches`.

    Returns:
      `indices` [n] uint32, `attributes` [n, 19] float32, `known` [n, 19] bool.
    """
    split = config.eval.split if config.eval.every else config.data.split
    examples = _examples(config, datasets, split, shuffle=False, faults=faults)
    n = config.samples.n + -config.samples.n % multiple
    rows = [examples[i] for i in range(n)]
    told = {key: np.stack([row[key] for row in rows]) for key in ("attributes", "known")}
    return {"indices": np.arange(n, dtype=np.uint32), **told}
