"""The adapters agree with independent pandas queries over the published tables."""

import ast
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import data_prep
from data_prep.sources.findings import FindingsColumn
from data_prep.sources.sets import SETS
from data_prep.tables.description import Description
from data_prep.tables.table import TableBuilder
from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import ATTRIBUTES, FINDING_NAMES, INDEX, NUM_ATTRIBUTES

pandas = pytest.importorskip("pandas", reason="the oracle is pandas, of the extra test")

SHARED = Path(os.environ.get("RFXRAY_SHARED", Path(data_prep.__file__).parents[2] / "shared"))
METADATA = SHARED / "real_metadata"
FILES = {
    "nih": "Data_Entry_2017_v2020.csv.gz",
    "chexpert": "chexpert_train.csv.gz",
    "padchest": "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",
    "vindr": "vinbigdata-train.csv.gz",
}


class Columns:
    """Table of an adapter as arrays, by attribute."""

    def __init__(self, table):
        self.numbers, self.codes, self.origin_codes = (
            np.frombuffer(b"".join(getattr(row, field) for row in table.rows), dtype).reshape(
                -1, NUM_ATTRIBUTES
            )
            for field, dtype in (("attributes", "<f4"), ("states", "i1"), ("origins", "u1"))
        )

    def states(self, name):
        """Number of rows per state."""
        counts = Counter(self.codes[:, INDEX[name]].tolist())
        return {State(code).name: count for code, count in counts.items()}

    def values(self, name):
        """Number of rows per value of a category; None means unknown."""
        i, values = INDEX[name], ATTRIBUTES[INDEX[name]].values
        known = self.codes[:, i] == State.STATED
        return Counter(
            values[int(number)] if k else None
            for number, k in zip(self.numbers[:, i].tolist(), known.tolist(), strict=True)
        )


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """`published(set)`: its table as text, the table of its adapter, and that table's `Columns`.

    Each set is read once.
    """
    read = {}

    def both(name):
        path = METADATA / FILES[name]
        if not path.is_file():
            pytest.skip(f"no real table {path}")
        if name not in read:
            root = tmp_path_factory.mktemp(name)
            (root / path.name.removeprefix("chexpert_")).symlink_to(path)  # the published name
            table = SETS[name].read(root)
            raw = pandas.read_csv(path, dtype=str, keep_default_na=False)
            read[name] = raw, table, Columns(table)
        return read[name]

    return both


def counts(series):
    """Number of rows per value; None means missing."""
    found = series.value_counts(dropna=False).items()
    return Counter({None if pandas.isna(value) else value: count for value, count in found})


def where(positive, uncertain, closed, rows):
    """Expected states of a label from three masks; earlier masks win."""
    uncertain = uncertain & ~positive
    absent = closed & ~positive & ~uncertain
    expected = {
        "POSITIVE": positive.sum(),
        "UNCERTAIN": uncertain.sum(),
        "NEGATIVE_CLOSED_VOCABULARY": absent.sum(),
        "UNLABELLED": rows - (positive | uncertain | absent).sum(),
    }
    return {state: count for state, count in expected.items() if count}


def test_nih_as_a_table_of_ones_own_differs_only_in_what_findings_imply(published):
    """Read by `--findings` with a closed list: absent and present as the adapter has it, but what a
    finding implies stays unknown."""
    raw, _, columns = published("nih")
    described = Description(
        METADATA / FILES["nih"], {"findings": "Finding Labels"}, closed=("seen",)
    )
    builder = TableBuilder("nih")
    column = FindingsColumn(described, builder)
    found = Counter()
    for cell, rows in raw["Finding Labels"].value_counts().items():
        for attribute, value in column.values(str(cell)).items():
            found[attribute, value.state.name] += rows
    assert not builder.table().notes["not_understood"]
    of_opacity = raw["Finding Labels"].str.contains("Infiltration").sum()
    for name in FINDING_NAMES:
        expected = columns.states(name)
        for state in ("POSITIVE", "NEGATIVE_CLOSED_VOCABULARY"):
            if (name, state) == ("lung_opacity", "POSITIVE"):
                assert found[name, state] == of_opacity
            elif name != "no_finding" or state == "POSITIVE":
                assert found[name, state] == expected.get(state, 0), (name, state)


def test_nih_agrees_with_pandas(published):
    raw, table, columns = published("nih")
    assert len(raw) == len(table.rows) == 112_120
    assert not table.dropped
    assert table.notes["not_understood"] == {}
    assert table.notes["patients"] == raw["Patient ID"].nunique() == 30_805
    assert columns.values("view") == counts(raw["View Position"])
    assert columns.values("sex") == counts(raw["Patient Gender"])
    assert columns.numbers[:, INDEX["age"]].tolist() == raw["Patient Age"].astype(float).tolist()
    named = raw["Finding Labels"].str.get_dummies("|").astype(bool)
    always = named["Hernia"] | True
    for name, theirs, maybe in (
        ("enlarged_cardiomediastinum", [], ["Cardiomegaly"]),
        ("cardiomegaly", ["Cardiomegaly"], []),
        ("lung_lesion", ["Mass", "Nodule"], []),
        ("edema", ["Edema"], []),
        # an infiltrate may be a consolidation, so it is not a negative
        ("consolidation", ["Consolidation"], ["Infiltration", "Pneumonia"]),
        ("pneumonia", ["Pneumonia"], ["Infiltration"]),
        ("atelectasis", ["Atelectasis"], []),
        ("pneumothorax", ["Pneumothorax"], []),
        ("pleural_effusion", ["Effusion"], []),
        ("pleural_other", ["Pleural_Thickening"], []),
    ):
        listed = always if theirs else ~always
        masks = named[theirs].any(axis=1), named[maybe].any(axis=1)
        assert columns.states(name) == where(*masks, listed, len(raw)), name
    opaque = ["Atelectasis", "Infiltration", "Mass", "Nodule", "Pneumonia", "Consolidation",
              "Edema", "Fibrosis"]  # fmt: skip
    assert columns.states("lung_opacity")["POSITIVE"] == named[opaque].any(axis=1).sum()
    no_finding = columns.states("no_finding")
    assert no_finding["POSITIVE"] == (raw["Finding Labels"] == "No Finding").sum()
    other = ["No Finding", "Hernia", "Emphysema"]  # not one of our pathologies
    assert no_finding["NEGATIVE"] == named.drop(columns=other).any(axis=1).sum()
    for name in ("fracture", "support_devices", "race"):  # the list has none of them
        assert columns.states(name) == {"UNLABELLED": len(raw)}


def test_chexpert_agrees_with_pandas(published):
    raw, table, columns = published("chexpert")
    assert len(raw) == len(table.rows) == 223_414
    assert not table.dropped
    assert table.notes["patients"] == raw["Path"].str.split("/").str[2].nunique() == 64_540
    assert table.notes["not_understood"] == {"age": {"0": 3}}
    lateral = (raw["Frontal/Lateral"] == "Lateral") | raw["AP/PA"].isin(["LL", "RL"])
    assert columns.values("view") == counts(raw["AP/PA"].mask(lateral, "lateral"))
    assert columns.values("sex") == counts(raw["Sex"].map({"Male": "M", "Female": "F"}))
    assert columns.numbers[:, INDEX["age"]].tolist() == raw["Age"].astype(float).tolist()
    assert columns.states("age")["UNLABELLED"] == (raw["Age"] == "0").sum() == 3
    codes = {"1.0": "POSITIVE", "0.0": "NEGATIVE", "-1.0": "UNCERTAIN", "": "UNLABELLED"}
    normal = raw["No Finding"] == "1.0"
    for name in FINDING_NAMES[:-1]:
        states = raw[ATTRIBUTES[INDEX[name]].label].map(codes)
        if name != "support_devices":  # the labeller looked for all 12: none is there
            states = states.mask(normal & (states == "UNLABELLED"), "NEGATIVE_NO_FINDING")
        assert columns.states(name) == counts(states), name
    assert table.notes["no_finding"]["implied"] == normal.sum() == 22_381
    assert columns.states("fracture")["NEGATIVE_NO_FINDING"] == 21_290
    pathologies = [ATTRIBUTES[INDEX[name]].label for name in FINDING_NAMES[:12]]
    ill = (raw[pathologies] == "1.0").any(axis=1)
    assert columns.states("no_finding")["NEGATIVE"] == ill.sum()
    healthy = normal & ~ill
    assert columns.states("no_finding")["POSITIVE"] == healthy.sum()


def test_padchest_agrees_with_pandas(published):
    raw, table, columns = published("padchest")
    assert len(raw) == len(table.rows) + len(table.dropped) == 160_861
    kept = raw[raw["Projection"] != "EXCLUDE"]
    assert len(table.dropped) == len(raw) - len(kept) == 11
    assert {drop.reason for drop in table.dropped} == {"projection EXCLUDE"}
    # ids beyond int64 stay distinct
    assert kept["PatientID"].str.len().max() > 19
    assert len({row.key for row in table.rows}) == len(kept)
    assert table.notes["patients"] == kept["PatientID"].nunique()
    assert [row.path for row in table.rows] == (kept["ImageDir"] + "/" + kept["ImageID"]).tolist()
    view = {"PA": "PA", "L": "lateral", "AP": "AP", "AP_horizontal": "AP"}
    assert columns.values("view") == counts(kept["Projection"].map(view))
    assert columns.values("sex") == counts(kept["PatientSex_DICOM"].map({"M": "M", "F": "F"}))
    birth = pandas.to_numeric(kept["PatientBirth"], errors="coerce")
    age = kept["StudyDate_DICOM"].str[:4].astype(int) - birth
    assert columns.numbers[:, INDEX["age"]].tolist() == age.fillna(0).tolist()
    assert columns.states("age")["UNLABELLED"] == birth.isna().sum() == 6
    assert table.notes["not_understood"]["view"] == {"COSTAL": 630}
    assert "no_finding" not in table.notes["not_understood"]  # every label is in the mapping table

    lists = kept["Labels"].where(kept["Labels"].str.startswith("["), "[]").map(ast.literal_eval)
    named = lists.map(lambda labels: frozenset(label.strip() for label in labels) - {""})

    def any_of(*labels):
        return named.map(lambda mine: not mine.isdisjoint(labels))

    closed = (named.str.len() > 0) & ~any_of("unchanged", "exclude", "suboptimal study")
    for name, theirs, maybe in (
        ("pneumothorax", ["pneumothorax", "hydropneumothorax"], ["air fluid level"]),
        ("pneumonia", ["pneumonia", "atypical pneumonia"], ["infiltrates", "tuberculosis"]),
        ("cardiomegaly", ["cardiomegaly"], ["pericardial effusion", "heart insufficiency"]),
        (
            "edema",
            ["pulmonary edema"],
            ["kerley lines", "vascular redistribution", "central vascular redistribution",
             "hilar congestion", "pulmonary venous hypertension", "respiratory distress",
             "heart insufficiency"],
        ),
        (
            "fracture",
            ["rib fracture", "clavicle fracture", "humeral fracture", "vertebral fracture",
             "fracture", "callus rib fracture"],
            ["vertebral compression", "vertebral anterior compression"],
        ),
    ):  # fmt: skip
        expected = where(any_of(*theirs), any_of(*maybe), closed, len(kept))
        expected["NEGATIVE_CLOSED_VOCABULARY"] -= 50_417
        expected["NEGATIVE_NO_FINDING"] = 50_417
        assert columns.states(name) == expected, name
    # "normal" in a closed list, beside nothing that is or may be one of the 12
    named_normal = closed & any_of("normal")
    assert 0 < named_normal.sum() - 50_417 < 200
    assert table.notes["no_finding"]["implied"] == 50_417
    assert columns.states("no_finding")["UNCERTAIN"] == 17
    by_hand = (kept["MethodLabel"] == "Physician") & (
        closed | any_of("pneumothorax", "hydropneumothorax", "air fluid level")
    )
    physician = table.origins.index(f"{FILES['padchest']}: Physician")
    assert (columns.origin_codes[:, INDEX["pneumothorax"]] == physician).sum() == by_hand.sum()


def test_vindr_kaggle_agrees_with_pandas(published):
    raw, table, columns = published("vindr")
    readers = raw.groupby(["image_id", "class_name"])["rad_id"].nunique().unstack(fill_value=0)
    assert len(table.rows) == len(readers) == raw["image_id"].nunique() == 15_000
    assert columns.values("view") == {"PA": 15_000}
    for name, theirs in (
        ("pneumothorax", "Pneumothorax"),
        ("pleural_other", "Pleural thickening"),
        ("pleural_effusion", "Pleural effusion"),
        ("cardiomegaly", "Cardiomegaly"),
        ("atelectasis", "Atelectasis"),
        ("lung_lesion", "Nodule/Mass"),
    ):
        votes = readers[theirs]
        expected = {
            "POSITIVE": (votes >= 2).sum(),
            "UNCERTAIN": (votes == 1).sum(),
            "NEGATIVE_CLOSED_VOCABULARY": (votes == 0).sum(),
        }
        if name == "lung_lesion":  # these findings may be a lung lesion
            maybe = (readers[["Calcification", "Other lesion"]] > 0).any(axis=1)
            doubtful = (votes == 0) & maybe
            expected["UNCERTAIN"] += doubtful.sum()
            expected["NEGATIVE_CLOSED_VOCABULARY"] -= doubtful.sum()
        assert columns.states(name) == expected, name
    # the Kaggle list is shorter than the full one: findings it lacks are unknown, not absent
    for name in ("fracture", "edema", "support_devices", "sex", "age", "race"):
        assert columns.states(name) == {"UNLABELLED": 15_000}
    healthy = (readers["No finding"] >= 2).sum()
    assert healthy >= columns.states("no_finding")["POSITIVE"] > 0.95 * healthy
