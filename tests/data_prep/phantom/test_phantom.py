"""The phantom: its population follows the documented graph, and images show their attributes."""

import json

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from data_prep import phantom
from data_prep.phantom import causes, dataset
from data_prep.phantom.__main__ import main
from rfxray.attributes.states import State, known_from_states
from rfxray.attributes.vocabulary import (
    FINDING_NAMES,
    INDEX,
    NAMES,
    PATHOLOGY_NAMES,
    all_known,
    derive_no_finding,
)
from rfxray.data.record import deserialize
from rfxray.errors import ConfigError

PAINTED = (*PATHOLOGY_NAMES, "support_devices")
HEALTHY = dict.fromkeys(PAINTED, 0.0)
VIEWS = ("PA", "AP", "lateral")
MANY = np.arange(8000)
FEW = np.arange(40)


def column(attributes, name):
    return attributes[:, INDEX[name]]


def draw(size=64, indices=FEW, seed=0, **do):
    attributes = phantom.draw_attributes(seed, indices, do)
    return phantom.draw_images(attributes, seed, indices, size).astype(np.float32) / 65535


def effect(view, name, off=0.0, on=1.0, **do):
    """Images with minus images without, of the same healthy patients of 20 to 80 years."""
    do = HEALTHY | {"view": float(view), "age": np.linspace(20, 80, len(FEW))} | do
    return draw(**(do | {name: on})) - draw(**(do | {name: off}))


# ---------------------------------------------------------------------------------------------
# The population


@pytest.mark.parametrize("child", causes.BASE)
def test_each_cause_acts_in_its_documented_direction(child):
    natural = phantom.draw_attributes(0, MANY)
    for parent, weight in causes.EDGES[child].items():
        others = {p: column(natural, p) for p in causes.EDGES[child] if p != parent}
        low, high = (20.0, 80.0) if parent == "age" else (0.0, 1.0)
        sign = np.sign(weight[1] - weight[0] if parent == "race" else weight)
        before, after = (
            column(phantom.draw_attributes(0, MANY, others | {parent: value}), child)
            for value in (low, high)
        )
        moved = (after - before) * sign
        assert moved.min() >= 0, f"{parent} moves {child} of some patient the wrong way"
        assert moved.mean() > 0.01, f"{parent} hardly moves {child}"


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("source", "no_finding")])
def test_intervention_changes_only_its_descendants(name):
    value = 75.0 if name == "age" else 1.0
    before = phantom.draw_attributes(3, MANY)
    after = phantom.draw_attributes(3, MANY, {name: value})
    changed = {n for n in NAMES if (column(before, n) != column(after, n)).any()}
    assert changed <= {name, *phantom.descendants(name)}
    assert (column(after, name) == value).all()


def test_causal_graph_matches_the_published_one():
    findings = {child: set(parents) for child, parents in causes.EDGES.items()}
    for child in ("cardiomegaly", "edema"):
        assert findings[child] == {"age", "sex", "race"}
    for child in ("pleural_other", "pneumonia", "fracture"):
        assert findings[child] == {"age", "sex"}
    assert findings["pneumothorax"] == {"age", "sex", "fracture"}
    assert findings["enlarged_cardiomediastinum"] == {"cardiomegaly"}
    assert findings["pleural_effusion"] == {"cardiomegaly", "pleural_other", "pneumonia"}
    assert findings["consolidation"] == {"pneumonia"}
    assert findings["support_devices"] == {"pneumothorax", "pleural_effusion"}
    assert findings["atelectasis"] == {"pneumothorax", "pleural_effusion"}
    assert findings["lung_opacity"] == {"edema", "pleural_other", "consolidation", "atelectasis"}
    assert findings["lung_lesion"] == {"lung_opacity"}
    assert phantom.descendants("view") == ()
    assert "fracture" not in phantom.descendants("race")


@pytest.mark.parametrize("name", causes.BASE)
def test_frequency_of_findings_matches_their_mechanism(name):
    attributes = phantom.draw_attributes(1, MANY)
    expected = 1 / (1 + np.exp(-causes.logit(name, attributes)))
    error = (column(attributes, name) - expected).mean()
    assert abs(error) < 4 * np.sqrt((expected * (1 - expected)).mean() / len(MANY))
    assert 0.12 <= column(attributes, name).mean() <= 0.36


def test_exogenous_shares_and_no_finding_are_as_documented():
    attributes = phantom.draw_attributes(2, MANY)
    for name, shares in (
        ("view", causes.VIEW_SHARES),
        ("sex", causes.SEX_SHARES),
        ("race", causes.RACE_SHARES),
    ):
        drawn = np.bincount(column(attributes, name).astype(int)) / len(MANY)
        np.testing.assert_allclose(drawn, shares, atol=0.02)
    assert column(attributes, "age").min() >= 0
    assert column(attributes, "age").max() <= 95
    assert abs(np.median(column(attributes, "age")) - 52) < 2
    derived = derive_no_finding(all_known(attributes)).values
    np.testing.assert_array_equal(derived, attributes)
    assert column(attributes, "no_finding").mean() > 0.08


def test_trial_makes_attributes_independent():
    trial = phantom.draw_trial(0, MANY)
    natural = phantom.draw_attributes(0, MANY)
    pair = [INDEX["fracture"], INDEX["pneumothorax"]]
    ill = column(trial, "no_finding") == 0
    assert abs(np.corrcoef(trial[ill][:, pair].T)[0, 1]) < 0.05
    assert np.corrcoef(natural[:, pair].T)[0, 1] > 0.15
    assert abs(np.corrcoef(trial[:, [INDEX["race"], INDEX["cardiomegaly"]]].T)[0, 1]) < 0.04


def test_states_have_the_missingness_of_the_real_sets():
    attributes = phantom.draw_attributes(0, MANY)
    states = phantom.draw_states(0, MANY, attributes)
    known = known_from_states(states)
    unknown = dict(zip(NAMES, 1 - known.mean(0), strict=True))
    assert abs(unknown["race"] - 0.61) < 0.02
    assert 0.02 < unknown["view"] < 0.06
    assert unknown["source"] == 0
    for name in FINDING_NAMES:
        # No Finding is derived again where the pathologies say it.
        assert (0.02 if name == "no_finding" else 0.07) < unknown[name] < 0.16, name
        occurring = set(np.unique(column(states, name)).tolist())
        # Phantom findings are labelled directly: only negatives may come from a closed vocabulary.
        never = {State.STATED, State.POSITIVE_CLOSED_VOCABULARY}
        if name not in PATHOLOGY_NAMES:
            never.add(State.NEGATIVE_NO_FINDING)
        assert occurring == set(State) - never, name
        recorded = column(known, name)
        positive = column(states, name) == State.POSITIVE
        np.testing.assert_array_equal(positive[recorded], column(attributes, name)[recorded] > 0.5)
    pathologies = [INDEX[name] for name in PATHOLOGY_NAMES]
    normal = (column(attributes, "no_finding") == 1) & column(known, "no_finding")
    assert known[normal][:, pathologies].all()
    observed = phantom.observe(attributes, states)
    assert (observed[~known] == 0).all()
    np.testing.assert_array_equal(observed[known], attributes[known])


def test_derived_and_unknown_attributes_cannot_be_set():
    with pytest.raises(ConfigError, match="no_finding"):
        phantom.draw_attributes(0, FEW, {"no_finding": 1.0})
    with pytest.raises(ConfigError, match="cardiomegaly"):
        phantom.draw_attributes(0, FEW, {"cardiomegly": 1.0})


# ---------------------------------------------------------------------------------------------
# The images


def test_image_depends_only_on_seed_and_index():
    indices = np.array([7, 1000003, 3, 12, 7])
    attributes = phantom.draw_attributes(5, indices)
    batch = phantom.draw_images(attributes, 5, indices, 64)
    assert batch.dtype == np.uint16
    np.testing.assert_array_equal(batch[0], batch[4])
    for i, index in enumerate(indices):
        single = phantom.draw_attributes(5, [index])
        np.testing.assert_array_equal(single[0], attributes[i])
        np.testing.assert_array_equal(phantom.draw_images(single, 5, [index], 64)[0], batch[i])
    assert (batch[0] != batch[1]).mean() > 0.5
    assert (phantom.draw_images(attributes, 6, indices, 64)[0] != batch[0]).mean() > 0.5


@pytest.mark.parametrize("name", ["race", "source", "no_finding"])
def test_attributes_that_are_not_drawn_change_no_pixel(name):
    attributes = phantom.draw_attributes(0, FEW)
    before = phantom.draw_images(attributes, 0, FEW, 64)
    for value in range(2 if name == "no_finding" else 4):
        attributes[:, INDEX[name]] = value
        np.testing.assert_array_equal(phantom.draw_images(attributes, 0, FEW, 64), before)


@pytest.mark.parametrize("view", range(3), ids=VIEWS)
@pytest.mark.parametrize("name", [*PAINTED, "sex", "age"])
def test_every_drawn_attribute_changes_the_image(name, view):
    do = {"off": 25.0, "on": 80.0} if name == "age" else {}
    difference = effect(view, name, **do)
    # Visible: more than 6 % of the grey scale over at least 0.4 % of the image (16 pixels).
    seen = (np.abs(difference) > 0.06).mean((1, 2))
    assert (seen > 0.004).mean() > 0.9, f"median {np.median(seen):.4f} of the picture changes"


# Region as ranges of |x| and y, on either side; sign of the brightness change there.
PLACES = {
    "pleural_effusion": ((0.45, 0.66), (0.38, 0.62), +1),
    "pneumothorax": ((0.30, 0.64), (-0.72, -0.40), -1),
    "consolidation": ((0.22, 0.50), (-0.40, -0.20), +1),
    "edema": ((0.20, 0.40), (-0.15, 0.15), +1),
    "lung_opacity": ((0.35, 0.60), (-0.15, 0.12), +1),
    "pneumonia": ((0.25, 0.60), (0.10, 0.36), +1),
    "atelectasis": ((0.25, 0.55), (0.25, 0.45), +1),
    "cardiomegaly": ((0.24, 0.54), (0.08, 0.38), +1),
    "enlarged_cardiomediastinum": ((0.13, 0.20), (-0.50, -0.25), +1),
    "pleural_other": ((0.40, 0.64), (-0.65, -0.20), +1),
    "fracture": ((0.45, 0.65), (-0.10, 0.30), +1),
    "lung_lesion": ((0.20, 0.52), (-0.50, 0.12), +1),
}


@pytest.mark.parametrize("name", PLACES)
def test_finding_changes_the_image_in_its_region(name):
    (left, right), (top, bottom), sign = PLACES[name]
    centres = (np.arange(64) + 0.5) / 32 - 1
    across, down = np.meshgrid(np.abs(centres), centres)
    place = (across > left) & (across < right) & (down > top) & (down < bottom)
    difference = effect(0, name) * sign
    here, elsewhere = difference[:, place].mean(1), np.abs(difference[:, ~place]).mean(1)
    assert (here > 0.015).mean() > 0.9, f"median {np.median(here):.4f}"
    assert (here > elsewhere).mean() > 0.9


def test_ap_differs_from_pa_without_its_marker():
    pa, ap = draw(view=0.0), draw(view=1.0)
    difference = np.abs(phantom.mask_markers(ap) - phantom.mask_markers(pa))
    assert ((difference > 0.08).mean((1, 2)) > 0.04).all()


def test_markers_lie_within_the_masked_region():
    plain = phantom.draw_attributes(0, FEW, HEALTHY | {"view": 1.0, "age": 5.0})
    images = phantom.draw_images(plain, 0, FEW, 256)
    corners = images[:, :40].max((1, 2))
    hidden = phantom.mask_markers(images)[:, :20, 200:].max((1, 2))
    assert (corners > 60000).all()
    assert (hidden < 40000).all()


def test_truth_gives_the_cardiothoracic_ratio():
    do = HEALTHY | {"age": 50.0}
    ratios = {}
    for view in range(3):
        for heart in (0.0, 1.0):
            attributes = phantom.draw_attributes(
                0, np.arange(400), do | {"view": float(view), "cardiomegaly": heart}
            )
            ratio = phantom.truth(attributes, 0, np.arange(400))["cardiothoracic_ratio"]
            ratios[view, heart] = ratio.mean()
    assert abs(ratios[0, 0.0] - 0.45) < 0.01
    assert abs(ratios[0, 1.0] - 0.60) < 0.01
    assert abs(ratios[1, 0.0] / ratios[0, 0.0] - 1.12) < 0.005
    assert np.isnan(ratios[2, 0.0])


@pytest.mark.parametrize("size", [32, 96])
def test_every_size_shows_the_same_chest(size):
    indices = np.arange(16)
    small = draw(size, indices)
    large = draw(4 * size, indices)
    shrunk = large.reshape(16, size, 4, size, 4).mean((2, 4))
    assert np.abs(shrunk - small).mean() < 0.012
    for one, other in zip(shrunk, small, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("size", [31, 1025])
def test_sizes_out_of_range_are_refused(size):
    with pytest.raises(ConfigError, match="32 to 1024"):
        draw(size)


def test_no_image_is_blank_or_saturated():
    images = draw(32, np.arange(600))
    assert (images.std((1, 2)) > 0.15).all()
    assert ((images > 0.995).mean((1, 2)) < 0.02).all()


# ---------------------------------------------------------------------------------------------
# The command


def test_command_writes_a_data_set(tmp_path, capsys):
    main(["--out", str(tmp_path / "one"), "--n", "70", "--size", "32", "--validation", "0.2"])
    assert "validation" in capsys.readouterr().out
    records = {}
    for path in sorted((tmp_path / "one").glob("*.array_record-*")):
        reader = ArrayRecordReader(str(path))
        for data in reader.read_all():
            record = deserialize(data)
            records[record["key"]] = record, "validation" in path.name
    assert len(records) == 70
    assert 5 < sum(held_out for _, held_out in records.values()) < 25
    record, _ = records["phantom/p0000012/s0/i0"]
    attributes = phantom.draw_attributes(0, [12])
    states = phantom.draw_states(0, [12], attributes)
    np.testing.assert_array_equal(record["image"], phantom.draw_images(attributes, 0, [12], 32)[0])
    np.testing.assert_array_equal(record["states"], states[0])
    np.testing.assert_array_equal(record["attributes"], phantom.observe(attributes, states)[0])
    assert record["patient"] == "phantom/p0000012"

    # As a version with another labeller would have left it.
    planned = tmp_path / "one" / "plan.json"
    plan = json.loads(planned.read_text())
    assert plan["preprocessing"].pop("no_finding")
    planned.write_text(json.dumps(plan))
    with pytest.raises(SystemExit) as stopped:
        main(["--out", str(tmp_path / "one"), "--n", "70", "--size", "32", "--validation", "0.2"])
    assert stopped.value.code == 78
    assert "no_finding" in capsys.readouterr().err


def test_phantoms_of_another_seed_are_other_people():
    keys = [{r["key"] for r in dataset.records(range(4), seed, 32)} for seed in (0, 1, 2)]
    patients = [{r["patient"] for r in dataset.records(range(4), seed, 32)} for seed in (0, 1, 2)]
    assert keys[0] == {f"phantom/p{index:07d}/s0/i0" for index in range(4)}
    assert len(set.union(*keys)) == len(set.union(*patients)) == 12


def test_command_writes_a_contact_sheet(tmp_path):
    main(["--contact-sheet", str(tmp_path / "sheet.png"), "--size", "32"])
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "flags",
    [
        ["--out", "x", "--n", "0"],
        ["--out", "x", "--size", "20"],
        ["--out", "x", "--seed", "-1"],
        ["--out", "x", "--validation", "1"],
        ["--contact-sheet", "no/such/place.png"],
        ["--out", "x", "--seeds", "1"],
        ["--out", "gs://bucket/phantom"],
        [],
    ],
)
def test_command_refuses_bad_flags(flags, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(flags)
    assert stopped.value.code == 78
    assert capsys.readouterr().err.startswith("data_prep.phantom: error: ")
    assert not list(tmp_path.iterdir())
