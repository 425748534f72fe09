"""MIMIC-CXR-JPG: 377,110 JPEG files of Beth Israel Deaconess, with or without MIMIC-IV.

    files/p10/p10000032/s50414267/<dicom_id>.jpg
    mimic-cxr-2.0.0-metadata.csv.gz   dicom_id, subject_id, study_id, ViewPosition, StudyDate, …
    mimic-cxr-2.0.0-split.csv.gz      train, validate, test
    mimic-cxr-2.0.0-chexpert.csv.gz   14 labels a study (…-negbio.csv.gz if that is missing, or
        asked for)
    mimic-cxr-2.1.0-test-set-labeled.csv   new in 2.1.0, which keeps the other names; not read
    patients.csv.gz, admissions.csv.gz   of MIMIC-IV, both of the newest version that is there: in
        the root, in hosp/ (core/ up to 1.0), or there in mimic-iv-2.2/, mimiciv/2.2/ and the like

The DICOM files of MIMIC-CXR, under the same paths with another extension, go with the same tables.
Without MIMIC-IV sex, age and race are unknown. Age is anchor_age + year(StudyDate) − anchor_year;
above 89 it becomes 91, as MIMIC-IV writes its anchor ages; before the anchor year of such a subject
it is unknown. A subject with admissions that name different races has none.
"""

from pathlib import Path

from data_prep.sources.editions import RawTables, named
from data_prep.sources.mapping import FINDING_LABELS, chexpert_labels, race
from data_prep.tables.columns import official_split
from data_prep.tables.table import Table, TableBuilder, Value

NAME = "mimic"
METADATA = {
    "image": "dicom_id",
    "patient": "subject_id",
    "study": "study_id",
    "view": "ViewPosition",
    "date": "StudyDate",
}
LABELS = ("mimic-cxr-2.0.0-chexpert.csv", "mimic-cxr-2.0.0-negbio.csv")
MIMIC_IV = ("3.1", "3.0", "2.2", "2.1", "2.0", "1.0", "0.4")
MIMIC_IV_FOLDERS = (
    *("", "hosp/", "core/"),
    *(
        f"{folder}{part}"
        for version in MIMIC_IV
        for folder in (f"mimic-iv-{version}/", f"mimiciv/{version}/", f"mimic-iv/{version}/")
        for part in ("hosp/", "core/", "")
    ),
    *(f"{name}/{part}" for name in ("mimic-iv", "mimiciv") for part in ("hosp/", "core/", "")),
)
OLDEST, MASKED_AGE = 89, 91


def read(root: Path, labels: str = "") -> Table:
    """The table, with the labels of one of `LABELS`; empty for the first that is there."""
    tables = RawTables(root)
    path = tables.require("mimic-cxr-2.0.0-metadata.csv")
    builder = TableBuilder(NAME)
    splits = _splits(builder, tables)
    labelled, labels_name = _labels(builder, tables, labels)
    people, races, conflicts = _mimic_iv(builder, tables)
    edition = "2.1.0" if tables.has("mimic-cxr-2.1.0-test-set-labeled.csv") else "2.0.0"
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
        without_labels += study not in labelled
        values |= labelled.get(study, {})
        builder.add(
            f"files/p{patient[:2]}/p{patient}/s{study}/{image}.jpg",
            values,
            patient=patient,
            study=study,
            image=image,
            split=splits.get(image, ""),
        )
    return builder.table(
        **tables.notes,
        edition=edition,
        labels=labels_name,
        rows_without_labels=without_labels,
        mimic_iv=bool(people),
        race_conflicts=conflicts,
    )


def _splits(builder: TableBuilder, tables: RawTables) -> dict[str, str]:
    path = tables.find("mimic-cxr-2.0.0-split.csv")
    if path is None:
        return {}
    columns = {"image": "dicom_id", "split": "split"}
    return {
        cells["image"].strip(): official_split(cells["split"], path, line)
        for line, cells in builder.rows(path, columns)
    }


def _labels(
    builder: TableBuilder, tables: RawTables, asked: str
) -> tuple[dict[str, dict[str, Value]], str]:
    path = tables.labels(asked, *LABELS)
    if path is None:
        return {}, "none"
    rows = builder.rows(path, {"study": "study_id", **FINDING_LABELS})
    labels = {c["study"].strip(): chexpert_labels(builder, c, path.name) for _, c in rows}
    return labels, path.name


def _mimic_iv(
    builder: TableBuilder, tables: RawTables
) -> tuple[dict[str, tuple[str, str, str]], dict[str, dict[str, Value]], int]:
    """Sex, anchor age and year by subject; race by subject; how many subjects' races conflict."""
    patients = tables.find(*named(MIMIC_IV_FOLDERS, "patients.csv"))
    if patients is None:
        return {}, {}, 0
    columns = {"patient": "subject_id", "sex": "gender", "age": "anchor_age", "year": "anchor_year"}
    rows = builder.rows(patients, columns)
    people = {c["patient"].strip(): (c["sex"], c["age"], c["year"]) for _, c in rows}
    folder = patients.parent.relative_to(tables.root)  # of one version with the patients
    admissions = tables.find((folder / "admissions.csv").as_posix())
    races, conflicts = _races(builder, admissions) if admissions else ({}, 0)
    return people, races, conflicts


def _races(builder: TableBuilder, path: Path) -> tuple[dict[str, dict[str, Value]], int]:
    """The race of each subject with admissions that agree, and how many subjects' do not."""
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
