"""Queries of three variables in the whole of the phantom's own model, against tensor contraction.

Two worlds share their noise: a variable and its twin have one table given the causes of both, and
the tables are contracted. The probabilities come from the phantom's coefficients, not from the
mechanisms that are tested. Age and race are left out: the fourteen others have two values.
"""

import itertools

import numpy as np
import pytest
from scipy.special import expit

from data_prep.phantom import causes
from rfxray.attributes.vocabulary import INDEX
from rfxray.causes.worlds import World, joint, nothing
from tests.rfxray.causes.conftest import true_model

NAMES = ("sex", *causes.BASE)
PARENTS = {"sex": (), **{n: tuple(p for p in causes.EDGES[n] if p in NAMES) for n in causes.BASE}}
PLACE = {name: k for k, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def model():
    return true_model(*NAMES)


def chances(name: str) -> np.ndarray:
    """P(present) for each combination of causes, [2, …]."""
    parents = PARENTS[name]
    logit = np.full((2,) * len(parents), causes.BASE.get(name, 0.08))
    for axis, parent in enumerate(parents):
        own = np.arange(2.0) * causes.EDGES[name][parent]
        logit = logit + own.reshape([-1 if k == axis else 1 for k in range(len(parents))])
    return expit(logit)


def exact(do: dict[str, int], wanted: list[tuple[int, str]]) -> np.ndarray:
    """The joint table of variables of two worlds: as it was (0), and under an intervention (1)."""
    operands: list = []
    for name, parents in PARENTS.items():
        p = chances(name)
        then = p.reshape(p.shape + (1,) * len(parents)), p.reshape((1,) * len(parents) + p.shape)
        axes = [PLACE[q] for q in parents]
        if name in do:
            operands += [np.stack([1 - p, p], -1), [*axes, PLACE[name]]]
            operands += [np.eye(2)[do[name]], [PLACE[name] + 14]]
            continue
        one, other = np.broadcast_arrays(*then)
        table = np.stack(
            [
                np.stack([1 - np.maximum(one, other), np.maximum(other - one, 0)], -1),
                np.stack([np.maximum(one - other, 0), np.minimum(one, other)], -1),
            ],
            -2,
        )
        both = [*axes, *(a + 14 for a in axes), PLACE[name], PLACE[name] + 14]
        operands += [table, both]
    asked = [PLACE[name] + 14 * world for world, name in wanted]
    return np.einsum(*operands, asked, optimize="greedy")


def seen(model, **what):
    values, known = nothing(model)
    for name, value in what.items():
        values[0, INDEX[name]], known[0, INDEX[name]] = value, True
    return values, known


def agrees(model, do: dict[str, int], of: str, given: str) -> None:
    """Evidence before, after, and in both places, of either value."""
    table = exact(do, [(1, of), (0, given), (1, given)])
    setting = {name: float(value) for name, value in do.items()}
    for was, then in itertools.product((0, 1, None), repeat=2):
        part = table.sum(1, keepdims=True) if was is None else table[:, was : was + 1]
        part = part.sum(2) if then is None else part[:, :, then]
        if part.sum() < 1e-9:  # what cannot be
            continue
        before = {} if was is None else {given: float(was)}
        after = {} if then is None else {given: float(then)}
        sides = [World(*seen(model, **before)), World(*seen(model, **after), setting)]
        found = joint(model, sides, [(1, of)]).mean()[0]
        assert found == pytest.approx(part[1].sum() / part.sum(), abs=1e-11), (do, of, given)


def test_some_questions_in_the_whole_model_equal_contraction(model):
    """Evidence above, below and beside what is set, and two interventions."""
    agrees(model, {"pleural_effusion": 1}, "lung_opacity", "pneumonia")
    agrees(model, {"pleural_effusion": 0}, "atelectasis", "support_devices")
    agrees(model, {"pneumothorax": 1}, "lung_lesion", "edema")
    agrees(model, {"sex": 1, "pneumonia": 0}, "lung_opacity", "pleural_effusion")


@pytest.mark.drill
@pytest.mark.parametrize("set_", NAMES)
def test_every_question_of_three_variables_in_the_whole_model(model, set_):
    for value in (0, 1):
        for of, given in itertools.permutations([n for n in NAMES if n != set_], 2):
            agrees(model, {set_: value}, of, given)


@pytest.mark.drill
@pytest.mark.parametrize("number", range(40))
def test_several_interventions_at_once_in_the_whole_model(model, number):
    rng = np.random.default_rng(number)
    names = [str(name) for name in rng.permutation(NAMES)]
    do = {name: int(rng.integers(2)) for name in names[: rng.integers(2, 5)]}
    agrees(model, do, names[-1], names[-2])
