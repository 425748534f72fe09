"""What every file looks like, before it is decided which become records.

A survey decodes each file once and keeps what the decisions need: a digest of its pixels, a
perceptual hash, the scores of `quality.py`, a thumbnail, and the reason where it is refused. It is
cut into chunks; the file of a chunk is named by a digest of all that decides it, so a run that is
killed, or is started with other thresholds, goes on with what is there.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep import ingest, quality
from data_prep.decoder import LIMITS, decoder
from data_prep.ingest import Refused
from data_prep.processes import Task, run_tasks
from data_prep.quality import SIDE
from data_prep.shards import is_temporary, write_atomically
from data_prep.table import Row

HASH_SIDE = 16  # lowest frequencies each way: 256 bits
CHUNK = 256  # files, a minute's work for one decoder

SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "reason": pa.string(),  # empty where the file was decoded; the rest is then there
        "pixels": pa.binary(32),
        "hash": pa.binary(HASH_SIDE**2 // 8),
        "scores": pa.list_(pa.float32(), len(quality.Scores._fields)),
        "thumbnail": pa.binary(SIDE**2),
    }
)


def survey(
    rows: Sequence[Row], roots: Mapping[str, str], folder: Path, *, workers: int, command: str
) -> list[Path]:
    """Looks at the file of every row; the Parquet files of the chunks, in order.

    Args:
      roots: what paths are relative to, by what keys begin with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if is_temporary(path):
            path.unlink(missing_ok=True)
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    paths = [folder / f"{_name(chunk)}.parquet" for chunk in chunks]
    pending = {p: chunk for p, chunk in zip(paths, chunks, strict=True) if not p.exists()}
    tasks = [Task((chunk, dict(roots), os.fspath(p)), len(chunk)) for p, chunk in pending.items()]
    done = len(rows) - sum(task.items for task in tasks)
    run_tasks(survey_chunk, tasks, workers=workers, command=command, done=done)
    return paths


def survey_chunk(rows: Sequence[Row], roots: Mapping[str, str], path: str, advance) -> None:
    """Looks at the files of some rows and writes what it saw, whole or not at all."""
    seen = []
    for row in rows:
        seen.append(_look(row, roots[row.key.partition("/")[0]]))
        advance()
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(seen, SCHEMA), buffer)
    write_atomically(Path(path), buffer.getvalue().to_pybytes())


def perceptual_hash(thumbnail: np.ndarray) -> bytes:
    """256 bits of a [64, 64] uint8: which of its 16 × 16 lowest frequencies exceed their median.

    The mean is left out, so brightness does not matter.
    """
    low = cv2.dct(thumbnail.astype(np.float32))[:HASH_SIDE, :HASH_SIDE].ravel()
    low[0] = 0
    return np.packbits(low > np.median(low)).tobytes()


def squeeze(image: np.ndarray, content_box: Sequence[int]) -> np.ndarray:
    """The thumbnail, [64, 64] uint8, of a padded square uint16: its content, filling the square.

    So a copy that another publisher squashed to a square looks the same.
    """
    top, left, height, width = content_box
    content = image[top : top + height, left : left + width].astype(np.float32) / 257
    content = cv2.resize(content, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return np.rint(content).astype(np.uint8)


def columns(paths: Sequence[Path], names: Sequence[str]) -> pa.Table:
    """Some columns of a whole survey; without thumbnails 1.2M rows take 0.2 GB."""
    return pa.concat_tables([pq.read_table(path, columns=list(names)) for path in paths])


def thumbnails(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """Chunk by chunk [rows, 64, 64] uint8, black where a file was refused."""
    black = bytes(SIDE**2)
    for path in paths:
        column = pq.read_table(path, columns=["thumbnail"])["thumbnail"]
        data = b"".join(black if one is None else one for one in column.to_pylist())
        yield np.frombuffer(data, np.uint8).reshape(-1, SIDE, SIDE)


def _look(row: Row, root: str) -> dict:
    try:
        picture, digest = decoder().decode(os.path.join(root, row.path), SIDE)
    except Refused as refusal:
        return {"key": row.key, "reason": str(refusal)}
    thumbnail = squeeze(picture["image"], picture["content_box"])
    return {
        "key": row.key,
        "reason": "",
        "pixels": digest,
        "hash": perceptual_hash(thumbnail),
        "scores": list(quality.scores(thumbnail)),
        "thumbnail": thumbnail.tobytes(),
    }


def _name(rows: Sequence[Row]) -> str:
    """Of a chunk: a digest of its files and of what decides how they are seen."""
    looks = [SIDE, HASH_SIDE, quality.template_digest()]
    decided = [ingest.versions(), ingest.PREPROCESSING, LIMITS, looks]
    digest = hashlib.sha256(json.dumps(decided).encode())
    for row in rows:
        digest.update(repr((row.key, row.path, row.length)).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:32]
