"""Turns the raw sets into one data set: tables, survey, duplicates, plan, shards.

    python -m data_prep.harmonise --set nih=DIR --set padchest=DIR --out runs/data/cxr7 --size 512

Each DIR is the root of a raw set as published (`data_prep/sources/` has the seven). A folder of
one's own may join them, its table described as to `data_prep.build`:

    … --folder mine=DIR --metadata FILE.csv --column image=image_id --column patient=patient_id

The result is a TensorFlow Datasets directory as `data_prep.build` makes it, with

    table.parquet   every row that has a file: attributes, where each came from, split, fate
    dropped.csv     every image that became no record, and why
    survey/         what every file looks like; may be deleted, makes the next run quick

Every file is decoded twice, once to survey it and once to write it: what is dropped is then known
before the first shard, so the plan (which keys, in which order, in which shard) is a pure function
of the tables and the survey, and no picture is stored twice. Killed, the same command goes on.
"""

import argparse
import dataclasses
import functools
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import data_prep.needs_prep  # noqa: F401  before what needs it
from data_prep import beam
from data_prep.build import (
    SIZES,
    add_table_arguments,
    contradictions,
    make_records,
    read_table,
)
from data_prep.decide import assign_splits, decide
from data_prep.images import duplicates, quality, survey
from data_prep.images.decoder import LIMITS
from data_prep.sources.folder import FileIndex, contradicting, one_row_a_file
from data_prep.sources.sets import SETS, raw_set
from data_prep.tables import parquet
from data_prep.tables.splits import SPLITS, check_fractions
from data_prep.tables.table import Row, Table
from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.data import radiograph, writing
from rfxray.data.manifest import read_ledger, summary
from rfxray.data.plan import OF_ITEMS, Dropped, Plan, make_plan
from rfxray.errors import ConfigError, DataError
from rfxray.outputs.files import saving

COMMAND = "data_prep.harmonise"
BESIDE = ("survey", "table.parquet")


def main(argv: Sequence[str] | None = None) -> None:
    with exit_on_error(COMMAND):
        _harmonise(_parser().parse_args(argv))


def _harmonise(args: argparse.Namespace) -> None:
    roots, own = _roots(args.set), _own(args)
    if not roots and not own:
        raise ConfigError("nothing to harmonise: give --set SET=DIR or --folder NAME=DIR")
    check_fractions(args.validation, args.test)
    if not SIZES[0] <= args.size <= SIZES[1]:
        raise ConfigError(f"--size {args.size} is not from {SIZES[0]} to {SIZES[1]} pixels")
    tables, own_options = {}, {}
    for name, root in roots.items():
        _say(f"{name}: reading the tables in {root}")
        tables[name] = locate(name, SETS[name].read(Path(root)), Path(root))
    for name, root in own.items():
        table, own_options = read_table(args, root, name)
        dropped = [Dropped(f"{name}: {drop.key}", drop.reason) for drop in table.dropped]
        tables[name] = dataclasses.replace(table, dropped=dropped)
    for name, table in tables.items():
        rows, files, matched = (table.notes[what] for what in ("rows", "files", "matched"))
        _say(f"{name}: {rows:,} rows, {files:,} files, {matched:,} match")
        for line in contradictions(table):
            _say(f"{name}: {line}")
        hashed = table.notes["rows_without_split"]
        if hashed and any(row.split for row in table.rows):
            _say(f"{name}: {hashed:,} rows are in no official split; a hash of the patient decides")
    roots = {name: os.path.abspath(root) for name, root in (roots | own).items()}
    rows = [row for table in tables.values() for row in table.rows]
    if not rows:
        raise DataError("no row of any table matches a file; look at the folders given with --set")
    run = functools.partial(writing.run_tasks, workers=args.workers)
    if args.beam is not None:
        run = functools.partial(beam.run_tasks, options=args.beam)
    splits = assign_splits(tables, args.validation, args.test)
    before = make_plan({}, **describe(tables, args, own_options)).identity
    before = {key: value for key, value in before.items() if key not in OF_ITEMS}
    with saving(args.out), writing.claimed(args.out, BESIDE):
        writing.refuse_another(args.out, before)
        _say(f"looking at {len(rows):,} files")
        seen = survey.survey(rows, roots, args.out / "survey", run=run, command=COMMAND)
        _say("looking for duplicates")
        fates, found = decide(rows, splits, seen)
        plan = plan_shards(tables, splits, fates, found, args, own_options)
        make = functools.partial(make_records, roots=roots, size=args.size)
        manifest = writing.write_claimed(plan, make, args.out, command=COMMAND, run=run)
        parquet.write(args.out / "table.parquet", tables, splits, read_ledger(args.out))
    for name, counts in manifest["notes"]["sets"].items():
        published = f", {n:,} published" if (n := counts["published"]) else ""
        _say(f"{name}: {counts['rows']:,} rows, {counts['kept']:,} kept{published}")
    print(summary(manifest, args.out))


# ---------------------------------------------------------------------------------------------
# Tables and files


def locate(name: str, table: Table, root: Path) -> Table:
    """The rows whose file is there, with its path and length; the others go to the ledger: under
    their key, or by their path where a row that is kept has that key.
    """
    files = FileIndex(root)
    found, named, lost = [], [], []
    for row in table.rows:
        path, reason = files.find(row.path)
        if reason:
            lost.append((row, reason))
        else:
            found.append(row._replace(path=path, length=files.size(path)))
            named.append(row.path)
    alone, others = one_row_a_file(found, named)
    lost += [(found[i], reason) for i, reason in others.items()]
    rows: dict[str, Row] = {}
    for row in alone:
        if rows.setdefault(row.key, row) is not row:
            lost.append((row, f"the key of an earlier row: {row.path}"))
    dropped = list(table.dropped)
    for drop in table.dropped:
        files.find(drop.key.removeprefix(f"{name}: "))  # what its row names is named
    for row, reason in lost:
        key = f"{name}: {row.path}" if row.key in rows else row.key
        dropped.append(Dropped(key, reason))
    for path in files.unnamed():
        dropped.append(Dropped(f"{name}: {path}", "no row in the table"))
    for path in files.leftovers:
        dropped.append(Dropped(f"{name}: {path}", "a leftover of a broken download"))
    notes = {
        **table.notes,
        "files": len(files.paths),
        "matched": len(rows),
        "contradicting": contradicting(others.values()),
    }
    return dataclasses.replace(table, rows=list(rows.values()), dropped=dropped, notes=notes)


def plan_shards(
    tables: Mapping[str, Table],
    splits: Mapping[str, str],
    fates: Mapping[str, str],
    found: Mapping,
    args: argparse.Namespace,
    own_options: Mapping,
) -> Plan:
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
            "published": raw_set(name).published,
            "dropped": dict(reasons.most_common()),
        }
    return make_plan(
        by_split,
        dropped=dropped,
        notes={"sets": sets, "duplicates": found},
        **describe(tables, args, own_options),
    )


def describe(tables: Iterable[str], args: argparse.Namespace, own_options: Mapping) -> dict:
    """What `shards.plan` is told before a picture is looked at."""
    return {
        "name": args.name,
        "size": args.size,
        "shard_examples": args.shard_examples,
        "description": f"Chest radiographs of {', '.join(raw_set(name).title for name in tables)}; "
        f"{args.size} × {args.size} pixels of 16-bit grey.",
        "options": {
            "sets": sorted(tables),
            **own_options,
            "validation": args.validation,
            "test": args.test,
            "quality": quality.THRESHOLDS,
            "duplicates": duplicates.THRESHOLDS,
        },
        "preprocessing": {**radiograph.PREPROCESSING, **LIMITS},
        "versions": radiograph.versions(),
    }


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


def _own(args: argparse.Namespace) -> dict[str, str]:
    """`"mine=DIR"` as {"mine": "DIR"}; empty where there is no folder of one's own."""
    given, metadata = args.folder, args.metadata
    if given is None:
        for flag in ("metadata", "column", "map", "set_source"):
            if getattr(args, flag):
                flag = flag.replace("_", "-")
                raise ConfigError(f"--{flag} describes a --folder NAME=DIR, which is not given")
        return {}
    name, _, root = given.partition("=")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in SETS or not root:
        raise ConfigError(
            f"--folder {given!r} is not NAME=DIR with a NAME of a-z, 0-9 and _ that is none of "
            f"{', '.join(SETS)}"
        )
    if metadata is None:
        raise ConfigError(f"--folder {given} needs its table: --metadata FILE.csv --column …")
    return {name: root}


def _local_root(assignment: str) -> str:
    """NAME=DIR, whose DIR is one of this machine."""
    local_path(assignment.partition("=")[2])
    return assignment


def _say(line: str) -> None:
    print(f"{COMMAND}: {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m data_prep.harmonise",
        description="Writes one data set (TensorFlow Datasets, ArrayRecord) from the raw sets.",
    )
    parser.set_defaults(command=COMMAND)
    add = parser.add_argument
    add(
        "--set",
        type=_local_root,
        action="append",
        default=[],
        metavar="SET=DIR",
        help=f"root of a raw set as published; repeat for each of {', '.join(SETS)}",
    )
    add(
        "--folder",
        type=_local_root,
        metavar="NAME=DIR",
        help="a folder of one's own, with the four flags below",
    )
    add_table_arguments(parser, required=False)
    add("--size", type=int, required=True, help="side of the squares, pixels")
    add("--out", type=local_path, required=True, help="directory of the data set")
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
    add(
        "--beam",
        metavar="OPTIONS",
        help="run as an Apache Beam pipeline of these options instead of --workers processes; the "
        "raw folders and --out must lie under the same paths on every worker",
    )
    return parser


if __name__ == "__main__":
    main()
