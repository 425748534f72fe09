"""Raw sets, and folders of one's own, harmonised into one data set."""

import dataclasses
import functools
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep import beam
from data_prep.decide import assign_splits, decide, flags
from data_prep.images import duplicates, quality, survey
from data_prep.images.decoder import LIMITS
from data_prep.images.records import check_size, make_records
from data_prep.sources.files import FileIndex
from data_prep.sources.folder import read_folder
from data_prep.sources.hints import not_understood
from data_prep.sources.locate import locate
from data_prep.sources.remarks import remarks
from data_prep.sources.sets import SETS, raw_set
from data_prep.tables import parquet
from data_prep.tables.description import Description
from data_prep.tables.splits import SPLITS, check_fractions
from data_prep.tables.table import NO_FINDING_RULE, Row, Table
from rfxray.data import radiograph, writing
from rfxray.data.manifest import read_ledger, reasons, summary
from rfxray.data.plan import OF_ITEMS, Dropped, Plan, make_plan
from rfxray.errors import DataError
from rfxray.outputs.files import saving

BESIDE = ("survey", "table.parquet")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to harmonise.

    Attributes:
      roots: Folders of the raw sets, by their names in `SETS`.
      labels: Label tables that are read instead of the usual ones, by the names of the sets.
      own: Folder and table of each set of one's own, by its name.
      name: Name of the data set and its files.
      size: Side of the squares, pixels.
      out: Directory of the data set.
      validation, test: Shares of the patients.
      shard_examples: Images per shard.
      workers: Processes.
      command: Name of the command, with which each line on stderr begins.
      beam: Options of the Apache Beam pipeline that is used instead, if it is.
    """

    roots: Mapping[str, Path]
    own: Mapping[str, tuple[Path, Description]]
    name: str
    size: int
    out: Path
    validation: float
    test: float
    shard_examples: int
    workers: int
    command: str = "data_prep.harmonise"
    beam: str | None = None
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def say(self, line: str) -> None:
        """Prints a line of progress."""
        print(f"{self.command}: {line}", file=sys.stderr, flush=True)


def harmonise(options: Options) -> str:
    """Writes the data set, or continues it; returns the closing line.

    Raises:
      ConfigError: If the options cannot work, or `out` holds something else.
      DataError: If files are missing or damaged, or no image is left.
      SaveFailed: If the disk is full.
      Preempted: On Ctrl-C, or when a worker died.
    """
    check_fractions(options.validation, options.test)
    check_size(options.size)
    tables = _read_tables(options)
    rows = [row for table in tables.values() for row in table.rows]
    if not rows:
        raise DataError("no row of any table matches a file; check the folders given with --set")
    folders = {**options.roots, **{name: root for name, (root, _) in options.own.items()}}
    roots = {name: os.path.abspath(root) for name, root in folders.items()}
    run = functools.partial(writing.run_tasks, workers=options.workers)
    if options.beam is not None:
        run = functools.partial(beam.run_tasks, options=options.beam)
    splits = assign_splits(tables, options.validation, options.test)
    before = make_plan({}, **describe(tables, options)).identity
    before = {key: value for key, value in before.items() if key not in OF_ITEMS}
    with saving(options.out), writing.claimed(options.out, BESIDE):
        writing.refuse_another(options.out, before)
        options.say(f"looking at {len(rows):,} files")
        seen = survey.survey(rows, roots, options.out / "survey", run=run, command=options.command)
        options.say("looking for duplicates")
        fates, found = decide(rows, splits, seen)
        seen_as = looks(rows, seen)
        tables = _with_content(tables, seen)
        plan = plan_shards(tables, splits, fates, {"duplicates": found}, options, seen_as)
        for line in _planned(plan, tables, options):
            options.say(line)
        make = functools.partial(make_records, roots=roots, size=options.size)
        manifest = writing.write_claimed(plan, make, options.out, command=options.command, run=run)
        ledger = {drop.key: drop for drop in read_ledger(options.out)}
        parquet.write(options.out / "table.parquet", tables, splits, ledger, seen_as)
    for name, counts in manifest["notes"]["sets"].items():
        published = f", {n:,} published" if (n := counts["published"]) else ""
        options.say(f"{name}: {counts['rows']:,} rows, {counts['kept']:,} kept{published}")
        for kind in ("read", "flagged"):
            for remark, count in counts[kind].items():
                options.say(f"{name}: {kind}: {remark} × {count:,}")
    kept = sum(split["examples"] for split in manifest["splits"].values())
    if kept < len(rows) / 2:
        options.say(
            f"WARNING: only {kept:,} of {len(rows):,} images with a row could be used; check "
            "dropped.csv before training on this data set"
        )
    return summary(manifest, options.out)


# ---------------------------------------------------------------------------------------------
# Tables and files


def _read_tables(options: Options) -> dict[str, Table]:
    """The table of every set, with the rows that have a file; says what was found."""
    tables = {}
    for name, root in options.roots.items():
        options.say(f"{name}: reading the tables in {root}")
        read, labels = SETS[name].read, options.labels.get(name)
        assert read is not None  # each of the seven has one
        table = read(root, labels) if labels else read(root)
        tables[name] = locate(name, table, FileIndex(root), SETS[name].layout)
    for name, (root, own) in options.own.items():
        options.say(f"{name}: reading {own.metadata}, looking for files in {root}")
        tables[name] = read_folder(root, own, name)
    for name, table in tables.items():
        for line in _found(table, own=name in options.own):
            options.say(f"{name}: {line}")
    return tables


def _found(table: Table, own: bool) -> Iterator[str]:
    """What a table and its files hold, line by line, before the long work begins."""
    notes = table.notes
    yield (
        f"{notes['rows']:,} rows, {notes['files']:,} files, {notes['matched']:,} match, "
        f"{len({row.patient for row in table.rows}):,} patients"
    )
    if count := notes["without_patient"]:
        yield (
            f"{count:,} rows have no patient id; each counts as a patient of its own, so a split "
            "may divide a real one"
        )
    if notes["rows_without_split"] and any(row.split for row in table.rows):
        yield (
            f"{notes['rows_without_split']:,} rows are in no official split; a hash of the patient "
            "decides"
        )
    yield from remarks(table)
    yield from not_understood(notes["not_understood"], own)
    if count := notes["no_finding"]["contradicted"]:
        yield f"no_finding contradicted the pathologies in {count:,} rows; the pathologies won"
    if count := notes["no_finding"]["doubted"]:
        yield f"no_finding is uncertain in {count:,} rows, because a pathology is uncertain there"
    if count := notes["no_finding"]["implied"]:
        yield f"no_finding says that the pathologies are absent in {count:,} rows"


# ---------------------------------------------------------------------------------------------
# The plan


def _with_content(tables: Mapping[str, Table], seen: Sequence[Path]) -> dict[str, Table]:
    """The tables with the digest of each file, in the order in which the survey read them."""
    content = iter(survey.columns(seen, ("content",))["content"].to_pylist())
    return {
        name: dataclasses.replace(
            table, rows=[row._replace(content=next(content)) for row in table.rows]
        )
        for name, table in tables.items()
    }


def looks(rows: Sequence[Row], seen: Sequence[Path]) -> pa.Table:
    """What `table.parquet` says of the file of each row: its scores, null if it was refused, how it
    was read, and what is odd about it."""
    found = survey.columns(seen, ("scores", "notes"))
    scores = found["scores"].to_pylist()
    names = [f"score_{name}" for name in quality.Scores._fields]
    unknown = [None] * len(names)
    columns = [pa.array(c, pa.float32()) for c in zip(*(s or unknown for s in scores), strict=True)]
    columns.append(found["notes"].combine_chunks())
    columns.append(pa.array(flags(rows, scores), pa.list_(pa.string())))
    return pa.table(columns, [*names, "notes", "flags"])


def plan_shards(
    tables: Mapping[str, Table],
    splits: Mapping[str, str],
    fates: Mapping[str, Dropped],
    found: Mapping[str, Any],
    options: Options,
    seen_as: pa.Table,
) -> Plan:
    """Which row goes into which shard: split after split, set after set, in the tables' order.

    Args:
      tables: Tables, by the names of their sets.
      splits: Split of every row, by key.
      fates: Lines of the ledger of rows that do not become a record, by key.
      found: Notes on the whole for the manifest.
      options: Options of the run.
      seen_as: Columns `notes` and `flags` of every row in order.
    """
    by_split: dict[str, list[Row]] = {split: [] for split in SPLITS}
    ledger, sets, done = [], {}, 0
    for name, table in tables.items():
        lost = [*table.dropped, *(fates[row.key] for row in table.rows if row.key in fates)]
        kept = [row for row in table.rows if row.key not in fates]
        for row in kept:
            by_split[splits[row.key]].append(row)
        ledger += lost
        sets[name] = {
            **table.notes,
            "kept": len(kept),
            "published": raw_set(name).published if name in options.roots else None,
            "dropped": reasons(lost),
            "read": _counted(seen_as["notes"].slice(done, len(table.rows)).to_pylist()),
            "flagged": _counted(
                odd
                for row, odd in zip(
                    table.rows,
                    seen_as["flags"].slice(done, len(table.rows)).to_pylist(),
                    strict=True,
                )
                if row.key not in fates
            ),
        }
        done += len(table.rows)
    return make_plan(
        by_split,
        dropped=ledger,
        notes={"sets": sets, **found},
        **describe(tables, options),
    )


def _counted(remarks: Iterable[Sequence[str] | None]) -> dict[str, int]:
    """Files with each remark, most first; what follows a colon is of one file."""
    each = (remark.partition(":")[0] for of_file in remarks for remark in of_file or ())
    return dict(Counter(each).most_common())


def describe(tables: Iterable[str], options: Options) -> dict:
    """What `make_plan` takes that is known before an image is looked at."""
    size = options.size
    titles = ", ".join(raw_set(name).title if name in options.roots else name for name in tables)
    return {
        "name": options.name,
        "size": size,
        "shard_examples": options.shard_examples,
        "description": f"Chest radiographs of {titles}; {size} × {size} pixels of 16-bit grey.",
        "options": {
            "sets": sorted(tables),
            "labels": dict(options.labels),
            "own": {name: table.options for name, (_, table) in options.own.items()},
            "validation": options.validation,
            "test": options.test,
            "quality": quality.THRESHOLDS,
            "duplicates": duplicates.THRESHOLDS,
        },
        "preprocessing": {**radiograph.PREPROCESSING, **LIMITS, "no_finding": NO_FINDING_RULE},
        "versions": radiograph.versions(),
    }


def _planned(plan: Plan, tables: Mapping[str, Table], options: Options) -> Iterator[str]:
    """What was decided, line by line, before the records are written."""
    counts = Counter()
    for shard in plan.shards:
        counts[shard.split] += len(shard.items)
    yield "planned: " + ", ".join(f"{split} {counts[split]:,}" for split in SPLITS if counts[split])
    divided = sum(drop.stage == "split" and "divides" in drop.detail for drop in plan.dropped)
    if divided:
        yield (
            f"WARNING: an official split divides patients; the side held out most keeps them, "
            f"{divided:,} images of the other are left out"
        )
    by_hash = any(not row.split for table in tables.values() for row in table.rows)
    for split, share in (("validation", options.validation), ("test", options.test)):
        if by_hash and share and not counts[split]:
            patients = len({row.patient for table in tables.values() for row in table.rows})
            yield f"no patient fell into {split}: {patients:,} are few for {share:g}"
    if plan.dropped:
        yield "left out: " + ", ".join(
            f"{reason} × {count:,}" for reason, count in reasons(plan.dropped).items()
        )
