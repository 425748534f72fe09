"""Turns the raw sets into one data set: tables, survey, duplicates, plan, shards.

    python -m data_prep.harmonise --set nih=DIR --set padchest=DIR --out runs/data/cxr7 --size 512

Each DIR is the root of a raw set as published (`data_prep/sources/` has the seven). The result is a
TensorFlow Datasets directory as `data_prep.build` makes it, with

    table.parquet   every row of every set: attributes, where each came from, split, fate
    dropped.csv     every image that became no record, and why
    survey/         what every file looks like; may be deleted, makes the next run quick

Every file is decoded twice, once to survey it and once to write it: what is dropped is then known
before the first shard, so the plan (which keys, in which order, in which shard) is a pure function
of the tables and the survey, and no picture is stored twice. Killed, the same command goes on.
"""

import argparse
import functools
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_prep import duplicates, ingest, parquet, quality, shards
from data_prep import survey as surveys
from data_prep.build import SIZES, make_records
from data_prep.decoder import LIMITS
from data_prep.processes import write_dataset
from data_prep.shards import Dropped, read_ledger
from data_prep.sources.folder import FileIndex
from data_prep.sources.sets import SETS
from data_prep.splits import SPLITS, check_fractions, hashed_split
from data_prep.table import Row, Table
from rfxray.conditioning import ATTRIBUTES, INDEX
from rfxray.errors import ArgumentParser, ConfigError, DataError, exit_on_error
from rfxray.record import State

COMMAND = "data_prep.harmonise"
BESIDE = ("survey", "table.parquet")
_HELD_OUT_FIRST = ("test", "validation", "train")


def main(argv: Sequence[str] | None = None) -> None:
    with exit_on_error(COMMAND):
        _harmonise(_parser().parse_args(argv))


def _harmonise(args: argparse.Namespace) -> None:
    roots = _roots(args.set)
    check_fractions(args.validation, args.test)
    if not SIZES[0] <= args.size <= SIZES[1]:
        raise ConfigError(f"--size {args.size} is not from {SIZES[0]} to {SIZES[1]} pixels")
    out = Path(args.out)
    tables = {}
    for name, root in roots.items():
        _say(f"{name}: reading the tables in {root}")
        tables[name] = locate(name, SETS[name].read(Path(root)), Path(root))
        notes = tables[name].notes
        _say(
            f"{name}: {notes['rows']:,} rows, {notes['files']:,} files, {notes['matched']:,} match"
        )
    rows = [row for table in tables.values() for row in table.rows]
    if not rows:
        raise DataError("no row of any table matches a file; look at the folders given with --set")
    _say(f"looking at {len(rows):,} files")
    seen = surveys.survey(rows, roots, out / "survey", workers=args.workers, command=COMMAND)
    splits = assign_splits(tables, args.validation, args.test)
    _say("looking for duplicates")
    fates, found = decide(rows, splits, seen)
    plan = plan_shards(tables, splits, fates, found, args)
    make = functools.partial(make_records, roots=roots, size=args.size)
    manifest = write_dataset(plan, make, out, workers=args.workers, command=COMMAND, beside=BESIDE)
    parquet.write(out / "table.parquet", tables, splits, read_ledger(out))
    for name, counts in manifest["notes"]["sets"].items():
        kept, published = counts["kept"], counts["published"]
        _say(f"{name}: {counts['rows']:,} rows, {kept:,} kept, {published:,} published")
    print(shards.summary(manifest, out))


# ---------------------------------------------------------------------------------------------
# Tables and files


def locate(name: str, table: Table, root: Path) -> Table:
    """The rows whose file is there, with its path and length; the others go to the ledger."""
    files = FileIndex(root)
    rows, dropped, taken = [], list(table.dropped), set()
    for row in table.rows:
        path, reason = files.find(row.path)
        if path in taken:
            reason = "the file of an earlier row"
        if reason:
            dropped.append(Dropped(row.key, reason))
        else:
            taken.add(path)
            rows.append(row._replace(path=path, length=files.size(path)))
    named = {drop.key for drop in dropped}
    for path in files.paths:
        if path not in taken and f"{name}: {path}" not in named:
            dropped.append(Dropped(f"{name}: {path}", "no row in the table"))
    for path in files.leftovers:
        dropped.append(Dropped(f"{name}: {path}", "a leftover of a broken download"))
    notes = {**table.notes, "files": len(files.paths), "matched": len(rows)}
    return Table(rows, dropped, notes, table.origins)


def assign_splits(tables: Mapping[str, Table], validation: float, test: float) -> dict[str, str]:
    """The split of every row, by key.

    As the set's own split says; else by a hash of the patient. A set whose own split knows only
    train and test (NIH's `train_val`, VinDr) gives a share of its train patients to validation.
    """
    splits = {}
    for table in tables.values():
        official = {row.split for row in table.rows}
        carve = official == {"train", "test"}
        for row in table.rows:
            split = row.split
            if not split:
                split = hashed_split(row.patient, validation, test)
            elif carve and split == "train":
                split = hashed_split(row.patient, validation, 0.0)
            splits[row.key] = split
    return splits


# ---------------------------------------------------------------------------------------------
# Decisions: pure functions of the tables and the survey


def decide(
    rows: Sequence[Row], splits: Mapping[str, str], seen: Sequence[Path]
) -> tuple[dict[str, str], dict]:
    """Which rows become no record, reason by key; and what was found on the way, for the notes."""
    fates = _unfit(rows, seen)
    alive = [i for i, row in enumerate(rows) if row.key not in fates]
    # The copy that is kept is the first in the split that is held out most
    alive.sort(key=lambda i: _HELD_OUT_FIRST.index(splits[rows[i].key]))
    measured = surveys.columns(seen, ("pixels", "hash"))
    pixels, hashes = measured["pixels"].to_pylist(), measured["hash"].to_pylist()
    exact = duplicates.exact_pairs([pixels[i] for i in alive])
    copies = {pair.second for pair in exact}
    near, tried = _near_pairs(rows, alive, hashes, copies, seen)
    for pair in (*exact, *near):
        kept, copy = rows[alive[pair.first]], rows[alive[pair.second]]
        kind = "the same pixels as" if pair.correlation == 1 else "nearly the same picture as"
        fates.setdefault(copy.key, f"a duplicate: {kind} {kept.key}")
    tied = _tie_patients(rows, alive, (*exact, *near))
    leaks = _leaks(rows, splits, tied, fates)
    found = {
        "exact_duplicates": len(exact),
        "near_candidates_between_patients": tried,
        "near_duplicates": len(near),
        "patients_tied": sum(len(group) for group in tied),
        "dropped_for_a_tied_patient": len(leaks),
        "pairs": [
            [rows[alive[p.first]].key, rows[alive[p.second]].key, round(p.correlation, 3)]
            for p in (*exact, *near)[:1000]
        ],
    }
    return fates | leaks, found


def _unfit(rows: Sequence[Row], seen: Sequence[Path]) -> dict[str, str]:
    """What was refused when it was decoded, and what fails the quality filters."""
    view = INDEX["view"]
    frontal_values = [ATTRIBUTES[view].values.index(name) for name in ("PA", "AP")]
    judged = surveys.columns(seen, ("reason", "scores")).to_pydict()
    fates = {}
    for row, reason, scores in zip(rows, judged["reason"], judged["scores"], strict=True):
        if not reason:
            number = np.frombuffer(row.attributes, np.float32)[view]
            stated = np.frombuffer(row.states, np.int8)[view] == State.STATED
            frontal = bool(stated and number in frontal_values)
            reason = quality.verdict(quality.Scores(*scores), frontal)
        if reason:
            fates[row.key] = reason
    return fates


def _near_pairs(rows, alive, hashes, copies, seen) -> tuple[list[duplicates.Pair], int]:
    """The confirmed near-duplicates between patients, and how many candidates the hash gave."""
    whole = [i for i in range(len(alive)) if i not in copies]
    packed = np.frombuffer(b"".join(hashes[alive[i]] for i in whole), np.uint8).reshape(-1, 32)
    pairs = [
        (whole[one], whole[other])
        for one, other in duplicates.candidates(packed).tolist()
        if rows[alive[whole[one]]].patient != rows[alive[whole[other]]].patient
    ]
    wanted = {alive[i] for pair in pairs for i in pair}
    thumbnails, index = {}, 0
    for block in surveys.thumbnails(seen) if wanted else ():
        thumbnails |= {index + i: block[i].copy() for i in range(len(block)) if index + i in wanted}
        index += len(block)
    confirmed = []
    for one, other in pairs:
        correlation = duplicates.registered_correlation(
            thumbnails[alive[one]], thumbnails[alive[other]]
        )
        if correlation >= duplicates.CORRELATION:
            confirmed.append(duplicates.Pair(one, other, min(correlation, 0.999)))
    return confirmed, len(pairs)


def _tie_patients(rows, alive, pairs) -> list[list[str]]:
    """Patients who share a picture are taken for one person: groups of two or more."""
    names = sorted({rows[alive[i]].patient for pair in pairs for i in (pair.first, pair.second)})
    number = {name: i for i, name in enumerate(names)}
    edges = [
        (number[rows[alive[pair.first]].patient], number[rows[alive[pair.second]].patient])
        for pair in pairs
    ]
    tied: dict[int, list[str]] = {}
    for name, group in zip(names, duplicates.groups(len(names), edges), strict=True):
        tied.setdefault(int(group), []).append(name)
    return [group for group in tied.values() if len(group) > 1]


def _leaks(rows, splits, tied, fates) -> dict[str, str]:
    """Rows of a person who is on several sides: the side that is held out most keeps them."""
    group_of = {name: i for i, group in enumerate(tied) for name in group}
    sides: dict[int, set[str]] = {}
    for row in rows:
        if row.patient in group_of and row.key not in fates:
            sides.setdefault(group_of[row.patient], set()).add(splits[row.key])
    leaks = {}
    for row in rows:
        group = group_of.get(row.patient)
        if group is None or row.key in fates:
            continue
        kept = min(sides[group], key=_HELD_OUT_FIRST.index)
        if splits[row.key] != kept:
            others = ", ".join(name for name in tied[group][:4] if name != row.patient)
            leaks[row.key] = f"its patient is in {kept}: shares a picture with {others}"
    return leaks


def plan_shards(
    tables: Mapping[str, Table],
    splits: Mapping[str, str],
    fates: Mapping[str, str],
    found: Mapping,
    args: argparse.Namespace,
) -> shards.Plan:
    """Which row goes into which shard: split after split, set after set, in the tables' order."""
    by_split: dict[str, list[Row]] = {split: [] for split in SPLITS}
    dropped, sets = [], {}
    for name, table in tables.items():
        dropped += table.dropped
        dropped += [Dropped(row.key, fates[row.key]) for row in table.rows if row.key in fates]
        kept = [row for row in table.rows if row.key not in fates]
        for row in kept:
            by_split[splits[row.key]].append(row)
        reasons = Counter(drop.reason.partition(":")[0] for drop in table.dropped)
        reasons.update(fates[row.key].partition(":")[0] for row in table.rows if row.key in fates)
        sets[name] = {
            **table.notes,
            "kept": len(kept),
            "published": SETS[name].published,
            "dropped": dict(reasons.most_common()),
        }
    return shards.plan(
        by_split,
        name=args.name,
        size=args.size,
        shard_examples=args.shard_examples,
        description=f"Chest radiographs of {', '.join(SETS[name].title for name in tables)}; "
        f"{args.size} × {args.size} pixels of 16-bit grey.",
        options={
            "sets": sorted(tables),
            "validation": args.validation,
            "test": args.test,
            "quality": quality.THRESHOLDS,
            "duplicates": duplicates.THRESHOLDS,
        },
        preprocessing={**ingest.PREPROCESSING, **LIMITS},
        versions=ingest.versions(),
        dropped=dropped,
        notes={"sets": sets, "duplicates": found},
    )


# ---------------------------------------------------------------------------------------------
# The command line


def _roots(given: Sequence[str]) -> dict[str, str]:
    """`["nih=DIR"]` as {"nih": "DIR"}, in the order of `SETS`, however they are given."""
    roots = {}
    for assignment in given:
        name, separator, root = assignment.partition("=")
        if not separator or name not in SETS or not root:
            known = ", ".join(SETS)
            raise ConfigError(f"--set {assignment!r} is not SET=DIR with SET one of {known}")
        if name in roots:
            raise ConfigError(f"--set {name} is given twice")
        roots[name] = root
    return {name: roots[name] for name in SETS if name in roots}


def _say(line: str) -> None:
    print(f"{COMMAND}: {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m data_prep.harmonise",
        description="Writes one data set (TensorFlow Datasets, ArrayRecord) from the raw sets.",
    )
    add = parser.add_argument
    add(
        "--set",
        action="append",
        required=True,
        metavar="SET=DIR",
        help=f"root of a raw set as published; repeat for each of {', '.join(SETS)}",
    )
    add("--size", type=int, required=True, help="side of the squares, pixels")
    add("--out", required=True, help="directory of the data set")
    add("--name", default="cxr7", help="of the data set and its files (%(default)s)")
    add("--validation", type=float, default=0.02, help="share of the patients (%(default)s)")
    add("--test", type=float, default=0.02, help="share of the patients (%(default)s)")
    add("--shard-examples", type=int, default=1024, help="images a shard (%(default)s)")
    add(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes; each writes whole shards (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    main()
