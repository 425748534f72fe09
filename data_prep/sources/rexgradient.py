"""ReXGradient-160K: 273,004 radiographs of 79 sites, with reports and without labels.

    metadata/{train,valid,test}_metadata_view_position.json   study → ImagePath [],
        ImageViewPosition [], PatientID, PatientSex, PatientAge ("007Y", "002D"), Findings, …
    deid_png/…      the images; the metadata has them as ../deid_png/…
    chexbert.csv    optional, here or in metadata/: the output of CheXbert over the whole reports,
        made by the user

CheXbert's output has the report in the column `Report Impression` and the 14 labels; a column
`study` joins by study, else the report does (`report_text` says how one is put together).
"""

import json
from pathlib import Path

from data_prep.sources.editions import RawTables, named
from data_prep.sources.mapping import FINDING_LABELS, chexpert_labels
from data_prep.tables.csv_table import opened
from data_prep.tables.table import Table, TableBuilder, Value
from rfxray.errors import DataError

NAME = "rexgradient"
LABELS = named(("", "metadata/"), "chexbert.csv")
SPLITS = {"train": "train", "valid": "validation", "test": "test"}


def read(root: Path) -> Table:
    builder = TableBuilder(NAME)
    tables = RawTables(root)
    by_study, by_report, labels_name = _labels(builder, tables)
    without_labels = 0
    names = {f"metadata/{split}_metadata_view_position.json": split for split in SPLITS}
    tables.require(*names)
    for name, published in names.items():
        path = tables.find(name)
        if path is None:
            continue
        for study, entry in _studies(path):
            if not isinstance(entry, dict):
                raise DataError(f"{path} has a study {study!r} that is not a JSON object")
            paths, views = _listed(entry.get("ImagePath")), _listed(entry.get("ImageViewPosition"))
            if not paths:
                builder.drop("", "a study that names no image", study)
                continue
            if len(views) != len(paths):
                builder.count_strange("view", f"{len(views)} views of {len(paths)} images")
                views = [None] * len(paths)
            values = _demographics(builder, entry, path.name)
            labels = by_study.get(study) or by_report.get(report_text(entry)) or {}
            without_labels += not labels
            for image, view in zip(paths, views, strict=True):
                shown = builder.cell("view", str(view or ""), f"{path.name}: ImageViewPosition")
                where = str(image).removeprefix("../")
                builder.add(
                    where,
                    values | shown | labels,
                    patient=str(entry.get("PatientID") or "").strip(),
                    study=study,
                    image=where.rpartition("/")[2],
                    split=SPLITS[published],
                )
    return builder.table(labels=labels_name, studies_without_labels=without_labels, **tables.notes)


def _listed(entry: object) -> list:
    """A list, also where a study of one image has its only value bare."""
    return entry if isinstance(entry, list) else [entry] if entry else []


def report_text(study: dict) -> str:
    """The whole report, findings then impression, as CheXbert is to read it."""
    parts = (str(study.get(part) or "") for part in ("Findings", "Impression"))
    return " ".join(" ".join(parts).split())


def _demographics(builder: TableBuilder, entry: dict, table: str) -> dict[str, Value]:
    values = builder.cell("source", NAME, "the set")
    for attribute, field in (("sex", "PatientSex"), ("age", "PatientAge")):
        values |= builder.cell(attribute, str(entry.get(field) or ""), f"{table}: {field}")
    return values


def _studies(path: Path):
    try:
        with opened(path) as file:
            studies = json.load(file)
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(studies, dict):
        raise DataError(f"{path} is not a JSON object of studies")
    return studies.items()


def _labels(builder: TableBuilder, tables: RawTables):
    path = tables.find(*LABELS)
    if path is None:
        return {}, {}, "none"
    by_study, by_report = {}, {}
    columns = {"study": "study", "report": "Report Impression", **FINDING_LABELS}
    for _, cells in builder.rows(path, columns, optional=("study", "report")):
        values = chexpert_labels(builder, cells, f"CheXbert: {path.name}")
        by_study[cells["study"].strip()] = values
        by_report[" ".join(cells["report"].split())] = values
    by_study.pop("", None)
    by_report.pop("", None)
    return by_study, by_report, path.name
