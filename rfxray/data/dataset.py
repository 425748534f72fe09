"""A data set on disk: its manifest, its records by number, and what is done about damaged ones."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent import futures
from pathlib import Path

import grain
import numpy as np
from tqdm import tqdm

from rfxray.data import record
from rfxray.data.faults import Faults
from rfxray.errors import ConfigError, DataError, first_line


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
      path: the directory.
      size: side of the square pictures, pixels.
      shards: of each split, in order.
      examples: number of examples of each split.
      fingerprint: hash over the content of every example, hex.
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
      path: the directory.
      make: the command that makes it, shown where it is absent.

    Raises:
      ConfigError: for `gs://…` and the like.
      DataError: where the directory, its manifest or a shard is missing or torn.
    """
    if "://" in str(path):
        raise ConfigError(f"{path} is not a path; mount the bucket (gcsfuse) and name its folder")
    path = Path(path)
    file = path / "manifest.json"
    if not file.is_file():
        hint = f"; make it with: {make}" if make else "; data_prep.build makes one from a folder"
        state = "is not complete (no manifest.json)" if path.is_dir() else "does not exist"
        raise DataError(f"data set {path} {state}{hint}")
    try:
        manifest = json.loads(file.read_text())
        splits = manifest["splits"]
        names = [field.name for field in dataclasses.fields(Shard)]
        shards = {
            split: tuple(Shard(*(shard[name] for name in names)) for shard in about["shards"])
            for split, about in splits.items()
        }
        examples = {split: about["examples"] for split, about in splits.items()}
        dataset = Dataset(path, manifest["size"], shards, examples, manifest["fingerprint"])
        total = {split: sum(shard.examples for shard in each) for split, each in shards.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is not a manifest of this version: {error!r}") from error
    if total != examples:
        raise DataError(f"{file} is damaged: its shards hold {total} examples, not {examples}")
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
      dataset, split: which.
      faults: where damaged records are noted; the next one that is whole stands in for them.
        Without it the first one raises.
    """

    def __init__(self, dataset: Dataset, split: str, faults: Faults | None = None):
        self._paths, self._faults = dataset.paths(split), faults
        self._ends = np.cumsum([shard.examples for shard in dataset.shards[split]])
        try:
            self._source = grain.sources.ArrayRecordDataSource(self._paths)
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
          DataError: with the file and the record, where it is damaged and may not be replaced.
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
        raise DataError(f"no record of {self._paths[0]} and its fellows is whole")


def _closed(paths: Sequence[str]) -> str:
    """The first of the shards that does not open; the error of all does not tell which."""
    for path in paths:
        try:
            len(grain.sources.ArrayRecordDataSource([path]))
        except (RuntimeError, ValueError, OSError):
            return path
    return f"{paths[0]} or a fellow"


# ---------------------------------------------------------------------------------------------
# Verification before a run


def verify(dataset: Dataset, how: str, host: int = 0, hosts: int = 1) -> None:
    """Looks whether the shards are what the manifest says, each host at its share of them.

    Args:
      dataset: whose manifest has been read, so that every file is there with its size.
      how: `full` compares every shard's SHA-256; `sample` opens each and decodes one record of it;
        `none` does nothing.
      host, hosts: which share.

    Raises:
      DataError: for the first shard, in order, that is not; with the file and, of a sample, the
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
    with (dataset.path / shard.file).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != shard.sha256:
        raise DataError(
            f"shard {dataset.path / shard.file} is not what was written: its SHA-256 is {found}, "
            f"in the manifest {shard.sha256}; copy it again or build the data set again"
        )


def _try_one(dataset: Dataset, split: str, shard: Shard) -> None:
    if shard.examples:
        alone = dataclasses.replace(dataset, shards={split: (shard,)})
        records = Records(alone, split)
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
