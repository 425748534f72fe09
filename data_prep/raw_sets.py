"""The raw sets, and a folder of one's own, harmonised into one data set."""

import dataclasses
import functools
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from data_prep import beam
from data_prep.decide import assign_splits, decide
from data_prep.images import duplicates, quality, survey
from data_prep.images.decoder import LIMITS
from data_prep.images.records import check_size, make_records
from data_prep.sources.folder import FileIndex, contradicting, one_row_a_file, read_folder
from data_prep.sources.sets import SETS, raw_set
from data_prep.tables import parquet
from data_prep.tables.description import Description, contradictions
from data_prep.tables.splits import SPLITS, check_fractions
from data_prep.tables.table import Row, Table
from rfxray.data import radiograph, writing
from rfxray.data.manifest import read_ledger, summary
from rfxray.data.plan import OF_ITEMS, Dropped, Plan, make_plan
from rfxray.errors import DataError
from rfxray.outputs.files import saving

COMMAND = "data_prep.harmonise"
BESIDE = ("survey", "table.parquet")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to harmonise.

    Attributes:
      roots: Folders of the raw sets, by their names in `SETS`.
      own: Folder and table of a set of one's own, by its name.
      name: Name of the data set and its files.
      size: Side of the squares, pixels.
      out: Directory of the data set.
      validation, test: Shares of the patients.
      shard_examples: Images per shard.
      workers: Processes.
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
    beam: str | None = None


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
        _say(f"looking at {len(rows):,} files")
        seen = survey.survey(rows, roots, options.out / "survey", run=run, command=COMMAND)
        _say("looking for duplicates")
        fates, found = decide(rows, splits, seen)
        plan = plan_shards(tables, splits, fates, found, options)
        make = functools.partial(make_records, roots=roots, size=options.size)
        manifest = writing.write_claimed(plan, make, options.out, command=COMMAND, run=run)
        parquet.write(options.out / "table.parquet", tables, splits, read_ledger(options.out))
    for name, counts in manifest["notes"]["sets"].items():
        published = f", {n:,} published" if (n := counts["published"]) else ""
        _say(f"{name}: {counts['rows']:,} rows, {counts['kept']:,} kept{published}")
    return summary(manifest, options.out)


# ---------------------------------------------------------------------------------------------
# Tables and files


def _read_tables(options: Options) -> dict[str, Table]:
    """The table of every set, with the rows that have a file; says what was found."""
    tables = {}
    for name, root in options.roots.items():
        _say(f"{name}: reading the tables in {root}")
        read = SETS[name].read
        assert read is not None  # each of the seven has one
        tables[name] = locate(name, read(root), root)
    for name, (root, own) in options.own.items():
        _say(f"reading {own.metadata}, looking for files in {root}")
        table = read_folder(root, own.metadata, own.columns, own.mapped, name, own.source)
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
    return tables


def locate(name: str, table: Table, root: Path) -> Table:
    """The rows that have a file, with its path and length; the others go to the ledger: under
    their key, or by their path if a row that is kept has that key.
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
    single, others = one_row_a_file(found, named)
    lost += [(found[i], reason) for i, reason in others.items()]
    rows: dict[str, Row] = {}
    for row in single:
        if rows.setdefault(row.key, row) is not row:
            lost.append((row, f"the key of an earlier row: {row.path}"))
    dropped = list(table.dropped)
    for drop in table.dropped:
        files.find(drop.key.removeprefix(f"{name}: "))  # files of dropped rows are not orphans
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


# ---------------------------------------------------------------------------------------------
# The plan


def plan_shards(
    tables: Mapping[str, Table],
    splits: Mapping[str, str],
    fates: Mapping[str, str],
    found: Mapping,
    options: Options,
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
        **describe(tables, options),
    )


def describe(tables: Iterable[str], options: Options) -> dict:
    """What `make_plan` takes that is known before an image is looked at."""
    size = options.size
    own = [table.options for _, table in options.own.values()]
    return {
        "name": options.name,
        "size": size,
        "shard_examples": options.shard_examples,
        "description": f"Chest radiographs of {', '.join(raw_set(name).title for name in tables)}; "
        f"{size} × {size} pixels of 16-bit grey.",
        "options": {
            "sets": sorted(tables),
            **(own[0] if own else {}),
            "validation": options.validation,
            "test": options.test,
            "quality": quality.THRESHOLDS,
            "duplicates": duplicates.THRESHOLDS,
        },
        "preprocessing": {**radiograph.PREPROCESSING, **LIMITS},
        "versions": radiograph.versions(),
    }


def _say(line: str) -> None:
    print(f"{COMMAND}: {line}", file=sys.stderr, flush=True)
