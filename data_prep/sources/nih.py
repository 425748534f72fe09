"""NIH ChestX-ray14: 112,120 PNG files of 1024² and one table of text-mined findings.

    Data_Entry_2017_v2020.csv, else Data_Entry_2017.csv   Image Index, Finding Labels ("A|B"),
        Follow-up #, Patient ID, …
    train_val_list.txt, test_list.txt   the official split, by image; optional

Labels are positive-only over a closed list. The 2017 edition has ages up to 414 (not understood,
so unknown); the 2020 edition does not. The images may lie in any folder below the root.
"""

from pathlib import Path

from data_prep.sources.editions import RawTables
from data_prep.sources.layout import Layout
from data_prep.sources.mapping import closed_list
from data_prep.tables.csv_table import opened
from data_prep.tables.table import Table, TableBuilder

NAME = "nih"
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
LAYOUT = Layout(unique_names=True)
COLUMNS = {
    "image": "Image Index",
    "findings": "Finding Labels",
    "study": "Follow-up #",
    "patient": "Patient ID",
    "age": "Patient Age",
    "sex": ("Patient Sex", "Patient Gender"),
    "view": "View Position",
}


def read(root: Path) -> Table:
    tables = RawTables(root)
    path = tables.require(*TABLES)
    builder = TableBuilder(NAME)
    findings = closed_list(NAME)
    splits = _splits(tables)
    for _, cells in builder.rows(path, COLUMNS):
        values = builder.cell("source", NAME, "the set")
        for attribute in ("view", "sex", "age"):
            values |= builder.cell(attribute, cells[attribute], f"{path.name}: {attribute}")
        named = [finding.strip() for finding in cells["findings"].split("|") if finding.strip()]
        for finding in named:
            if finding not in findings:
                builder.count_strange("no_finding", finding)
        values |= findings.values([named] if named else [], f"{path.name}: Finding Labels")
        image = cells["image"].strip()
        builder.add(
            image,
            values,
            patient=cells["patient"].strip(),
            study=cells["study"].strip(),
            image=image,
            split=splits.get(image, ""),
        )
    return builder.table(carved=True, **tables.notes)


def _splits(tables: RawTables) -> dict[str, str]:
    """The official split by image; `train_val_list.txt` is train, the caller takes validation."""
    splits = {}
    for name, split in (("train_val_list.txt", "train"), ("test_list.txt", "test")):
        path = tables.find(name)
        if path is not None:
            with opened(path) as file:
                splits |= dict.fromkeys(file.read().split(), split)
    return splits
