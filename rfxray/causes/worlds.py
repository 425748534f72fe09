"""Probabilities over parallel worlds that share their noise (Balke and Pearl 1994, twin networks).

A world is the model under an intervention, with what is seen there. World 0 is as a rule the one
that was observed; evidence there, and a question in another one, is a counterfactual (abduction,
action, prediction). Evidence in the world of the intervention itself conditions after it.

Variables are gone through in causal order, all rows at once. A particle is one way in which the
worlds may look so far; what no later variable and no question reads is forgotten and equal
particles are merged (variable elimination), so probabilities of discrete variables are exact. In a
category the noise is not a point but an interval: its weight is the overlap of the intervals of all
worlds.
An unknown continuous variable is integrated over `POINTS` midpoints of equal probability.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from rfxray.causes.mechanisms import Mechanism, StructuralModel
from rfxray.errors import ConfigError

POINTS = 32  # halving the step moves no probability of the phantom by more than 5e-4
MOST = 2**21  # particles at once, about 1 GB
_KEPT = 2**16  # particles of one row if it needs more: a standard error of at most 0.002
_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class As:
    """The value that a variable has in another, earlier world: of nested counterfactuals."""

    world: int


@dataclasses.dataclass(frozen=True)
class World:
    """The model under an intervention, and what is seen there.

    Attributes:
      values: Encoded values that are seen, [n, variables].
      known: Which are seen, bool [n, variables].
      do: Interventions: variable to a value, to a value for each row [n], or to `As` a world.
    """

    values: np.ndarray
    known: np.ndarray
    do: Mapping[str, float | np.ndarray | As] = dataclasses.field(default_factory=dict)

    def rows(self, part: np.ndarray) -> "World":
        do = {n: v[part] if isinstance(v, np.ndarray) else v for n, v in self.do.items()}
        return World(self.values[part], self.known[part], do)


@dataclasses.dataclass(frozen=True)
class Answer:
    """The joint law of the targets in each row.

    Attributes:
      row: Row of each particle, [m].
      weight: Its probability given what is seen, [m].
      values: Values of the targets, [m, targets].
      evidence: Probability (density, of continuous ones) of what is seen, [n].
      error: Bound of the standard error of a probability; 0 if it is exact.
    """

    row: np.ndarray
    weight: np.ndarray
    values: np.ndarray
    evidence: np.ndarray
    error: float

    def mean(self, target: int = 0) -> np.ndarray:
        """The mean of a target, [n]: the probability of presence if it is a finding."""
        return np.bincount(self.row, self.weight * self.values[:, target], len(self.evidence))

    def probability(self, target: int, value: float) -> np.ndarray:
        """P(target = value), [n]."""
        hit = self.values[:, target] == value
        return np.bincount(self.row, self.weight * hit, len(self.evidence))


def nothing(model: StructuralModel, rows: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Values and known of a world in which nothing is seen, [rows, variables]."""
    shape = (rows, len(model.graph.variables))
    return np.zeros(shape), np.zeros(shape, bool)


def joint(
    model: StructuralModel, worlds: Sequence[World], targets: Sequence[tuple[int, str]]
) -> Answer:
    """The law of some variables in some worlds, given all that is seen in all of them.

    Args:
      model: Model.
      worlds: Worlds of the same rows.
      targets: World and name of each variable that is asked for.

    Raises:
      ConfigError: If the model gives what is seen no chance, or something is seen of what is set.
    """
    index, count = model.graph.index, len(worlds[0].values)
    for world in worlds:
        for name in world.do:
            if world.known[:, index[name]].any():
                raise ConfigError(f"{name} cannot be both set and seen in one world; leave one out")
    pending = [np.arange(start, min(start + _ROWS, count)) for start in range(0, count, _ROWS)]
    found: list[Answer] = []
    rows: list[np.ndarray] = []
    while pending:
        part = pending.pop(0)
        sweep = _Sweep(model, [world.rows(part) for world in worlds], targets, len(part) == 1)
        if (answer := sweep.run()) is None:  # too many at once
            half = len(part) // 2
            pending[:0] = [part[:half], part[half:]]
        else:
            found.append(answer)
            rows.append(part)
    evidence = np.concatenate([each.evidence for each in found])
    if not (evidence > 0).all():
        raise ConfigError(
            "the model gives what was seen no chance at all (such as an age outside of the table "
            "that it was fitted to); change the evidence"
        )
    return Answer(
        np.concatenate([part[each.row] for part, each in zip(rows, found, strict=True)]),
        np.concatenate([each.weight for each in found]),
        np.concatenate([each.values for each in found]),
        evidence,
        max(each.error for each in found),
    )


class _Sweep:
    """One pass through the variables, in causal order."""

    def __init__(self, model, worlds, targets, last_resort: bool):
        self.model, self.worlds, self.targets = model, worlds, targets
        self.index, self.count = model.graph.index, len(worlds[0].values)
        self.last_resort, self.error = last_resort, 0.0
        self.row = np.arange(self.count)
        self.weight = np.ones(self.count)
        self.state = np.zeros((len(worlds), self.count, len(model.graph.variables)))
        self.names = self._names()
        self.same_as = self._same_as()

    def run(self) -> Answer | None:
        """The answer, or None if too many particles are needed and rows can be done in parts."""
        for at, name in enumerate(self.names):
            if self.model.mechanisms[name].continuous:
                self._continuous(name)
            else:
                self._categories(name)
            if not self._merge(at + 1):
                return None
        evidence = np.bincount(self.row, self.weight, self.count)
        share = self.weight / np.maximum(evidence, 1e-300)[self.row]
        columns = [self.state[world, :, self.index[name]] for world, name in self.targets]
        return Answer(self.row, share, np.stack(columns, 1), evidence, self.error)

    def _names(self) -> list[str]:
        """The variables that bear on the answer, in causal order.

        If every variable is seen in world 0, the noise of each is bounded by its own record only,
        so that of variables that act on no target says nothing.
        """
        graph = self.model.graph
        wanted = {name for _, name in self.targets}
        columns = [self.index[name] for name in graph.parents]
        whole = self.worlds[0].known[:, columns].all() and not self.worlds[0].do
        for j, world in enumerate(self.worlds):
            if j or not whole:
                seen = world.known.any(0)
                wanted |= {name for name in graph.parents if seen[self.index[name]]}
        return list(graph.ancestors(wanted))

    def _same_as(self) -> list[dict[str, int]]:
        """For each world, the earliest world in which a variable has the same value for sure."""
        # Two worlds agree on a variable if its own number and those of all that acts on it agree.
        numbers: dict[tuple, int] = {}
        signs: list[dict[str, int]] = []
        same = []
        for j, world in enumerate(self.worlds):
            sign: dict[str, int] = {}
            for name in self.names:
                value = world.do.get(name)
                if isinstance(value, As):
                    sign[name] = signs[value.world][name]
                    continue
                parents = tuple(sign[p] for p in self.model.graph.parents[name])
                own = (name, parents) if value is None else (name, "set", j)
                sign[name] = numbers.setdefault(own, len(numbers))
            signs.append(sign)
            same.append(
                {n: next(i for i in range(j + 1) if signs[i][n] == sign[n]) for n in self.names}
            )
        return same

    def _drawn(self, name: str) -> list[int]:
        """The worlds in which the mechanism of a variable is at work, and none before did it."""
        return [
            j
            for j, world in enumerate(self.worlds)
            if name not in world.do and self.same_as[j][name] == j
        ]

    def _select(self, which: np.ndarray) -> None:
        self.row, self.weight = self.row[which], self.weight[which]
        self.state = self.state[:, which]

    def _set_others(self, name: str) -> None:
        """What is set, or the same as in an earlier world; drops what contradicts what is seen."""
        i = self.index[name]
        keep = np.ones(len(self.row), bool)
        for j, world in enumerate(self.worlds):
            value = world.do.get(name)
            if isinstance(value, As):
                self.state[j, :, i] = self.state[value.world, :, i]
            elif value is not None:
                each = np.broadcast_to(np.asarray(value, float), self.count)
                self.state[j, :, i] = each[self.row]
            elif (earlier := self.same_as[j][name]) != j:
                self.state[j, :, i] = self.state[earlier, :, i]
                seen, wanted = world.known[self.row, i], world.values[self.row, i]
                keep &= ~seen | (self.state[j, :, i] == wanted)
        if not keep.all():
            self._select(keep)

    def _categories(self, name: str) -> None:
        mechanism, i = self.model.mechanisms[name], self.index[name]
        low, high = np.zeros(len(self.row)), np.ones(len(self.row))
        for j in self._drawn(name):
            edges = mechanism.cumulative(self.state[j])
            starts = np.maximum(low[:, None], edges[:, :-1])
            ends = np.minimum(high[:, None], edges[:, 1:])
            possible = ends > starts
            seen = self.worlds[j].known[self.row, i]
            wanted = self.worlds[j].values[self.row, i]
            possible &= ~seen[:, None] | (np.arange(mechanism.categories) == wanted[:, None])
            which, category = np.nonzero(possible)
            low, high = starts[which, category], ends[which, category]
            self._select(which)
            self.state[j, :, i] = category
        self.weight = self.weight * (high - low)
        self._set_others(name)

    def _continuous(self, name: str) -> None:
        mechanism, i = self.model.mechanisms[name], self.index[name]
        drawn = self._drawn(name)
        if drawn:
            noise = np.full(len(self.row), np.nan)
            for j in drawn:
                at = np.flatnonzero(self.worlds[j].known[self.row, i])
                if not np.isnan(noise[at]).all():
                    raise ConfigError(
                        f"{name} is continuous: what is seen of it in one world decides it in the "
                        "other; give it before or after the intervention, not both"
                    )
                noise[at] = self._seen(mechanism, name, j, at)
            noise = self._spread(noise)
            for j in drawn:
                seen = self.worlds[j].known[self.row, i]
                own = self.worlds[j].values[self.row, i]
                drawn_value = mechanism.value(self.state[j], noise)
                self.state[j, :, i] = np.where(seen, own, drawn_value)
        self._set_others(name)

    def _seen(self, mechanism: Mechanism, name: str, j: int, at: np.ndarray) -> np.ndarray:
        """The noise of particles that see the variable; weighs them by how likely that is."""
        rows = self.state[j][at]
        rows[:, self.index[name]] = self.worlds[j].values[self.row[at], self.index[name]]
        low, high = mechanism.interval(rows)
        self.weight[at] *= mechanism.likelihood(rows)
        return (low + high) / 2

    def _spread(self, noise: np.ndarray) -> np.ndarray:
        """The noise, with `POINTS` particles in the place of each that has none."""
        times = np.where(np.isnan(noise), POINTS, 1)
        if (times == 1).all():
            return noise
        which = np.repeat(np.arange(len(noise)), times)
        number = np.arange(len(which)) - np.repeat(np.cumsum(times) - times, times)
        spread = np.isnan(noise)[which]
        self._select(which)
        self.weight = self.weight / np.where(spread, POINTS, 1)
        return np.where(spread, (number + 0.5) / POINTS, noise[which])

    def _merge(self, done: int) -> bool:
        """Merges particles that are equal in all that is still read; True if few enough remain."""
        if len(self.row) == self.count:
            return True
        code = self.row.astype(np.int64)
        for j, name in sorted(self._read(done)):
            different, own = np.unique(self.state[j, :, self.index[name]], return_inverse=True)
            if len(different) > 1:
                _, code = np.unique(code * len(different) + own, return_inverse=True)
        _, first, code = np.unique(code, return_index=True, return_inverse=True)
        weight = np.bincount(code, self.weight)
        self._select(first)
        self.weight = weight
        if len(first) <= MOST:
            return True
        if not self.last_resort:
            return False
        # Systematic resampling, with a fixed offset: the same question gets the same answer.
        edges = np.cumsum(weight)
        chosen = np.searchsorted(edges, (np.arange(_KEPT) + 0.5) / _KEPT * edges[-1])
        self._select(chosen)
        self.weight = np.full(_KEPT, edges[-1] / _KEPT)
        self.error += 0.5 / _KEPT**0.5
        return True

    def _read(self, done: int) -> set[tuple[int, str]]:
        """World and name of what a later variable or a target reads."""
        past = set(self.names[:done])
        read = {(world, name) for world, name in self.targets if name in past}
        for name in self.names[done:]:
            for j in self._drawn(name):
                read |= {(j, p) for p in self.model.graph.parents[name] if p in past}
        return read
