"""Features of a set of pictures: streamed, on every device, resumable, cached by content.

A cached set lies under the hash of the content of the pictures, the weights of the extractor and
its resize path; no name, length or time decides. It is extracted in parts of `PART` pictures: a
part is written whole, so a run that is killed loses one part. Every device gets batches of one
shape, the last one padded, so the features are the same on any number of devices. Several hosts
share the parts, and the first one joins them. Memory holds one part; the result is a memory map.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rfxray.command_line import Progress
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate.extractors.extractor import Extractor
from rfxray.evaluate.pictures import Pictures
from rfxray.outputs import files
from rfxray.runtime import distributed, run_lock

COMMAND = "rfxray.evaluate.features"
PART = 256  # pictures: 5 s of EfficientNet-Lite0 on two cores, 1.5 MB of features of 1,536 columns
ROWS = 16  # pictures of a batch of one device
VERSION = 2  # changes with what the cache holds, so with the features of any extractor
PATIENCE = 7 * 86400.0  # seconds that hosts wait for each other's parts

# What is known of a picture that was read: SHA-256 of its pixels at 16 bits, height and width.
PICTURE = np.dtype([("pixels", "V32"), ("height", "<i4"), ("width", "<i4")])


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of a set, and what was read for them.

    Attributes:
      values: Features in the order of the set, [n, width] float32, a read-only memory map.
      pictures: Content and size of each picture, [n] of `PICTURE`.
      seconds: Seconds that this process extracted; 0 if all was cached.
    """

    values: np.ndarray
    pictures: np.ndarray
    seconds: float


def extract(pictures: Pictures, extractor: Extractor, cache: Path) -> np.ndarray:
    """Features of every picture, in order: [n, width] float32; see `extracted`."""
    return extracted(pictures, extractor, cache).values


def extracted(pictures: Pictures, extractor: Extractor, cache: Path) -> Features:
    """Features of every picture, and what was read for them. All hosts must call it.

    Args:
      pictures: Set of pictures.
      extractor: Network and its resize path.
      cache: Folder of all cached features, which exists.

    Raises:
      DataError: If a picture cannot be read, or its features are not finite.
      ConfigError: If another process extracts the same features, or hosts were given different
        pictures or weights.
    """
    folder = cache / identity(pictures, extractor)
    host, _ = distributed.place()
    with files.saving(folder):
        folder.mkdir(exist_ok=True)
    if _all_hosts_have(folder):
        if host == 0:
            shutil.rmtree(folder / "parts", ignore_errors=True)  # of a run that was killed
        return _opened(folder, 0.0)
    with files.saving(folder), run_lock.locked_run(folder, host, "RFXRAY_CACHE"):
        seconds = 0.0
        if host == 0 and (folder / "parts").exists():
            files.remove_temporary(folder / "parts")  # no other host writes there yet
        if not _all_hosts_have(folder):  # another process has not just finished
            seconds = _write_parts(pictures, extractor, folder)
            distributed.barrier(f"the features of {folder.name}", PATIENCE)
            if host == 0:
                _join(folder, len(pictures), extractor.width)
        distributed.barrier(f"the end of {folder.name}", PATIENCE)
    return _opened(folder, seconds)


def identity(pictures: Pictures, extractor: Extractor) -> str:
    """Name of the cached features, hex: what decides them, and nothing else."""
    preprocessing = str(extractor.preprocessing)
    decides = [VERSION, pictures.fingerprint, extractor.name, extractor.hash, preprocessing]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------
# Parts


class _Read(NamedTuple):
    """A picture that was read: prepared, [size, size, channels] float32; and of `PICTURE`."""

    prepared: np.ndarray
    about: tuple[bytes, int, int]


def _write_parts(pictures: Pictures, extractor: Extractor, folder: Path) -> float:
    """Extracts this host's share of what is not on the disk; seconds that it took."""
    host, hosts = distributed.place()
    parts = folder / "parts"
    parts.mkdir(exist_ok=True)
    own = [range(i, min(i + PART, len(pictures))) for i in range(0, len(pictures), PART)]
    own = own[host::hosts]
    pending = [part for part in own if _part(parts, part.start, len(part)) is None]
    total, left = sum(map(len, own)), sum(map(len, pending))

    def load(number: int) -> _Read:
        image = pictures.read(number)
        pixels = np.rint(image * np.float32(65535)).astype(np.uint16)
        content = bytes.fromhex(files.pixels_sha256(pixels))
        try:
            return _Read(extractor.preprocessing.prepare(image), (content, *image.shape))
        except DataError as error:
            raise DataError(f"{pictures.keys[number]}: {error}") from error

    began = time.monotonic()
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        Progress(COMMAND, total, total - left, shown=host == 0) as progress,
    ):
        numbers = list(itertools.chain.from_iterable(pending))
        loaded = _ahead(pool, load, numbers, 2 * ROWS * len(jax.local_devices()))
        for part in pending:
            values = np.empty((len(part), extractor.width), np.float32)
            about = np.empty(len(part), PICTURE)
            batch = ROWS * len(jax.local_devices())
            for start in range(0, len(part), batch):
                read = list(itertools.islice(loaded, min(batch, len(part) - start)))
                rows = slice(start, start + len(read))
                values[rows] = on_devices(extractor, np.stack([each.prepared for each in read]))
                about[rows] = [each.about for each in read]
                progress.advance(len(read))
            if not (finite := np.isfinite(values).all(1)).all():
                key = pictures.keys[part.start + int(finite.argmin())]
                raise DataError(
                    f"{extractor.name} gives features of {key} of {pictures.name} that are not "
                    "finite; look at that picture, and at the weights"
                )
            place = _file(parts, part.start)
            with files.whole_file(place) as temporary, temporary.open("wb") as opened:
                np.savez(opened, allow_pickle=False, values=values, about=about)
    return time.monotonic() - began


def _ahead(
    pool: ThreadPoolExecutor, load: Callable[[int], _Read], numbers: Sequence[int], depth: int
) -> Iterator[_Read]:
    """Results in order, at most `depth` of them read before they are needed."""
    queue: collections.deque[Future[_Read]] = collections.deque()
    try:
        for number in numbers:
            queue.append(pool.submit(load, number))
            if len(queue) >= depth:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        for future in queue:
            future.cancel()


def on_devices(extractor: Extractor, images: np.ndarray) -> np.ndarray:
    """Features [n, width] of prepared images, each device taking batches of `ROWS`."""
    devices = jax.local_devices()
    shares = [images[i : i + ROWS] for i in range(0, len(images), ROWS)]

    def one(device: Any, share: np.ndarray) -> np.ndarray:
        padded = np.resize(share, (ROWS, *share.shape[1:]))  # a short batch repeats its pictures
        with jax.default_device(device):
            return np.asarray(extractor.features(padded), np.float32)[: len(share)]

    if len(devices) == 1:
        return np.concatenate([one(devices[0], share) for share in shares])
    with ThreadPoolExecutor(len(devices)) as pool:
        return np.concatenate(list(pool.map(one, itertools.cycle(devices), shares)))


def _file(parts: Path, start: int) -> Path:
    return parts / f"{start:08d}.npz"


def _part(parts: Path, start: int, count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Features and facts of a part; None if it is not there, or was torn by a disk that failed."""
    try:
        with np.load(_file(parts, start)) as opened:
            values, about = opened["values"], opened["about"]
    except (OSError, ValueError, KeyError, EOFError):
        return None
    return (values, about) if len(values) == len(about) == count else None


# ------------------------------------------------------------------------------------------------
# The whole


def _join(folder: Path, count: int, width: int) -> None:
    """Joins all parts; `done.json`, with checksums, comes last."""
    files.remove_temporary(folder)  # of a run that was killed here
    about = np.empty(count, PICTURE)
    with files.whole_file(folder / "features.npy") as temporary:
        values = np.lib.format.open_memmap(temporary, "w+", np.float32, (count, width))
        for start in range(0, count, PART):
            rows = slice(start, min(start + PART, count))
            part = _part(folder / "parts", start, rows.stop - start)
            if part is None:
                raise DataError(
                    f"a part of the features in {folder} is damaged or gone; rerun the command"
                )
            values[rows], about[rows] = part
        values.flush()
        del values
    with files.whole_file(folder / "pictures.npy") as temporary, temporary.open("wb") as opened:
        np.save(opened, about)
    sums = {name: files.file_sha256(folder / name) for name in ("features.npy", "pictures.npy")}
    files.write_whole(folder / "done.json", json.dumps(sums))
    shutil.rmtree(folder / "parts")


def _all_hosts_have(folder: Path) -> bool:
    """Whether the features are complete and undamaged, as the first host sees it.

    The answer travels by the coordination service, which waits as long as the first host reads: a
    collective of the devices would give up.

    Raises:
      ConfigError: If this host would extract other features than the first one.
    """
    if not distributed.joined():
        return _is_complete(folder)
    own = f"{folder.name} {_is_complete(folder)}" if distributed.place()[0] == 0 else None
    name, complete = distributed.of_first("the state of the features", own, PATIENCE).split()
    if name != folder.name:
        raise ConfigError(
            "this host was given other pictures or weights than host 0; give every host the same "
            "files (their content is compared)"
        )
    return complete == "True"


def _is_complete(folder: Path) -> bool:
    try:
        sums = json.loads((folder / "done.json").read_text())
        return all(files.file_sha256(folder / name) == of for name, of in sums.items())
    except (FileNotFoundError, ValueError, AttributeError):
        return False


def _opened(folder: Path, seconds: float) -> Features:
    values = np.load(folder / "features.npy", mmap_mode="r")
    return Features(values, np.load(folder / "pictures.npy"), seconds)
