"""Rows of a table as records: each file read, squared and joined with what the table says."""

import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from data_prep.images import content
from data_prep.images.decoder import decoder
from data_prep.tables.table import Row, dropped
from rfxray.data.plan import Dropped
from rfxray.data.radiograph import Refused
from rfxray.errors import ConfigError

SIZES = (16, 2048)


def check_size(size: int) -> None:
    """Raises a ConfigError if `--size` is not a side that records may have."""
    if not SIZES[0] <= size <= SIZES[1]:
        raise ConfigError(f"--size {size} is not from {SIZES[0]} to {SIZES[1]} pixels")


def make_records(
    rows: Sequence[Row], roots: Mapping[str, str | os.PathLike], size: int
) -> Iterator[dict | Dropped]:
    """Reads and squares the file of each row: the `make` of `rfxray/data/writing.py`.

    Args:
      rows: Rows that have a file.
      roots: Folders that paths are relative to, by the first part of the key.
      size: Side of the squares, pixels.
    """
    for row in rows:
        path = os.path.join(roots[row.key.partition("/")[0]], row.path)
        try:
            image, *_ = decoder().decode(path, size)
        except Refused as refusal:
            yield dropped(row, "decode", str(refusal))
            continue
        if row.content and row.content != content.sha256(path):
            yield dropped(row, "decode", "changed after it was surveyed")
            continue
        yield {
            **image,
            "attributes": np.frombuffer(row.attributes, np.float32),
            "states": np.frombuffer(row.states, np.int8),
            "key": row.key,
            "patient": row.patient,
        }
