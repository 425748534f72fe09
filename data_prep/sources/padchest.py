"""PadChest: 160,861 PNG files of San Juan Hospital, 12 bits in 16, with 193 labels of its own.

    PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv
    <ImageDir>/<ImageID>   ImageDir, from 0 to 54, is the archive; or all in one folder

Age is year(StudyDate_DICOM) − PatientBirth. `Labels` is a Python list as text, with leading spaces
and empty strings; a study with a list that is blank, empty or says `unchanged`, `exclude` or
`suboptimal study` has no closed list: what it does not name is not absent. Ids overflow int64 and
stay text.
The eleven rows of projection EXCLUDE are not chest views. There is no official split.
"""

import ast
import functools
from pathlib import Path

from data_prep.sources.editions import RawTables
from data_prep.sources.layout import Layout
from data_prep.sources.mapping import closed_list
from data_prep.tables.table import Table, TableBuilder

NAME = "padchest"
TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
LAYOUT = Layout(unique_names=True)
METHODS = ("Physician", "RNN_model")
COLUMNS = {
    "image": "ImageID",
    "folder": "ImageDir",
    "date": "StudyDate_DICOM",
    "study": "StudyID",
    "patient": "PatientID",
    "birth": "PatientBirth",
    "sex": "PatientSex_DICOM",
    "view": "Projection",
    "method": "MethodLabel",
    "labels": "Labels",
}


def read(root: Path) -> Table:
    tables = RawTables(root)
    path = tables.require(TABLE)
    builder = TableBuilder(NAME)
    findings = closed_list(NAME)
    for _, cells in builder.rows(path, COLUMNS):
        image, view = cells["image"].strip(), cells["view"].strip()
        file = f"{cells['folder'].strip()}/{image}"
        if view == "EXCLUDE":
            builder.drop(file, "projection EXCLUDE", "no chest view")
            continue
        values = builder.cell("source", NAME, "the set")
        values |= builder.cell("view", view, f"{path.name}: Projection")
        values |= builder.cell("sex", cells["sex"], f"{path.name}: PatientSex_DICOM")
        age = _age(cells["date"], cells["birth"])
        values |= builder.cell("age", age, "year of StudyDate_DICOM − PatientBirth")
        named = _labels(cells["labels"])
        for finding in named:
            if finding not in findings:
                builder.count_strange("no_finding", finding)
        method = cells["method"].strip()
        method = method if method in METHODS else "another method"
        values |= findings.values([named] if named else [], f"{path.name}: {method}")
        builder.add(
            file,
            values,
            patient=cells["patient"].strip(),
            study=cells["study"].strip(),
            image=image,
        )
    return builder.table(**tables.notes)


@functools.lru_cache(maxsize=1 << 16)
def _labels(text: str) -> tuple[str, ...]:
    """A list as text, such as "['normal', ' nodule', '']", without what is empty."""
    try:
        listed = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return ()  # blank, or "nan"
    if not isinstance(listed, list):
        return ()
    return tuple(str(label).strip() for label in listed if str(label).strip())


def _age(date: str, birth: str) -> str:
    try:
        return str(int(date.strip()[:4]) - int(float(birth)))
    except (ValueError, OverflowError):  # of text, of inf
        return ""
