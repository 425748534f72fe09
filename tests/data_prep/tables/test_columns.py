import pytest

from data_prep.tables.columns import likely, parse_columns, parse_map, reader, split_of, understand
from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import ATTRIBUTES, INDEX, decode_value
from rfxray.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "cells", "value"),
    [
        ("view", ["PA", "pa", " Pa ", "POSTERO_ANTERIOR", "posteroanterior"], "PA"),
        ("view", ["AP", "ap", "AP_horizontal", "antero-posterior", "AP supine"], "AP"),
        ("view", ["L", "LL", "ll", "RL", "LATERAL", "Lateral", "left-lateral"], "lateral"),
        ("sex", ["M", "m", "Male", "MALE", "Masculino"], "M"),
        ("sex", ["F", "f", "Female", "female ", "weiblich"], "F"),
        ("race", ["white", "White or Caucasian", "Caucasian"], "White"),
        ("race", ["BLACK", "Black or African American"], "Black"),
        ("race", ["Other"], "other"),
        ("age", ["63", "63.0", "63,0", "063Y", "63y", "63 y", "63 Years", "63 yrs old"], 63.0),
        ("age", ["63.5", "63,5", "63y 6m", "63 years, 6 months"], 63.5),
        (
            "age",
            ["024M", "24m", "24 months", "24 mo", "2 años", "2 Jahre", "2yo", "2 y/o", "2 yrs."],
            2.0,
        ),
        ("age", ["6 months", "006M", "0.5"], 0.5),
        ("source", ["NIH", "nih"], "nih"),
    ],
)
def test_common_codes_are_understood(name, cells, value):
    for cell in cells:
        number, state = understand(name, cell)
        assert decode_value(name, number, True) == value, cell
        assert state == State.STATED


def test_dicom_ages_in_weeks_and_days_are_understood():
    assert understand("age", "010W")[0] == pytest.approx(70 / 365.25)
    assert understand("age", "002D")[0] == pytest.approx(2 / 365.25)


@pytest.mark.parametrize("name", ["cardiomegaly", "support_devices", "no_finding"])
def test_findings_keep_their_labelled_state(name):
    for cells, number, state in [
        (["1", "1.0", "1,0", "present", "Positive", "pos"], 1.0, State.POSITIVE),
        (["Y", "yes", "T", "TRUE", "+", "x", "X", "✓"], 1.0, State.POSITIVE),
        (["0", "0.0", "absent", "negative", "neg"], 0.0, State.NEGATIVE),
        (["N", "no", "F", "False"], 0.0, State.NEGATIVE),
        (["-1", "-1.0", "-1,00", "Uncertain"], 0.0, State.UNCERTAIN),
        (["", " ", "nan"], 0.0, State.UNLABELLED),
    ]:
        assert {understand(name, cell) for cell in cells} == {(number, state)}


@pytest.mark.parametrize("name", [attribute.name for attribute in ATTRIBUTES])
def test_blank_is_unlabelled_for_every_attribute(name):
    for cell in ("", "  ", "Unknown", "None", "N/A"):
        assert understand(name, cell) == (0.0, State.UNLABELLED)


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("view", "frontal"),
        ("view", "LAO"),
        ("sex", "O"),
        ("sex", "1"),
        ("age", "-5"),
        ("age", "414"),
        ("age", "85 or more"),
        ("age", "inf"),
        ("age", "1e1"),
        ("age", ">89"),
        ("age", "90+"),
        ("age", "40-49"),
        ("age", "6m 1y"),
        ("age", "years"),
        ("edema", "2"),
        ("edema", "10"),
        ("edema", "-"),
        ("edema", "+/-"),
        ("edema", "maybe"),
        ("race", "Hispanic"),
    ],
)
def test_unclear_cells_are_not_guessed(name, cell):
    assert understand(name, cell) is None


@pytest.mark.parametrize(
    ("name", "cell", "offered"),
    [
        ("view", "Portable", "AP"),
        ("view", "supine chest", "AP"),
        ("view", "latreal", "lateral"),
        ("view", "-", "unknown"),
        ("view", "frontal", ""),
        ("view", "oblique", ""),
        ("sex", "femal", "F"),
        ("race", "Hispanic", ""),
        ("age", ">89", "90"),
        ("age", "90+", "90"),
        ("age", "85 or more", "85"),
        ("age", "40-49", "44.5"),
        ("age", "414", ""),
        ("edema", "-", "absent"),
        ("edema", "maybe", "uncertain"),
        ("edema", "10", ""),
        ("edema", "normal", ""),
        ("no_finding", "Normal", "present"),
    ],
)
def test_near_value_is_offered_for_a_cell_that_is_not_understood(name, cell, offered):
    assert understand(name, cell) is None
    assert likely(name, cell) == offered
    if offered:
        assert parse_map([f"{name}:{cell}={offered}"]) == {(name, cell.lower()): offered}


def test_split_names_are_understood():
    assert [split_of(word) for word in ("Train", "val", "validate", "TEST", "fold1", "")] == [
        *("train", "validation", "validation", "test", None, None)
    ]


def test_columns_are_parsed():
    assert parse_columns(["patient=Patient ID", "Pleural Effusion = x=y"]) == {
        "patient": "Patient ID",
        "pleural_effusion": "x=y",
    }


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["veiw=projection"], "no column or attribute 'veiw'; did you mean view"),
        (["patient_id=x"], "did you mean patient"),
        (["view"], "not NAME=HEADER"),
        (["view= "], "not NAME=HEADER"),
        (["view=a", "View=b"], "given twice"),
        (["findings=Labels"], "named by --findings HEADER"),
    ],
)
def test_bad_columns_are_refused(columns, said):
    with pytest.raises(ConfigError, match=said):
        parse_columns(columns)


def test_map_replaces_the_value_of_a_cell():
    read = reader(parse_map(["view:frontal=AP", "age:85 or more=85", "view:AP=unknown"]))
    view, age = INDEX["view"], INDEX["age"]
    assert read("view", " Frontal ") == (ATTRIBUTES[view].values.index("AP"), State.STATED)
    assert read("age", "85 or more") == (85.0, State.STATED)
    assert read("view", "ap") == (0.0, State.UNLABELLED)
    assert read("view", "PA")[1] == State.STATED
    assert ATTRIBUTES[age].continuous


def test_blank_beside_marks_says_nothing_unless_it_is_mapped():
    assert reader({})("edema", "") == (0.0, State.UNLABELLED)
    assert reader(parse_map(["edema:=absent"]))("edema", " ") == (0.0, State.NEGATIVE)


@pytest.mark.parametrize(
    ("mapped", "said"),
    [
        (["view=AP"], "must be NAME:CELL=VALUE"),
        (["view:frontal=front"], "view has no value 'front': PA, AP, lateral"),
        (["patient:a=b"], "patient is text"),
        (["split:a=b"], "train, validation, test"),
        (["viw:a=AP"], "did you mean view"),
    ],
)
def test_bad_maps_are_refused(mapped, said):
    with pytest.raises(ConfigError, match=said):
        parse_map(mapped)
