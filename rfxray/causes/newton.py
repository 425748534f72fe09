"""Logistic regression of counts by Newton's method, with a ridge for each group of columns.

The width of each group's prior is found by evidence (MacKay 1992, "Bayesian interpolation"): a
group that explains nothing, such as an interaction that is not there, is pulled to 0, so that a
rich design costs little where a plain one is true.
"""

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

# An effect that a small table never contradicts would be infinite without a least penalty; like so
# many rows that show no effect.
LEAST, MOST = 1.0, 1e7
_CONSTANT = 1e-2  # a category that no row has still gets a probability above 0
_ROUNDS = 12
_STEPS = 60


def fit(
    columns: np.ndarray, present: np.ndarray, total: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights [c], and the inverse of the penalised curvature [c, c].

    Args:
      columns: Design of each cell, [cells, c]; the first column is constant.
      present: Number of rows of each cell in which the event happened, [cells].
      total: Number of its rows, [cells].
      groups: Group of each column, [c]; group 0 is the constant.
    """
    keep = total > 0
    columns, present, total = columns[keep], present[keep], total[keep]
    members = [np.flatnonzero(groups == g) for g in range(1, groups.max(initial=0) + 1)]
    penalty = np.full(len(groups), LEAST)
    penalty[0] = _CONSTANT
    weights = np.zeros(len(groups))
    share = (present.sum() + 0.5) / (total.sum() + 1)
    weights[0] = np.log(share / (1 - share))
    inverse = np.eye(len(groups))
    for _ in range(_ROUNDS):
        weights, inverse = _newton(columns, present, total, penalty, weights)
        before = penalty.copy()
        for of in members:
            spent = len(of) - penalty[of[0]] * inverse[of, of].sum()  # effective parameters
            size = max(weights[of] @ weights[of], 1e-12)
            penalty[of] = np.clip(max(spent, 1e-3) / size, LEAST, MOST)
        if np.abs(np.log(penalty / before)).max() < 0.1:
            break
    return _newton(columns, present, total, penalty, weights)


def _newton(columns, present, total, penalty, weights) -> tuple[np.ndarray, np.ndarray]:
    """The weights that maximise the penalised likelihood, from given ones."""

    def objective(w: np.ndarray) -> float:
        z = columns @ w
        return float(present @ z - total @ np.logaddexp(0, z) - 0.5 * (penalty @ w**2))

    value = objective(weights)
    factor = (np.eye(len(penalty)), False)
    for _ in range(_STEPS):
        p = expit(columns @ weights)
        slope = columns.T @ (present - total * p) - penalty * weights
        curvature = (columns * (total * p * (1 - p))[:, None]).T @ columns
        factor = cho_factor(curvature + np.diag(penalty + 1e-9))
        step = cho_solve(factor, slope)
        size = 1.0
        while (new := objective(weights + size * step)) < value and size > 1e-4:
            size /= 2
        weights, gain, value = weights + size * step, new - value, max(new, value)
        if gain < 1e-9 * max(1.0, abs(value)) or np.abs(step).max() < 1e-9:
            break
    return weights, cho_solve(factor, np.eye(len(penalty)))
