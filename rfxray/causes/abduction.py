"""The noise of records, and what follows from an intervention.

Abduction goes two ways. Deterministic: each record gets noise of its own, drawn once from what it
leaves open by its key, never by its place in a batch; it can be kept and given back, and predicting
without an intervention returns the record. Set-valued: nothing is drawn, and `worlds.joint` gives
the probabilities over all noise that the record leaves open.

What a record does not know is drawn from its law given all that is known, or summed over.
"""

import dataclasses
import zlib
from collections.abc import Mapping

import numpy as np

from rfxray.attributes.vocabulary import (
    INDEX,
    NUM_ATTRIBUTES,
    PATHOLOGY_NAMES,
    Attributes,
    derive_no_finding,
)
from rfxray.causes.mechanisms import StructuralModel
from rfxray.causes.worlds import World, joint
from rfxray.errors import ConfigError

# Of an interval that no noise is drawn from, at both ends: there rounding would decide the value.
_EDGE = 1e-6
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclasses.dataclass(frozen=True)
class Abducted:
    """Records and their noise.

    Attributes:
      values: Values, [n, variables]: as known, or as drawn where they were not.
      noise: Noise of each variable of the graph in [0, 1), 0 for the others, [n, variables].
    """

    values: np.ndarray
    noise: np.ndarray


def uniform(keys: np.ndarray, seed: int, name: str) -> np.ndarray:
    """Numbers in [0, 1) of records, [n]: a pure function of key, seed and name (SplitMix64)."""
    bits = _mixed(np.array([seed], np.uint64) * _GOLDEN + np.uint64(zlib.crc32(name.encode())))
    bits = _mixed(bits + np.asarray(keys, np.uint64) * _GOLDEN)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(bits: np.ndarray) -> np.ndarray:
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX[0]
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX[1]
    return bits ^ (bits >> np.uint64(31))


def abduct(
    model: StructuralModel, values: np.ndarray, known: np.ndarray, keys: np.ndarray, seed: int = 0
) -> Abducted:
    """Draws the noise of records from what they leave open.

    Args:
      model: Model.
      values, known: Records, [n, variables].
      keys: Number that names each record, uint64 [n]; see `tables.named`.
      seed: Seed of the draws.
    """
    index = model.graph.index
    values, seen = np.where(known, values, 0).astype(np.float64), known.copy()
    noise = np.zeros(values.shape)
    for name, mechanism in model.mechanisms.items():
        i = index[name]
        below = [index[child] for child in model.graph.descendants([name])]
        unknown = ~seen[:, i]
        informed = np.flatnonzero(unknown & known[:, below].any(1))
        if len(informed):
            world = World(values[informed], seen[informed])
            answer = joint(model, [world], [(0, name)])
            chance = uniform(keys[informed], seed, f"unknown/{name}")
            values[informed, i] = _drawn(answer.row, answer.weight, answer.values[:, 0], chance)
        u = uniform(keys, seed, f"noise/{name}")
        free = np.flatnonzero(unknown & ~known[:, below].any(1))
        values[free, i] = mechanism.value(values[free], u[free])
        seen[:, i] = True
        low, high = mechanism.interval(values)
        noise[:, i] = low + (high - low) * (_EDGE + (1 - 2 * _EDGE) * u)
        noise[free, i] = u[free]
    return Abducted(values, noise)


def _drawn(row, weight, value, chance) -> np.ndarray:
    """One value for each row, by the weights of its values and a number in [0, 1)."""
    order = np.lexsort((value, row))
    row, weight, value = row[order], weight[order], value[order]
    edges = np.cumsum(weight)  # each row adds 1
    at = np.searchsorted(edges, np.arange(len(chance)) + chance, side="right")
    last = np.searchsorted(row, np.arange(len(chance)), side="right") - 1
    return value[np.minimum(at, last)]


def predict(
    model: StructuralModel, start: Abducted, do: Mapping[str, float | np.ndarray]
) -> np.ndarray:
    """The values of records under an intervention, by their own noise, [n, variables].

    Args:
      model: Model.
      start: Records from `abduct`.
      do: Interventions, variable to encoded value, or a value for each record.
    """
    values = start.values.copy()
    for name, value in do.items():
        values[:, model.graph.index[name]] = value
    for name, mechanism in model.mechanisms.items():
        if name not in do:
            i = model.graph.index[name]
            values[:, i] = mechanism.value(values, start.noise[:, i])
    return values


def counterfactual(
    model: StructuralModel,
    observed: Attributes,
    do: Mapping[str, float],
    seed: int = 0,
    keys: np.ndarray | None = None,
) -> tuple[Attributes, dict[str, np.ndarray]]:
    """Abducts the noise of records, intervenes, and lets the descendants follow.

    An intervention that sets what was observed changes nothing. What was unknown stays unknown. No
    Finding is derived again if a pathology changed, or became known, and is left as observed
    otherwise.

    Args:
      model: Model.
      observed: Observed attributes, [n, 19].
      do: Interventions, attribute to encoded value.
      seed: Seed of the draws.
      keys: Number that names each record, uint64 [n]; its place when None.

    Returns:
      Attributes [n, 19] after the intervention, and for each descendant that is a finding the
      probability [n] that it is then present, over all that the record leaves open.

    Raises:
      ConfigError: For an intervention on No Finding, which is derived.
    """
    if "no_finding" in do:
        raise ConfigError("no_finding follows from the 12 pathologies; set those and propagate")
    graph = model.graph
    keys = np.arange(len(observed.values), dtype=np.uint64) if keys is None else keys
    pathologies, last = [INDEX[name] for name in PATHOLOGY_NAMES], INDEX["no_finding"]
    before = Attributes(observed.values, observed.known.copy())
    normal = observed.known[:, last] & (observed.values[:, last] > 0.5)
    before.known[:, pathologies] |= normal[:, None]
    after = Attributes(before.values.copy(), before.known.copy())
    chances: dict[str, np.ndarray] = {}
    inside = {name: value for name, value in do.items() if name in graph.parents}
    if follow := graph.descendants(inside):
        wide = ((0, 0), (0, len(graph.variables) - NUM_ATTRIBUTES))
        values, known = (np.pad(np.asarray(field), wide) for field in before)
        start = abduct(model, values, known, keys, seed)
        then = predict(model, start, inside)
        worlds = [World(values, known), World(values, np.zeros_like(known), inside)]
        for name in (n for n in follow if n in INDEX):
            i = INDEX[name]
            after.values[:, i] = np.where(after.known[:, i], then[:, i], 0)
            if name in PATHOLOGY_NAMES or name == "support_devices":
                chances[name] = joint(model, worlds, [(1, name)]).mean()
    for name, value in do.items():
        after.values[:, INDEX[name]], after.known[:, INDEX[name]] = value, True
    moved = (after.known != before.known) | (after.known & (after.values != before.values))
    rows = moved[:, pathologies].any(1)
    after.known[rows, last], after.values[rows, last] = False, 0
    after.values[rows], after.known[rows] = derive_no_finding(after.rows(rows))
    for name in do:
        moved[:, INDEX[name]] = True
    # Hide again findings that were known only through No Finding, unless they changed.
    after.known[:, pathologies] &= (observed.known | moved)[:, pathologies]
    return after, chances
