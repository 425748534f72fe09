"""Fits the mechanisms of a graph to a table, by maximum likelihood, one variable after another.

A mechanism is fitted to the rows in which the variable and all of its causes are known. Rows with
the same causes are one cell with counts, so a million rows cost little more than the cells.
Intervals come from score-bootstrap replicates (Kline and Santos 2012): each patient gets one random
weight for all of its rows and all mechanisms, and each replicate is one Newton step away.
"""

import functools
from collections.abc import Callable

import numpy as np
from scipy.special import expit

from rfxray.attributes.vocabulary import Attribute
from rfxray.causes import design, newton
from rfxray.causes.graph import Graph
from rfxray.causes.mechanisms import Mechanism, StructuralModel
from rfxray.causes.tables import Table
from rfxray.errors import ConfigError, DataError

# Returns a mechanism: one that is kept by its form and name, or that the function makes.
Keep = Callable[[str, str, Callable[[], Mechanism]], Mechanism]

FORMS = ("flow", "logistic")
REPLICATES = 100  # a standard deviation of so many is known to 7%

# A continuous cause is rounded to so many values between its outer percentiles: a quarter of a year
# of age, within which no probability moves by more than 1e-3.
_ROUNDED = 400
_BINS, _ROOT_BINS = 24, 100  # of a continuous variable with causes, and of one without
_OUTER = 0.001  # share of the rows in each outer bin, which reaches to the end of the range


def fit(
    graph: Graph,
    table: Table,
    form: str = "flow",
    replicates: int = 0,
    advance: Callable[[int], None] = lambda new: None,
    keep: Keep = lambda form, name, make: make(),
) -> StructuralModel:
    """Every mechanism of a graph.

    Args:
      graph: Graph of the variables.
      table: Rows.
      form: `flow`, or `logistic` for lines without interactions, the model to compare with.
      replicates: Number of bootstrap replicates.
      advance: Function called with 1 for each variable that is fitted.
      keep: Function that keeps mechanisms, so that a killed fit goes on.

    Raises:
      DataError: If a variable never varies, or no row knows it together with its causes.
    """
    graph, notes = _observed(graph, table)
    draws = np.random.default_rng(0).standard_normal(
        (table.patients.max(initial=0) + 1, replicates), np.float32
    )
    mechanisms = {}
    for name, parents in graph.parents.items():
        make = functools.partial(fit_one, graph, table, name, parents, form, draws)
        mechanisms[name] = keep(form, name, make)
        advance(1)
    return StructuralModel(graph, mechanisms, tuple(notes))


def _observed(graph: Graph, table: Table) -> tuple[Graph, list[str]]:
    """The graph without variables of which no row knows anything, and what that means."""
    notes = []
    for name in list(graph.parents):
        if table.known[:, graph.index[name]].any():
            continue
        effects = [child for child, parents in graph.parents.items() if name in parents]
        graph = graph.without(name)
        note = f"{name} is unknown in every row: it is left out of the graph"
        if len(effects) > 1:
            note += f"; {', '.join(effects)} then share a cause that the model does not have"
        notes.append(note)
    if not any(graph.parents.values()):
        raise DataError(
            "the table knows no variable of the graph together with a cause of it; give one with "
            "columns of both, named as in the graph"
        )
    return graph, notes


def fit_one(
    graph: Graph,
    table: Table,
    name: str,
    parents: tuple[str, ...],
    form: str,
    draws: np.ndarray | None = None,
) -> Mechanism:
    """The mechanism of one variable given some causes.

    Args:
      graph: Graph, for the variables.
      table: Rows.
      name: Name of the variable.
      parents: Causes.
      form: See `fit`.
      draws: Weights of the patients in each replicate, [patients, b]; none are made when None.
    """
    if form not in FORMS:
        raise ConfigError(f"form must be one of {', '.join(FORMS)} (got {form})")
    index, variable = graph.index, graph.variable(name)
    rows = complete(graph, table, (name, *parents))
    if not len(rows):
        raise DataError(
            f"no row knows {name} together with its causes ({', '.join(parents)}); take them out "
            "of the graph, or fit to a table that has both"
        )
    own = rows.values[:, index[name]]
    if (own == own[0]).all():
        raise DataError(
            f"the table cannot show what {name} depends on: it never varies there; take it out of "
            "the graph"
        )
    causes = [_cause(graph.variable(p), index[p], rows.values[:, index[p]]) for p in parents]
    how = design.flexible(causes) if form == "flow" else design.linear(causes)
    edges, unit = _edges(variable, own, bool(parents))
    kinds = len(edges) - 1 if variable.continuous else len(variable.values)
    category = (
        np.clip(np.searchsorted(edges, own, "right") - 1, 0, kinds - 1)
        if kinds and len(edges)
        else own
    )
    values, cell = _cells(graph, rows, parents)
    place = cell * kinds + category.astype(int)
    counts = np.bincount(place, minlength=len(values) * kinds).reshape(-1, kinds)
    columns, groups = how.columns(values), how.groups()
    weights = np.empty((kinds - 1, len(groups)))
    inverses = []
    for k in range(kinds - 1):
        present, total = counts[:, k], counts[:, k:].sum(1)
        weights[k], inverse = newton.fit(columns, present, total, groups)
        inverses.append(inverse)
    draws = np.empty((0, 0)) if draws is None else draws
    replicates = np.empty((draws.shape[1], *weights.shape), np.float32)
    p = expit(columns @ weights.T)
    for b in range(draws.shape[1]):
        weight = draws[rows.patients, b]
        changed = np.bincount(place, weight, minlength=counts.size).reshape(counts.shape)
        left = np.cumsum(changed[:, ::-1], 1)[:, ::-1]
        score = columns.T @ (changed[:, :-1] - left[:, :-1] * p)
        for k, inverse in enumerate(inverses):
            replicates[b, k] = weights[k] + inverse @ score[:, k]
    return Mechanism(
        column=index[name],
        parents=parents,
        design=how,
        weights=weights,
        edges=edges,
        unit=unit,
        rows=len(rows),
        seen=counts.sum(0),
        replicates=replicates,
    )


def complete(graph: Graph, table: Table, names: tuple[str, ...]) -> Table:
    """The rows in which all of these variables are known."""
    columns = [graph.index[name] for name in names]
    return table.rows(np.flatnonzero(table.known[:, columns].all(1)))


def _cause(variable: Attribute, column: int, values: np.ndarray) -> design.Cause:
    if not variable.continuous:
        return design.Cause(column, len(variable.values))
    knots = np.unique(np.quantile(values, design.KNOTS))
    if variable.unit == "years":  # weights then read as in a decade of age
        return design.Cause(column, 0, tuple(knots.tolist()))
    spread = float(values.std()) or 1.0
    return design.Cause(column, 0, tuple(knots.tolist()), float(values.mean()), spread)


def _edges(variable: Attribute, own: np.ndarray, has_causes: bool) -> tuple[np.ndarray, float]:
    """Edges of the bins of a continuous variable, and the unit that its records are rounded to."""
    if not variable.continuous:
        return np.empty(0), 0.0
    unit = 1.0 if (own == np.floor(own)).all() else 0.0
    bins = _BINS if has_causes else _ROOT_BINS
    shares = np.concatenate([[_OUTER], np.arange(1, bins) / bins, [1 - _OUTER]])
    inner = np.unique(np.quantile(own, shares))
    if unit:
        inner = np.unique(np.floor(inner))
    high = variable.high + unit
    inner = inner[(inner > variable.low) & (inner < high)]
    return np.concatenate([[variable.low], inner, [high]]), unit


def _cells(graph: Graph, rows: Table, parents: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rows [cells, variables] with the different causes, and the cell of each row."""
    columns = [graph.index[name] for name in parents]
    causes = rows.values[:, columns]
    code = np.zeros(len(rows), np.int64)
    for place, name in enumerate(parents):
        of = causes[:, place]
        if graph.variable(name).continuous:
            low, high = np.quantile(of, [_OUTER, 1 - _OUTER])
            step = (high - low) / _ROUNDED or 1.0
            causes[:, place] = of = np.round(of / step) * step
        different, code_of = np.unique(of, return_inverse=True)
        # Codes stay small because they are numbered again with each cause.
        _, code = np.unique(code * len(different) + code_of, return_inverse=True)
    _, first = np.unique(code, return_index=True)
    values = np.zeros((len(first), rows.values.shape[1]))
    values[:, columns] = causes[first]
    return values, code


def per_row(model: StructuralModel, table: Table) -> dict[str, float]:
    """The mean log likelihood of each variable in the rows that know it and its causes, in nats."""
    found = {}
    for name, mechanism in model.mechanisms.items():
        rows = complete(model.graph, table, (name, *mechanism.parents))
        if len(rows):
            chance = mechanism.likelihood(rows.values)
            found[name] = float(np.log(np.maximum(chance, 1e-12)).mean())
    return found
