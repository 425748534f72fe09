import dataclasses

import numpy as np
import pytest
from scipy.special import expit

from data_prep import phantom
from data_prep.phantom import causes
from rfxray.attributes.vocabulary import (
    INDEX,
    PATHOLOGY_NAMES,
    Attributes,
    encode,
    stack,
)
from rfxray.causes import abduction, fitting
from rfxray.causes.abduction import Abducted, abduct, counterfactual, predict
from rfxray.causes.effects import Question, answer
from rfxray.causes.mechanisms import Mechanism
from rfxray.causes.tables import named
from rfxray.errors import ConfigError
from tests.rfxray.causes.conftest import MANY, part


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
            # 3 standard errors of a difference that 5,600 of the rows with an effusion show
            assert found == pytest.approx(exact, abs=0.02)
        assert chances[name].mean() == pytest.approx(after[:, i].mean(), abs=0.01)
    for name in ("atelectasis", "support_devices"):  # their other cause stays as it was
        was, now = (expit(causes.logit(name, table)) for table in (before, true))
        there, then = before[:, INDEX[name]] > 0.5, true[:, INDEX[name]]
        exact = np.where(there, np.minimum(now / was, 1), np.maximum(now - was, 0) / (1 - was))
        brier, of_truth = (((p - then) ** 2).mean() for p in (chances[name], exact))
        assert brier == pytest.approx(of_truth, abs=0.005)
    untouched = [i for n, i in INDEX.items() if n not in {*do, *chances, "no_finding"}]
    np.testing.assert_array_equal(after[:, untouched], before[:, untouched])


@pytest.mark.parametrize("name", ["age", "sex", "pleural_effusion"])
def test_setting_an_observed_value_changes_nothing(fitted, population, recorded, name):
    """Whether every attribute is known or the records have gaps."""
    for table, rows in ((population, MANY[:2000]), (recorded, np.arange(20))):
        some = table.rows(rows).rows(table.known[rows, INDEX[name]])
        after, _ = counterfactual(fitted, some, {name: some.values[:, INDEX[name]]})
        np.testing.assert_array_equal(after.values, some.values)
        np.testing.assert_array_equal(after.known, some.known)


def test_doing_nothing_goes_through_abduction_and_prediction_and_is_the_identity(
    fitted, recorded, monkeypatch
):
    """A spy counts the mechanisms: nothing is copied past them."""
    calls = []
    value, interval = Mechanism.value, Mechanism.interval
    monkeypatch.setattr(
        Mechanism, "value", lambda self, *a: calls.append("predicted") or value(self, *a)
    )
    monkeypatch.setattr(
        Mechanism, "interval", lambda self, *a: calls.append("abducted") or interval(self, *a)
    )
    some = recorded.rows(np.arange(50))
    start = abduct(fitted, some.values, some.known, np.arange(50, dtype=np.uint64))
    calls.clear()
    after = predict(fitted, start, {})
    assert calls.count("predicted") == len(fitted.mechanisms)
    columns = [INDEX[name] for name in fitted.mechanisms]
    np.testing.assert_array_equal(
        after[:, columns].astype(np.float32), start.values[:, columns].astype(np.float32)
    )
    known = some.known[:, columns]
    np.testing.assert_array_equal(
        after[:, columns].astype(np.float32)[known], some.values[:, columns][known]
    )


def test_noise_is_kept_and_given_back_there_and_back_is_the_identity(fitted, population, tmp_path):
    some = population.rows(np.arange(500))
    keys = np.array([named(f"phantom/p{i}") for i in range(500)])
    start = abduct(fitted, some.values, some.known, keys, seed=3)
    np.savez(tmp_path / "noise.npz", values=start.values, noise=start.noise)
    with np.load(tmp_path / "noise.npz") as kept:
        start = Abducted(kept["values"], kept["noise"])
    there = predict(fitted, start, {"age": 80.0, "fracture": 1.0})
    assert (there != start.values).any(0).sum() > 5
    away = abduct(fitted, there, np.ones(there.shape, bool), keys)
    own = {n: start.values[:, INDEX[n]] for n in ("age", "fracture")}
    # With its own noise, not with new noise that `there` leaves open.
    back = predict(fitted, Abducted(away.values, start.noise), own)
    np.testing.assert_array_equal(back.astype(np.float32), some.values)


def test_noise_of_a_record_is_keyed_by_its_key_and_not_by_its_place(fitted, recorded):
    some = recorded.rows(np.arange(60))
    keys = np.array([named(f"p{i}") for i in range(60)])
    whole = abduct(fitted, some.values, some.known, keys)
    order = np.random.default_rng(0).permutation(60)[:25]
    other = abduct(fitted, some.values[order], some.known[order], keys[order])
    np.testing.assert_allclose(other.noise, whole.noise[order], rtol=1e-12)
    np.testing.assert_array_equal(other.values, whole.values[order])
    assert (abduct(fitted, some.values, some.known, keys, seed=1).noise != whole.noise).any()


def test_abducted_noise_is_uniform(fitted, recorded):
    """Also of variables that are unknown, which are drawn given what is known."""
    some = recorded.rows(np.arange(3000))
    start = abduct(fitted, some.values, some.known, np.arange(3000, dtype=np.uint64))
    for name in fitted.mechanisms:
        u = np.sort(start.noise[:, INDEX[name]])
        steps = np.arange(1, len(u) + 1) / len(u)
        assert np.abs(u - steps).max() < 2.2 / len(u) ** 0.5, name  # 1e-4 by chance


def test_no_finding_implies_that_every_pathology_is_absent(fitted):
    """So adding an effusion can only make other findings appear: none was present before."""
    many = stack([encode({"age": 80, "sex": "F", "race": "White", "no_finding": "present"})] * 500)
    (after, known), chances = counterfactual(fitted, many, {"pleural_effusion": 1.0})
    i = INDEX["atelectasis"]
    absent = dict.fromkeys(PATHOLOGY_NAMES, "absent")
    before, now = (
        fitted.probability("atelectasis", stack([encode({**absent, **change})]).values)[0]
        for change in ({}, {"pleural_effusion": "present"})
    )
    exact = (now - before) / (1 - before)
    assert chances["atelectasis"] == pytest.approx(exact)
    assert after[:, i].mean() == pytest.approx(exact, abs=0.08)  # 3.5 standard errors of 500
    assert known[:, i].all()
    assert known[:, INDEX["no_finding"]].all()
    assert not after[:, INDEX["no_finding"]].any()


def simulated(model, start, noise, do):
    """Patients [n, 19] by the mechanisms from what `start` says of the causes without causes."""
    people = np.tile(start.values, (len(noise), 1)).astype(float)
    for name, value in do.items():
        people[:, INDEX[name]] = value
    for column, (child, parents) in enumerate(model.graph.parents.items()):
        if parents and child not in do:
            people[:, INDEX[child]] = noise[:, column] < model.probability(child, people)
    return people


@pytest.mark.parametrize(
    ("shown", "do", "child"),
    [
        ({"age": 40, "pleural_effusion": "absent"}, {"age": 85.0}, "pleural_effusion"),
        ({"age": 60, "edema": "present", "lung_lesion": "present"}, {"edema": 0.0}, "lung_lesion"),
    ],
)
def test_unknown_mediators_are_summed_over(fitted, shown, do, child):
    """Against simulated patients of whom only those are kept who show what was observed."""
    observed = encode({"sex": "M", "race": "White", **shown})
    noise = np.random.default_rng(0).random((200_000, len(fitted.graph.parents)))
    before, then = (simulated(fitted, observed, noise, c) for c in ({}, do))
    findings = [INDEX[name] for name in shown if name != "age"]
    alike = (before[:, findings] == observed.values[findings]).all(1)
    exact = then[alike, INDEX[child]].mean()
    assert alike.sum() > 5000
    _, chances = counterfactual(fitted, stack([observed]), do)
    assert chances[child][0] == pytest.approx(exact, abs=0.012)
    assert 0 < chances[child][0] < 1


def test_an_unknown_value_before_the_change_is_summed_over(fitted):
    """What follows from age 30, of a patient of unknown age, is a mixture over ages."""
    observed = stack([encode({"sex": "M", "race": "White", "cardiomegaly": "absent"})])
    _, unknown = counterfactual(fitted, observed, {"age": 85.0})
    of_age = [
        counterfactual(
            fitted,
            stack([encode({"sex": "M", "race": "White", "age": a, "cardiomegaly": "absent"})]),
            {"age": 85.0},
        )[1]["cardiomegaly"][0]
        for a in (1, 40, 80)
    ]
    assert min(of_age) < unknown["cardiomegaly"][0] < max(of_age)


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


def test_a_change_that_nothing_follows_from_is_made(fitted):
    observed = stack([encode({"sex": "M", "cardiomegaly": "absent"})])
    after, chances = counterfactual(fitted, observed, {"view": 2.0})
    assert not chances
    assert after.values[0, INDEX["view"]] == 2


def test_uniform_numbers_are_uniform_and_depend_on_all_three_arguments():
    keys = np.arange(20_000, dtype=np.uint64)
    u = abduction.uniform(keys, 0, "age")
    assert u.min() >= 0
    assert u.max() < 1
    assert u.mean() == pytest.approx(0.5, abs=0.01)
    assert np.corrcoef(u, abduction.uniform(keys, 0, "sex"))[0, 1] == pytest.approx(0, abs=0.03)
    assert np.corrcoef(u, abduction.uniform(keys, 1, "age"))[0, 1] == pytest.approx(0, abs=0.03)


def test_a_continuous_child_keeps_its_rank_and_comes_back_to_its_own_value(second):
    graph, table, values, heart = second(4000)
    model = fitting.fit(part(graph, "age", "sex", "heart_size"), table, "logistic")
    rows = table.values[:200]
    start = abduct(model, rows, np.ones(rows.shape, bool), np.arange(200, dtype=np.uint64))
    np.testing.assert_allclose(predict(model, start, {})[:, 19], heart[:200], atol=1e-9)
    older = predict(model, start, {"age": 85.0, "sex": 1.0})[:, 19]
    order = np.argsort(start.noise[:, 19])
    assert (np.diff(older[order]) >= 0).all()
    back = predict(model, start, {"age": values[:200, 3], "sex": values[:200, 1]})[:, 19]
    np.testing.assert_allclose(back, heart[:200], atol=1e-9)


def test_a_continuous_child_cannot_be_seen_in_two_worlds_that_differ(second):
    graph, table, _, _ = second(2000)
    model = fitting.fit(part(graph, "age", "sex", "heart_size", "cardiomegaly"), table, "logistic")
    question = Question(
        "cardiomegaly", {"age": 80.0}, given={"heart_size": 0.5}, after={"heart_size": 0.6}
    )
    with pytest.raises(ConfigError, match="before or after the intervention, not both"):
        answer(model, question)
    before = answer(model, dataclasses.replace(question, after={}))
    after = answer(model, dataclasses.replace(question, given={}))
    assert 0 < before.then < 1
    assert 0 < after.then < 1
