"""A structural causal model of the attributes: its graph and its mechanisms.

The graph is data (`graph.json`, child → parents). Every finding with parents is present if
u < p, u ~ U(0, 1) its own noise and p = sigmoid(b + Σ w·parent) fitted to a data set's table.
View, source and No Finding (which is derived) are the children of no attribute.
`abduction.py` says what follows from an intervention.
"""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rfxray.attributes import vocabulary
from rfxray.attributes.states import known_from_states
from rfxray.attributes.vocabulary import (
    ATTRIBUTES,
    FINDING_NAMES,
    INDEX,
    Attributes,
    lookup,
)
from rfxray.data.dataset import Dataset, Records
from rfxray.errors import ConfigError, DataError

GRAPH = Path(vocabulary.__file__).with_name("graph.json")


POPULATION = 4096  # rows kept of a table, evenly spaced

# Penalty that pulls the weights of the logits towards 0, like so many rows that show no effect. An
# effect that a small table never contradicts would be infinite without it.
_RIDGE = 1.0


@dataclasses.dataclass(frozen=True)
class Graph:
    """Which attribute acts on which.

    Attributes:
      name: Name of the graph.
      parents: Parents of each child, in causal order.
    """

    name: str
    parents: dict[str, tuple[str, ...]]

    def descendants(self, names: Iterable[str]) -> tuple[str, ...]:
        """What an intervention on `names` can change, in causal order; not those themselves."""
        reached = set(names)
        for child, parents in self.parents.items():
            if reached & set(parents):
                reached.add(child)
        return tuple(child for child in self.parents if child in reached - set(names))


def read_graph(path: str | Path = GRAPH) -> Graph:
    """A graph from its file: {"name": …, "parents": {child: [parent, …]}}.

    Raises:
      ConfigError: if it does not parse, names something that is not an attribute, gives parents
        to anything except a finding, has No Finding (derived) as a child or a parent, or has a
        cycle.
    """
    try:
        tree = json.loads(Path(path).read_text())
        given = {str(c): tuple(map(str, p)) for c, p in tree["parents"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is not a causal graph of attributes: {error}") from error
    given = {lookup(c).name: tuple(lookup(p).name for p in ps) for c, ps in given.items()}
    for child, parents in given.items():
        if child not in FINDING_NAMES or child == "no_finding" or "no_finding" in parents:
            raise ConfigError(
                f"{path}: only findings except no_finding may have parents, and no_finding has no "
                f"children (got {child}: {', '.join(parents)})"
            )
    ordered: dict[str, tuple[str, ...]] = {}
    while len(ordered) < len(given):
        ready = [
            child
            for child, parents in given.items()
            if child not in ordered and all(p in ordered or p not in given for p in parents)
        ]
        if not ready:
            raise ConfigError(f"{path}: the graph has a cycle")
        ordered |= {child: given[child] for child in ready}
    return Graph(str(tree.get("name", "")), ordered)


@dataclasses.dataclass(frozen=True)
class StructuralModel:
    """The fitted mechanisms.

    Attributes:
      graph: Graph of the attributes.
      weights: For each child, weights of its `design` columns.
      rows: For each child, number of rows in which it was known.
      population: Some rows of the table, [rows, 19], from which unknown causes are drawn.
    """

    graph: Graph
    weights: dict[str, np.ndarray]
    rows: dict[str, int]
    population: Attributes

    def probability(self, child: str, attributes: Attributes) -> np.ndarray:
        """P(child present | its parents), [n] float64, from attributes [n, 19]."""
        columns = design(self.graph.parents[child], attributes)
        return _sigmoid(columns @ self.weights[child])


def design(parents: Iterable[str], attributes: Attributes) -> np.ndarray:
    """The parents as columns of a logistic regression, [n, columns] float64, of attributes [n, 19].

    A constant; for each parent its value if known (age in decades from 50, a finding as 0 or 1, a
    column for each category except the first), and 1 in a column of its own if unknown.
    """
    values, known_values = np.asarray(attributes.values, np.float64), np.asarray(attributes.known)
    columns = [np.ones(len(values))]
    for name in parents:
        attribute, i = ATTRIBUTES[INDEX[name]], INDEX[name]
        known, value = known_values[:, i], values[:, i]
        if attribute.continuous:
            columns.append(np.where(known, (value - 50) / 10, 0.0))
        else:
            columns += [known & (value == k) for k in range(1, len(attribute.values))]
        columns.append(~known)
    return np.stack(columns, axis=1).astype(np.float64)


def fit(graph: Graph, attributes: Attributes) -> StructuralModel:
    """Every mechanism by penalised maximum likelihood (Newton's method).

    Args:
      graph: Graph of the attributes.
      attributes: Table of a data set, [n, 19].

    Raises:
      DataError: if a finding is present in all rows in which it is known, or in none.
    """
    weights, rows = {}, {}
    for child, parents in graph.parents.items():
        known = attributes.rows(attributes.known[:, INDEX[child]])
        present = np.asarray(known.values[:, INDEX[child]] > 0.5)
        if present.all() or not present.any():
            raise DataError(f"the table cannot show what {child} depends on: it never varies there")
        weights[child] = _logistic(design(parents, known), present)
        rows[child] = len(present)
    every = np.linspace(0, len(attributes.values) - 1, min(POPULATION, len(attributes.values)))
    return StructuralModel(graph, weights, rows, attributes.rows(every.astype(int)))


def fit_dataset(graph: Graph, dataset: Dataset, split: str = "train") -> StructuralModel:
    """`fit` to the table of a data set; reads every record of the split, without its image.

    Raises:
      ConfigError: if there is no such split.
    """
    if split not in dataset.shards:
        raise ConfigError(f"data set {dataset.path} has no split {split!r}")
    records = Records(dataset, split)
    labels = (records.labels(number) for number in range(len(records)))
    rows = [Attributes(each["attributes"], known_from_states(each["states"])) for each in labels]
    return fit(graph, vocabulary.stack(rows))


def _logistic(columns: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Weights [columns]; only that of the constant is not pulled towards 0."""
    pull = _RIDGE * np.eye(columns.shape[1])
    pull[0, 0] = 0
    weights = np.zeros(columns.shape[1])
    for _ in range(50):
        p = _sigmoid(columns @ weights)
        slope = columns.T @ (present - p) - pull @ weights
        curvature = (columns * (p * (1 - p))[:, None]).T @ columns + pull
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(pull)), slope)
        weights += step
        if np.abs(step).max() < 1e-9:
            break
    return weights


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
