"""What every file looks like, before it is decided which become records.

A survey decodes each file once and keeps what the decisions need: a digest of its pixels, a
perceptual hash, the scores of `quality.py`, a thumbnail, and the reason if it is refused. It is cut
into chunks. The file of a chunk is named by a digest of its paths and of what decides how they are
seen, so a run that is killed, or is started with other thresholds, continues with what is there.

What is there counts only for files that are still the same. A run asks for the length and the time
of each file; if they are those of the survey, the file is taken for the same. If not, its content
decides: with the same SHA-256 (a copied data set) only the time is noted, else it is looked at
again. A file that could not be read is looked at again by every run.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.images import content, quality
from data_prep.images.decoder import LIMITS, decoder
from data_prep.images.quality import SIDE
from data_prep.tables.parquet import read
from data_prep.tables.table import Row
from rfxray.data import radiograph
from rfxray.data.radiograph import Refused
from rfxray.data.writing import Task
from rfxray.outputs.files import remove_temporary, write_whole

THUMBNAIL = 128  # pixels; finer detail than this tells no more of a copy, and 1.2M take 20 GB
HASH_SIDE = 16  # lowest frequencies each way: 256 bits
CHUNK = 256  # files, a minute's work for one decoder
ASKING = 16  # threads that ask for lengths and times: a network file system takes 1 ms for each

SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "reason": pa.string(),  # empty if the file was decoded; the rest is then there
        # null if it cannot be read, or changes meanwhile
        "length": pa.int64(),  # bytes of the file
        "mtime_ns": pa.int64(),  # time of its last change, of its file system
        "content": pa.binary(32),  # SHA-256 of its bytes
        "notes": pa.list_(pa.string()),  # how it was read, `Radiograph.notes`
        "pixels": pa.binary(32),
        "hash": pa.binary(HASH_SIDE**2 // 8),
        "scores": pa.list_(
            pa.float32()
        ),  # of a fixed size, Arrow 25 reads none of it beside a null
        "thumbnail": pa.binary(THUMBNAIL**2),
    }
)


def survey(
    rows: Sequence[Row],
    roots: Mapping[str, str],
    folder: Path,
    *,
    run: Callable[..., None],
    command: str,
) -> list[Path]:
    """Looks at the file of every row; the Parquet files of the chunks, in order.

    Args:
      rows: Rows that have a file.
      roots: Folders that paths are relative to, by the first part of the key.
      folder: Folder of the chunks.
      run: Runner, called as `writing.run_tasks` is.
      command: What its lines begin with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporary(folder)
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    paths = [folder / f"{_name(chunk)}.parquet" for chunk in chunks]
    with ThreadPoolExecutor(ASKING) as pool:
        holds = list(pool.map(lambda path, chunk: _holds(path, chunk, roots), paths, chunks))
    tasks = [
        Task((chunk, dict(roots), os.path.abspath(path)), len(chunk))
        for path, chunk, held in zip(paths, chunks, holds, strict=True)
        if not held
    ]
    done = len(rows) - sum(task.items for task in tasks)
    run(survey_chunk, tasks, folder=folder, command=command, done=done)
    return paths


def survey_chunk(rows: Sequence[Row], roots: Mapping[str, str], path: str, advance) -> None:
    """Looks at the files of some rows and writes what it found, whole or not at all.

    What an earlier run saw of a file with the same content is taken from its chunk.
    """
    known: list = [None] * len(rows)
    if _is_whole(Path(path)):
        known = read(Path(path)).to_pylist()
    seen = []
    for row, earlier in zip(rows, known, strict=True):
        file = _file(row, roots)
        seen.append(_unchanged(earlier, file) or _look(row.key, file))
        advance()
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(seen, SCHEMA), buffer)
    write_whole(Path(path), buffer.getvalue().to_pybytes())


def perceptual_hash(thumbnail: np.ndarray) -> bytes:
    """256 bits of a [64, 64] uint8: which of its 16 × 16 lowest frequencies exceed their median.

    The mean is left out, so brightness does not matter.
    """
    low = cv2.dct(thumbnail.astype(np.float32))[:HASH_SIDE, :HASH_SIDE].ravel()
    low[0] = 0
    return np.packbits(low > np.median(low)).tobytes()


def squeeze(image: np.ndarray, content_box: Sequence[int]) -> np.ndarray:
    """The thumbnail, [128, 128] uint8, of a padded square uint16: its content, filling the square.

    So a copy that another publisher squashed to a square looks the same.
    """
    top, left, height, width = content_box
    content = image[top : top + height, left : left + width].astype(np.float32) / 257
    content = cv2.resize(content, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_LINEAR)
    return np.rint(content).astype(np.uint8)


def halve(thumbnail: np.ndarray) -> np.ndarray:
    """[128, 128] uint8 as the [64, 64] that is hashed and judged."""
    return cv2.resize(thumbnail, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def columns(paths: Sequence[Path], names: Sequence[str]) -> pa.Table:
    """Some columns of a whole survey; without thumbnails 1.2M rows take 0.2 GB."""
    return pa.concat_tables([read(path, names) for path in paths])


def thumbnails(paths: Sequence[Path], wanted: Sequence[int]) -> np.ndarray:
    """[wanted, 128, 128] uint8 of some rows, ascending; on disk, for there may be many."""
    with tempfile.TemporaryFile(dir=paths[0].parent) as file:
        found = np.memmap(file, np.uint8, "w+", shape=(len(wanted), THUMBNAIL, THUMBNAIL))
    start = slot = 0
    for path in paths:
        stop = start + pq.read_metadata(path).num_rows
        here = []
        while slot + len(here) < len(wanted) and wanted[slot + len(here)] < stop:
            here.append(wanted[slot + len(here)] - start)
        if here:
            column = read(path, ["thumbnail"])["thumbnail"].take(here)
            data = np.frombuffer(b"".join(column.to_pylist()), np.uint8)
            found[slot : slot + len(here)] = data.reshape(-1, THUMBNAIL, THUMBNAIL)
        start, slot = stop, slot + len(here)
    return found


# ---------------------------------------------------------------------------------------------
# Chunks and files


def _is_whole(path: Path) -> bool:
    """Whether a chunk is there with its end; that of a torn one is missing."""
    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return False
    return True


def _holds(path: Path, rows: Sequence[Row], roots: Mapping[str, str]) -> bool:
    """Whether a chunk is there and every file still has the length and the time that it notes."""
    if not _is_whole(path):
        return False
    noted = read(path, ("length", "mtime_ns")).to_pydict()
    stamps = zip(noted["length"], noted["mtime_ns"], strict=True)
    return all(
        stamp == content.stamp(_file(row, roots)) for row, stamp in zip(rows, stamps, strict=True)
    )  # one that could not be read has (None, None), which no file has


def _file(row: Row, roots: Mapping[str, str]) -> str:
    return os.path.join(roots[row.key.partition("/")[0]], row.path)


def _unchanged(earlier: dict | None, path: str) -> dict | None:
    """What an earlier run saw of a file, with its present time; None if it must be looked at."""
    stamp = content.stamp(path)
    if earlier is None or stamp is None or earlier["length"] != stamp[0]:
        return None
    if earlier["mtime_ns"] != stamp[1] and earlier["content"] != content.sha256(path):
        return None
    return {**earlier, "mtime_ns": stamp[1]}


def _look(key: str, path: str) -> dict:
    stamp = content.stamp(path)
    try:
        picture, digest, notes = decoder().decode(path, THUMBNAIL)
        reason = ""
    except Refused as refusal:
        picture, digest, notes, reason = {}, b"", (), str(refusal)
    # Hashed last: if the storage hangs, the decoder notices
    sha256 = content.sha256(path)
    if stamp is None or sha256 is None or stamp != content.stamp(path):
        return {"key": key, "reason": reason or "changed while it was read", "notes": []}
    seen = {"key": key, "reason": reason, "content": sha256, "notes": list(notes)}
    seen |= {"length": stamp[0], "mtime_ns": stamp[1]}
    if reason:
        return seen
    thumbnail = squeeze(picture["image"], picture["content_box"])
    small = halve(thumbnail)
    return {
        **seen,
        "pixels": digest,
        "hash": perceptual_hash(small),
        "scores": list(quality.scores(small)),
        "thumbnail": thumbnail.tobytes(),
    }


def _name(rows: Sequence[Row]) -> str:
    """Of a chunk: a digest of its paths and of what decides how they are seen."""
    looks = [THUMBNAIL, SIDE, HASH_SIDE, quality.digest(), SCHEMA.names]
    decided = [radiograph.versions(), radiograph.PREPROCESSING, LIMITS, looks]
    digest = hashlib.sha256(json.dumps(decided).encode())
    for row in rows:
        digest.update(repr((row.key, row.path)).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:32]
