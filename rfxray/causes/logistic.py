"""What follows from an intervention: a structural causal model of the attributes.

The graph is data (`graph.json`, child → parents). Every finding with parents is present if
u < p, u ~ U(0, 1) its own noise and p = sigmoid(b + Σ w·parent) fitted to a data set's table.
Abduction is exact: given what was observed, u is uniform below p (present) or above it (absent),
and nothing else is known of it. An intervention leaves every u as it is and changes the p of what
descends from it, so a finding can only change in the direction in which its p moved. What was not
known stays unknown, except if No Finding is present, which says that all 12 pathologies are absent.
View, source and No Finding (which is derived) are the children of no attribute.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from rfxray.attributes import vocabulary
from rfxray.attributes.states import known_from_states
from rfxray.attributes.vocabulary import (
    ATTRIBUTES,
    FINDING_NAMES,
    INDEX,
    PATHOLOGY_NAMES,
    Attributes,
    derive_no_finding,
    lookup,
)
from rfxray.data.dataset import Dataset, stored
from rfxray.errors import ConfigError, DataError

GRAPH = Path(vocabulary.__file__).with_name("graph.json")


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
    """

    graph: Graph
    weights: dict[str, np.ndarray]
    rows: dict[str, int]

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
    return StructuralModel(graph, weights, rows)


def fit_dataset(graph: Graph, dataset: Dataset, split: str = "train") -> StructuralModel:
    """`fit` to the table of a data set; reads every record of the split.

    Raises:
      ConfigError: if there is no such split.
    """
    if split not in dataset.shards:
        raise ConfigError(f"data set {dataset.path} has no split {split!r}")
    records = [
        Attributes(record["attributes"], known_from_states(record["states"]))
        for record in stored(dataset, split)
    ]
    return fit(graph, vocabulary.stack(records))


def counterfactual(
    model: StructuralModel, observed: Attributes, do: Mapping[str, float], seed: int = 0
) -> tuple[Attributes, dict[str, np.ndarray]]:
    """Abducts the noise of every finding, intervenes, and lets the descendants follow.

    An intervention that sets what was observed changes nothing. No Finding is derived again if a
    pathology changed, or became known, and is left as observed otherwise.

    Args:
      model: Model from `fit`.
      observed: Observed attributes, [n, 19].
      do: Interventions, attribute to encoded value.
      seed: Seed of the draw of u from what the observation leaves open.

    Returns:
      Attributes [n, 19] after the intervention, and for each descendant the probability [n] that it
      is then present, given all that was observed and the new value of every ancestor.

    Raises:
      ConfigError: for an intervention on No Finding, which is derived.
    """
    if "no_finding" in do:
        raise ConfigError("no_finding follows from the 12 pathologies; set those and propagate")
    pathologies, last = [INDEX[name] for name in PATHOLOGY_NAMES], INDEX["no_finding"]
    before = Attributes(observed.values, observed.known.copy())
    none_present = observed.known[:, last] & (observed.values[:, last] > 0.5)
    before.known[:, pathologies] |= none_present[:, None]
    after = Attributes(before.values.copy(), before.known.copy())
    for name, value in do.items():
        after.values[:, INDEX[name]], after.known[:, INDEX[name]] = value, True
    rng = np.random.default_rng(seed)
    # Drawn for every child in one order: the noise of a finding does not depend on what is done.
    draws = {child: rng.random(len(observed.values)) for child in model.graph.parents}
    chances = {}
    for child in model.graph.descendants(do):
        i = INDEX[child]
        was, now = model.probability(child, before), model.probability(child, after)
        present = before.values[:, i] > 0.5
        # u | observed is uniform on [0, p) or [p, 1).
        u = np.where(present, draws[child] * was, was + draws[child] * (1 - was))
        after.values[:, i] = np.where(after.known[:, i], u < now, 0)
        chances[child] = np.where(
            present, np.minimum(now, was) / was, np.maximum(now - was, 0) / (1 - was)
        )
    moved = (after.known != before.known) | (after.known & (after.values != before.values))
    rows = moved[:, pathologies].any(1)
    after.known[rows, last], after.values[rows, last] = False, 0
    after.values[rows], after.known[rows] = derive_no_finding(after.rows(rows))
    for name in do:
        moved[:, INDEX[name]] = True
    # Hide again findings that were known only through No Finding, unless they changed.
    after.known[:, pathologies] &= (observed.known | moved)[:, pathologies]
    return after, chances


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
