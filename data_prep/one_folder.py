"""One folder of radiographs and its table, built into a data set."""

import dataclasses
import functools
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_prep.images.decoder import LIMITS
from data_prep.images.records import check_size, make_records
from data_prep.sources.folder import read_folder
from data_prep.tables.description import Description, contradictions
from data_prep.tables.splits import SPLITS, check_fractions, hashed_split, leaks
from data_prep.tables.table import Row, Table
from rfxray.data import radiograph
from rfxray.data.manifest import reasons, summary
from rfxray.data.plan import Dropped, Plan, make_plan
from rfxray.data.writing import write_dataset

COMMAND = "data_prep.build"
SHOWN_CELLS = 5


@dataclasses.dataclass(frozen=True)
class Options:
    """What to build.

    Attributes:
      source: Layout of the raw set.
      images: Folder of the files.
      table: What the table says.
      name: Name of the set; its files and keys begin with it.
      size: Side of the squares, pixels.
      out: Directory of the data set.
      validation, test: Shares of the patients.
      shard_examples: Images per shard.
      workers: Processes.
    """

    source: str
    images: Path
    table: Description
    name: str
    size: int
    out: Path
    validation: float
    test: float
    shard_examples: int
    workers: int


def build(options: Options) -> str:
    """Writes the data set, or continues it; returns the closing line.

    Raises:
      ConfigError: If the options cannot work, or `out` holds something else.
      DataError: If files are missing or damaged, or no image is left.
      SaveFailed: If the disk is full.
      Preempted: On Ctrl-C, or when a worker died.
    """
    check_fractions(options.validation, options.test)
    check_size(options.size)
    described = options.table
    _say(f"reading {described.metadata}, looking for files in {options.images}")
    table = read_folder(
        options.images,
        described.metadata,
        described.columns,
        described.mapped,
        options.name,
        described.source,
    )
    plan = plan_table(table, options)
    for line in _report(table, plan, options):
        _say(line)
    make = functools.partial(make_records, roots={options.name: options.images}, size=options.size)
    manifest = write_dataset(plan, make, options.out, workers=options.workers, command=COMMAND)
    examples = sum(split["examples"] for split in manifest["splits"].values())
    if examples < len(table.rows) / 2:
        _say(
            f"WARNING: only {examples:,} of {len(table.rows):,} matched images could be used; "
            f"look into dropped.csv before training on this"
        )
    return summary(manifest, options.out)


def plan_table(table: Table, options: Options) -> Plan:
    """Which row goes into which shard, in the table's order; splits as the source has them, else
    by a hash of the patient. A patient whom the source divides stays on the side held out most.
    """
    splits = {
        row.key: row.split or hashed_split(row.patient, options.validation, options.test)
        for row in table.rows
    }
    leaked = leaks(table.rows, splits)
    by_split: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in table.rows:
        if row.key not in leaked:
            by_split[splits[row.key]].append(row)
    size = options.size
    return make_plan(
        by_split,
        name=options.name,
        size=size,
        shard_examples=options.shard_examples,
        description=f"Chest radiographs of {options.name}, {size} × {size} pixels of 16-bit grey.",
        options={
            "source": options.source,
            **options.table.options,
            "validation": options.validation,
            "test": options.test,
        },
        preprocessing={**radiograph.PREPROCESSING, **LIMITS},
        versions=radiograph.versions(),
        dropped=[*table.dropped, *(Dropped(*leak) for leak in leaked.items())],
        notes=table.notes,
    )


def _report(table: Table, plan: Plan, options: Options) -> Iterator[str]:
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
        for split, share in (("validation", options.validation), ("test", options.test)):
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


def _say(line: str) -> None:
    print(f"{COMMAND}: {line}", file=sys.stderr, flush=True)
