import dataclasses

import numpy as np
import pytest

from rfxray.causes import fitting, independence, judged
from rfxray.causes.graph import read_graph
from rfxray.causes.tables import Table, of_attributes
from tests.rfxray.causes.conftest import part

NAMES = ("age", "sex", "fracture", "pneumothorax", "atelectasis")


@pytest.fixture(scope="module")
def table(population):
    return of_attributes(population.rows(np.arange(8000)))


@pytest.fixture(scope="module")
def graph():
    return part(read_graph(), *NAMES)


def test_the_right_graph_is_not_contradicted_and_all_of_its_edges_are_seen(graph, table):
    tests = independence.checked(fitting.fit(graph, table, "logistic"), table)
    assert not independence.failing(tests)
    assert not independence.unseen(tests)
    edges = {(t.cause, t.effect) for t in tests if t.edge}
    assert edges == set(graph.edges())
    assert len(tests) == len(NAMES) * (len(NAMES) - 1) / 2
    p = [t.p for t in tests if not t.edge]
    assert min(p) > 1e-3


def test_an_edge_that_is_missing_is_found_and_one_too_many_is_listed(graph, table):
    wrong = {
        **graph.parents,
        "pneumothorax": ("age", "sex"),
        "atelectasis": ("pneumothorax", "sex"),
    }
    model = fitting.fit(dataclasses.replace(graph, parents=wrong), table, "logistic")
    tests = independence.checked(model, table)
    (missing,) = independence.failing(tests)
    assert (missing.cause, missing.effect) == ("fracture", "pneumothorax")
    assert missing.size > 0.01
    (extra,) = independence.unseen(tests)
    assert (extra.cause, extra.effect) == ("sex", "atelectasis")


def test_rows_of_a_patient_count_as_one(graph, table):
    """Each row twice, of one patient: a test of independent rows would double the statistic."""
    twice = Table(
        *(np.repeat(getattr(table, field.name), 2, 0) for field in dataclasses.fields(Table))
    )
    once, other = (
        independence.checked(fitting.fit(graph, t, "logistic"), t) for t in (table, twice)
    )
    for a, b in zip(once, other, strict=True):
        if not a.edge:
            assert b.statistic == pytest.approx(a.statistic, rel=0.05, abs=0.05)


def test_noise_of_patients_with_many_rows_is_not_called_uneven_by_chance(population):
    """300 patients of 20 rows, each of one age: as far from uniform as 300 values are."""
    graph = part(read_graph(), "age", "cardiomegaly")
    whole = of_attributes(population.rows(np.arange(4000)))
    rows = np.repeat(np.arange(4000, 4300), 20)
    ages = of_attributes(population.rows(rows))
    aside = dataclasses.replace(ages, patients=rows - 4000)
    model = fitting.fit(graph, whole, "logistic")
    age = judged.judge(model, model, whole, aside)["age"]
    assert age.by_chance == pytest.approx(1.63 / 300**0.5)
    assert 1.63 / 6000**0.5 < age.kolmogorov < age.by_chance


def test_adjusted_p_values_are_those_of_holm_and_of_benjamini_and_hochberg():
    def made(p, edge):
        return independence.Test("a", "b", edge, 10, 1.0, 1, p)

    p = [0.01, 0.04, 0.03, 0.005]
    found = independence._adjusted([made(x, edge) for edge in (False, True) for x in p])
    assert [round(t.adjusted, 4) for t in found[:4]] == [0.03, 0.06, 0.06, 0.02]
    assert [round(t.adjusted, 4) for t in found[4:]] == [0.02, 0.04, 0.04, 0.02]
