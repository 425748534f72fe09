import dataclasses

import numpy as np
import pytest

from data_prep import phantom
from rfxray.attributes.vocabulary import INDEX
from rfxray.causes import contrasts, effects
from rfxray.causes.effects import Question, answer, e_value, expected_rows
from rfxray.errors import ConfigError
from tests.rfxray.causes.conftest import MANY, true_model


def drawn(**do):
    return phantom.draw_attributes(3, np.arange(200_000), do)


def test_average_effects_are_those_of_the_phantom(fitted):
    for question in (
        Question("pleural_effusion", {"age": 80.0}, {"age": 40.0}),
        Question("atelectasis", {"cardiomegaly": 1.0}, {"cardiomegaly": 0.0}),
    ):
        found = answer(fitted, question)
        i = INDEX[question.of]
        then, before = (drawn(**dict(do))[:, i].mean() for do in (question.do, question.versus))
        low, high = found.difference_interval
        assert low < found.difference < high
        assert found.difference == pytest.approx(then - before, abs=0.01)


def test_evidence_before_and_after_the_intervention_are_different_questions(fitted):
    """A heart that was small before the change keeps its noise; one that is small after it is
    selected."""
    do, heart, i = {"age": 80.0}, INDEX["cardiomegaly"], INDEX["pleural_effusion"]
    natural, old = drawn(), drawn(**do)
    before = answer(fitted, Question("pleural_effusion", do, given={"cardiomegaly": 0.0}))
    after = answer(fitted, Question("pleural_effusion", do, after={"cardiomegaly": 0.0}))
    assert before.then == pytest.approx(old[natural[:, heart] == 0, i].mean(), abs=0.012)
    assert after.then == pytest.approx(old[old[:, heart] == 0, i].mean(), abs=0.012)
    assert before.then > after.then + 0.03


def test_no_finding_is_evidence_both_ways(fitted):
    """Present: all 12 pathologies absent. Absent: one of them is there, which no variable says."""
    do, i, last = {"age": 80.0}, INDEX["pleural_effusion"], INDEX["no_finding"]
    natural, old = drawn(), drawn(**do)
    for value in (0.0, 1.0):
        given = {"no_finding": value, "sex": 1.0}
        rows = (natural[:, last] == value) & (natural[:, INDEX["sex"]] == 1)
        before = answer(fitted, Question("pleural_effusion", do, given=given))
        assert before.then == pytest.approx(old[rows, i].mean(), abs=0.012)
        rows = (old[:, last] == value) & (old[:, INDEX["sex"]] == 1)
        after = answer(fitted, Question("pleural_effusion", do, after=given))
        assert after.then == pytest.approx(old[rows, i].mean(), abs=0.012)
    # The law of total probability holds to rounding.
    parts = [
        sum(s * expected_rows(fitted, {"sex": 1.0}, p) for s, p in effects.settled(fitted, given))
        for given in ({"no_finding": 0.0}, {"no_finding": 1.0}, {})
    ]
    assert parts[0] + parts[1] == pytest.approx(parts[2])
    known = Question("lung_lesion", do, given={"no_finding": 0.0, "pneumonia": 1.0})
    same = Question("lung_lesion", do, given={"pneumonia": 1.0})
    assert answer(fitted, known).then == answer(fitted, same).then


def test_no_finding_that_says_nothing_exact_is_refused(fitted):
    do = {"pneumonia": 1.0}
    with pytest.raises(ConfigError, match="contradicts"):
        answer(fitted, Question("edema", do, given={"no_finding": 1.0, "edema": 1.0}))
    with pytest.raises(ConfigError, match="a pathology is set"):
        answer(fitted, Question("edema", do, after={"no_finding": 0.0}))
    part = true_model("sex", "pneumothorax", "pleural_effusion")
    with pytest.raises(ConfigError, match="does not have"):
        answer(part, Question("pleural_effusion", {"sex": 1.0}, given={"no_finding": 0.0}))


def test_what_acts_through_the_heart_is_the_nested_counterfactual(fitted):
    young, old = drawn(age=40.0), drawn(age=80.0)
    nested = drawn(age=40.0, cardiomegaly=old[:, INDEX["cardiomegaly"]])
    i = INDEX["pleural_effusion"]
    question = Question("pleural_effusion", {"age": 80.0}, {"age": 40.0}, through=("cardiomegaly",))
    found = answer(fitted, question)
    assert found.difference == pytest.approx(nested[:, i].mean() - young[:, i].mean(), abs=0.008)
    total = answer(fitted, dataclasses.replace(question, through=()))
    assert 0 < found.difference < total.difference
    # Effusion has three causes that age acts on: together they are all of it.
    every = ("cardiomegaly", "pleural_other", "pneumonia")
    whole = answer(fitted, dataclasses.replace(question, through=every))
    assert whole.difference == pytest.approx(total.difference, abs=1e-9)


def test_several_interventions_at_once(fitted):
    do = {"pneumothorax": 1.0, "pleural_effusion": 0.0}
    found = answer(fitted, Question("support_devices", do))
    exact = drawn(**do)[:, INDEX["support_devices"]].mean()
    assert found.then == pytest.approx(exact, abs=0.02)


def test_an_intervention_moves_no_variable_that_does_not_descend_from_it(fitted):
    for name in ("age", "fracture", "edema"):
        found = answer(fitted, Question(name, {"pleural_effusion": 1.0}))
        assert found.difference == 0


@pytest.mark.parametrize(
    ("ratio", "expected"), [(3.9, 7.26), (1.8, 3.0), (1.0, 1.0), (1 / 3.9, 7.26)]
)
def test_e_values_are_the_published_ones(ratio, expected):
    """VanderWeele and Ding 2017: maternal breastfeeding and infant death, RR 3.9 (1.8, 8.7)."""
    assert e_value(ratio) == pytest.approx(expected, abs=0.005)


def test_expected_rows_count_those_that_are_near_and_alike(fitted, population):
    values = population.values
    alike = (np.abs(values[:, INDEX["age"]] - 80) <= 5) & (values[:, INDEX["sex"]] == 1)
    found = expected_rows(fitted, {"age": 80.0}, {"sex": 1.0, "cardiomegaly": 1.0})
    assert found == pytest.approx(alike.sum(), rel=0.35)  # of 32 ages
    given = {"age": 20.0, "sex": 0.0, "cardiomegaly": 1.0, "race": 2.0}
    rare = expected_rows(fitted, {"fracture": 1.0}, given)
    everyone = expected_rows(fitted, {"fracture": 1.0}, {})
    assert rare < everyone / 50
    assert everyone == pytest.approx(values[:, INDEX["fracture"]].sum(), rel=0.05)


def test_what_the_table_never_shows_is_refused(fitted):
    with pytest.raises(ConfigError, match="age=119 is outside of what the table shows"):
        effects.refuse_unsupported(fitted, {"age": 119.0})
    one = fitted.mechanisms["race"]
    never = dataclasses.replace(one, seen=np.array([100, 0, 5, 5]))
    model = dataclasses.replace(fitted, mechanisms={**fitted.mechanisms, "race": never})
    with pytest.raises(ConfigError, match="no row of the table has race=Black"):
        effects.refuse_unsupported(model, {"race": 1.0})


@pytest.mark.parametrize(
    ("question", "part"),
    [
        (Question("edema", {"no_finding": 1.0}), "no_finding follows"),
        (Question("edema", {"view": 1.0}), "no variable view"),
        (Question("edema", {"age": 60.0}, after={"age": 60.0}), "age is set"),
        (Question("edema", {"age": 60.0}, through=("fracture",)), "no path leads"),
        (Question("edema", {"age": 60.0}, through=("edema",)), "no path leads"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(fitted, question, part):
    with pytest.raises(ConfigError, match=part):
        answer(fitted, question)


def test_bounds_hold_for_every_order_of_the_categories():
    """A binary variable taken as one without an order: its two orders give the extremes."""
    model = true_model("sex", "fracture")
    question = Question("fracture", {"sex": 1.0}, given={"sex": 0.0, "fracture": 1.0})
    before, then = (answer(model, Question("fracture", {"sex": s})).then for s in (0.0, 1.0))
    low, high = effects.frechet(model, question, 1.0)
    ordered = answer(model, question).then
    reverse = max(0.0, before + then - 1) / before
    assert low == pytest.approx(reverse)
    assert high == pytest.approx(ordered) == pytest.approx(1.0)
    with pytest.raises(ConfigError, match="bounds need evidence on fracture"):
        effects.frechet(model, dataclasses.replace(question, given={"sex": 0.0}), 1.0)


def test_the_table_of_effects_agrees_with_single_answers(fitted):
    found = {(e.cause, e.effect): e for e in contrasts.measured(fitted)}
    for cause, effect, then, before in (
        ("age", "pleural_effusion", 75.0, 40.0),
        ("pleural_effusion", "atelectasis", 1.0, 0.0),
    ):
        exact = answer(fitted, Question(effect, {cause: then}, {cause: before}))
        one = found[cause, effect]
        assert one.difference == pytest.approx(exact.difference, abs=0.002)
        width = exact.difference_interval[1] - exact.difference_interval[0]
        assert one.high - one.low == pytest.approx(width, rel=0.3)
    assert ("edema", "age") not in found
    assert len(MANY) == fitted.mechanisms["sex"].rows
