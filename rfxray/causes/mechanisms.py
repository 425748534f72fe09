"""How a variable comes from its causes and from noise of its own: x = f(causes, u), u ~ U(0, 1).

f increases in u and is given by P(x ≤ k | causes). A category k is there if u lies between the
cumulative probabilities of k − 1 and k, so a binary variable is a threshold on its noise; a
continuous one is a spline through the cumulative probabilities of its bins (`spline.py`), which is
the one monotone flow of its conditional law. Both are chains of logistic regressions, P(x = k | x ≥
k, causes) (continuation ratios; Foresi and Peracchi 1995 for continuous x), so a fit has one
optimum and no seed.

What a record leaves open is an interval of noise: all of a category, or of a unit of age. Race,
view and source have no order; that of the vocabulary is declared, and it decides their
counterfactuals (`effects.py` says how far), but no probability under an intervention.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from scipy.special import expit

from rfxray.attributes.vocabulary import Attribute
from rfxray.causes.design import Design
from rfxray.causes.graph import Graph
from rfxray.causes.spline import Spline, through

_AT_ONCE = 2**16  # rows of a design in memory: 100 MB at the most columns


@dataclasses.dataclass(frozen=True)
class Mechanism:
    """One fitted variable.

    Attributes:
      column: Its column of a table.
      parents: Names of its causes.
      design: How the causes become columns.
      weights: Weights of the logits of each category or bin but the last, [k − 1, c] float64.
      edges: Edges of the bins of a continuous variable, [k + 1]; empty for categories.
      unit: What its records are rounded down to, such as 1 year; 0 if they are not rounded.
      rows: Number of rows that it was fitted to.
      seen: Number of them in each category or bin, [k].
      replicates: Weights of bootstrap replicates, [b, k − 1, c] float32.
    """

    column: int
    parents: tuple[str, ...]
    design: Design
    weights: np.ndarray
    edges: np.ndarray
    unit: float
    rows: int
    seen: np.ndarray
    replicates: np.ndarray

    @property
    def continuous(self) -> bool:
        return len(self.edges) > 0

    @property
    def categories(self) -> int:
        """Number of categories, or of bins."""
        return len(self.weights) + 1

    def cumulative(self, values: np.ndarray) -> np.ndarray:
        """P(x in the first j categories | causes), [n, k + 1], of rows [n, variables]."""
        found = np.empty((len(values), self.categories + 1))
        for start in range(0, len(values), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            hazards = expit(self.design.columns(values[part]) @ self.weights.T)
            found[part, 0], found[part, -1] = 0, 1
            found[part, 1:-1] = 1 - np.cumprod(1 - hazards, axis=1)
        return found

    def spline(self, values: np.ndarray) -> Spline:
        """The flow of a continuous variable given the causes in rows [n, variables]."""
        return through(self.edges, self.cumulative(values))

    def interval(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The noise that rows leave open, from and to, [n] each; equal if it is one point."""
        own = values[:, self.column].astype(np.float64)
        if self.continuous:
            spline = self.spline(values)
            low, _ = spline.height(own)
            return low, spline.height(own + self.unit)[0] if self.unit else low
        rows, k = np.arange(len(values)), own.astype(int)
        cumulative = self.cumulative(values)
        return cumulative[rows, k], cumulative[rows, k + 1]

    def value(self, values: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """The variable from its causes in rows [n, variables] and its noise [n] in [0, 1)."""
        if self.continuous:
            found = self.spline(values).at(noise)
            if not self.unit:
                return found
            found = np.floor(found / self.unit) * self.unit
            return np.minimum(found, self.edges[-1] - self.unit)
        return (noise[:, None] >= self.cumulative(values)[:, 1:-1]).sum(1).astype(float)

    def likelihood(self, values: np.ndarray) -> np.ndarray:
        """P(x | causes) of rows [n, variables]: a density if x is continuous and not rounded."""
        if self.continuous and not self.unit:
            return self.spline(values).height(values[:, self.column].astype(np.float64))[1]
        low, high = self.interval(values)
        return high - low

    def replicate(self, b: int) -> "Mechanism":
        """The mechanism with the weights of a bootstrap replicate."""
        return dataclasses.replace(self, weights=self.replicates[b].astype(np.float64))


@dataclasses.dataclass(frozen=True)
class StructuralModel:
    """Every variable of a graph with its mechanism.

    Attributes:
      graph: Graph, without the variables of which no row knew anything.
      mechanisms: Mechanism of each variable, in causal order.
      notes: What a reader of results must know of the fit, in sentences.
    """

    graph: Graph
    mechanisms: Mapping[str, Mechanism]
    notes: tuple[str, ...] = ()

    def variable(self, name: str) -> Attribute:
        return self.graph.variable(name)

    def probability(self, name: str, values: np.ndarray) -> np.ndarray:
        """P(x = its last category | causes), [n]: that a finding is present."""
        return 1 - self.mechanisms[name].cumulative(values)[:, -2]

    def replicas(self) -> Iterator["StructuralModel"]:
        """The model of each bootstrap replicate: a patient counts in all mechanisms alike."""
        count = min((len(each.replicates) for each in self.mechanisms.values()), default=0)
        for b in range(count):
            yield dataclasses.replace(
                self, mechanisms={n: m.replicate(b) for n, m in self.mechanisms.items()}
            )
