"""A data set on disk: its manifest, its records by number, and what is done about damaged ones."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from concurrent import futures
from pathlib import Path

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tqdm import tqdm

from rfxray.data import record
from rfxray.data.faults import Faults
from rfxray.data.manifest import NAME, read_manifest
from rfxray.errors import ConfigError, DataError, first_line
from rfxray.outputs.files import file_sha256


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard as the manifest describes it: file name, examples, bytes, SHA-256 in hex."""

    file: str
    examples: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One data set directory as its manifest describes it.

    Attributes:
      path: Path of the directory.
      size: Side of the square images, pixels.
      shards: Shards of each split, in order.
      examples: Number of examples of each split.
      fingerprint: Hash over every field of every example, hex.
    """

    path: Path
    size: int
    shards: dict[str, tuple[Shard, ...]]
    examples: dict[str, int]
    fingerprint: str

    def paths(self, split: str) -> list[str]:
        """The shard files of a split, in order."""
        return [str(self.path / shard.file) for shard in self.shards[split]]


def open_dataset(path: str | Path, make: str = "") -> Dataset:
    """Reads the manifest of a data set directory.

    Args:
      path: Path of the directory.
      make: Command that makes it, shown if it is absent.

    Raises:
      ConfigError: For `gs://…` and the like.
      DataError: If the directory, its manifest or a shard is missing or damaged.
    """
    if "://" in str(path):
        raise ConfigError(f"{path} is not a path; mount the bucket (gcsfuse) and name its folder")
    path = Path(path)
    manifest = read_manifest(path)
    if manifest is None:
        hint = f"; make it with: {make}" if make else "; data_prep.build makes one from a folder"
        state = "is not complete (no manifest.json)" if path.is_dir() else "does not exist"
        raise DataError(f"data set {path} {state}{hint}")
    try:
        splits = manifest["splits"]
        names = [field.name for field in dataclasses.fields(Shard)]
        shards = {
            split: tuple(Shard(*(shard[name] for name in names)) for shard in about["shards"])
            for split, about in splits.items()
        }
        examples = {split: about["examples"] for split, about in splits.items()}
        dataset = Dataset(path, manifest["size"], shards, examples, manifest["fingerprint"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path / NAME} is not a manifest of this version: {error!r}") from error
    for shard in sorted((s for each in shards.values() for s in each), key=lambda s: s.file):
        if not (path / shard.file).is_file():
            raise DataError(f"data set {path} lacks its shard {shard.file}")
        if (found := (path / shard.file).stat().st_size) != shard.bytes:
            raise DataError(
                f"shard {path / shard.file} is torn: {found} bytes instead of {shard.bytes}"
            )
    return dataset


class Records:
    """The records of a split by number, decoded: a random access source for Grain.

    Args:
      dataset: The data set.
      split: Name of the split.
      faults: Where damaged records are noted; the next one that is whole stands in for them.
        Without it the first one raises.
    """

    def __init__(self, dataset: Dataset, split: str, faults: Faults | None = None):
        self._paths, self._faults = dataset.paths(split), faults
        self._ends = np.cumsum([shard.examples for shard in dataset.shards[split]])
        try:
            self._source = ArrayRecordDataSource(self._paths)
            found = len(self._source)
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(
                f"shard {_closed(self._paths)} does not open: {first_line(error)}"
            ) from error
        if found != self._ends[-1]:
            raise DataError(
                f"the shards of split {split!r} of {dataset.path} hold {found} records instead of "
                f"{self._ends[-1]}"
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> dict:
        """The record of that number as `record.deserialize` returns it.

        Raises:
          DataError: With the file and the record, if it is damaged and may not be replaced.
        """
        for candidate in range(int(number), int(number) + len(self)):
            place = candidate % len(self)
            try:
                return record.deserialize(self._source[place])
            except (DataError, RuntimeError, OSError) as error:
                shard = int(np.searchsorted(self._ends, place, side="right"))
                first = int(self._ends[shard - 1]) if shard else 0
                where = (self._paths[shard], place - first)
                if self._faults is None:
                    raise DataError(
                        f"record {where[1]} of {where[0]} is damaged ({first_line(error)})"
                    ) from error
                self._faults.add(*where, first_line(error))
        raise DataError(
            f"every record of this split is damaged (first shard: {self._paths[0]}); restore "
            "its files"
        )


def _closed(paths: Sequence[str]) -> str:
    """The first of the shards that does not open; the error of all does not say which."""
    for path in paths:
        try:
            len(ArrayRecordDataSource([path]))
        except (RuntimeError, ValueError, OSError):
            return path
    return f"{paths[0]} or another shard of the split"


# ---------------------------------------------------------------------------------------------
# Verification before a run


def verify(dataset: Dataset, how: str, host: int = 0, hosts: int = 1) -> None:
    """Checks that the shards are what the manifest says; each host checks a share of them.

    Args:
      dataset: Data set as `open_dataset` returns it: every file is there with its size.
      how: `full` compares every shard's SHA-256; `sample` opens each and decodes one record of it;
        `none` does nothing.
      host: Number of this host.
      hosts: Number of hosts.

    Raises:
      DataError: For the first shard, in order, that differs; with the file and, of a sample, the
        record.
    """
    if how == "none":
        return
    shards = [(split, shard) for split, each in dataset.shards.items() for shard in each]
    shards = shards[host::hosts]
    look = {"full": _compare, "sample": _try_one}[how]
    # Reading waits for a disk or a bucket and hashing lets go of the interpreter's lock.
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda each: look(dataset, *each), shards)
        for _ in tqdm(
            results, f"verifying {dataset.path}", len(shards), unit="shard", disable=None
        ):
            pass


def _compare(dataset: Dataset, split: str, shard: Shard) -> None:
    found = file_sha256(dataset.path / shard.file)
    if found != shard.sha256:
        raise DataError(
            f"shard {dataset.path / shard.file} is not what was written: its SHA-256 is {found}, "
            f"in the manifest {shard.sha256}; copy it again or build the data set again"
        )


def _try_one(dataset: Dataset, split: str, shard: Shard) -> None:
    if shard.examples:
        only = dataclasses.replace(dataset, shards={split: (shard,)})
        records = Records(only, split)
        try:
            # Another record of every shard, the same at every start.
            records[int(shard.sha256[:8], 16) % shard.examples]
        except DataError as error:
            raise DataError(
                f"{error}; restore the file, or let a record stand in for it: "
                "--config.data.verify=none --config.data.tolerate=N"
            ) from error


def stored(dataset: Dataset, split: str) -> Iterator[dict]:
    """Every record of a split in its stored order, as `record.deserialize` returns it."""
    records = Records(dataset, split)
    for number in range(len(records)):
        yield records[number]
