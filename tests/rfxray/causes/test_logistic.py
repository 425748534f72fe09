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
from rfxray.causes.abduction import counterfactual
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
    (after, known), chances = counterfactual(fitted, population, do, seed=1)
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
    for table, rows in ((population, MANY), (recorded, np.arange(20))):
        some = table.rows(rows).rows(table.known[rows, INDEX[name]])
        after, _ = counterfactual(fitted, some, {name: some.values[:, INDEX[name]]})
        np.testing.assert_array_equal(after.values, some.values)
        np.testing.assert_array_equal(after.known, some.known)


def test_no_finding_implies_that_every_pathology_is_absent(fitted):
    """So adding an effusion can only make other findings appear: none was present before."""
    many = stack([encode({"age": 80, "no_finding": "present"})] * 500)
    (after, known), chances = counterfactual(fitted, many, {"pleural_effusion": 1.0})
    i = INDEX["atelectasis"]
    before, now = (
        fitted.probability("atelectasis", spelled_out(**change))[0]
        for change in ({}, {"pleural_effusion": "present"})
    )
    exact = (now - before) / (1 - before)
    assert chances["atelectasis"] == pytest.approx(exact)
    assert after[:, i].mean() == pytest.approx(exact, abs=0.08)  # 3.5 standard errors of 500
    assert known[:, i].all()
    assert known[:, INDEX["no_finding"]].all()
    assert not after[:, INDEX["no_finding"]].any()


def spelled_out(**change):
    """A patient aged 80 with every pathology known, [1, 19]."""
    absent = dict.fromkeys(PATHOLOGY_NAMES, "absent")
    return stack([encode({"age": 80, **absent, **change})])


def simulated(model, start, noise, do):
    """Patients [n, 19] by the mechanisms from what `start` says of the causes without causes."""
    people = Attributes(np.tile(start.values, (len(noise), 1)), np.ones((len(noise), 19), bool))
    for name, value in do.items():
        people.values[:, INDEX[name]] = value
    for column, child in enumerate(model.graph.parents):
        if child not in do:
            present = noise[:, column] < model.probability(child, people)
            people.values[:, INDEX[child]] = present
    return people.values


@pytest.mark.parametrize(
    ("shown", "do", "child"),
    [
        ({"age": 40, "pleural_effusion": "absent"}, {"age": 85.0}, "pleural_effusion"),
        ({"age": 85, "lung_opacity": "present"}, {"age": 20.0}, "lung_opacity"),
        (
            {"age": 60, "fracture": "absent", "atelectasis": "absent"},
            {"fracture": 1.0},
            "atelectasis",
        ),
        ({"age": 60, "edema": "present", "lung_lesion": "present"}, {"edema": 0.0}, "lung_lesion"),
    ],
)
def test_unknown_mediators_are_summed_over(fitted, shown, do, child):
    """Against simulated patients of whom only those are kept who show what was observed."""
    observed = encode({"sex": "M", "race": "White", **shown})
    noise = np.random.default_rng(0).random((400_000, len(fitted.graph.parents)))
    before, then = (simulated(fitted, observed, noise, c) for c in ({}, do))
    findings = [INDEX[name] for name in shown if name != "age"]
    alike = (before[:, findings] == observed.values[findings]).all(1)
    exact = then[alike, INDEX[child]].mean()
    assert alike.sum() > 5000
    _, chances = counterfactual(fitted, stack([observed]), do)
    assert chances[child][0] == pytest.approx(exact, abs=0.01)
    assert 0 < chances[child][0] < 1


def test_unknown_causes_are_drawn_from_the_population(fitted, population):
    """Not taken as a value: of sex and race unknown, the effect is that of a mixture of people."""
    shown = {"age": 40, "cardiomegaly": "absent"}
    _, unknown = counterfactual(fitted, stack([encode(shown)]), {"age": 85.0})
    mixed = [
        counterfactual(fitted, stack([encode({**shown, "sex": s, "race": r})]), {"age": 85.0})[1][
            "cardiomegaly"
        ][0]
        for s in ("F", "M")
        for r in ("White", "Black", "Asian", "other")
    ]
    near = np.abs(population.values[:, INDEX["age"]] - 40) <= 10
    absent = population.values[:, INDEX["cardiomegaly"]] == 0
    columns = population.values[near & absent][:, [INDEX["sex"], INDEX["race"]]].astype(int)
    shares = np.bincount(columns[:, 0] * 4 + columns[:, 1], minlength=8) / len(columns)
    assert unknown["cardiomegaly"][0] == pytest.approx(shares @ mixed, abs=0.01)


def test_intervened_variable_must_be_known_if_anything_follows_from_it(fitted):
    observed = stack([encode({"sex": "M", "cardiomegaly": "absent"})])
    with pytest.raises(ConfigError, match="say --from age=VALUE"):
        counterfactual(fitted, observed, {"age": 30.0})
    after, chances = counterfactual(fitted, observed, {"view": 2.0})
    assert not chances
    assert after.values[0, INDEX["view"]] == 2


def test_added_finding_removes_no_descendant(fitted, population):
    """Every effect in the phantom is monotone: adding an effusion removes no descendant."""
    after, _ = counterfactual(fitted, population, {"pleural_effusion": 1.0})
    for name in ("support_devices", "atelectasis"):
        assert (after.values[:, INDEX[name]] >= population.values[:, INDEX[name]]).all()


def test_unknown_attributes_stay_unknown_and_no_finding_follows(fitted):
    # As a record has it, of a labeller who did not look for the others
    names = ("view", "pneumonia", "no_finding")
    observed = Attributes(*(np.zeros((1, 19), dtype) for dtype in (np.float32, bool)))
    observed.known[:, [INDEX[name] for name in names]] = True
    observed.values[:, INDEX["no_finding"]] = 1
    (after, known), chances = counterfactual(fitted, observed, {"pneumonia": 1.0})
    assert known[0].nonzero()[0].tolist() == sorted(
        [INDEX["view"], INDEX["pneumonia"], INDEX["no_finding"]]
    )
    assert after[0, INDEX["no_finding"]] == 0
    assert "consolidation" in chances
    assert set(chances) < set(PATHOLOGY_NAMES) | {"support_devices"}
    with pytest.raises(ConfigError, match="no_finding follows"):
        counterfactual(fitted, observed, {"no_finding": 1.0})


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
