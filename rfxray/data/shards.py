"""One tfds ArrayRecord directory: planned purely, written shard by shard, published at the end.

- A `Plan` says which items go into which shard, in which order. It is data.
- `write_shard` is one task: it makes the records of a shard and leaves a shard file and a fragment
  (its counts, checksums and drops as JSON) behind, or nothing.
- `publish` names the shards and writes what describes them.

`processes.write_dataset` is the three in order. It maps `write_shard` over the shards in processes
of one machine, or hands that to another runner (`beam.py`).

A writer hands in `make(items) -> Iterable[record | Dropped]`, a picklable top-level function (or a
`functools.partial` of one). It is called once a shard with that shard's items, gives one result for
each item in order, and is a pure function of them: so a run that is killed at any moment and
started again ends in the same bytes, whatever the number of processes. An item is anything that
pickles and whose `repr` says all that decides its record.

While it is written, DIR holds `plan.json` and `partial/`; the shards get their final names when it
is known which of them are empty of records (those vanish, the rest are numbered through: tfds and
Grain never meet an empty file). `manifest.json` comes last: where it lies, the data set is
complete.
"""

import csv
import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from rfxray.attributes.states import State, known_from_states
from rfxray.attributes.vocabulary import ATTRIBUTES, UNKNOWN, decode_value
from rfxray.data.plan import Dropped, Plan, Shard
from rfxray.data.record import features, serialize
from rfxray.errors import DataError, first_line
from rfxray.outputs.files import _file_sha256, _fsync, _temporary, write_atomically

# One record a group: a random read then decodes one record, which a global shuffle needs
# (100,000 records, 500 random reads: 4,800/s against 436/s with all in one group).
WRITER_OPTIONS = "group_size:1"


# ---------------------------------------------------------------------------------------------
# One shard


def write_shard(
    shard: Shard,
    directory: str | os.PathLike,
    size: int,
    make: Callable[[Sequence[Any]], Iterable[dict | Dropped]],
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Makes the records of a shard and writes `directory/partial/STEM.{array_record,json}`.

    The fragment (`.json`) is written after the shard is safely on disk, so where there is a
    fragment the task is done. Doing a task twice gives the same bytes.

    Args:
      advance: called after each item, for progress.
    """
    partial = Path(directory) / "partial"
    temporary = _temporary(partial / shard.stem)
    digests, dropped, counts = [], [], Counter()
    writer = ArrayRecordWriter(os.fspath(temporary), WRITER_OPTIONS)
    for item, result in zip(shard.items, make(shard.items), strict=True):
        if isinstance(result, Dropped):
            dropped.append([result.key, result.reason])
        else:
            if np.shape(result["image"]) != (size, size):
                shape = np.shape(result["image"])
                raise ValueError(f"{item!r} made an image {shape}, not {size} × {size}")
            _write(writer.write, serialize(result))
            digests.append(example_digest(result))
            counts.update(_tally(result))
        advance()
    _write(writer.close)
    _fsync(temporary)
    fragment = {
        "split": shard.split,
        "index": shard.index,
        "examples": len(digests),
        "bytes": os.path.getsize(temporary),
        "sha256": _file_sha256(temporary),
        "dropped": dropped,
        "counts": sorted([*key, number] for key, number in counts.items()),
        "digests": "".join(digests),
    }
    os.replace(temporary, partial / f"{shard.stem}.array_record")
    write_atomically(partial / f"{shard.stem}.json", json.dumps(fragment))


def _write(call: Callable[..., None], *arguments: bytes) -> None:
    """Calls the writer, which says `RuntimeError` where others say that a disk is full."""
    try:
        call(*arguments)
    except RuntimeError as error:
        raise OSError(f"a shard: {first_line(error).partition(';')[0]}") from None


def example_digest(record: Mapping[str, Any]) -> str:
    """sha256 of a record's key, decoded pixels, attributes and states; not of its PNG bytes."""
    digest = hashlib.sha256()
    digest.update(record["key"].encode() + b"\0")
    digest.update(np.ascontiguousarray(record["image"], "<u2").tobytes())
    digest.update(np.ascontiguousarray(record["attributes"], "<f4").tobytes())
    digest.update(np.ascontiguousarray(record["states"], "i1").tobytes())
    return digest.hexdigest()


def fingerprint(digests: Mapping[str, Iterable[str]]) -> str:
    """Of a data set, from the `example_digest`s of every split in order; shards do not matter."""
    digest = hashlib.sha256()
    for split, examples in digests.items():
        digest.update(split.encode() + b"\0")
        for example in examples:
            digest.update(bytes.fromhex(example))
    return digest.hexdigest()


def _tally(record: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """(attribute, "values" or "states", which) of one record; ages by decade."""
    known = known_from_states(np.asarray(record["states"]))
    for attribute, number, state, told in zip(
        ATTRIBUTES, record["attributes"], record["states"], known, strict=True
    ):
        value = decode_value(attribute.name, number, told)
        if value is None:
            value = UNKNOWN
        elif attribute.continuous:
            decade = int(value) // 10 * 10
            value = f"{decade}-{decade + 9}"
        yield attribute.name, "values", value
        yield attribute.name, "states", State(int(state)).name.lower()


# ---------------------------------------------------------------------------------------------
# A whole data set


def publish(plan: Plan, out: str | os.PathLike) -> dict[str, Any]:
    """Gives the shards their final names and writes what describes them, the manifest last.

    Every fragment of `plan` must be there. May be killed and repeated at any point.

    Raises:
      DataError: where no example is left, or a shard is not what its fragment says.
    """
    out = Path(out)
    partial = out / "partial"
    fragments = [read_json(partial / f"{shard.stem}.json") for shard in plan.shards]
    dropped = [*plan.dropped, *(Dropped(*d) for fragment in fragments for d in fragment["dropped"])]
    write_atomically(out / "dropped.csv", _dropped_csv(dropped))
    by_split: dict[str, list] = {}
    for shard, fragment in zip(plan.shards, fragments, strict=True):
        if fragment["examples"]:
            by_split.setdefault(shard.split, []).append((shard, fragment))
    if not by_split:
        common = next(iter(reasons(dropped)), "")
        why = f" (most often: {common})" if common else ""
        raise DataError(f"no example is left, {len(dropped):,} dropped{why}; see {out}/dropped.csv")
    for split, written in by_split.items():
        for index, (shard, fragment) in enumerate(written):
            fragment["file"] = f"{plan.name}-{split}.array_record-{index:05d}-of-{len(written):05d}"
            source, target = partial / f"{shard.stem}.array_record", out / fragment["file"]
            if source.exists():
                os.replace(source, target)
            if not target.exists() or target.stat().st_size != fragment["bytes"]:
                raise DataError(f"{target} is gone or torn; delete {out} and build it again")
    _fsync(out)
    _write_tfds_metadata(plan, out, by_split)
    manifest = _manifest(plan, dropped, by_split)
    write_atomically(out / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False))
    shutil.rmtree(partial)
    return manifest


def read_manifest(out: str | os.PathLike) -> dict[str, Any] | None:
    """The manifest of a complete data set, or None where there is none.

    Raises:
      DataError: where it is damaged.
    """
    try:
        return read_json(Path(out) / "manifest.json")
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_json(path: Path) -> dict[str, Any]:
    """What a file of a data set's folder says, or DataError where it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        raise DataError(f"{path} is damaged; delete {path.parent} and build it again") from None


def read_ledger(out: str | os.PathLike) -> dict[str, str]:
    """Why each thing in `dropped.csv` was dropped, by key."""
    with open(Path(out) / "dropped.csv", encoding="utf-8", newline="") as file:
        return {row["key"]: row["reason"] for row in csv.DictReader(file)}


def summary(manifest: Mapping[str, Any], out: str | os.PathLike) -> str:
    """The closing line of a command that wrote a data set."""
    counts = ", ".join(f"{s} {split['examples']:,}" for s, split in manifest["splits"].items())
    dropped = f"{manifest['dropped']:,} dropped"
    if manifest["dropped"]:
        dropped += f" (reasons in {Path(out) / 'dropped.csv'})"
    return f"{out}: {counts} examples of {manifest['size']}², {dropped}"


def _manifest(plan: Plan, dropped: Sequence[Dropped], by_split: Mapping[str, list]) -> dict:
    splits, digests = {}, {}
    for split, written in by_split.items():
        digests[split] = _per_example(written)
        counts: dict[str, dict] = {a.name: {"values": {}, "states": {}} for a in ATTRIBUTES}
        for _, fragment in written:
            for name, kind, which, number in fragment["counts"]:
                counts[name][kind][which] = counts[name][kind].get(which, 0) + number
        splits[split] = {
            "examples": sum(fragment["examples"] for _, fragment in written),
            "shards": [
                {key: fragment[key] for key in ("file", "examples", "bytes", "sha256")}
                for _, fragment in written
            ],
            "counts": counts,
        }
    return {
        "name": plan.name,
        "size": plan.size,
        "description": plan.description,
        "versions": plan.identity["versions"],
        "fingerprint": fingerprint(digests),
        "dropped": len(dropped),
        "dropped_reasons": reasons(dropped),
        "options": plan.identity["options"],
        "preprocessing": plan.identity["preprocessing"],
        "notes": plan.notes,
        "splits": splits,
    }


def _per_example(written: Iterable[tuple[Shard, dict]]) -> Iterable[str]:
    for _, fragment in written:
        digests = fragment["digests"]
        yield from (digests[i : i + 64] for i in range(0, len(digests), 64))


def reasons(dropped: Iterable[Dropped]) -> dict[str, int]:
    """How many were dropped for each reason, most first; a reason's detail follows a colon."""
    return dict(Counter(drop.reason.partition(":")[0] for drop in dropped).most_common())


def _dropped_csv(dropped: Iterable[Dropped]) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["key", "reason"])
    writer.writerows((drop.key, drop.reason) for drop in dropped)
    return table.getvalue()


def _write_tfds_metadata(plan: Plan, out: Path, by_split: Mapping[str, list]) -> None:
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=tfds.core.Path(out), dataset_name=plan.name, filetype_suffix="array_record"
    )
    tfds.folder_dataset.write_metadata(
        data_dir=os.fspath(out),
        features=features(plan.size),
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[fragment["examples"] for _, fragment in written],
                num_bytes=sum(fragment["bytes"] for _, fragment in written),
                filename_template=template.replace(split=split),
            )
            for split, written in by_split.items()
        ],
        check_data=False,  # the check imports TensorFlow
        description=plan.description,
    )
