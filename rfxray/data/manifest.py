"""What describes a data set: `manifest.json`, the metadata of tfds, the list of what was dropped.

`publish` gives the shards their final names, now that it is known which are empty of records (those
vanish, the rest are numbered through: tfds and Grain never meet an empty file), and writes the
manifest last: a directory with a manifest is complete. The manifest holds a checksum of itself, so
a damaged one is never read.
"""

import csv
import dataclasses
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rfxray.attributes.vocabulary import ATTRIBUTES
from rfxray.config import json_text
from rfxray.data.plan import Dropped, Plan, Shard
from rfxray.data.record import features
from rfxray.data.shards import fingerprint
from rfxray.errors import DataError
from rfxray.outputs import spreadsheet
from rfxray.outputs.files import sync, write_whole

NAME = "manifest.json"
_SAID = ("examples", "bytes", "sha256", "dropped", "counts", "digests")  # of every shard


def publish(
    plan: Plan, out: str | os.PathLike, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Gives the shards their final names and writes what describes them, the manifest last.

    Every shard of `plan` must be written. May be killed and repeated at any point.

    Args:
      plan: Plan of the data set.
      out: Directory of the data set.
      more: Further entries of the manifest; JSON.

    Returns:
      The manifest.

    Raises:
      DataError: If no example is left, or a shard is not what its fragment says.
    """
    out = Path(out)
    partial = out / "partial"
    fragments = [_fragment(plan, out, shard) for shard in plan.shards]
    dropped = [*plan.dropped, *(Dropped(*d) for fragment in fragments for d in fragment["dropped"])]
    publish_ledger(out, dropped)
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
                raise DataError(
                    f"{target} is missing or has the wrong size; delete the folder {out} and run "
                    "the same command again"
                )
    sync(out)
    _write_tfds_metadata(plan, out, by_split)
    manifest = write_manifest(out, {**_content(plan, dropped, by_split), **(more or {})})
    shutil.rmtree(partial)
    return manifest


def fragments(plan: Plan, out: str | os.PathLike, split: str) -> list[dict[str, Any]]:
    """What is said of each shard of a split that is written, before it is published."""
    return [_fragment(plan, out, shard) for shard in plan.shards if shard.split == split]


def reasons(dropped: Iterable[Dropped]) -> dict[str, int]:
    """How many were dropped for each reason, most first."""
    return dict(Counter(drop.reason for drop in dropped).most_common())


def publish_ledger(out: Path, dropped: Iterable[Dropped]) -> None:
    """Writes `dropped.csv`, without a cell that a spreadsheet takes for a formula."""
    rows = [[field.name for field in dataclasses.fields(Dropped)]]
    rows += [list(dataclasses.astuple(drop)) for drop in dropped]
    # Quoted, because a name may hold a carriage return.
    write_whole(out / "dropped.csv", spreadsheet.text(rows, quoted=True))


def read_ledger(out: str | os.PathLike) -> list[Dropped]:
    """What `dropped.csv` lists, in order."""
    with open(Path(out) / "dropped.csv", encoding="utf-8", newline="") as file:
        rows = [{k: spreadsheet.bare(v) for k, v in row.items()} for row in csv.DictReader(file)]
        return [Dropped(**row) for row in rows]


def summary(manifest: Mapping[str, Any], out: str | os.PathLike) -> str:
    """The closing line of a command that wrote a data set."""
    counts = ", ".join(f"{s} {split['examples']:,}" for s, split in manifest["splits"].items())
    dropped = f"{manifest['dropped']:,} dropped"
    if manifest["dropped"]:
        dropped += f" (reasons in {Path(out) / 'dropped.csv'})"
    return f"{out}: {counts} examples of {manifest['size']}², {dropped}"


# ---------------------------------------------------------------------------------------------
# The manifest and its checksum


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest without its entry `checksum`, as JSON with sorted keys, hex."""
    bare = {key: value for key, value in content.items() if key != "checksum"}
    canonical = json.dumps(bare, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def write_manifest(out: str | os.PathLike, content: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `manifest.json` with its checksum; returns it as it is read back."""
    manifest = json.loads(json.dumps(content))  # tuples become lists and keys become text
    manifest["checksum"] = checksum(manifest)
    write_whole(Path(out) / NAME, json.dumps(manifest, indent=1, ensure_ascii=False))
    return manifest


def read_manifest(out: str | os.PathLike) -> dict[str, Any] | None:
    """The manifest of a complete data set, or None if there is none.

    Raises:
      DataError: If it is damaged, or was written by another version.
    """
    path = Path(out) / NAME
    try:
        manifest = json_text.parse(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise DataError(
            f"{path} is damaged: it is not valid JSON; restore it, or build the data set again"
        ) from None
    if not isinstance(manifest, dict) or "checksum" not in manifest:
        raise DataError(
            f"{path} was written by another version, without a checksum; build the data set again"
        )
    if manifest["checksum"] != checksum(manifest):
        raise DataError(
            f"{path} is damaged: its content does not match its checksum; restore it, or build "
            "the data set again"
        )
    return manifest


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a data set that is being written.

    Raises:
      DataError: If it is damaged.
    """
    try:
        found = json_text.parse(path.read_text(encoding="utf-8"))
        fault = "" if isinstance(found, dict) else "it holds no object"
    except ValueError:
        found, fault = {}, "it is not valid JSON"
    if fault:
        raise DataError(
            f"{path} is damaged: {fault}; delete the folder {path.parent} and run the same command "
            "again"
        )
    return found


def _fragment(plan: Plan, out: str | os.PathLike, shard: Shard) -> dict[str, Any]:
    """What is said of a shard that is written, see `shards.write_shard`.

    Raises:
      DataError: If an entry is missing.
    """
    path = Path(out) / "partial" / f"{shard.stem}.json"
    found = read_json(path)
    for name in (*_SAID, "moments") if plan.latent else _SAID:
        if name not in found:
            raise DataError(
                f"{path} is damaged: it does not say {name}; delete the folder {path.parent} and "
                "run the same command again"
            )
    return found


def _content(plan: Plan, dropped: Sequence[Dropped], by_split: Mapping[str, list]) -> dict:
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
        "versions": plan.all_versions,
        "fingerprint": fingerprint(digests),
        "dropped": len(dropped),
        "dropped_reasons": reasons(dropped),
        "options": plan.options,
        "preprocessing": plan.preprocessing,
        "notes": plan.notes,
        "splits": splits,
    }


def _per_example(written: Iterable[tuple[Shard, dict]]) -> Iterable[str]:
    for _, fragment in written:
        digests = fragment["digests"]
        yield from (digests[i : i + 64] for i in range(0, len(digests), 64))


def _write_tfds_metadata(plan: Plan, out: Path, by_split: Mapping[str, list]) -> None:
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=tfds.core.Path(out), dataset_name=plan.name, filetype_suffix="array_record"
    )
    tfds.folder_dataset.write_metadata(
        data_dir=os.fspath(out),
        features=features(plan.size, plan.latent, plan.shown),
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
