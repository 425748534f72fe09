"""MIMIC-CXR-JPG: 377,110 JPEG files of Beth Israel Deaconess, with or without MIMIC-IV.

    files/p10/p10000032/s50414267/<dicom_id>.jpg
    mimic-cxr-2.0.0-metadata.csv.gz   dicom_id, subject_id, study_id, ViewPosition, StudyDate, …
    mimic-cxr-2.0.0-split.csv.gz      train, validate, test
    mimic-cxr-2.0.0-chexpert.csv.gz   14 labels a study (…-negbio.csv.gz where that is missing)
    patients.csv.gz, admissions.csv.gz   of MIMIC-IV: in the root, in hosp/ or in mimic-iv*/hosp/

Without MIMIC-IV sex, age and race are unknown. Age is anchor_age + year(StudyDate) − anchor_year;
above 89 it becomes 91, as MIMIC-IV writes its anchor ages; before the anchor year of such a subject
it is unknown. A subject with admissions that name different races has none.
"""

from pathlib import Path

from data_prep.sources.mapping import FINDING_LABELS, chexpert_labels, race
from data_prep.tables.columns import official_split
from data_prep.tables.csv_table import find, require
from data_prep.tables.table import Table, TableBuilder, Value

NAME = "mimic"
METADATA = {
    "image": "dicom_id",
    "patient": "subject_id",
    "study": "study_id",
    "view": "ViewPosition",
    "date": "StudyDate",
}
MIMIC_IV_FOLDERS = ("", "hosp/", "*iv*/", "*iv*/hosp/", "*iv*/*/hosp/")
OLDEST, MASKED_AGE = 89, 91


def read(root: Path) -> Table:
    path = require(root, "mimic-cxr-*-metadata.csv")
    builder = TableBuilder(NAME)
    splits = _splits(builder, root)
    labels, labels_name = _labels(builder, root)
    people = _patients(builder, root)
    races, conflicts = _races(builder, root)
    without_labels = 0
    for _, cells in builder.rows(path, METADATA):
        image, patient, study = (cells[name].strip() for name in ("image", "patient", "study"))
        values = builder.cell("source", NAME, "the set")
        values |= builder.cell("view", cells["view"], f"{path.name}: ViewPosition")
        if patient in people:
            sex, anchor_age, anchor_year = people[patient]
            values |= builder.cell("sex", sex, "MIMIC-IV: patients.gender")
            age = _age(anchor_age, anchor_year, cells["date"])
            values |= builder.cell("age", age, "MIMIC-IV: anchor_age and year of StudyDate")
        values |= races.get(patient, {})
        without_labels += study not in labels
        values |= labels.get(study, {})
        builder.add(
            f"files/p{patient[:2]}/p{patient}/s{study}/{image}.jpg",
            values,
            patient=patient,
            study=study,
            image=image,
            split=splits.get(image, ""),
        )
    return builder.table(
        labels=labels_name,
        rows_without_labels=without_labels,
        mimic_iv=bool(people),
        race_conflicts=conflicts,
    )


def _splits(builder: TableBuilder, root: Path) -> dict[str, str]:
    path = find(root, "mimic-cxr-*-split.csv")
    if path is None:
        return {}
    columns = {"image": "dicom_id", "split": "split"}
    return {
        cells["image"].strip(): official_split(cells["split"], path, line)
        for line, cells in builder.rows(path, columns)
    }


def _labels(builder: TableBuilder, root: Path) -> tuple[dict[str, dict[str, Value]], str]:
    path = find(root, "mimic-cxr-*-chexpert.csv", "mimic-cxr-*-negbio.csv")
    if path is None:
        return {}, "none"
    rows = builder.rows(path, {"study": "study_id", **FINDING_LABELS})
    labels = {c["study"].strip(): chexpert_labels(builder, c, path.name) for _, c in rows}
    return labels, path.name


def _mimic_iv(root: Path, name: str) -> Path | None:
    return find(root, *(f"{folder}{name}.csv" for folder in MIMIC_IV_FOLDERS))


def _patients(builder: TableBuilder, root: Path) -> dict[str, tuple[str, str, str]]:
    path = _mimic_iv(root, "patients")
    if path is None:
        return {}
    columns = {
        "patient": "subject_id",
        "sex": "gender",
        "age": "anchor_age",
        "year": "anchor_year",
    }
    rows = builder.rows(path, columns)
    return {c["patient"].strip(): (c["sex"], c["age"], c["year"]) for _, c in rows}


def _races(builder: TableBuilder, root: Path) -> tuple[dict[str, dict[str, Value]], int]:
    """The race of each subject with admissions that agree, and how many subjects' do not."""
    path = _mimic_iv(root, "admissions")
    if path is None:
        return {}, 0
    races: dict[str, set] = {}
    columns = {"patient": "subject_id", "race": ("race", "ethnicity")}
    for _, cells in builder.rows(path, columns):
        value = race(builder, cells["race"], "MIMIC-IV: admissions.race")
        races.setdefault(cells["patient"].strip(), set()).update(value.values())
    agreed = {
        patient: {"race": min(values)} for patient, values in races.items() if len(values) == 1
    }
    return agreed, sum(len(values) > 1 for values in races.values())


def _age(anchor_age: str, anchor_year: str, date: str) -> str:
    try:
        age, later = int(anchor_age), int(date.strip()[:4]) - int(anchor_year)
    except ValueError:
        return ""
    if age > OLDEST and later < 0:
        return ""  # the anchor age is a mask: how far above 89 it was is not given
    age += later
    return str(MASKED_AGE if age > OLDEST else age)
