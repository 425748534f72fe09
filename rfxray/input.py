"""From ArrayRecord shards to batches: Grain, TensorFlow-free, position = step.

The order of examples is a pure function of (seed, epoch, position): every epoch is a global shuffle
of its own, several data sets are interleaved by weight, and every example carries its place in that
endless order as `index`. Host h of n reads the places h, h + n, … of each global batch, so any
number of hosts reads the same global batches and the position is one integer, step · batch_size.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path

import grain
import numpy as np

from rfxray import record
from rfxray.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One data set directory as its manifest describes it.

    Attributes:
      path: the directory.
      size: side of the square pictures, pixels.
      shards: shard paths of each split, in order.
      examples: number of examples of each split.
      fingerprint: hash over the content of every example, hex.
    """

    path: Path
    size: int
    shards: dict[str, tuple[str, ...]]
    examples: dict[str, int]
    fingerprint: str


def open_dataset(path: str | Path, make: str = "") -> Dataset:
    """Reads the manifest of a data set directory.

    Args:
      path: the directory.
      make: the command that makes it, shown where it is absent.

    Raises:
      DataError: where the directory, its manifest or a shard is missing or torn.
    """
    path = Path(path)
    file = path / "manifest.json"
    if not file.is_file():
        hint = f"; make it with: {make}" if make else "; data_prep.build makes one from a folder"
        state = "is not complete (no manifest.json)" if path.is_dir() else "does not exist"
        raise DataError(f"data set {path} {state}{hint}")
    try:
        manifest = json.loads(file.read_text())
        splits = manifest["splits"]
        shards = {s: tuple(shard["file"] for shard in v["shards"]) for s, v in splits.items()}
        examples = {s: v["examples"] for s, v in splits.items()}
        sizes = {shard["file"]: shard["bytes"] for v in splits.values() for shard in v["shards"]}
        dataset = Dataset(path, manifest["size"], shards, examples, manifest["fingerprint"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is not a manifest of this version: {error!r}") from error
    for name, size in sorted(sizes.items()):
        if not (path / name).is_file():
            raise DataError(f"data set {path} lacks its shard {name}")
        if (found := (path / name).stat().st_size) != size:
            raise DataError(f"shard {path / name} is torn: {found} bytes instead of {size}")
    return dataset


def open_datasets(config) -> tuple[Dataset, ...]:
    """The data sets of a run's config, checked against its model.

    Raises:
      DataError: where one is missing.
      ConfigError: where its pictures are not what the model takes, or it lacks the split.
    """
    datasets = tuple(open_dataset(d, config.data.make) for d in config.data.dirs)
    for dataset in datasets:
        if dataset.size != config.model.size or config.model.channels != 1:
            raise ConfigError(
                f"data set {dataset.path} holds {dataset.size}² × 1 pictures and the model takes "
                f"{config.model.size}² × {config.model.channels}; set config.model.size, or "
                "build the data set at that size"
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


def _decode(index: int, data: bytes, closed_vocabulary_negatives: bool) -> dict[str, np.ndarray]:
    example = record.deserialize(data)
    known = record.known_from_states(example["states"], closed_vocabulary_negatives)
    return {
        "image": to_float(example["image"])[..., None],
        "attributes": np.where(known, example["attributes"], 0).astype(np.float32),
        "known": known,
        "index": np.uint32(index),
    }


def to_float(image: np.ndarray) -> np.ndarray:
    """uint16 pixels as float32 in [−1, 1]."""
    return image.astype(np.float32) / 32767.5 - 1.0


def to_uint16(image: np.ndarray) -> np.ndarray:
    """float pixels in [−1, 1], clipped to it, as uint16: the inverse of `to_float`."""
    return np.round((np.clip(image, -1.0, 1.0) + 1.0) * 32767.5).astype(np.uint16)


def _examples(config, datasets, split: str, shuffle: bool) -> grain.MapDataset:
    """The endless order of examples, as a dataset that maps a position to an example."""
    parts = []
    for number, dataset in enumerate(datasets):
        paths = [str(dataset.path / name) for name in dataset.shards[split]]
        part = grain.MapDataset.source(grain.sources.ArrayRecordDataSource(paths))
        if shuffle:
            part = part.seed(config.seed + number).shuffle()
        parts.append(part.repeat())
    mixed = grain.MapDataset.mix(parts, config.data.weights) if len(parts) > 1 else parts[0]
    decode = functools.partial(
        _decode, closed_vocabulary_negatives=config.data.closed_vocabulary_negatives
    )
    return mixed.map_with_index(decode)


def batches(
    config, datasets: tuple[Dataset, ...], step: int = 0, host: int = 0, hosts: int = 1
) -> Iterator[dict[str, np.ndarray]]:
    """This host's rows of every global batch, from that of `step` on, for ever.

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
            _examples(config, datasets, config.data.split, shuffle=True),
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
    iterator.set_state({"global_next_index": step * config.batch_size})
    return iterator


def validation_batches(
    config, datasets: tuple[Dataset, ...], host: int = 0, hosts: int = 1
) -> list[dict[str, np.ndarray]]:
    """This host's rows of the `eval.batches` batches that every validation loss is taken on.

    The first examples of the validation split in their stored order, repeated where there are
    fewer; the place in that order is the `index`, so a repeated picture meets another noise.
    """
    examples = _examples(config, datasets, config.eval.split, shuffle=False)
    size = config.batch_size
    return [
        {
            key: np.stack([rows[key] for rows in batch])
            for key in ("image", "attributes", "known", "index")
        }
        for start in range(0, config.eval.batches * size, size)
        for batch in [[examples[i] for i in range(start + host, start + size, hosts)]]
    ]


def requests(config, datasets: tuple[Dataset, ...], multiple: int = 1) -> dict[str, np.ndarray]:
    """What the sample grid asks for: the attributes of the first held-out examples.

    Of the training split where there is no validation.

    Args:
      config, datasets: of the run.
      multiple: `samples.n` is rounded up to one of it.

    Returns:
      `indices` [n] uint32, `attributes` [n, 19] float32, `known` [n, 19] bool.
    """
    split = config.eval.split if config.eval.every else config.data.split
    examples = _examples(config, datasets, split, shuffle=False)
    n = config.samples.n + -config.samples.n % multiple
    rows = [examples[i] for i in range(n)]
    told = {key: np.stack([row[key] for row in rows]) for key in ("attributes", "known")}
    return {"indices": np.arange(n, dtype=np.uint32), **told}


def stored(dataset: Dataset, split: str) -> Iterator[dict]:
    """Every record of a split in its stored order, as `record.deserialize` returns it."""
    paths = [str(dataset.path / name) for name in dataset.shards[split]]
    with grain.sources.ArrayRecordDataSource(paths) as source:
        for i in range(len(source)):
            yield record.deserialize(source[i])
