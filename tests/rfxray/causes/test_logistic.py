import json

import numpy as np
import pytest

from data_prep import phantom
from data_prep.phantom import causes
from rfxray.attributes.states import known_from_states
from rfxray.attributes.vocabulary import (
    INDEX,
    PATHOLOGY_NAMES,
    Attributes,
    all_known,
    encode,
    stack,
)
from rfxray.causes import logistic
from rfxray.data.dataset import open_dataset
from rfxray.errors import ConfigError, DataError

MANY = np.arange(20_000)


@pytest.fixture(scope="module")
def population():
    return all_known(phantom.draw_attributes(0, MANY))


@pytest.fixture(scope="module")
def recorded(population):
    """The population as recorded, with some attributes unknown."""
    states = phantom.draw_states(0, MANY, population.values)
    return Attributes(phantom.observe(population.values, states), known_from_states(states))


@pytest.fixture(scope="module")
def fitted(population):
    return logistic.fit(logistic.read_graph(), population)


def test_default_graph_is_that_of_the_phantom():
    graph = logistic.read_graph()
    assert {child: set(parents) for child, parents in graph.parents.items()} == {
        child: set(parents) for child, parents in causes.EDGES.items()
    }
    for name in ("age", "fracture", "pleural_effusion", "lung_lesion"):
        follows = set(phantom.descendants(name)) - {"no_finding"}
        assert set(graph.descendants([name])) == follows


def test_fit_recovers_the_mechanisms_of_the_phantom(fitted, population):
    for child in fitted.graph.parents:
        true = 1 / (1 + np.exp(-causes.logit(child, population.values)))
        found = fitted.probability(child, population)
        assert np.abs(found - true).mean() < 0.02
        assert fitted.rows[child] == len(MANY)


def test_unknown_parent_has_its_own_category(population, recorded):
    model = logistic.fit(logistic.read_graph(), recorded)
    assert all(0 < model.rows[child] < len(MANY) for child in model.weights)
    nothing = model.probability("cardiomegaly", stack([encode({})]))
    share = population.values[:, INDEX["cardiomegaly"]].mean()
    assert nothing[0] == pytest.approx(share, abs=0.15)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_counterfactuals_match_the_true_model(fitted, population, value):
    """Compares the shares of patients in whom a descendant appears or disappears."""
    do = {"pleural_effusion": value}
    (after, known), chances = logistic.counterfactual(fitted, population, do, seed=1)
    before, true = population.values, phantom.draw_attributes(0, MANY, do)
    assert known.all()
    assert set(chances) == {"support_devices", "atelectasis", "lung_opacity", "lung_lesion"}
    for name in chances:
        i = INDEX[name]
        for direction in (1, -1):
            found = (after[:, i] - before[:, i] == direction).mean()
            exact = (true[:, i] - before[:, i] == direction).mean()
            assert found == pytest.approx(exact, abs=0.012)
        assert chances[name].mean() == pytest.approx(after[:, i].mean(), abs=0.02)
    untouched = [i for n, i in INDEX.items() if n not in {*do, *chances, "no_finding"}]
    np.testing.assert_array_equal(after[:, untouched], before[:, untouched])


@pytest.mark.parametrize("name", ["age", "sex", "fracture", "pleural_effusion"])
def test_setting_an_observed_value_changes_nothing(fitted, population, recorded, name):
    """Whether every attribute is known or the records have gaps."""
    for table in (population, recorded):
        some = table.rows(table.known[:, INDEX[name]])
        after, _ = logistic.counterfactual(fitted, some, {name: some.values[:, INDEX[name]]})
        np.testing.assert_array_equal(after.values, some.values)
        np.testing.assert_array_equal(after.known, some.known)


def test_no_finding_implies_that_every_pathology_is_absent(fitted):
    """So adding an effusion can only make other findings appear: none was present before."""
    many = stack([encode({"age": 80, "no_finding": "present"})] * 500)
    (after, known), chances = logistic.counterfactual(fitted, many, {"pleural_effusion": 1.0})
    i = INDEX["atelectasis"]
    before, now = (
        fitted.probability("atelectasis", spelled_out(**change))[0]
        for change in ({}, {"pleural_effusion": "present"})
    )
    exact = (now - before) / (1 - before)
    assert chances["atelectasis"] == pytest.approx(exact)
    assert after[:, i].mean() == pytest.approx(exact, abs=0.08)  # 3.5 standard errors of 500
    np.testing.assert_array_equal(known[:, i], after[:, i] > 0.5)  # the others stay unknown
    assert known[:, INDEX["no_finding"]].all()
    assert not after[:, INDEX["no_finding"]].any()


def spelled_out(**change):
    """A patient aged 80 with every pathology known, [1, 19]."""
    absent = dict.fromkeys(PATHOLOGY_NAMES, "absent")
    return stack([encode({"age": 80, **absent, **change})])


def test_added_finding_removes_no_descendant(fitted, population):
    """Every effect in the phantom is monotone: adding an effusion removes no descendant."""
    after, _ = logistic.counterfactual(fitted, population, {"pleural_effusion": 1.0})
    for name in ("support_devices", "atelectasis"):
        assert (after.values[:, INDEX[name]] >= population.values[:, INDEX[name]]).all()


def test_unknown_attributes_stay_unknown_and_no_finding_follows(fitted):
    asked = {"view": "PA", "pneumonia": "absent", "no_finding": "present"}
    observed = stack([encode(asked)])
    (after, known), chances = logistic.counterfactual(fitted, observed, {"pneumonia": 1.0})
    assert known[0].nonzero()[0].tolist() == sorted(
        [INDEX["view"], INDEX["pneumonia"], INDEX["no_finding"]]
    )
    assert after[0, INDEX["no_finding"]] == 0
    assert "consolidation" in chances
    assert set(chances) < set(PATHOLOGY_NAMES) | {"support_devices"}
    with pytest.raises(ConfigError, match="no_finding follows"):
        logistic.counterfactual(fitted, observed, {"no_finding": 1.0})


def test_fit_dataset_uses_its_records(tiny_data, tmp_path):
    graph = tmp_path / "graph.json"
    graph.write_text(json.dumps({"name": "one", "parents": {"cardiomegaly": ["age"]}}))
    model = logistic.fit_dataset(logistic.read_graph(graph), open_dataset(tiny_data))
    assert model.rows == {"cardiomegaly": 50}
    graph.write_text(json.dumps({"parents": {"edema": ["age"]}}))
    with pytest.raises(DataError, match="edema depends"):
        logistic.fit_dataset(logistic.read_graph(graph), open_dataset(tiny_data))
    with pytest.raises(ConfigError, match="no split 'test'"):
        logistic.fit_dataset(logistic.read_graph(), open_dataset(tiny_data), "test")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "not a causal graph"),
        ("[]", "not a causal graph"),
        ('{"parents": {"edemma": ["age"]}}', "'edemma'"),
        ('{"parents": {"edema": ["ag"]}}', "'ag'"),
        ('{"parents": {"age": ["sex"]}}', "only findings"),
        ('{"parents": {"no_finding": ["edema"]}}', "only findings"),
        ('{"parents": {"edema": ["no_finding"]}}', "only findings"),
        ('{"parents": {"edema": ["fracture"], "fracture": ["edema"]}}', "cycle"),
    ],
)
def test_invalid_graph_is_rejected(tmp_path, text, part):
    file = tmp_path / "graph.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=part):
        logistic.read_graph(file)
