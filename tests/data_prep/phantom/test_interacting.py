import csv
import hashlib

import numpy as np
import pytest

from data_prep import phantom
from data_prep.phantom import dataset, interacting
from rfxray.attributes.states import known_from_states
from rfxray.attributes.vocabulary import INDEX, NAMES
from rfxray.causes.graph import read_graph
from rfxray.errors import ConfigError

MANY = np.arange(20_000)


def test_the_first_world_is_what_it_always_was():
    """Bit for bit: attributes, states and images."""
    indices = np.arange(1000)
    attributes = phantom.draw_attributes(3, indices)
    states = phantom.draw_states(3, indices, attributes)
    images = phantom.draw_images(attributes[:12], 3, indices[:12], 32)
    digest = hashlib.sha256()
    for array in (attributes, states, images):
        digest.update(np.ascontiguousarray(array).tobytes())
    assert digest.hexdigest() == "20fa345ea4c8e79714fee4e1eba20928961460b22aadf491ec4ff36766d97ae3"


@pytest.mark.parametrize("name", ["heart_size", "age", "pneumonia"])
def test_an_intervention_changes_only_what_descends_from_it(tmp_path, name):
    dataset.write_table(tmp_path / "t.csv", "interacting", 3, 0)
    graph = read_graph(tmp_path / "t.graph.json")
    value = {"heart_size": 0.6, "age": 80.0, "pneumonia": 1.0}[name]
    before, heart = interacting.draw(0, MANY)
    after, then = interacting.draw(0, MANY, {name: value})
    follow = {*graph.descendants([name]), name, "no_finding"}
    for other in NAMES:
        if other not in follow:
            np.testing.assert_array_equal(after[:, INDEX[other]], before[:, INDEX[other]])
        elif other in graph.descendants([name]):
            assert (after[:, INDEX[other]] != before[:, INDEX[other]]).any()
    assert (then != heart).any() == ("heart_size" in follow)


def test_age_acts_in_a_u_and_two_findings_do_less_than_each():
    values, _ = interacting.draw(0, MANY)
    pneumonia, age = values[:, INDEX["pneumonia"]], values[:, INDEX["age"]]
    shares = [pneumonia[(age >= a) & (age < a + 10)].mean() for a in (0, 40, 80)]
    assert shares[0] > shares[1] + 0.1
    assert shares[2] > shares[1] + 0.1
    heart, lung = values[:, INDEX["cardiomegaly"]] > 0, values[:, INDEX["pneumonia"]] > 0
    effusion = values[:, INDEX["pleural_effusion"]]
    assert effusion[heart & lung].mean() < effusion[heart & ~lung].mean()


def test_the_iller_a_patient_the_more_is_left_out():
    values, _ = interacting.draw(0, MANY)
    states = interacting.draw_states(0, MANY, values)
    known = known_from_states(states)[:, INDEX["edema"]]
    severity = values[:, INDEX["no_finding"]] == 0
    assert known[~severity].mean() > known[severity].mean() + 0.05


def test_the_heart_is_drawn_as_large_as_it_is():
    indices = np.arange(4)
    values, _ = interacting.draw(0, indices, {"view": 0.0})
    sizes = [
        phantom.draw_images(values, 0, indices, 64, np.full(4, ratio)).astype(int)
        for ratio in (0.42, 0.7)
    ]
    assert (sizes[1] - sizes[0]).mean() > 500  # of 65,535 levels


def test_a_table_names_the_heart_and_leaves_the_unknown_blank(tmp_path):
    dataset.write_table(tmp_path / "t.csv", "interacting", 500, 0)
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 500
    assert all(0.2 <= float(row["heart_size"]) <= 1 for row in rows)
    assert 0 < sum(row["race"] == "" for row in rows) < 500
    with pytest.raises(ConfigError, match="--n 0 phantoms"):
        dataset.write_table(tmp_path / "t.csv", "additive", 0, 0)
