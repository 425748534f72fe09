"""All queries of three variables equal brute force, in the phantom's own model."""

import itertools

import numpy as np
import pytest

from rfxray.attributes.vocabulary import INDEX
from rfxray.causes import worlds
from rfxray.causes.worlds import As, World, joint, nothing
from rfxray.errors import ConfigError
from tests.rfxray.causes.conftest import true_model

NAMES = ("sex", "pneumothorax", "pleural_effusion", "support_devices", "atelectasis")


class BruteForce:
    """Every combination of noise, cut at every threshold that any causes give a variable."""

    def __init__(self, model):
        self.model, pieces = model, {}
        for name, mechanism in model.mechanisms.items():
            rows = np.zeros((2 ** len(mechanism.parents), 19))
            for row, values in enumerate(itertools.product((0, 1), repeat=len(mechanism.parents))):
                rows[row, [INDEX[p] for p in mechanism.parents]] = values
            pieces[name] = np.unique([0.0, 1.0, *mechanism.cumulative(rows)[:, 1]])
        bins = [range(len(edges) - 1) for edges in pieces.values()]
        grid = np.array(list(itertools.product(*bins)))
        self.noise, self.weight = {}, np.ones(len(grid))
        for column, (name, edges) in enumerate(pieces.items()):
            self.noise[name] = ((edges[1:] + edges[:-1]) / 2)[grid[:, column]]
            self.weight *= np.diff(edges)[grid[:, column]]

    def world(self, do):
        values = np.zeros((len(self.weight), 19))
        for name, mechanism in self.model.mechanisms.items():
            drawn = (self.noise[name] >= mechanism.cumulative(values)[:, 1]).astype(float)
            values[:, INDEX[name]] = do.get(name, drawn)
        return values

    def probability(self, hits, seen):
        return (self.weight * hits * seen).sum() / (self.weight * seen).sum()


@pytest.fixture(scope="module")
def model():
    return true_model(*NAMES)


@pytest.fixture(scope="module")
def brute(model):
    return BruteForce(model)


def seen(model, **what):
    values, known = nothing(model)
    for name, value in what.items():
        values[0, INDEX[name]], known[0, INDEX[name]] = value, True
    return values, known


def test_every_question_of_three_variables_with_evidence_before_equals_brute_force(model, brute):
    before = brute.world({})
    for set_, of, given in itertools.permutations(NAMES, 3):
        for value, evidence in itertools.product((0.0, 1.0), repeat=2):
            then = brute.world({set_: value})
            exact = brute.probability(then[:, INDEX[of]] == 1, before[:, INDEX[given]] == evidence)
            sides = [
                World(*seen(model, **{given: evidence})),
                World(*nothing(model), {set_: value}),
            ]
            assert joint(model, sides, [(1, of)]).mean()[0] == pytest.approx(exact, abs=1e-12)


def test_every_question_of_three_variables_with_evidence_after_equals_brute_force(model, brute):
    for set_, of, given in itertools.permutations(NAMES, 3):
        for value, evidence in itertools.product((0.0, 1.0), repeat=2):
            then = brute.world({set_: value})
            exact = brute.probability(then[:, INDEX[of]] == 1, then[:, INDEX[given]] == evidence)
            world = World(*seen(model, **{given: evidence}), {set_: value})
            assert joint(model, [world], [(0, of)]).mean()[0] == pytest.approx(exact, abs=1e-12)


def test_evidence_on_what_is_set_and_both_places_at_once_equal_brute_force(model, brute):
    before = brute.world({})
    for set_, of in itertools.permutations(NAMES, 2):
        then = brute.world({set_: 1.0})
        exact = brute.probability(
            then[:, INDEX[of]] == 1,
            (before[:, INDEX[set_]] == 0) & (before[:, INDEX[of]] == 0),
        )
        sides = [World(*seen(model, **{set_: 0.0, of: 0.0})), World(*nothing(model), {set_: 1.0})]
        assert joint(model, sides, [(1, of)]).mean()[0] == pytest.approx(exact, abs=1e-12)
    then = brute.world({"pleural_effusion": 1.0, "sex": 0.0})
    exact = brute.probability(
        then[:, INDEX["atelectasis"]] == 1,
        (before[:, INDEX["support_devices"]] == 0) & (then[:, INDEX["pneumothorax"]] == 0),
    )
    sides = [
        World(*seen(model, support_devices=0.0)),
        World(*seen(model, pneumothorax=0.0), {"pleural_effusion": 1.0, "sex": 0.0}),
    ]
    assert joint(model, sides, [(1, "atelectasis")]).mean()[0] == pytest.approx(exact, abs=1e-12)


def test_a_nested_counterfactual_equals_brute_force(model, brute):
    """Support devices if sex stays F, but pneumothorax is as it would be if sex were M."""
    male = brute.world({"sex": 1.0})
    nested = brute.world({"sex": 0.0, "pneumothorax": male[:, INDEX["pneumothorax"]]})
    exact = brute.probability(nested[:, INDEX["support_devices"]] == 1, 1.0)
    sides = [
        World(*nothing(model), {"sex": 1.0}),
        World(*nothing(model), {"sex": 0.0, "pneumothorax": As(0)}),
    ]
    found = joint(model, sides, [(1, "support_devices")]).mean()[0]
    assert found == pytest.approx(exact, abs=1e-12)


def test_rows_are_answered_each_for_itself(model):
    values = np.zeros((40, 19))
    known = np.zeros((40, 19), bool)
    rng = np.random.default_rng(0)
    columns = [INDEX[name] for name in NAMES]
    known[:, columns] = rng.random((40, 5)) < 0.5
    values[:, columns] = (rng.random((40, 5)) < 0.5) * known[:, columns]
    do = {"pleural_effusion": rng.integers(0, 2, 40).astype(float)}
    empty = np.zeros_like(known)
    together = joint(model, [World(values, known), World(values, empty, do)], [(1, "atelectasis")])
    for i in range(40):
        row = slice(i, i + 1)
        own = {name: value[row] for name, value in do.items()}
        sides = [World(values[row], known[row]), World(values[row], empty[row], own)]
        single = joint(model, sides, [(1, "atelectasis")]).mean()[0]
        assert together.mean()[i] == pytest.approx(single, abs=1e-12)


def test_too_many_particles_are_resampled_with_a_stated_error(model, brute, monkeypatch):
    exact = joint(model, [World(*nothing(model))], [(0, "atelectasis")])
    assert exact.error == 0
    monkeypatch.setattr(worlds, "MOST", 2)
    found = joint(model, [World(*nothing(model))], [(0, "atelectasis")])
    assert found.error > 0
    assert found.mean()[0] == pytest.approx(exact.mean()[0], abs=3 * found.error)


def test_what_cannot_be_is_refused(model):
    with pytest.raises(ConfigError, match="both set and seen"):
        joint(model, [World(*seen(model, sex=1.0), {"sex": 0.0})], [(0, "atelectasis")])


def test_unknown_age_is_integrated_over(fitted, population):
    """Against the model's own probabilities in the population, of which age is drawn."""
    values, known = nothing(fitted)
    columns = ["sex", "race"]
    for name, value in (("sex", 1.0), ("race", 0.0)):
        values[0, INDEX[name]], known[0, INDEX[name]] = value, True
    alike = (population.values[:, [INDEX[n] for n in columns]] == [1, 0]).all(1)
    rows = population.values[alike].astype(float)
    expected = fitted.probability("cardiomegaly", rows).mean()
    found = joint(fitted, [World(values, known)], [(0, "cardiomegaly")])
    assert found.mean()[0] == pytest.approx(expected, abs=0.005)
