"""CheXpert v1 and CheXpert-Plus: the same radiographs of Stanford Hospital, published twice.

    df_chexpert_plus_240401.csv   Plus: path_to_image, demographics, split, the report
    {report,impression}_fixed.json   Plus: CheXbert's labels, JSON lines keyed by path_to_image
    train.csv, valid.csv          v1: Path, Sex, Age, Frontal/Lateral, AP/PA, 14 labels
    test.csv or test_labels.csv   v1: Path, 14 labels of radiologists
    train_cheXbert.csv, train_visualCheXbert.csv   v1: train.csv with the labels of other
        labellers; read instead of it only if asked for

v1 at full size comes as four archives: `CheXpert-v1.0 batch 1 (validate & csv)` with the tables
and `valid/`, and batches 2 to 4 with the patients of `train/`, without that folder; v1 small as one
folder `CheXpert-v1.0-small`. Paths in the tables begin with `CheXpert-v1.0/train/` or the like.

If the Plus table is there it is read, else v1's. Of Plus' label files the one over the whole
report is taken, else the one over the impression. The one over the findings section is never
taken: that section is often empty, so 75.7% of it is "No Finding" (impression 8.4%, report 5.8%).

The set holds adults only, and ages above 90 are written 90: an age of 0 (three rows) is not an age.
"""

import json
import posixpath
from collections.abc import Iterator
from pathlib import Path

from data_prep.sources.editions import RawTables, named
from data_prep.sources.layout import Layout
from data_prep.sources.mapping import FINDING_LABELS, chexpert_labels, race
from data_prep.tables.columns import identifier, official_split
from data_prep.tables.csv_table import opened
from data_prep.tables.table import Table, TableBuilder, Value
from rfxray.errors import DataError

NAME = "chexpert"
PLUS_TABLE = "df_chexpert_plus_240401.csv"
PLUS_LABELS = ("report_fixed.json", "impression_fixed.json")
TRAIN_LABELS = {
    "train.csv": "CheXpert labeller",
    "train_cheXbert.csv": "CheXbert labeller",
    "train_visualCheXbert.csv": "VisualCheXbert labeller",
}
LABELS = (*TRAIN_LABELS, *PLUS_LABELS)
CONTAINER = "chexpertchestxrays-u20210408"  # what the download is called
VALID_BATCH = "CheXpert-v1.0 batch 1 (validate & csv)"
TRAIN_BATCHES = tuple(f"CheXpert-v1.0 batch {n + 1} (train {n})" for n in (1, 2, 3))
TABLE_FOLDERS = tuple(
    f"{above}{folder}"
    for above in ("", f"{CONTAINER}/")
    for folder in (
        *("", f"{VALID_BATCH}/", f"{VALID_BATCH}/{VALID_BATCH}/", f"{VALID_BATCH}/CheXpert-v1.0/"),
        *("CheXpert-v1.0/", "CheXpert-v1.0-small/"),
    )
)
TEST_FOLDERS = (*TABLE_FOLDERS, "CheXpert/", "chexlocalize/CheXpert/")


def _unpacked(batch: str, split: str, inner: str) -> tuple[str, ...]:
    """Where the files of an archive may lie: it may be unpacked into a folder of its own."""
    ways = (inner, f"CheXpert-v1.0/{split}", f"{batch}{inner}")
    folders = [posixpath.normpath(f"{batch}/{way}") for way in ways]
    return (*folders, *(f"{CONTAINER}/{folder}" for folder in folders))


_TRAIN = tuple(folder for batch in TRAIN_BATCHES for folder in _unpacked(batch, "train", ""))
_VALID = _unpacked(VALID_BATCH, "valid", "/valid")
_TEST = ("CheXpert/test", "chexlocalize/CheXpert/test")
LAYOUT = Layout(
    {
        "": ("PNG", "DICOM", CONTAINER),  # Plus
        "CheXpert-v1.0": ("",),
        "CheXpert-v1.0-small": ("",),
        **{f"{above}train": _TRAIN for above in ("", "CheXpert-v1.0/", "CheXpert-v1.0-small/")},
        **{f"{above}valid": _VALID for above in ("", "CheXpert-v1.0/", "CheXpert-v1.0-small/")},
        **{f"{above}test": _TEST for above in ("", "CheXpert-v1.0/")},
    }
)
V1_COLUMNS = {
    "path": "Path",
    "sex": "Sex",
    "age": "Age",
    "frontal_lateral": "Frontal/Lateral",
    "ap_pa": "AP/PA",
    **FINDING_LABELS,
}
PLUS_COLUMNS = {
    "path": "path_to_image",
    "sex": "sex",
    "age": "age",
    "frontal_lateral": "frontal_lateral",
    "ap_pa": "ap_pa",
    "race": "race",
    "split": "split",
    "patient": "deid_patient_id",
}


def read(root: Path, labels: str = "") -> Table:
    """The table, with the labels of one of `LABELS`; empty for the labeller's own."""
    tables = RawTables(root)
    plus = None if labels in TRAIN_LABELS else tables.find(PLUS_TABLE)
    if plus is None and labels in PLUS_LABELS:
        tables.require(PLUS_TABLE)
    if plus:
        tables.beside(*named(TABLE_FOLDERS, *TRAIN_LABELS))
        return _read_plus(tables, plus, labels)
    tables.beside(PLUS_TABLE)
    return _read_v1(tables, labels or "train.csv")


def _read_v1(tables: RawTables, labels: str) -> Table:
    builder = TableBuilder(NAME)
    train_names, valid_names = named(TABLE_FOLDERS, labels), named(TABLE_FOLDERS, "valid.csv")
    test_names = named(TEST_FOLDERS, "test.csv", "test_labels.csv")
    tables.require(*train_names, *([] if labels != "train.csv" else [*valid_names, *test_names]))
    readers = {"train": TRAIN_LABELS[labels], "validation": "three radiologists"}
    train = tables.find(*train_names)
    if train:  # of the same edition, if it is beside it
        beside = train.parent.relative_to(tables.root) / "valid.csv"
        valid_names = [beside.as_posix(), *valid_names]
    found = {
        "train": train,
        "validation": tables.find(*dict.fromkeys(valid_names)),
        "test": tables.find(*test_names),
    }
    editions = set()
    for split, path in found.items():
        if path is None:
            continue
        unknown = ("sex", "age", "frontal_lateral", "ap_pa") if split == "test" else ()
        for _, cells in builder.rows(path, V1_COLUMNS, unknown):
            cells = _with_view(cells)
            values = _demographics(builder, cells, path.name)
            reader = readers.get(split, "radiologists")
            values |= chexpert_labels(builder, cells, f"{path.name}: {reader}")
            editions.add(cells["path"].strip().partition("/")[0])
            _add(builder, cells["path"], values, "", split)
    tables.beside(*named(TABLE_FOLDERS, *TRAIN_LABELS))
    small = "CheXpert-v1.0-small" in editions
    edition = "v1.0 small" if small else "v1.0"
    return builder.table(edition=edition, labels=labels, **tables.notes)


def _read_plus(tables: RawTables, path: Path, asked: str) -> Table:
    builder = TableBuilder(NAME)
    labels_path = tables.labels(asked, *named(("", "chexbert_labels/"), *PLUS_LABELS))
    labels = dict(_label_lines(labels_path)) if labels_path else {}
    labelled_by = labels_path.name if labels_path else "none"
    unlabelled = 0
    for line, cells in builder.rows(path, PLUS_COLUMNS):
        values = _demographics(builder, cells, path.name)
        values |= race(builder, cells["race"], f"{path.name}: race")
        found = labels.get(cells["path"].strip())
        if found is None:
            unlabelled += 1
        else:
            values |= chexpert_labels(builder, found, f"CheXbert: {labelled_by}")
        split = official_split(cells["split"], path, line)
        _add(builder, cells["path"], values, cells["patient"], split)
    return builder.table(
        edition="Plus", labels=labelled_by, rows_without_labels=unlabelled, **tables.notes
    )


def _with_view(cells: dict[str, str]) -> dict[str, str]:
    """The cells of a row; the name of a film says that it is lateral if no column does."""
    if cells["frontal_lateral"] or not cells["path"].strip().endswith("_lateral.jpg"):
        return cells
    return {**cells, "frontal_lateral": "Lateral"}


def _demographics(builder: TableBuilder, cells: dict[str, str], table: str) -> dict[str, Value]:
    values = builder.cell("source", NAME, "the set")
    values |= builder.cell("sex", cells["sex"], f"{table}: sex")
    age = cells["age"].strip()
    if age in ("0", "0.0"):
        builder.count_strange("age", age)
    else:
        values |= builder.cell("age", age, f"{table}: age, at most 90")
    # AP/PA is blank for a lateral film, and names its side (LL, RL) for a few called frontal
    lateral = cells["frontal_lateral"].strip().lower() == "lateral"
    view, column = ("lateral", "Frontal/Lateral") if lateral else (cells["ap_pa"], "AP/PA")
    return values | builder.cell("view", view, f"{table}: {column}")


def _add(builder: TableBuilder, path: str, values, patient: str, split: str) -> None:
    """The published path is …/train/patient00001/study1/view1_frontal.jpg."""
    path = path.strip()
    parts = path.split("/")
    if len(parts) < 3:
        builder.drop(path, "a path without patient and study")
        return
    patient = identifier(patient) or parts[-3]
    builder.add(path, values, patient=patient, study=parts[-2], image=parts[-1], split=split)


def _label_lines(path: Path) -> Iterator[tuple[str, dict]]:
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                given = json.loads(line)
                image = given["path_to_image"].strip()
            except (ValueError, KeyError, TypeError, AttributeError):
                raise DataError(
                    f"{path} line {number} is not valid JSON with path_to_image"
                ) from None
            yield image, {name: given.get(label) for name, label in FINDING_LABELS.items()}
