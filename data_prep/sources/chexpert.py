"""CheXpert v1 and CheXpert-Plus: the same radiographs of Stanford Hospital, published twice.

    df_chexpert_plus_240401.csv   Plus: path_to_image, demographics, split, the report
    {report,impression}_fixed.json   Plus: CheXbert's labels, JSON lines keyed by path_to_image
    train.csv, valid.csv          v1: Path, Sex, Age, Frontal/Lateral, AP/PA, 14 labels

Where the Plus table is there it is read, else v1's. Of Plus' label files the one over the whole
report is taken, else the one over the impression. The one over the findings section is never
taken: that section is often empty, so 75.7% of it is "No Finding" (impression 8.4%, report 5.8%).

The set holds adults only, and ages above 90 are written 90: an age of 0 (three rows) is not an age.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from data_prep.sources.mapping import FINDING_LABELS, chexpert_labels, race
from data_prep.tables.columns import identifier, official_split
from data_prep.tables.csv_table import find, opened, require
from data_prep.tables.table import Table, TableBuilder, Value
from rfxray.errors import DataError

NAME = "chexpert"
LABELLED = ("report", "impression")
PLUS_TABLE = "df_chexpert_plus_240401.csv"
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


def read(root: Path) -> Table:
    plus = find(root, PLUS_TABLE)
    return _read_plus(root, plus) if plus else _read_v1(root)


def _read_v1(root: Path) -> Table:
    builder = TableBuilder(NAME)
    tables = [find(root, "train.csv", "*train*.csv"), find(root, "valid.csv")]
    for path in filter(None, tables if any(tables) else [require(root, "train.csv")]):
        split = "train" if "train" in path.name else "validation"
        for _, cells in builder.rows(path, V1_COLUMNS):
            values = _demographics(builder, cells, path.name)
            readers = "CheXpert labeller" if split == "train" else "three radiologists"
            values |= chexpert_labels(builder, cells, f"{path.name}: {readers}")
            _add(builder, cells["path"], values, "", split)
    return builder.table(edition="v1")


def _read_plus(root: Path, path: Path) -> Table:
    builder = TableBuilder(NAME)
    folders = ("", "chexbert_labels/")
    labels_path = find(root, *(f"{f}{part}_fixed.json" for part in LABELLED for f in folders))
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
    return builder.table(edition="Plus", labels=labelled_by, rows_without_labels=unlabelled)


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
