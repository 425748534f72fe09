"""BRAX 1.1.0: 40,967 radiographs of Hospital Israelita Albert Einstein, DICOM and PNG.

    images/…, Anonymized_DICOMs/…   the PNG files and the DICOM files; one of them will do
    master_spreadsheet_update.csv   DicomPath, PngPath, PatientID, PatientSex, PatientAge,
                                    AccessionNumber, ViewPosition, 14 labels (1, 0, -1, blank)

Ages come in bins of five years, the last "85 or more"; they are taken as written. A quarter of the
views is blank. Accession numbers are unique within a patient only. There is no official split.
"""

import re
from pathlib import Path

from data_prep.sources.editions import RawTables
from data_prep.sources.layout import Layout
from data_prep.sources.mapping import FINDING_LABELS, chexpert_labels
from data_prep.tables.table import Table, TableBuilder

NAME = "brax"
TABLES = ("master_spreadsheet_update.csv", "master_spreadsheet.csv")
LAYOUT = Layout({"images": ("Anonymized_DICOMs",), "Anonymized_DICOMs": ("images",)})
COLUMNS = {
    "path": ("PngPath", "DicomPath"),
    "patient": "PatientID",
    "sex": "PatientSex",
    "age": "PatientAge",
    "study": "AccessionNumber",
    "view": "ViewPosition",
    **FINDING_LABELS,
}


def read(root: Path) -> Table:
    tables = RawTables(root)
    path = tables.require(*TABLES)
    builder = TableBuilder(NAME)
    for _, cells in builder.rows(path, COLUMNS, optional=("study",)):
        values = builder.cell("source", NAME, "the set")
        for attribute in ("view", "sex"):
            values |= builder.cell(attribute, cells[attribute], f"{path.name}: {attribute}")
        age = re.sub(r"\s+or more$", "", cells["age"].strip())
        values |= builder.cell("age", age, f"{path.name}: PatientAge, in bins of 5 years")
        values |= chexpert_labels(builder, cells, f"{path.name}: CheXpert labeller")
        image = cells["path"].strip()
        builder.add(
            image,
            values,
            patient=cells["patient"].strip(),
            study=cells["study"].strip(),
            image=image.rpartition("/")[2],
        )
    return builder.table(**tables.notes)
