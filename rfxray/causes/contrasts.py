"""Average effects of every cause on every finding that descends from it, at once.

Noise is drawn once and goes through the model under both sides of a contrast, and through every
bootstrap replicate: the error of the simulation is common to all of them. Probabilities, not draws,
are averaged. `effects.answer` computes one of them exactly.
"""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
from scipy.stats import qmc

from rfxray.causes.abduction import Abducted, predict
from rfxray.causes.mechanisms import StructuralModel

# Of a Sobol sequence: differences are within 0.002 of exact ones. Spreads over replicates need
# fewer, with the same noise on both sides; a standard deviation of 50 is known to 10%.
_DRAWS, _FEWER = 2**13, 2**11
_REPLICAS = 50
AGES = (40.0, 75.0)


@dataclasses.dataclass(frozen=True)
class Contrast:
    """An average effect.

    Attributes:
      cause: Variable that is set.
      before, then: Encoded values that it is set to.
      effect: Variable that follows.
      difference: Change of its probability, or of its mean.
      low, high: 95% interval (patient-clustered bootstrap).
    """

    cause: str
    before: float
    then: float
    effect: str
    difference: float
    low: float
    high: float


def measured(
    model: StructuralModel, advance: Callable[[int], None] = lambda new: None
) -> list[Contrast]:
    """Of age from 40 to 75 years, of another continuous cause from its lower to its upper quarter,
    and of a category from the first one to each other.

    Args:
      model: Model with replicates.
      advance: Function called with 1 for each cause.
    """
    noise = _noise(model)
    replicas = list(itertools.islice(model.replicas(), _REPLICAS))
    whole = predict(model, noise, {})
    natural = [predict(each, _part(noise), {}) for each in replicas]
    found = []
    for cause in model.graph.parents:
        follow = model.graph.descendants([cause])
        pairs = _values(model, cause) if follow else []
        levels = dict.fromkeys(value for pair in pairs for value in pair)
        point = {value: _means(model, noise, whole, cause, value, follow) for value in levels}
        spread = [
            {value: _means(each, _part(noise), start, cause, value, follow) for value in levels}
            for each, start in zip(replicas, natural, strict=True)
        ]
        for before, then in pairs:
            change = point[then] - point[before]
            width = np.zeros(len(follow))
            if len(spread) > 1:
                width = 1.96 * np.std([s[then] - s[before] for s in spread], axis=0, ddof=1)
            ends = zip(follow, change, change - width, change + width, strict=True)
            found += [Contrast(cause, before, then, n, *map(float, of)) for n, *of in ends]
        advance(1)
    return found


def _noise(model: StructuralModel) -> Abducted:
    noise = np.zeros((_DRAWS, len(model.graph.variables)))
    drawn = qmc.Sobol(len(model.graph.parents), rng=np.random.default_rng(0)).random(_DRAWS)
    for place, name in enumerate(model.graph.parents):
        noise[:, model.graph.index[name]] = drawn[:, place]
    return Abducted(np.zeros_like(noise), noise)


def _part(noise: Abducted) -> Abducted:
    return Abducted(noise.values[:_FEWER], noise.noise[:_FEWER])


def _values(model: StructuralModel, cause: str) -> list[tuple[float, float]]:
    mechanism, variable = model.mechanisms[cause], model.variable(cause)
    if cause == "age" and mechanism.edges[1] < AGES[0] and mechanism.edges[-2] > AGES[1]:
        return [AGES]
    if variable.continuous:
        share = np.cumsum(mechanism.seen) / mechanism.seen.sum()
        low, high = (float(mechanism.edges[1 + np.searchsorted(share, q)]) for q in (0.25, 0.75))
        return [(low, high)]
    kinds = [k for k in range(len(variable.values)) if mechanism.seen[k]]
    return [(float(kinds[0]), float(k)) for k in kinds[1:]]


def _means(model, noise: Abducted, start: np.ndarray, cause: str, value: float, follow):
    """Mean of each descendant if the cause is set; the rest is as it was in `start`."""
    values, index = start.copy(), model.graph.index
    values[:, index[cause]] = value
    means = []
    for name in follow:
        mechanism, i = model.mechanisms[name], index[name]
        if mechanism.continuous:
            values[:, i] = mechanism.value(values, noise.noise[:, i])
            means.append(values[:, i].mean())
        else:
            edges = mechanism.cumulative(values)
            values[:, i] = (noise.noise[:, i, None] >= edges[:, 1:-1]).sum(1)
            means.append((1 - edges[:, -2]).mean())
    return np.array(means)
