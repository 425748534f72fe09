"""How well mechanisms describe patients that they were not fitted to."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rfxray.causes import fitting
from rfxray.causes.mechanisms import Mechanism, StructuralModel
from rfxray.causes.tables import Table

# Returns a mean log likelihood: one that is kept by the variable, or that the function finds.
Keep = Callable[[str, Callable[[], float]], float]

_BOOSTED_ROWS = 100_000  # that the reference is fitted to: 10 s a variable
GROUPS = 10


@dataclasses.dataclass(frozen=True)
class Judged:
    """One variable on held-out patients.

    Attributes:
      rows: Number of held-out rows that know it and its causes.
      flow, logistic: Mean log likelihood, in nats a row; of a density if it is continuous.
      boosted: The same of gradient boosting; None for continuous variables and variables without
        causes, and if it was not asked for.
      kolmogorov: Largest distance between the shares of abducted noise and uniform ones.
      by_chance: Distance that 1% of tables exceed by chance, 1.63 / √n; rows of a patient may be
        alike, so n is Kish's number of independent ones, rows² / Σ (rows of a patient)².
      calibration: Mean probability and share of the last category, and rows, in tenths by
        probability; empty if the variable is continuous or has no causes.
    """

    rows: int
    flow: float
    logistic: float
    boosted: float | None
    kolmogorov: float
    by_chance: float
    calibration: tuple[tuple[float, float, int], ...]


def judge(
    model: StructuralModel,
    logistic: StructuralModel,
    table: Table,
    held_out: Table,
    boosting: bool = False,
    advance: Callable[[int], None] = lambda new: None,
    keep: Keep = lambda name, make: make(),
) -> dict[str, Judged]:
    """Every variable of which held-out rows know something.

    Args:
      model: Model.
      logistic: Logistic model of the same rows, to compare with.
      table: Rows that both were fitted to.
      held_out: Rows of other patients.
      boosting: Whether to fit gradient boosting too, which needs scikit-learn.
      advance: Function called with 1 for each variable.
      keep: Function that keeps what boosting reaches, so that a killed fit goes on.
    """
    flow, other = fitting.per_row(model, held_out), fitting.per_row(logistic, held_out)
    found = {}
    for name in flow:
        mechanism = model.mechanisms[name]
        names = (name, *mechanism.parents)
        rows = fitting.complete(model.graph, held_out, names)
        boosted = None
        if boosting and mechanism.parents and not mechanism.continuous:
            train = fitting.complete(model.graph, table, names)
            boosted = keep(name, functools.partial(_boosted, mechanism, train, rows))
        found[name] = Judged(
            len(rows),
            flow[name],
            other[name],
            boosted,
            _kolmogorov(mechanism, rows),
            1.63 * float((np.bincount(rows.patients) ** 2).sum()) ** 0.5 / len(rows),
            (),
        )
        if mechanism.parents and not mechanism.continuous:
            found[name] = dataclasses.replace(
                found[name], calibration=_calibration(mechanism, rows)
            )
        advance(1)
    return found


def _kolmogorov(mechanism: Mechanism, rows: Table) -> float:
    low, high = mechanism.interval(rows.values)
    u = np.sort(low + (high - low) * np.random.default_rng(0).random(len(rows)))
    steps = np.arange(len(u) + 1) / len(u)
    return float(max((steps[1:] - u).max(), (u - steps[:-1]).max()))


def _calibration(mechanism: Mechanism, rows: Table) -> tuple[tuple[float, float, int], ...]:
    chance = 1 - mechanism.cumulative(rows.values)[:, -2]
    hit = rows.values[:, mechanism.column] == mechanism.categories - 1
    order = np.argsort(chance, kind="stable")
    parts = [part for part in np.array_split(order, GROUPS) if len(part)]
    return tuple((float(chance[p].mean()), float(hit[p].mean()), len(p)) for p in parts)


def _boosted(mechanism: Mechanism, rows: Table, held_out: Table) -> float:
    ensemble: Any = importlib.import_module("sklearn.ensemble")
    columns = [cause.column for cause in mechanism.design.causes]
    some = np.linspace(0, len(rows) - 1, min(len(rows), _BOOSTED_ROWS)).astype(int)
    own = rows.values[some, mechanism.column].astype(int)
    model = ensemble.HistGradientBoostingClassifier(
        max_iter=100, early_stopping=False, random_state=0
    )
    model.fit(rows.values[some][:, columns], own)
    place: Mapping[int, int] = {int(value): i for i, value in enumerate(model.classes_)}
    chance = model.predict_proba(held_out.values[:, columns])
    seen = held_out.values[:, mechanism.column].astype(int)
    each = np.array([chance[i, place[k]] if k in place else 0.0 for i, k in enumerate(seen)])
    return float(np.log(np.maximum(each, 1e-12)).mean())
