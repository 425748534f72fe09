import csv

import pytest

from data_prep.sources.mapping import MAPPINGS, RELATIONS, closed_list, race
from data_prep.sources.sets import SETS
from data_prep.tables.table import TableBuilder
from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import ATTRIBUTES, FINDING_NAMES, INDEX

LISTS = ("nih", "padchest", "vindr", "own")


def rows(name):
    with open(MAPPINGS / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", LISTS)
def test_every_mapping_row_has_a_relation_and_a_reason(name):
    seen = set()
    for row in rows(name):
        assert row["relation"] in RELATIONS
        assert (row["attribute"] == "") == (row["relation"] in ("none", "open"))
        assert row["attribute"] in (*FINDING_NAMES, "")
        assert len(row["reason"]) > 5
        assert (row["finding"], row["attribute"]) not in seen
        seen.add((row["finding"], row["attribute"]))


@pytest.mark.parametrize("name", LISTS)
def test_every_lung_finding_implies_lung_opacity(name):
    """Otherwise a closed list would call lung opacity absent next to a finding that is one."""
    below = {"edema", "consolidation", "pneumonia", "atelectasis", "lung_lesion"}
    for finding, attributes in closed_list(name).present.items():
        if below & set(attributes):
            assert "lung_opacity" in attributes, finding


def test_races_map_to_known_values_or_none():
    values = {*ATTRIBUTES[INDEX["race"]].values, ""}
    assert {row["race"] for row in rows("race")} == values
    builder = TableBuilder("x")
    assert race(builder, "Black or African American", "o")["race"].number == 1.0
    assert race(builder, "  HISPANIC/LATINO -  CUBAN ", "o") == {}
    assert race(builder, "Martian", "o") == {}
    builder.add("a", {}, patient="p", image="a")
    assert builder.table().notes["not_understood"] == {"race": {"Martian": 1}}


def states(readings, name="nih", listed=None):
    values = closed_list(name, listed).values(readings, "here")
    return {attribute: value.state for attribute, value in values.items()}


def test_unnamed_findings_on_the_list_are_absent():
    found = states([["Effusion"]])
    assert found["pleural_effusion"] == State.POSITIVE
    assert found["pneumothorax"] == State.NEGATIVE_CLOSED_VOCABULARY
    assert "fracture" not in found  # not on the list
    assert "no_finding" not in found  # derived from the pathologies instead


def test_ambiguous_finding_is_uncertain():
    found = states([["Infiltration"]])
    assert found["lung_opacity"] == State.POSITIVE
    assert found["consolidation"] == found["pneumonia"] == State.UNCERTAIN
    assert states([["Infiltration", "Consolidation"]])["consolidation"] == State.POSITIVE


def test_open_study_has_no_absent_findings():
    assert states([["unchanged", "nodule"]], "padchest") == {
        "lung_lesion": State.POSITIVE,
        "lung_opacity": State.POSITIVE,
    }
    assert states([], "padchest") == {}


def test_finding_not_on_the_list_leaves_the_study_open():
    assert states([["Effusion", "Pleural Thickening"]]) == {"pleural_effusion": State.POSITIVE}
    assert states([["Consolidation"], [], ["Martian lung"]], "vindr") == {
        "consolidation": State.UNCERTAIN,
        "lung_opacity": State.UNCERTAIN,
    }


def test_readers_vote_on_attributes_not_on_terms():
    found = states([["Consolidation"], ["Infiltration"], []], "vindr")
    assert found["lung_opacity"] == State.POSITIVE  # two of three, in different words
    assert found["consolidation"] == State.UNCERTAIN  # one of three
    assert found["edema"] == State.NEGATIVE_CLOSED_VOCABULARY


def test_shorter_list_covers_fewer_attributes():
    found = states([["Consolidation"]], "vindr", frozenset({"Consolidation", "No finding"}))
    assert set(found) == {"consolidation", "lung_opacity"}


def test_published_counts_of_the_seven_sets_sum_to_cxr7_1m():
    assert len(SETS) == 7
    assert sum(raw.published for raw in SETS.values()) == 1_205_494  # RadiT, CXR7-1M
