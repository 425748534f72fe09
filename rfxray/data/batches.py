"""From ArrayRecord shards to batches, with Grain and without TensorFlow.

The order of examples is a pure function of (seed, epoch, position): every epoch has its own global
shuffle, several data sets are interleaved by weight, and every example carries its position in this
endless order as `index`. Host h of n reads positions h, h + n, … of each global batch, so any
number of hosts reads the same global batches, and the data position is one integer:
step · batch_size.
A damaged record may be replaced by the next one, which is the same on any number of hosts.
"""

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence

import grain
import numpy as np

from rfxray.attributes.states import known_from_states
from rfxray.data.dataset import Dataset, Records, open_dataset
from rfxray.data.faults import Faults
from rfxray.data.latents import Latents, Statistics, mixed
from rfxray.data.pixels import to_float
from rfxray.errors import ConfigError, Preempted

FIELDS = ("image", "content_box", "attributes", "known", "index")  # of a batch


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What a run reads: data sets and the order of their examples.

    Attributes:
      datasets: Data sets in the order of their directories.
      weights: Share of each data set, on any positive scale.
      split: Split to train on.
      seed: Seed of the order.
      closed_vocabulary_negatives: Whether a finding that a closed list does not name is known to be
        absent.
      faults: Log of damaged records, which are replaced; None raises at the first one.
    """

    datasets: tuple[Dataset, ...]
    weights: tuple[float, ...]
    split: str
    seed: int
    closed_vocabulary_negatives: bool
    faults: Faults | None = None

    @property
    def fingerprint(self) -> str:
        """Fingerprints of the data sets, joined in the order of the mixture."""
        return "+".join(dataset.fingerprint for dataset in self.datasets)

    @property
    def latents(self) -> Latents | None:
        """What the latents of the mixture are; None for images."""
        found = [dataset.latents for dataset in self.datasets if dataset.latents]
        if not found:
            return None
        return dataclasses.replace(
            found[0],
            source="+".join(each.source for each in found),
            statistics=mixed([each.statistics for each in found], self.weights),
        )

    def require_split(self, split: str, remedy: str) -> None:
        """Raises a ConfigError if a data set lacks a split; `remedy` says what to set."""
        for dataset in self.datasets:
            if not dataset.examples.get(split):
                have = ", ".join(dataset.examples) or "none"
                raise ConfigError(
                    f"data set {dataset.path} has no split {split!r}, only {have}; set {remedy}"
                )

    def require_shape(self, shape: tuple[int, int, int]) -> None:
        """Raises a ConfigError unless the images have a shape: height, width, channels."""
        for dataset in self.datasets:
            if dataset.shape != tuple(shape):
                what = "set config.model.size, or build the data set at that size"
                if dataset.latents:
                    what = "set config.model.size and config.model.channels to those of the latents"
                elif shape[2] != 1:
                    what = "encode it with rfxray encode, or use a config of pixels"
                held = "latents" if dataset.latents else "images"
                raise ConfigError(
                    f"data set {dataset.path} holds {held} of "
                    f"{' × '.join(map(str, dataset.shape))}, but the network takes "
                    f"{' × '.join(map(str, shape))}; {what}"
                )


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a host reads: threads, worker processes (0: none), batches to read ahead."""

    threads: int = 2
    workers: int = 0
    prefetch: int = 4


def open_mixture(
    dirs: Sequence[str],
    weights: Sequence[float],
    split: str,
    seed: int,
    closed_vocabulary_negatives: bool,
    make: str = "",
) -> Mixture:
    """Opens the data sets of several directories as one mixture.

    Args:
      dirs: Directories of the data sets.
      weights, split, seed, closed_vocabulary_negatives: Those of `Mixture`.
      make: Command that makes the data, shown if a data set is missing.

    Raises:
      DataError: If a data set is missing or damaged.
      ConfigError: If no directory is given, or a data set lacks the split.
    """
    if "" in dirs:
        raise ConfigError(
            "data.dirs is not set; add --config.data.dirs=DIR, a folder that rfxray build, "
            "harmonise or phantom wrote"
        )
    datasets = tuple(open_dataset(folder, make, latents=True) for folder in dirs)
    _refuse_mixed(datasets)
    mixture = Mixture(datasets, tuple(weights), split, seed, closed_vocabulary_negatives)
    mixture.require_split(split, "config.data.split")
    return mixture


def _refuse_mixed(datasets: Sequence[Dataset]) -> None:
    """Raises a ConfigError if images and latents, or latents of several encoders, are mixed.

    Latents of one encoder mean the same whatever decodes them; the run decodes with the autoencoder
    of the first data set.
    """
    first = datasets[0]
    for other in datasets[1:]:
        one, two = first.latents, other.latents
        if (one is None) != (two is None) or (one and two and not one.same_encoder(two)):
            said = [f"latents of the VAE {of.vae[:12]}" if of else "images" for of in (one, two)]
            raise ConfigError(
                f"data set {first.path} holds {said[0]} and {other.path} {said[1]}; a run reads "
                "images, or latents of one encoder"
            )


# ---------------------------------------------------------------------------------------------
# Examples


class _Decoder:
    """(position in the order, record) → the fields that the train step reads."""

    def __init__(self, closed_vocabulary_negatives: bool, statistics: Statistics | None):
        self._closed, self._statistics = closed_vocabulary_negatives, statistics

    def __call__(self, index: int, example: dict) -> dict[str, np.ndarray | np.generic]:
        known = known_from_states(example["states"], self._closed)
        if self._statistics:
            image = self._statistics.normalised(example["latent"])
        else:
            image = to_float(example["image"])[..., None]
        return {
            "image": image,
            "content_box": np.asarray(example["content_box"], np.int32),
            "attributes": np.where(known, example["attributes"], 0).astype(np.float32),
            "known": known,
            "index": np.uint32(index),
        }

    def __reduce__(self):
        # Unpickling is the only hook that Grain runs when a worker process starts.
        return _decoder_of_a_worker, (self._closed, self._statistics)


def _decoder_of_a_worker(
    closed_vocabulary_negatives: bool, statistics: Statistics | None
) -> _Decoder:
    """A decoder. In a worker process, ties the process to the trainer first."""
    if multiprocessing.parent_process() is not None:
        _live_as_long_as_the_trainer()
    return _Decoder(closed_vocabulary_negatives, statistics)


def _live_as_long_as_the_trainer() -> None:
    """Makes a worker process ignore signals and end with the trainer.

    Signals that stop a job are often sent to all its processes, but the trainer needs its workers
    until it has saved.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    trainer = multiprocessing.parent_process()
    assert trainer is not None

    def follow():
        trainer.join()
        os._exit(Preempted.exit_code)

    threading.Thread(target=follow, daemon=True).start()


def _order(mixture: Mixture, split: str, shuffle: bool) -> grain.MapDataset:
    """The endless order of records: a dataset that maps a position to a record."""
    parts = []
    for number, dataset in enumerate(mixture.datasets):
        part = grain.MapDataset.source(
            Records(dataset, split, mixture.faults)  # pyright: ignore[reportArgumentType]  no repr
        )
        if shuffle:
            part = part.seed(mixture.seed + number).shuffle()
        parts.append(part.repeat())
    return grain.MapDataset.mix(parts, mixture.weights) if len(parts) > 1 else parts[0]


def _examples(mixture: Mixture, split: str, shuffle: bool) -> grain.MapDataset:
    """The endless order of examples as the train step reads them."""
    latents = mixture.latents
    decoder = _Decoder(mixture.closed_vocabulary_negatives, latents and latents.statistics)
    return _order(mixture, split, shuffle).map_with_index(decoder)


def records_at(mixture: Mixture, positions: Sequence[int]) -> list[dict]:
    """The training records at some positions of the endless order, with keys and states."""
    return _at(_order(mixture, mixture.split, shuffle=True), positions)


def first_examples(mixture: Mixture, split: str, n: int) -> dict[str, np.ndarray]:
    """The first n examples of a split in their stored order, repeated if there are fewer.

    Returns:
      Arrays as in `train_batches`: `image` [n, size, size, 1], `content_box` [n, 4], `attributes`,
      `known` [n, 19], `index` [n].
    """
    examples = _examples(mixture, split, shuffle=False)
    return _stacked(_at(examples, range(n)))


def _at(examples: grain.MapDataset, positions: Sequence[int]) -> list[dict]:
    """The examples at some positions of an endless order."""
    found = [examples[int(position)] for position in positions]
    return [each for each in found if each is not None]  # only a filtered order has holes


# ---------------------------------------------------------------------------------------------
# Batches


def train_batches(
    mixture: Mixture,
    batch_size: int,
    reading: Reading = Reading(),
    position: int = 0,
    host: int = 0,
    hosts: int = 1,
) -> grain.DatasetIterator[dict[str, np.ndarray]]:
    """This host's rows of every global batch, endless, from a position on.

    Args:
      mixture: Data to read.
      batch_size: Examples of a global batch.
      reading: Threads, processes and batches to read ahead.
      position: Number of examples that the run has seen.
      host, hosts: Number of this host, and of all hosts.

    Returns:
      Iterator of `image` [rows, size, size, 1] float32 in [−1, 1], `content_box` [rows, 4] int32
      (top, left, height, width of the radiograph in its square), `attributes` [rows, 19] float32,
      `known` [rows, 19] bool, `index` [rows] uint32; rows = batch_size / hosts. Its `get_state()`
      is the data position, the same on every host.
    """
    processes = None
    if reading.workers:
        # Grain's worker processes read absl flags, which nothing has parsed here.
        from absl import flags

        flags.FLAGS.mark_as_parsed()
        processes = grain.MultiprocessingOptions(num_workers=reading.workers)
    iterator = iter(
        grain.experimental.ElasticIterator(
            _examples(mixture, mixture.split, shuffle=True),
            batch_size,
            grain.sharding.ShardOptions(host, hosts),
            # The default buffer of up to 500 batches would not bound memory.
            read_options=grain.ReadOptions(
                num_threads=reading.threads, prefetch_buffer_size=reading.prefetch
            ),
            multiprocessing_options=processes,
        )
    )
    iterator.set_state({"global_next_index": position})
    return iterator


def fixed_batches(
    mixture: Mixture, split: str, batch_size: int, count: int, host: int = 0, hosts: int = 1
) -> list[dict[str, np.ndarray]]:
    """This host's rows of `count` batches that are always the same.

    They hold the first examples of a split in their stored order, repeated if there are fewer. The
    `index` is the position in that order, so a repeated image gets different noise.
    """
    examples = _examples(mixture, split, shuffle=False)
    return [
        _stacked(_at(examples, range(start + host, start + batch_size, hosts)))
        for start in range(0, count * batch_size, batch_size)
    ]


def _stacked(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {field: np.stack([row[field] for row in rows]) for field in FIELDS}
