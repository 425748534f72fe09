import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.sources.findings import FindingsColumn, likely_finding, read_name, split_list
from data_prep.tables.columns import parse_map
from data_prep.tables.description import Description
from data_prep.tables.table import TableBuilder
from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import ATTRIBUTES, FINDING_NAMES, INDEX
from rfxray.errors import ConfigError

LABELS = [ATTRIBUTES[INDEX[name]].label for name in FINDING_NAMES]
HEART_AND_FLUID = {"cardiomegaly": "+", "pleural_effusion": "+"}
SIGNS = {State.POSITIVE: "+", State.NEGATIVE_CLOSED_VOCABULARY: "c"}


def read(*cells, mapped=(), closed=(), metadata=None):
    """What a column says, {attribute: "+" or "c"} per cell; and what was not understood."""
    builder = TableBuilder("set")
    described = Description(
        metadata, {"image": "image", "findings": "Labels"}, parse_map(mapped), "other", closed
    )
    column = FindingsColumn(described, builder)
    read = [{n: SIGNS[v.state] for n, v in column.values(cell).items()} for cell in cells]
    builder.add("a", {}, patient="p", image="a")
    return read, builder.table().notes["not_understood"].get("findings", {})


@pytest.mark.parametrize(
    "cell",
    [
        *("Cardiomegaly|Effusion", "cardiomegaly | pleural_effusion|", "Effusion; Cardiomegaly"),
        *("['cardiomegaly', 'pleural effusion']", '["Cardiomegaly", "Pleural Effusion"]'),
        *(
            "['cardiomegaly' 'effusion']",
            "[cardiomegaly, effusion]",
            "('Effusion', 'Cardiomegaly')",
        ),
        *("[None, 'Effusion', '', 'Cardiomegaly']", '["Effusion", null, "Cardiomegaly"]'),
        *(
            "Cardiomegaly, pleural effusions",
            "enlarged heart\nEffusion",
            '"Effusion","Cardiomegaly"',
        ),
    ],
)
def test_findings_that_a_cell_names_are_present_and_the_others_unknown(cell):
    assert read(cell) == ([HEART_AND_FLUID], {})


@pytest.mark.parametrize(
    "cell", ["No Finding", "no_finding", "NORMAL", "['normal']", "No findings"]
)
def test_normal_study_has_no_finding(cell):
    assert read(cell) == ([{"no_finding": "+"}], {})


@pytest.mark.parametrize("cell", ["", " ", "nan", "Unknown", "N/A", "?"])
def test_blank_list_says_nothing(cell):
    assert read(cell, closed=("edema",)) == ([{}], {})


@pytest.mark.parametrize("cell", ["[]", "['']", "none", "0", "-", "[None]"])
def test_empty_list_is_not_taken_for_a_normal_study(cell):
    assert read(cell, closed=("edema",)) == ([{}], {cell: 1})
    found, _ = read(cell, mapped=[f"findings:{cell}=No Finding"], closed=("edema",))
    assert found == [{"no_finding": "+", "edema": "c"}]


@pytest.mark.parametrize("name", [*FINDING_NAMES, *LABELS, *map(str.upper, LABELS)])
def test_every_attribute_is_read_by_its_name_and_label(name):
    (attribute,) = read_name(name).present
    assert attribute == name.lower().replace(" ", "_")


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("Mass", "lung_lesion"),
        ("nodules", "lung_lesion"),
        ("Infiltration", "lung_opacity"),
        ("Pleural_Thickening", "pleural_other"),
        ("pulmonary oedema", "edema"),
        ("rib fracture", "fracture"),
        ("pacemaker", "support_devices"),
        ("Nodule/Mass", "lung_lesion"),
    ],
)
def test_names_of_the_published_sets_are_read(name, attribute):
    assert read(name) == ([{attribute: "+"}], {})


def test_what_a_name_implies_or_may_mean_is_neither_present_nor_absent():
    closed = ("Lung Opacity", "Consolidation", "Enlarged Cardiomediastinum")
    assert read("Edema", "Pneumonia", "Cardiomegaly", "Fibrosis", "Hernia", closed=closed)[0] == [
        {"edema": "+", "consolidation": "c", "enlarged_cardiomediastinum": "c"},
        {"pneumonia": "+", "enlarged_cardiomediastinum": "c"},
        {"cardiomegaly": "+", "lung_opacity": "c", "consolidation": "c"},
        {"consolidation": "c", "enlarged_cardiomediastinum": "c"},
        {"lung_opacity": "c", "consolidation": "c", "enlarged_cardiomediastinum": "c"},
    ]


def test_closed_list_covers_what_the_column_names_somewhere(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("image,Labels\na,Edema|Martian\nb,No Finding\nc,\nd,Pneumothorax\ne,Hernia\n")
    found, strange = read(
        *("Edema|Martian", "No Finding", "", "Pneumothorax", "Hernia"),
        closed=("seen",),
        metadata=table,
    )
    assert found == [
        {"edema": "+"},  # a name that may mean anything leaves the list open
        {"no_finding": "+", "edema": "c", "pneumothorax": "c"},
        {},
        {"edema": "c", "pneumothorax": "+"},
        {"edema": "c", "pneumothorax": "c"},
    ]
    assert strange == {"Martian": 1}


def test_names_are_counted_and_can_be_mapped():
    cells = ("Edema|big heart", "scoliosis (mild)|Edema", "motion|Edema", "motion")
    assert read(*cells)[1] == {"big heart": 1, "scoliosis (mild)": 1, "motion": 2}
    mapped = [
        "findings:Big heart=Cardiomegaly",
        "findings:scoliosis (mild)=other",
        "findings:motion=unknown",
    ]
    assert read(*cells, mapped=mapped, closed=("Mass",)) == (
        [
            {"edema": "+", "cardiomegaly": "+", "lung_lesion": "c"},
            {"edema": "+", "lung_lesion": "c"},
            {"edema": "+"},
            {},
        ],
        {},
    )


@pytest.mark.parametrize(
    "cell",
    [
        *("no effusion, edema", "No pneumothorax, effusion or consolidation", "edema, resolved"),
        *("edema?, effusion", "Edema, none", "possible edema, effusion", "without edema, effusion"),
    ],
)
def test_prose_that_denies_or_doubts_says_nothing(cell):
    assert read(cell) == ([{}], {cell: 1})


@pytest.mark.parametrize("cell", ["no edema", "Edema: 0", "{'Edema': 0}", "Edema (resolved)"])
def test_denied_finding_is_not_present(cell):
    assert read(cell, closed=("edema",)) == ([{}], {cell: 1})


@given(st.lists(st.sampled_from(LABELS[:-1]), min_size=1, max_size=5, unique=True))
def test_every_form_of_a_list_says_the_same(labels):
    forms = [
        "|".join(labels),
        "; ".join(labels),
        ", ".join(labels),
        str(labels),
        json.dumps(labels),
    ]
    assert [split_list(form) for form in forms] == [labels] * len(forms)


@given(st.lists(st.text(min_size=1), min_size=1).filter(lambda names: all(map(str.strip, names))))
def test_names_in_a_json_list_are_kept_whole(names):
    blank = ("nan", "na", "n/a", "null")
    kept = [name.strip() for name in names if name.strip().lower() not in blank]
    assert split_list(json.dumps(names)) == kept


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            {"mapped": ["findings:a=Martian"]},
            "--map findings:a=Martian: 'Martian' is not a finding",
        ),
        ({"mapped": ["findings:a=Edem"]}, "did you mean edema"),
        ({"mapped": ["findings:a=nan"]}, "is not a finding"),
        ({"closed": ("Edema", "Martian")}, "--closed-list: 'Martian' is not a finding"),
        ({"closed": ("No Finding",)}, "names no finding of ours that can be absent"),
    ],
)
def test_names_in_flags_have_to_be_findings(flags, said):
    with pytest.raises(ConfigError, match=said):
        read("Edema", **flags)


def test_near_finding_is_offered_but_never_for_a_denied_one():
    assert likely_finding("Pneumothroax") == "pneumothorax"
    assert likely_finding("plural effusion") == "pleural_effusion"
    for name in ("no edema", "no pneumothorax", "non-pneumonia", "big heart"):
        assert likely_finding(name) == ""
