"""What is in a harmonised data set, counted, and what is odd about it."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from data_prep.images import survey
from data_prep.sources.mapping import published_prevalence
from data_prep.sources.sets import SETS
from data_prep.tables import parquet
from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import ATTRIBUTES, FINDING_NAMES, INDEX
from rfxray.data import burned_text
from rfxray.data.dataset import Records, open_dataset
from rfxray.errors import DataError

# Its functions are made when it is imported, so no type checker knows them.
pc: Any = pyarrow.compute

SHEET = 10  # pictures in a contact sheet
TEXT_SHEET = 20  # pictures with text per set: two rows
SAMPLED = 64  # records per set that the histogram of intensities is made from
BINS = 64

# A prevalence is flagged if it differs by more than this factor from what is published of the set,
# or, if nothing is, from the lowest and highest that is published of any set. 75% "No Finding"
# against 10% is a factor of 7.5.
FACTOR = 3.0
FEWEST = 200  # kept rows of a set below which its prevalences are not judged
PRESENT = [s.name.lower() for s in (State.POSITIVE, State.POSITIVE_CLOSED_VOCABULARY)]


@dataclasses.dataclass(frozen=True)
class Audit:
    """What is in a data set. A set is one of the column `source`; its rows are those kept.

    Attributes:
      rows: Rows of the table, with those that were dropped.
      kept: Rows of each set.
      splits: Rows of each split of a set.
      categories: Rows of each value, by "view", "sex" or "race" and set.
      ages: Rows of each set in each five years from 0 to 100; the last has all that are older.
      states: Rows by finding, set and name of a `State`.
      prevalence: Percent that is positive, and percent published of the set or None, by set and
        finding.
      flags: Sentence about a prevalence that differs from what is published, by (set, finding).
      judged: Prevalences that were judged.
      rule: Rule that they were judged by, in words.
      divided_patients: Patients in more than one split.
      divided_pictures: Pictures that are, pixel for pixel, in more than one split; None if the
        survey was deleted.
      sheets: Images, each [size, size] of 8 bits, by "view", "label" or "text" and title.
      histograms: Share of the pixels in each of 64 greys, by set.
      text: Pictures of each set with a likely line of text; None if nobody looked for it.
    """

    rows: int
    kept: dict[str, int]
    splits: dict[str, dict[str, int]]
    categories: dict[str, dict[str, dict[str, int]]]
    ages: dict[str, list[int]]
    states: dict[str, dict[str, dict[str, int]]]
    prevalence: dict[str, dict[str, tuple[float, float | None]]]
    flags: dict[tuple[str, str], str]
    judged: int
    rule: str
    divided_patients: int
    divided_pictures: int | None
    sheets: dict[str, dict[str, list[np.ndarray]]]
    histograms: dict[str, list[float]]
    text: dict[str, int] | None


def gather(out: Path) -> Audit:
    """Counts what is in a harmonised data set and reads the pictures that the page shows.

    Raises:
      DataError: If a file of the data set is damaged.
    """
    table = parquet.read(out / "table.parquet")
    kept = table.filter(pc.equal(table["fate"].cast(pa.string()), ""))
    states = {name: _cross(kept, "source", f"{name}_state") for name in FINDING_NAMES}
    prevalence = _prevalence(states)
    counts = _counts(kept, "source")
    return Audit(
        rows=len(table),
        kept=counts,
        splits=_cross(kept, "source", "split"),
        categories={name: _cross(kept, "source", name) for name in ("view", "sex", "race")},
        ages=_ages(kept),
        states=states,
        prevalence=prevalence,
        flags=_flags(prevalence, counts),
        judged=sum(len(prevalence[name]) for name in prevalence if counts[name] >= FEWEST),
        rule=f"a factor of {FACTOR:g} of what is published, in sets of {FEWEST} or more",
        divided_patients=_divided_patients(kept),
        divided_pictures=_divided_pictures(out, kept),
        **_pictures(out, kept, burned_text.read(out)),
    )


def _counts(table: pa.Table, column: str) -> dict[str, int]:
    counted = table[column].cast(pa.string()).value_counts().to_pylist()
    return _in_order({pair["values"] or "unknown": pair["counts"] for pair in counted})


def _cross(table: pa.Table, by: str, column: str) -> dict[str, dict[str, int]]:
    """by → value → rows."""
    columns = [table[by].cast(pa.string()), table[column].cast(pa.string())]
    grouped = pa.table(columns, ["by", "value"]).group_by(["by", "value"])
    crossed: dict[str, dict[str, int]] = {}
    for row in grouped.aggregate([([], "count_all")]).to_pylist():
        crossed.setdefault(row["by"], {})[row["value"] or "unknown"] = row["count_all"]
    return _in_order(crossed)


def _in_order(by_set: dict) -> dict:
    """In the order of `SETS`, then by name: the groups of Arrow have no order."""
    return {
        name: by_set[name] for name in dict.fromkeys((*SETS, *sorted(by_set))) if name in by_set
    }


def _ages(kept: pa.Table) -> dict[str, list[int]]:
    """set → rows in each five years from 0 to 100; the last has all that are older."""
    ages = {}
    for name in _counts(kept, "source"):
        own = kept.filter(pc.equal(kept["source"].cast(pa.string()), name))["age"].drop_null()
        years = np.minimum(own.to_numpy(), 99)
        ages[name] = np.histogram(years, bins=20, range=(0, 100))[0].tolist()
    return ages


def _prevalence(states: Mapping) -> dict[str, dict[str, tuple[float, float | None]]]:
    """set → finding → (percent that is positive, percent published of the set or None)."""
    published = published_prevalence()
    found: dict[str, dict] = {}
    for name in FINDING_NAMES:
        for source, counts in states[name].items():
            present = sum(counts.get(state, 0) for state in PRESENT)
            share = 100 * present / sum(counts.values())
            if set(counts) != {"unlabelled"}:
                found.setdefault(source, {})[name] = (share, published.get((source, name)))
    return _in_order(found)


def _flags(prevalence: Mapping, rows: Mapping[str, int]) -> dict[tuple[str, str], str]:
    """(set, finding) → sentence, for each prevalence that differs from what is published."""
    published = published_prevalence()
    flags = {}
    for source, findings in prevalence.items():
        if rows[source] < FEWEST:
            continue
        for name, (share, own) in findings.items():
            known = [p for (_, other), p in published.items() if other == name]
            low, high = (own, own) if own is not None else (min(known), max(known))
            if not low / FACTOR <= share <= high * FACTOR:
                expected = f"{low:.1f}%" if low == high else f"{low:.1f} to {high:.1f}%"
                origin = "that set" if own is not None else "other sets"
                label = ATTRIBUTES[INDEX[name]].label
                flags[source, name] = (
                    f"{source}: {label} {share:.1f}%, published of {origin} {expected}"
                )
    return flags


def _divided_patients(kept: pa.Table) -> int:
    pairs = pa.table([kept["patient"], kept["split"].cast(pa.string())], ["patient", "split"])
    sides = pairs.group_by("patient").aggregate([("split", "count_distinct")])
    return pc.sum(pc.greater(sides["split_count_distinct"], 1)).as_py() or 0


def _divided_pictures(out: Path, kept: pa.Table) -> int | None:
    """Pictures that are, pixel for pixel, in more than one split; None without a survey."""
    paths = sorted((out / "survey").glob("*.parquet"))
    if not paths:
        return None
    seen = survey.columns(paths, ("key", "pixels"))
    splits = pa.table([kept["key"], kept["split"].cast(pa.string())], ["key", "split"])
    joined = splits.join(seen, keys="key", join_type="inner")
    sides = joined.group_by("pixels").aggregate([("split", "count_distinct")])
    return pc.sum(pc.greater(sides["split_count_distinct"], 1)).as_py() or 0


# ---------------------------------------------------------------------------------------------
# Pictures


def _pictures(
    out: Path,
    kept: pa.Table,
    text: Mapping[str, Sequence[burned_text.Line]] | None,
) -> dict[str, Any]:
    """The fields `sheets`, `histograms` and `text` of an `Audit`."""
    keys = kept["key"].to_pylist()
    source, view = (
        kept[name].cast(pa.string()).fill_null("unknown").to_numpy(zero_copy_only=False)
        for name in ("source", "view")
    )
    of_set = {name: source == name for name in _counts(kept, "source")}
    wanted: dict[tuple[str, str], list[int]] = {}  # (kind, title) → rows
    for name, own in of_set.items():
        wanted["intensity", name] = spread(np.flatnonzero(own), SAMPLED)
        for value in (*ATTRIBUTES[INDEX["view"]].values, "unknown"):
            rows = np.flatnonzero(own & (view == value))
            wanted["view", f"{name}, {value}"] = spread(rows, SHEET)
    for label in FINDING_NAMES:
        state = kept[f"{label}_state"].cast(pa.string()).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(np.isin(state, PRESENT))
        wanted["label", ATTRIBUTES[INDEX[label]].label] = spread(rows, SHEET)
    flagged = np.array([key in (text or ()) for key in keys])
    for name, own in of_set.items():
        wanted["text", name] = spread(np.flatnonzero(own & flagged), TEXT_SHEET)
    records = _read(out, kept, {i for rows in wanted.values() for i in rows})
    for index, record in records.items():
        if record["key"] != keys[index]:
            raise DataError(f"{out}: table.parquet does not belong to the shards; harmonise again")
    sheets: dict[str, dict[str, list]] = {"view": {}, "label": {}, "text": {}}
    histograms = {}
    for (kind, title), rows in wanted.items():
        shown = [records[i] for i in rows]
        if kind == "intensity":
            histograms[title] = _histogram(shown)
        elif kind == "text" and shown and text is not None:
            sheets[kind][title] = [_cut_out(record, text[record["key"]][0]) for record in shown]
        elif shown:
            sheets[kind][title] = [record["image"] >> 8 for record in shown]
    found = (
        None if text is None else {name: int((own & flagged).sum()) for name, own in of_set.items()}
    )
    return {"sheets": sheets, "histograms": histograms, "text": found}


def _cut_out(record: Mapping[str, Any], line: burned_text.Line) -> np.ndarray:
    """The square around a line of text, twice as long as it, within the picture."""
    image = record["image"]
    side = min(len(image), 2 * max(line.width, line.height))
    top = min(max(0, line.top + line.height // 2 - side // 2), len(image) - side)
    left = min(max(0, line.left + line.width // 2 - side // 2), len(image) - side)
    return image[top : top + side, left : left + side] >> 8


def spread(indices: Sequence[int] | np.ndarray, count: int) -> list[int]:
    """At most `count` of the indices, evenly spaced from first to last."""
    chosen = range(len(indices))
    if len(indices) > count:
        chosen = np.linspace(0, len(indices) - 1, count).astype(int)
    return [int(indices[i]) for i in chosen]


def _read(out: Path, kept: pa.Table, rows: Set[int]) -> dict[int, dict]:
    """The records of some kept rows. Each split stores its records in the order of the table."""
    dataset = open_dataset(out)
    splits = kept["split"].cast(pa.string()).to_numpy(zero_copy_only=False)
    records = {}
    for name, examples in dataset.examples.items():
        members = np.flatnonzero(splits == name)
        if len(members) != examples:
            raise DataError(f"{out}: table.parquet does not belong to the shards; harmonise again")
        stored = Records(dataset, name)
        wanted = sorted(rows & set(members.tolist()))
        records |= {row: stored[int(np.searchsorted(members, row))] for row in wanted}
    return records


def _histogram(records: Iterable[dict]) -> list[float]:
    """Share of the pixels of the radiographs, without their padding, in each of 64 greys."""
    total = np.zeros(BINS)
    for record in records:
        top, left, height, width = record["content_box"]
        content = record["image"][top : top + height, left : left + width]
        total += np.bincount((content >> 10).ravel(), minlength=BINS) / content.size
    return (total / max(total.sum(), 1)).tolist()
