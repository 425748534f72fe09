"""One shard of a data set: its records, and a fragment that says what it holds.

`write_shard` takes the records in order, from whatever makes them, and leaves a shard file and a
fragment (its counts, checksums and drops as JSON) in `partial/`, or nothing. If there is a
fragment, the shard is done. Writing a shard twice gives the same bytes.
"""

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from rfxray.attributes.states import State, known_from_states
from rfxray.attributes.vocabulary import ATTRIBUTES, UNKNOWN, decode_value
from rfxray.data import latents, record
from rfxray.data.plan import Dropped, Shard
from rfxray.errors import DataError, first_line
from rfxray.outputs import files

# One record a group: a random read then decodes one record, which a global shuffle needs
# (100,000 records, 500 random reads: 4,800/s against 436/s with all in one group).
WRITER_OPTIONS = "group_size:1"


def make_shard(
    shard: Shard,
    directory: str | os.PathLike,
    size: int,
    make: Callable[[Sequence[Any]], Iterable[dict | Dropped]],
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Makes the records of a shard from its items and writes it: one task of `writing.py`."""
    write_shard(shard, directory, size, make(shard.items), advance)


def write_shard(
    shard: Shard,
    directory: str | os.PathLike,
    size: int,
    records: Iterable[dict | Dropped],
    advance: Callable[[], None] = lambda: None,
    latent: record.Shape | None = None,
) -> None:
    """Writes `directory/partial/STEM.array_record`, then its fragment `STEM.json`.

    Args:
      shard: Shard of the plan.
      directory: Directory of the data set, with a folder `partial` in it.
      size: Side of the square images, pixels.
      records: One record, or why there is none, for each item of the shard, in order.
      advance: Called after each item, for progress.
      latent: Shape of the latents, if records hold latents; their moments come into the fragment.

    Raises:
      ValueError: If there is not one result for each item.
      DataError: If a record fails `record.check`, with the item that made it.
      OSError: If the disk is full.
    """
    partial = Path(directory) / "partial"
    digests, dropped, counts = [], [], Counter()
    moments: latents.Moments | None = None
    with files.whole_file(partial / f"{shard.stem}.array_record") as temporary:
        writer = ArrayRecordWriter(os.fspath(temporary), WRITER_OPTIONS)
        for item, result in zip(shard.items, records, strict=True):
            if isinstance(result, Dropped):
                dropped.append(dataclasses.astuple(result))
            else:
                entry = record.serialize(result)
                try:
                    record.check(result, size, latent)
                except DataError as error:
                    raise DataError(f"{item!r} made a record that is not valid: {error}") from error
                _write(writer.write, entry)
                digests.append(record.digest(result))
                counts.update(_tally(result))
                if latent:
                    one = latents.moments(result["latent"])
                    moments = one if moments is None else moments.merged(one)
            advance()
        _write(writer.close)
        written = {"bytes": os.path.getsize(temporary), "sha256": files.file_sha256(temporary)}
    fragment = {
        "split": shard.split,
        "index": shard.index,
        "examples": len(digests),
        **written,
        "dropped": dropped,
        "counts": sorted([*key, number] for key, number in counts.items()),
        "digests": "".join(digests),
    }
    if moments is not None:
        fragment["moments"] = moments.entry()
    files.write_whole(_fragment(partial, shard), json.dumps(fragment))


def is_written(directory: str | os.PathLike, shard: Shard) -> bool:
    """Whether a shard lies in `directory/partial`, complete."""
    return _fragment(Path(directory) / "partial", shard).exists()


def _fragment(partial: Path, shard: Shard) -> Path:
    return partial / f"{shard.stem}.json"


def _write(call: Callable[..., None], *arguments: bytes) -> None:
    """Calls the writer, which raises `RuntimeError` when the disk is full."""
    try:
        call(*arguments)
    except RuntimeError as error:
        raise OSError(f"a shard: {first_line(error).partition(';')[0]}") from None


def _tally(example: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """(attribute, "values" or "states", which) of one record; ages by decade."""
    known = known_from_states(np.asarray(example["states"]))
    for attribute, number, state, is_known in zip(
        ATTRIBUTES, example["attributes"], example["states"], known, strict=True
    ):
        value = decode_value(attribute.name, number, is_known)
        group = UNKNOWN if value is None else str(value)
        if value is not None and attribute.continuous:
            decade = int(value) // 10 * 10
            group = f"{decade}-{decade + 9}"
        yield attribute.name, "values", group
        yield attribute.name, "states", State(int(state)).name.lower()


def fingerprint(digests: Mapping[str, Iterable[str]]) -> str:
    """The fingerprint of a data set, from the `record.digest` of every example of every split in
    order; how they are cut into shards does not matter."""
    whole = hashlib.sha256()
    for split, examples in digests.items():
        whole.update(split.encode() + b"\0")
        for example in examples:
            whole.update(bytes.fromhex(example))
    return whole.hexdigest()
