"""What follows from an intervention: a structural causal model of the attributes.

The graph is data (`graph.json`, child → parents). Every finding with parents is present where
u < p, u ~ U(0, 1) its own noise and p = sigmoid(b + Σ w·parent) fitted to a data set's table.
Abduction is exact: given what was observed, u is uniform below p (present) or above it (absent),
and nothing else is known of it. An intervention leaves every u as it is and changes the p of what
descends from it, so a finding can only change in the direction in which its p moved. What was not
known stays not known, but where No Finding told of all 12 pathologies that they are absent; view,
source and No Finding (derived) are nobody's children.
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
    derive_no_finding,
    lookup,
)
from rfxray.data.dataset import Dataset, stored
from rfxray.errors import ConfigError, DataError

GRAPH = Path(vocabulary.__file__).with_name("graph.json")


# A pull of the logits' weights towards 0, as if this many rows spoke for no effect: without it an
# effect that a small table never contradicts would be infinite.
_RIDGE = 1.0


@dataclasses.dataclass(frozen=True)
class Graph:
    """Which attribute acts on which.

    Attributes:
      name: of the graph.
      parents: child to parents, in causal order.
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
      ConfigError: where it does not parse, names no attribute, gives parents to something other
        than a finding, takes No Finding (derived), view or source (exogenous) as a child or No
        Finding as a parent, or has a cycle.
    """
    try:
        tree = json.loads(Path(path).read_text())
        given = {str(c): tuple(map(str, p)) for c, p in tree["parents"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no causal graph of attributes: {error}") from error
    given = {lookup(c).name: tuple(lookup(p).name for p in ps) for c, ps in given.items()}
    for child, parents in given.items():
        if child not in FINDING_NAMES or child == "no_finding" or "no_finding" in parents:
            raise ConfigError(f"{path}: only findings but no_finding have parents, not {child}")
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
      graph: of the attributes.
      weights: for each child, of its `design` columns.
      rows: how many rows spoke for each child.
    """

    graph: Graph
    weights: dict[str, np.ndarray]
    rows: dict[str, int]

    def probability(self, child: str, attributes: np.ndarray, known: np.ndarray) -> np.ndarray:
        """P(child present | its parents), [n], from attributes and known [n, 19]."""
        columns = design(self.graph.parents[child], attributes, known)
        return _sigmoid(columns @ self.weights[child])


def design(parents: Iterable[str], attributes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The parents as columns of a logistic regression, [n, columns] float64.

    A constant; for each parent its value (age in decades from 50, a finding as 0 or 1, categories a
    column each but the first) where it is known, and 1 in a column of its own where it is not.
    """
    columns = [np.ones(len(attributes))]
    for name in parents:
        attribute, i = ATTRIBUTES[INDEX[name]], INDEX[name]
        told, value = known[:, i], attributes[:, i].astype(np.float64)
        if attribute.continuous:
            columns.append(np.where(told, (value - 50) / 10, 0.0))
        else:
            columns += [told & (value == k) for k in range(1, len(attribute.values))]
        columns.append(~told)
    return np.stack(columns, axis=1).astype(np.float64)


def fit(graph: Graph, attributes: np.ndarray, known: np.ndarray) -> StructuralModel:
    """Every mechanism by penalised maximum likelihood (Newton's method).

    Args:
      graph: of the attributes.
      attributes, known: [n, 19], the table of a data set.

    Raises:
      DataError: where nobody is known to have, or not to have, a finding.
    """
    weights, rows = {}, {}
    for child, parents in graph.parents.items():
        told = known[:, INDEX[child]]
        present = attributes[told, INDEX[child]] > 0.5
        if present.all() or not present.any():
            raise DataError(f"the table cannot tell what {child} depends on: it never varies there")
        columns = design(parents, attributes[told], known[told])
        weights[child] = _logistic(columns, present)
        rows[child] = int(told.sum())
    return StructuralModel(graph, weights, rows)


def fit_dataset(graph: Graph, dataset: Dataset, split: str = "train") -> StructuralModel:
    """`fit` to the table of a data set; reads every record of the split.

    Raises:
      ConfigError: where there is no such split.
    """
    if split not in dataset.shards:
        raise ConfigError(f"data set {dataset.path} has no split {split!r}")
    rows = [(record["attributes"], record["states"]) for record in stored(dataset, split)]
    attributes, states = (np.stack(part) for part in zip(*rows, strict=True))
    return fit(graph, attributes, known_from_states(states))


def counterfactual(
    model: StructuralModel,
    attributes: np.ndarray,
    known: np.ndarray,
    do: Mapping[str, float],
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Abducts the noise of every finding, intervenes, and lets the descendants follow.

    An intervention that says what was observed changes nothing. No Finding is derived anew where a
    pathology became another, or known, and left as observed elsewhere.

    Args:
      model: from `fit`.
      attributes, known: [n, 19], what was observed.
      do: interventions, attribute to encoded value.
      seed: of the draw of u from what the observation leaves open.

    Returns:
      attributes and known [n, 19] after the intervention, and for each descendant the probability
      that it is present then, given all that was observed and every ancestor's new value: [n].

    Raises:
      ConfigError: for an intervention on No Finding, which is derived.
    """
    if "no_finding" in do:
        raise ConfigError("no_finding follows from the 12 pathologies; set those and propagate")
    pathologies, last = [INDEX[name] for name in PATHOLOGY_NAMES], INDEX["no_finding"]
    given, known = known, known.copy()
    known[:, pathologies] |= (known[:, last] & (attributes[:, last] > 0.5))[:, None]
    after, told = attributes.copy(), known.copy()
    for name, value in do.items():
        after[:, INDEX[name]], told[:, INDEX[name]] = value, True
    rng = np.random.default_rng(seed)
    # Drawn for every child in one order: the noise of a finding does not depend on what is done.
    draws = {child: rng.random(len(attributes)) for child in model.graph.parents}
    chances = {}
    for child in model.graph.descendants(do):
        i = INDEX[child]
        before = model.probability(child, attributes, known)
        now = model.probability(child, after, told)
        present = attributes[:, i] > 0.5
        # u | observed is uniform on [0, p) or [p, 1).
        u = np.where(present, draws[child] * before, before + draws[child] * (1 - before))
        after[:, i] = np.where(told[:, i], u < now, 0)
        chances[child] = np.where(
            present, np.minimum(now, before) / before, np.maximum(now - before, 0) / (1 - before)
        )
    moved = (told != known) | (told & (after != attributes))
    rows = moved[:, pathologies].any(1)
    told[rows, last], after[rows, last] = False, 0
    after[rows], told[rows] = derive_no_finding(after[rows], told[rows])
    for name in do:
        moved[:, INDEX[name]] = True
    # What No Finding alone told of is not told by itself, but where it became another.
    told[:, pathologies] &= (given | moved)[:, pathologies]
    return after, told, chances


def _logistic(columns: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Weights [columns]; the constant's is not pulled towards 0."""
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
