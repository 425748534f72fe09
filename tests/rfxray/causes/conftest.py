import dataclasses
import json

import numpy as np
import pytest

from data_prep import phantom
from data_prep.phantom import causes, interacting
from rfxray.attributes.states import known_from_states
from rfxray.attributes.vocabulary import INDEX, Attributes, all_known
from rfxray.causes import fitting
from rfxray.causes.design import Cause, linear
from rfxray.causes.graph import Graph, read_graph
from rfxray.causes.mechanisms import Mechanism, StructuralModel
from rfxray.causes.tables import of_attributes

MANY = np.arange(20_000)


@pytest.fixture(scope="session")
def population():
    return all_known(phantom.draw_attributes(0, MANY))


@pytest.fixture(scope="session")
def recorded(population):
    """The population as recorded, with some attributes unknown."""
    states = phantom.draw_states(0, MANY, population.values)
    return Attributes(phantom.observe(population.values, states), known_from_states(states))


@pytest.fixture(scope="session")
def fitted(population):
    """The logistic form, which is the truth there: the fastest model of all variables."""
    return fitting.fit(read_graph(), of_attributes(population), "logistic", replicates=20)


@pytest.fixture(scope="session")
def second(tmp_path_factory):
    """`second(n, seed)`: the second world's graph, a table of it, attributes and heart sizes."""
    file = tmp_path_factory.mktemp("graph") / "graph.json"
    file.write_text(json.dumps(interacting.graph()))
    graph = read_graph(file)

    def make(n, seed=0):
        values, heart = interacting.draw(seed, np.arange(n))
        return graph, of_attributes(all_known(values), heart[:, None]), values, heart

    return make


def part(graph, *names):
    """A graph of some variables: edges between them only."""
    parents = {n: tuple(p for p in graph.parents[n] if p in names) for n in graph.parents}
    return dataclasses.replace(graph, parents={n: parents[n] for n in parents if n in names})


def true_model(*names):
    """The phantom's own model of some of its binary variables, without what else acts on them."""
    graph = part(read_graph(), *names)
    mechanisms = {}
    for name, parents in graph.parents.items():
        logit = causes.BASE.get(name, 0.08)  # of sex, P = 0.52
        edges = [causes.EDGES[name][parent] for parent in parents]
        mechanisms[name] = Mechanism(
            column=INDEX[name],
            parents=parents,
            design=linear([Cause(INDEX[parent], 2) for parent in parents]),
            weights=-np.array([[logit, *edges]]),
            edges=np.empty(0),
            unit=0.0,
            rows=1000,
            seen=np.array([500, 500]),
            replicates=np.empty((0, 1, 1 + len(edges)), np.float32),
        )
    return StructuralModel(Graph("part", graph.parents), mechanisms)
