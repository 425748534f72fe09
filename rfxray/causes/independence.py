"""Tests of a graph against a table: independences that fail, and edges that the data do not show.

A graph says that each variable is independent of every earlier one that is not a cause of it, given
its causes (the ordered Markov property). The test is a score test on the noise: under the graph the
middle of the interval of noise that a record leaves has mean 1/2 whatever the other variable is.
The other variable is made orthogonal to the columns of the causes, so that a slightly wrong
mechanism moves little, and rows of one patient count as one (Liang and Zeger 1986).
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.stats import chi2

from rfxray.causes import fitting
from rfxray.causes.design import Cause
from rfxray.causes.mechanisms import Mechanism, StructuralModel
from rfxray.causes.tables import Table
from rfxray.errors import DataError

LEVEL = 0.05
MOST_ROWS = 100_000  # that a test reads: a correlation of 0.015 is found there


@dataclasses.dataclass(frozen=True)
class Test:
    """One test.

    Attributes:
      effect: Variable of which the noise is looked at.
      cause: Variable that may act on it.
      edge: Whether the graph says that it does.
      rows: Number of rows that know both and all causes.
      statistic: Chi-squared statistic.
      freedom: Its degrees of freedom.
      p: p-value if they were independent.
      adjusted: p-value adjusted for all tests of that kind: by Holm (1979) for independences, so
        that one that fails is unlikely to do so by chance, by Benjamini and Hochberg (1995) for
        edges.
    """

    effect: str
    cause: str
    edge: bool
    rows: int
    statistic: float
    freedom: int
    p: float
    adjusted: float = 1.0

    @property
    def size(self) -> float:
        """How much the cause would explain, in nats a row: with many rows the least is found."""
        return self.statistic / (2 * self.rows)


def checked(
    model: StructuralModel, table: Table, advance: Callable[[int], None] = lambda new: None
) -> list[Test]:
    """Every independence and every edge of a graph, in causal order.

    Args:
      model: Model that was fitted to the table.
      table: Rows.
      advance: Function called with 1 for each variable.
    """
    graph, found = model.graph, []
    earlier: list[str] = []
    for effect, parents in graph.parents.items():
        for cause in earlier:
            edge = cause in parents
            rest = tuple(p for p in parents if p != cause)
            names = (effect, cause, *rest)
            rows = _some(fitting.complete(graph, table, names))
            if len(rows) < 2 * fitting.design.MOST_COLUMNS:
                continue
            try:
                mechanism = model.mechanisms[effect]
                if edge:
                    mechanism = fitting.fit_one(graph, rows, effect, rest, "flow")
                found.append(_test(model, mechanism, rows, effect, cause, edge))
            except DataError:  # it does not vary in the rows that know all of them
                continue
        earlier.append(effect)
        advance(1)
    return _adjusted(found)


def _some(rows: Table) -> Table:
    """All rows of some patients, about `MOST_ROWS`."""
    share = MOST_ROWS / max(len(rows), 1)
    return rows if share >= 1 else rows.rows(rows.held_out(share))


def _test(model, mechanism: Mechanism, rows: Table, effect: str, cause: str, edge: bool) -> Test:
    graph = model.graph
    low, high = mechanism.interval(rows.values)
    residual = (low + high) / 2 - 0.5
    variable, column = graph.variable(cause), graph.index[cause]
    own = rows.values[:, column]
    if variable.continuous:
        knots = np.unique(np.quantile(own, fitting.design.KNOTS[::2]))
        # An edge may bend; of an independence a line and its bends are looked at, too.
        asked = Cause(column, 0, tuple(knots.tolist()), float(own.mean()), float(own.std()) or 1.0)
    else:
        asked = Cause(column, len(variable.values))
    z = np.concatenate(asked.groups(rows.values), 1)
    x = mechanism.design.columns(rows.values)
    weight = _variance(mechanism, rows.values)
    weighted = x * weight[:, None]
    pull = np.linalg.lstsq(weighted.T @ x, weighted.T @ z, rcond=1e-9)[0]
    z = z - x @ pull
    scores = np.stack(
        [np.bincount(rows.patients, residual * each) for each in z.T], 1
    )  # of each patient
    total, spread = scores.sum(0), scores.T @ scores
    freedom = int(np.linalg.matrix_rank(spread, tol=1e-9 * max(np.trace(spread), 1e-300)))
    if not freedom:
        raise DataError(f"{cause} does not vary given the causes of {effect}")
    statistic = float(total @ np.linalg.pinv(spread, rcond=1e-9) @ total)
    p = float(chi2.sf(statistic, freedom))
    return Test(effect, cause, edge, len(rows), statistic, freedom, p)


def _variance(mechanism: Mechanism, values: np.ndarray) -> np.ndarray:
    """The variance of the middle of the interval given the causes, [n]."""
    if mechanism.continuous:
        return np.full(len(values), 1 / 12)
    edges = mechanism.cumulative(values)
    middle = (edges[:, 1:] + edges[:, :-1]) / 2 - 0.5
    return (np.diff(edges, axis=1) * middle**2).sum(1)


def _adjusted(tests: list[Test]) -> list[Test]:
    found = list(tests)
    for edge in (False, True):
        places = [i for i, each in enumerate(tests) if each.edge == edge]
        p = np.array([tests[i].p for i in places])
        order, count = np.argsort(p), len(p)
        if edge:
            raised = p[order] * count / np.arange(1, count + 1)
            adjusted = np.minimum.accumulate(raised[::-1])[::-1]
        else:
            adjusted = np.maximum.accumulate(p[order] * np.arange(count, 0, -1))
        for place, value in zip(order, adjusted, strict=True):
            i = places[place]
            found[i] = dataclasses.replace(tests[i], adjusted=float(min(value, 1)))
    return found


def failing(tests: list[Test]) -> list[Test]:
    """Independences of the graph that the data contradict, the largest first."""
    wrong = [each for each in tests if not each.edge and each.adjusted < LEVEL]
    return sorted(wrong, key=lambda each: -each.size)


def unseen(tests: list[Test]) -> list[Test]:
    """Edges of the graph of which the data show nothing."""
    return [each for each in tests if each.edge and each.adjusted >= LEVEL]
