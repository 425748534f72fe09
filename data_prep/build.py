"""Turns raw radiographs and their table into a data set that the trainer reads.

    python -m data_prep.build --source folder --images DIR --metadata FILE.csv \\
        --column image=image_id --column patient=patient_id --column view=projection \\
        --size 256 --out runs/data/mine

The result is a TensorFlow Datasets directory (ArrayRecord, schema in `rfxray/data/record.py`) with
`manifest.json` (counts, checksums, what was done to the pixels) and `dropped.csv` (what was left
out and why). A patient whom the table's own split divides stays on the side held out most. Killed,
the same command goes on. See `rfxray/data/shards.py`, `rfxray/data/radiograph.py` and
`tables/splits.py`.
"""

import argparse
import functools
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

import data_prep.needs_prep  # noqa: F401  before what needs it
from data_prep.images.decoder import LIMITS, decoder
from data_prep.sources.folder import read_folder
from data_prep.tables.columns import parse_columns, parse_map
from data_prep.tables.splits import SPLITS, check_fractions, hashed_split, leaks
from data_prep.tables.table import Row, Table
from rfxray.attributes.vocabulary import SOURCES, encode_value
from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.data import radiograph
from rfxray.data.manifest import reasons, summary
from rfxray.data.plan import Dropped, Plan, make_plan
from rfxray.data.writing import write_dataset
from rfxray.errors import ConfigError

COMMAND = "data_prep.build"
SIZES = (16, 2048)
SHOWN_CELLS = 5


def make_records(
    rows: Sequence[Row], roots: Mapping[str, str], size: int
) -> Iterator[dict | Dropped]:
    """Reads and squares the file of each row; the `make` of `shards.py`.

    Args:
      roots: what paths are relative to, by what keys begin with.
    """
    for row in rows:
        root = roots[row.key.partition("/")[0]]
        try:
            picture, _ = decoder().decode(os.path.join(root, row.path), size)
        except radiograph.Refused as refusal:
            yield Dropped(row.key, str(refusal))
            continue
        yield {
            **picture,
            "attributes": np.frombuffer(row.attributes, np.float32),
            "states": np.frombuffer(row.states, np.int8),
            "key": row.key,
            "patient": row.patient,
        }


def plan_table(
    table: Table,
    *,
    name: str,
    size: int,
    shard_examples: int,
    validation: float,
    test: float,
    options: dict,
) -> Plan:
    """Which row goes into which shard, in the table's order; splits as the source has them, else
    by a hash of the patient. A patient whom the source divides stays on the side held out most.
    """
    splits = {
        row.key: row.split or hashed_split(row.patient, validation, test) for row in table.rows
    }
    leaked = leaks(table.rows, splits)
    by_split: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in table.rows:
        if row.key not in leaked:
            by_split[splits[row.key]].append(row)
    return make_plan(
        by_split,
        name=name,
        size=size,
        shard_examples=shard_examples,
        description=f"Chest radiographs of {name}, {size} × {size} pixels of 16-bit grey.",
        options=options,
        preprocessing={**radiograph.PREPROCESSING, **LIMITS},
        versions=radiograph.versions(),
        dropped=[*table.dropped, *(Dropped(*leak) for leak in leaked.items())],
        notes=table.notes,
    )


def main(argv: Sequence[str] | None = None) -> None:
    with exit_on_error(COMMAND):
        _build(_parser().parse_args(argv))


def _build(args: argparse.Namespace) -> None:
    check_fractions(args.validation, args.test)
    if not SIZES[0] <= args.size <= SIZES[1]:
        raise ConfigError(f"--size {args.size} is not from {SIZES[0]} to {SIZES[1]} pixels")
    table, options = read_table(args, args.images, args.name)
    plan = plan_table(
        table,
        name=args.name,
        size=args.size,
        shard_examples=args.shard_examples,
        validation=args.validation,
        test=args.test,
        options={
            "source": args.source,
            **options,
            "validation": args.validation,
            "test": args.test,
        },
    )
    for line in _report(args, table, plan):
        print(f"{COMMAND}: {line}", file=sys.stderr)
    make = functools.partial(make_records, roots={args.name: args.images}, size=args.size)
    manifest = write_dataset(plan, make, args.out, workers=args.workers, command=COMMAND)
    examples = sum(split["examples"] for split in manifest["splits"].values())
    if examples < len(table.rows) / 2:
        print(
            f"{COMMAND}: WARNING: only {examples:,} of {len(table.rows):,} matched images could be "
            f"used; look into dropped.csv before training on this",
            file=sys.stderr,
        )
    print(summary(manifest, args.out))


def _report(args: argparse.Namespace, table: Table, plan: Plan) -> Iterator[str]:
    """What was found, line by line, before the long work begins."""
    notes = table.notes
    splits = Counter()
    for shard in plan.shards:
        splits[shard.split] += len(shard.items)
    yield (
        f"{notes['rows']:,} rows, {notes['files']:,} files, {notes['matched']:,} matched, "
        f"{notes['patients']:,} patients: "
        + ", ".join(f"{split} {count:,}" for split, count in splits.items())
    )
    if notes["without_patient"]:
        yield (
            f"{notes['without_patient']:,} images have no patient id; each counts as a patient of "
            f"its own, so a split may divide a real one"
        )
    if "split" in plan.options["columns"]:
        if leaked := len(plan.dropped) - len(table.dropped):
            yield (
                f"WARNING: the table's own split divides patients; the side held out most keeps "
                f"them, {leaked:,} images of the other are left out"
            )
    else:
        for split, share in (("validation", args.validation), ("test", args.test)):
            if share and not splits[split]:
                yield f"no patient fell into {split}: {notes['patients']:,} are few for {share:g}"
    yield from contradictions(table)
    for name, cells in notes["not_understood"].items():
        shown = ", ".join(f"{cell!r} × {n:,}" for cell, n in list(cells.items())[:SHOWN_CELLS])
        more = f" and {len(cells) - SHOWN_CELLS:,} more" if len(cells) > SHOWN_CELLS else ""
        yield f"{name}: {shown}{more} not understood, taken as unknown (--map {name}:CELL=VALUE)"
    if notes["no_finding"]["contradicted"]:
        yield (
            f"no_finding contradicted the pathologies in {notes['no_finding']['contradicted']:,} "
            f"rows; the pathologies won"
        )
    if plan.dropped:
        yield "left out: " + ", ".join(
            f"{reason} × {count:,}" for reason, count in reasons(plan.dropped).items()
        )


def contradictions(table: Table) -> Iterator[str]:
    """A line where rows of a table contradict each other."""
    if count := table.notes["contradicting"]:
        yield f"WARNING: {count:,} rows contradict another row of their image; see dropped.csv"


# ---------------------------------------------------------------------------------------------
# The command line


def add_table_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
    """The flags that say what a CSV table means; `read_table` acts on them."""
    add = parser.add_argument
    add(
        "--metadata",
        type=local_path,
        metavar="FILE.csv",
        required=required,
        help="table, one row an image; may be .csv.gz",
    )
    add(
        "--column",
        action="append",
        default=[],
        metavar="NAME=HEADER",
        help="what a column of the table is: image, patient, study, split, or one of the 19 "
        "attributes (view, sex, race, age, source, cardiomegaly, …); repeat for each",
    )
    add(
        "--map",
        action="append",
        default=[],
        metavar="NAME:CELL=VALUE",
        help="read a cell of that --column as this value, such as view:frontal=AP",
    )
    add(
        "--set-source",
        metavar="SOURCE",
        help="the attribute `source` of every image (default: the name of the set where that is "
        "one of the known sources, else other)",
    )


def read_table(args: argparse.Namespace, images: str, name: str) -> tuple[Table, dict]:
    """`read_folder` as the flags have it, and those of them that decide a record, for the plan."""
    columns, mapped = parse_columns(args.column), parse_map(args.map)
    for attribute, cell in mapped:
        if attribute not in columns:
            raise ConfigError(
                f"--map {attribute}:{cell}=… reads no column; name it: --column {attribute}=HEADER"
            )
    source = args.set_source or (name if name in SOURCES else "other")
    if not encode_value("source", source)[1]:
        raise ConfigError(f"--set-source {source}: the source of an image is always known")
    print(
        f"{args.command}: reading {args.metadata}, looking for files in {images}", file=sys.stderr
    )
    return read_folder(images, args.metadata, columns, mapped, name, source), {
        "columns": columns,
        "map": {f"{name}:{cell}": value for (name, cell), value in mapped.items()},
        "set_source": source,
    }


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m data_prep.build",
        description="Writes a data set of chest radiographs (TensorFlow Datasets, ArrayRecord).",
    )
    parser.set_defaults(command=COMMAND)
    add = parser.add_argument
    add("--source", choices=("folder",), default="folder", help="layout of the raw set")
    add(
        "--images",
        type=local_path,
        required=True,
        help="folder of PNG, JPEG and DICOM files, at any depth",
    )
    add_table_arguments(parser, required=True)
    add("--size", type=int, required=True, help="side of the squares, pixels")
    add("--out", type=local_path, required=True, help="directory of the data set")
    add("--name", default="radiographs", help="of the set: its files and keys begin with it")
    add("--validation", type=float, default=0.1, help="share of the patients (%(default)s)")
    add("--test", type=float, default=0.0, help="share of the patients (%(default)s)")
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
