"""The causes of a variable as columns of a regression: bends of what is continuous, interactions.

A natural cubic spline (Hastie, Tibshirani and Friedman 2009, §5.2.1) lets an effect of age turn
round; products of all columns of all subsets of the causes let any cause change the effect of any
other. Both are columns in groups of their own, so that a fit can leave out what the data do not
show (`newton.py`).
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

KNOTS = (0.01, 0.05, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 0.98)
_PARABOLA = 8.0  # second derivative of 4x(1 − x)
MOST_COLUMNS = 192  # with more, only pairs of causes interact; then only single ones act


@dataclasses.dataclass(frozen=True)
class Cause:
    """One cause.

    Attributes:
      column: Its column of a table.
      categories: Number of its categories; 0 if it is continuous.
      knots: Knots of its spline in its unit, [9 or fewer]; empty if it is not continuous, or acts
        linearly.
      middle, scale: Numbers that a continuous one is centred and divided by.
    """

    column: int
    categories: int
    knots: tuple[float, ...] = ()
    middle: float = 50.0
    scale: float = 10.0

    def groups(self, values: np.ndarray) -> list[np.ndarray]:
        """Columns [n, c] in one group, or those of a line and of its bends in two."""
        value = values[:, self.column]
        if self.categories:
            return [np.stack([value == k for k in range(1, self.categories)], 1).astype(float)]
        x = (value - self.middle) / self.scale
        bends = self._bends(value)
        return [x[:, None], bends] if bends.shape[1] else [x[:, None]]

    def _bends(self, value: np.ndarray) -> np.ndarray:
        """Cubic columns that are linear beyond the outer knots, [n, knots − 2].

        The sum of the squares of their weights is the integral of the squared second derivative: a
        ridge asks for smoothness, as in a smoothing spline. The unit is that of a parabola that
        rises by 1 from the outer knots to the middle.
        """
        if len(self.knots) < 3:
            return np.empty((len(value), 0))
        knots = (np.array(self.knots) - self.knots[0]) / (self.knots[-1] - self.knots[0])
        x = (value - self.knots[0]) / (self.knots[-1] - self.knots[0])
        cubes = [
            (np.maximum(x - knot, 0) ** 3 - np.maximum(x - 1, 0) ** 3) / (1 - knot)
            for knot in knots[:-1]
        ]
        bends = np.stack([each - cubes[-1] for each in cubes[:-1]], 1)
        # The second derivatives are straight between knots, so Simpson's rule is exact.
        hats = np.maximum(knots[:, None] - knots[None, :-1], 0) * 6 / (1 - knots[:-1])
        second = hats[:, :-1] - hats[:, -1:]
        middle, width = (second[1:] + second[:-1]) / 2, np.diff(knots)[:, None, None]
        ends = [second[:-1], middle, middle, middle, middle, second[1:]]
        rough = sum((each[:, :, None] * each[:, None, :] * width / 6).sum(0) for each in ends)
        return bends @ np.linalg.inv(np.linalg.cholesky(rough)).T * _PARABOLA


@dataclasses.dataclass(frozen=True)
class Design:
    """How causes become columns.

    Attributes:
      causes: Causes of the variable.
      order: Most causes that one column multiplies; 1 has no interactions.
    """

    causes: tuple[Cause, ...]
    order: int

    def columns(self, values: np.ndarray) -> np.ndarray:
        """Columns [n, c] float64 of a table [n, variables]; the first is constant."""
        return self._built(values)[0]

    def groups(self) -> np.ndarray:
        """The group of each column, int [c]; the constant is group 0."""
        return self._built(np.zeros((1, 1 + max((c.column for c in self.causes), default=0))))[1]

    def _built(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        blocks = [np.ones((len(values), 1))]
        single = [cause.groups(values) for cause in self.causes]
        for order in range(1, self.order + 1):
            for subset in itertools.combinations(single, order):
                for groups in itertools.product(*subset):
                    product = groups[0]
                    for group in groups[1:]:
                        product = (product[:, :, None] * group[:, None, :]).reshape(len(values), -1)
                    blocks.append(product)
        owner = np.repeat(np.arange(len(blocks)), [block.shape[1] for block in blocks])
        return np.concatenate(blocks, 1), owner


def flexible(causes: Sequence[Cause]) -> Design:
    """Bends and interactions of as many causes as `MOST_COLUMNS` leave room for."""
    for order in range(len(causes), 1, -1):
        design = Design(tuple(causes), order)
        if len(design.groups()) <= MOST_COLUMNS:
            return design
    return Design(tuple(causes), min(1, len(causes)))


def linear(causes: Sequence[Cause]) -> Design:
    """A line for each cause and no interaction: the logistic model that others fit."""
    return Design(
        tuple(dataclasses.replace(cause, knots=()) for cause in causes), min(1, len(causes))
    )
