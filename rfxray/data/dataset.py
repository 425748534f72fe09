"""A data set on disk: its manifest, its records by number, and the detection of damage."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from concurrent import futures
from pathlib import Path

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tqdm import tqdm

from rfxray.command_line import at_home, refuse_address
from rfxray.data import record
from rfxray.data.faults import Faults
from rfxray.data.latents import Latents
from rfxray.data.manifest import NAME, read_manifest
from rfxray.errors import ConfigError, DataError, first_line
from rfxray.outputs.files import file_sha256


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard in the manifest: file name, number of examples, bytes, SHA-256 in hex."""

    file: str
    examples: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set directory as its manifest describes it.

    Attributes:
      path: Path of the directory.
      size: Side of the square images, pixels.
      shards: Shards of each split, in order.
      examples: Number of examples of each split.
      fingerprint: Hash over every field of every example, hex.
      latents: What its latents are; None for a data set of images.
    """

    path: Path
    size: int
    shards: dict[str, tuple[Shard, ...]]
    examples: dict[str, int]
    fingerprint: str
    latents: Latents | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what a model sees of a record."""
        return self.latents.shape if self.latents else (self.size, self.size, 1)

    def __repr__(self) -> str:
        splits = ", ".join(f"{split} {count:,}" for split, count in self.examples.items())
        return f"Dataset({str(self.path)!r}, {self.size} × {self.size}, {splits})"

    def paths(self, split: str) -> list[str]:
        """The shard files of a split, in order."""
        return [str(self.path / shard.file) for shard in self.shards[split]]


def open_dataset(path: str | Path, make: str = "", latents: bool = False) -> Dataset:
    """Reads the manifest of a data set directory.

    Args:
      path: Path of the directory.
      make: Command that makes the data set, shown if it is missing.
      latents: Whether it may hold latents.

    Raises:
      ConfigError: For `gs://…` and the like, or if it holds latents where images are needed.
      DataError: If the directory, its manifest or a shard is missing or damaged.
    """
    refuse_address(path)
    path = at_home(path)
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
        about = manifest.get("latents")
        dataset = Dataset(
            path,
            manifest["size"],
            shards,
            examples,
            manifest["fingerprint"],
            Latents.of_entry(about) if about else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"cannot read the manifest {path / NAME} ({error!r}): it was written by another "
            "version of rfxray, or is damaged; build the data set again"
        ) from error
    if dataset.latents and not latents:
        raise ConfigError(
            f"data set {path} holds latents, and images are needed here; give the data set that it "
            "was encoded from"
        )
    for shard in sorted((s for each in shards.values() for s in each), key=lambda s: s.file):
        if not (path / shard.file).is_file():
            raise DataError(f"data set {path} lacks its shard {shard.file}")
        if (found := (path / shard.file).stat().st_size) != shard.bytes:
            raise DataError(
                f"shard {path / shard.file} has the wrong size: {found} bytes, expected "
                f"{shard.bytes}; copy it again or build the data set again"
            )
    return dataset


class Records:
    """The records of a split by number, decoded: a random access source for Grain.

    Args:
      dataset: The data set.
      split: Name of the split.
      faults: Log of damaged records, which are replaced by the next undamaged one; None raises at
        the first one.
    """

    def __init__(self, dataset: Dataset, split: str, faults: Faults | None = None):
        self._paths, self._faults, self._size = dataset.paths(split), faults, dataset.size
        self._latent = dataset.latents.shape if dataset.latents else None
        self._ends = np.cumsum([shard.examples for shard in dataset.shards[split]])
        try:
            self._source = ArrayRecordDataSource(self._paths)
            found = len(self._source)
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(
                f"shard {_unopened(self._paths)} cannot be opened: {first_line(error)}"
            ) from error
        if found != self._ends[-1]:
            raise DataError(
                f"the shards of split {split!r} of {dataset.path} hold {found} records instead of "
                f"{self._ends[-1]}"
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> dict:
        """The record with this number, as `record.deserialize` returns it, checked.

        Raises:
          DataError: With file and record, if it is damaged or fails `record.check`, and may not be
            replaced.
        """
        return self._undamaged(number, image=True)

    def labels(self, number: int) -> dict:
        """The same without image or latent, which are not decoded; errors as above."""
        return self._undamaged(number, image=False)

    def _undamaged(self, number: int, image: bool) -> dict:
        for candidate in range(int(number), int(number) + len(self)):
            place = candidate % len(self)
            try:
                found = record.deserialize(self._source[place], image, self._latent)
                record.check(found, self._size, self._latent)
                return found
            except (DataError, RuntimeError, OSError) as error:
                shard = int(np.searchsorted(self._ends, place, side="right"))
                first = int(self._ends[shard - 1]) if shard else 0
                where = (self._paths[shard], place - first)
                if self._faults is None:
                    raise DataError(
                        f"record {where[1]} of {where[0]} is damaged ({first_line(error)}); copy "
                        "the shard again or build the data set again"
                    ) from error
                self._faults.add(*where, first_line(error))
        raise DataError(
            f"every record of this split is damaged (first shard: {self._paths[0]}); restore "
            "its files"
        )


def _unopened(paths: Sequence[str]) -> str:
    """The first shard that cannot be opened; the error of opening all does not name it."""
    for path in paths:
        try:
            len(ArrayRecordDataSource([path]))
        except (RuntimeError, ValueError, OSError):
            return path
    return f"{paths[0]} or another shard of the split"


# ---------------------------------------------------------------------------------------------
# Verification before a run


def verify(dataset: Dataset, how: str, host: int = 0, hosts: int = 1) -> None:
    """Checks that the shards match the manifest; each host checks a share of them.

    Args:
      dataset: Data set from `open_dataset`, which has checked the size of every file.
      how: One of `full`, which compares the SHA-256 of every shard; `sample`, which decodes one
        record of every shard; `none`, which does nothing.
      host: Number of this host.
      hosts: Number of hosts.

    Raises:
      DataError: For the first shard that differs, with the file and, for `sample`, the record.
    """
    if how == "none":
        return
    shards = [(split, shard) for split, each in dataset.shards.items() for shard in each]
    shards = shards[host::hosts]
    look = {"full": _compare, "sample": _try_one}[how]
    # Threads are enough: reading waits for a disk or a bucket, and hashing releases the GIL.
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
            f"shard {dataset.path / shard.file} is not what was written: its SHA-256 is {found} "
            f"instead of {shard.sha256}; copy it again or build the data set again"
        )


def _try_one(dataset: Dataset, split: str, shard: Shard) -> None:
    if shard.examples:
        only = dataclasses.replace(dataset, shards={split: (shard,)})
        records = Records(only, split)
        try:
            # The number differs between shards and is the same at every start.
            records[int(shard.sha256[:8], 16) % shard.examples]
        except DataError as error:
            raise DataError(
                f"{error}, or replace up to N damaged records by the next ones "
                "with --config.data.verify=none --config.data.tolerate=N"
            ) from error


def stored(dataset: Dataset, split: str) -> Iterator[dict]:
    """Every record of a split in its stored order, as `record.deserialize` returns it."""
    records = Records(dataset, split)
    for number in range(len(records)):
        yield records[number]
