"""What an intervention does: probabilities before and after it, differences, paths, intervals.

A `Question` has evidence in two places. `given` was seen before the intervention, in the world as
it was: the noise keeps what it says (a counterfactual). `after` is seen once the intervention is
made: it selects among the outcomes (conditioning in the mutilated model). They differ whenever the
evidence depends on what is set.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from rfxray.attributes.vocabulary import PATHOLOGY_NAMES
from rfxray.causes.mechanisms import StructuralModel
from rfxray.causes.worlds import As, World, joint, nothing
from rfxray.errors import ConfigError

Values = Mapping[str, float]

NEAR = 1 / 24  # of the range of a continuous variable counts as the same: 5 years of age
FEW = 50  # rows like those that an effect is asked for, below which it is mostly extrapolation
NO_FINDING = "no_finding"  # evidence, and no variable of a graph
_NO_CHANCE = 1e-9
_UNORDERED = ("race", "view", "source")


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about one variable.

    Attributes:
      of: Variable that is asked for: the probability of its last category (a finding is present),
        of `value`, or its mean if it is continuous.
      do: Intervention, variable to encoded value.
      versus: Intervention to compare with; empty for none.
      given: What was seen before the intervention.
      after: What is seen after it.
      through: Mediators: only what the intervention does through them, while the rest stays as
        under `versus` (a nested counterfactual; the natural indirect effect of Pearl 2001).
      value: Encoded value of `of` that is asked for; None for its last category.
    """

    of: str
    do: Values
    versus: Values = dataclasses.field(default_factory=dict)
    given: Values = dataclasses.field(default_factory=dict)
    after: Values = dataclasses.field(default_factory=dict)
    through: tuple[str, ...] = ()
    value: float | None = None


@dataclasses.dataclass(frozen=True)
class Effect:
    """An answer, with 95% intervals (patient-clustered bootstrap) if the model has replicates.

    Attributes:
      then: Probability, or mean, under the intervention (through the mediators, if any are named).
      before: The same under what it is compared with.
      then_interval, difference_interval: Ends of the interval; None without replicates.
      e_value: E-value of the difference (VanderWeele and Ding 2017): the risk ratio that an
        unmeasured cause of both would need with each to explain it away; None if `of` is
        continuous, and if one of the two is 0, as when the evidence says it.
      e_value_interval: E-value of the end of the interval that is nearer to no effect.
      error: Bound of the standard error of the computation; 0 if it is exact.
    """

    then: float
    before: float
    then_interval: tuple[float, float] | None
    difference_interval: tuple[float, float] | None
    e_value: float | None
    e_value_interval: float | None
    error: float

    @property
    def difference(self) -> float:
        return self.then - self.before


def answer(
    model: StructuralModel, question: Question, advance: Callable[[int], None] = lambda new: None
) -> Effect:
    """The answer to a question.

    Args:
      model: Model.
      question: Question, in names of the model's graph.
      advance: Function called with 1 after each replicate.

    Raises:
      ConfigError: If the question names what is not in the graph, sets and sees one variable, or
        sees what the model gives no chance.
    """
    _check(model, question)
    then, before, error = _pair(model, question)
    pairs = []
    for replica in model.replicas():
        pairs.append(_pair(replica, question)[:2])
        advance(1)
    compared = not model.variable(question.of).continuous and min(then, before) > _NO_CHANCE
    found = Effect(then, before, None, None, None, None, error)
    if compared:
        found = dataclasses.replace(found, e_value=e_value(then / before))
    if len(pairs) > 1:
        spread = np.array(pairs)
        differences = spread[:, 0] - spread[:, 1]
        found = dataclasses.replace(
            found,
            then_interval=_interval(then, spread[:, 0]),
            difference_interval=_interval(then - before, differences),
        )
        if compared:
            logs = np.log(np.maximum(spread, _NO_CHANCE))
            low, high = _interval(np.log(then / before), logs[:, 0] - logs[:, 1])
            nearest = 1.0 if low <= 0 <= high else float(np.exp(low if low > 0 else high))
            found = dataclasses.replace(found, e_value_interval=e_value(nearest))
    return found


def e_value(ratio: float) -> float:
    """E-value of a risk ratio: RR + √(RR · (RR − 1)), of 1 / RR if it is below 1."""
    ratio = max(ratio, 1 / ratio)
    return ratio + (ratio * (ratio - 1)) ** 0.5


def expected_rows(model: StructuralModel, do: Values, given: Values) -> float:
    """How many rows of the table are like those that an effect is asked for (positivity).

    Rows near the values that are set, and like the evidence that does not depend on them, by the
    model; the rows are those that the variables were fitted to.
    """
    graph = model.graph
    if NO_FINDING in given:
        below = graph.descendants(do)
        if {*PATHOLOGY_NAMES} & {*below, *do}:  # as all evidence that depends on what is set
            given = {name: value for name, value in given.items() if name != NO_FINDING}
        else:
            parts = settled(model, given)
            return sum(sign * expected_rows(model, do, part) for sign, part in parts)
    below = {*graph.descendants(do), *do}
    rows = min(model.mechanisms[name].rows for name in do)
    kept = {name: value for name, value in given.items() if name not in below}
    values, known = _seen(model, kept)
    width = 1.0
    for name in kept:
        variable = graph.variable(name)
        if variable.continuous and not model.mechanisms[name].unit:
            width *= 2 * NEAR * (variable.high - variable.low)
    found = joint(model, [World(values, known)], [(0, name) for name in do])
    hit = np.ones(len(found.row), bool)
    for place, (name, value) in enumerate(do.items()):
        variable = graph.variable(name)
        reach = NEAR * (variable.high - variable.low) if variable.continuous else 0.0
        hit &= np.abs(found.values[:, place] - value) <= reach
    return float(rows * min(found.evidence[0] * width, 1.0) * found.weight[hit].sum())


def refuse_unsupported(model: StructuralModel, do: Values) -> None:
    """Raises a ConfigError for a value that no row of the table was near to.

    Nothing follows from a variable that the model does not have, so it may have any value.
    """
    for name, value in do.items():
        if name not in model.mechanisms:
            continue
        mechanism, variable = model.mechanisms[name], model.variable(name)
        if not mechanism.continuous:
            if not mechanism.seen[int(value)]:
                raise ConfigError(
                    f"no row of the table has {name}={variable.values[int(value)]}, so nothing is "
                    "known of what follows; set another value"
                )
            continue
        reach = NEAR * (variable.high - variable.low)
        low, high = mechanism.edges[1] - reach, mechanism.edges[-2] + mechanism.unit + reach
        if not low <= value <= high:
            raise ConfigError(
                f"{name}={value:g} is outside of what the table shows ({mechanism.edges[1]:g} to "
                f"{mechanism.edges[-2]:g} in 99.8% of its rows); set a value within"
            )


def frechet(model: StructuralModel, question: Question, value: float) -> tuple[float, float]:
    """Bounds of P(of = value under do | given) over all orders of its categories.

    For a variable without an order, such as race: its own mechanism could turn the same noise into
    any category, as long as each has its probability. Fréchet bounds of the two margins.

    Raises:
      ConfigError: If the evidence says nothing of the variable itself, or something of what it acts
        on, for which these bounds do not hold.
    """
    of, given = question.of, dict(question.given)
    if (
        NO_FINDING in given
        or of not in given
        or question.after
        or set(given) & set(model.graph.descendants([of]))
    ):
        raise ConfigError(f"bounds need evidence on {of}, and none on what {of} acts on")
    seen = given.pop(of)
    values, known = _seen(model, given)
    worlds = [World(values, known), World(*nothing(model), question.do)]
    found = joint(model, worlds, [(0, of), (1, of)])
    before, then = float(found.probability(0, seen)[0]), float(found.probability(1, value)[0])
    return max(0.0, before + then - 1) / before, min(before, then) / before


def unordered(name: str) -> bool:
    """Whether the categories of a variable have no order."""
    return name in _UNORDERED


def settled(model: StructuralModel, given: Values) -> list[tuple[int, dict[str, float]]]:
    """Evidence without No Finding, as terms to be added or subtracted.

    No Finding present says that all 12 pathologies are absent. That it is absent says that one of
    them is present: everything else that is seen, less that with all 12 absent.

    Raises:
      ConfigError: If the model lacks a pathology, or the evidence contradicts itself.
    """
    rest = {name: value for name, value in given.items() if name != NO_FINDING}
    if NO_FINDING not in given:
        return [(1, rest)]
    if missing := [name for name in PATHOLOGY_NAMES if name not in model.mechanisms]:
        raise ConfigError(
            f"the model does not have {missing[0]}, so no_finding says nothing exact; leave it out"
        )
    normal = dict.fromkeys(PATHOLOGY_NAMES, 0.0)
    possible = not any(rest.get(name) for name in PATHOLOGY_NAMES)
    if given[NO_FINDING]:
        if not possible:
            raise ConfigError("no_finding=present contradicts a pathology that is present")
        return [(1, rest | normal)]
    return [(1, rest), (-1, rest | normal)] if possible else [(1, rest)]


def _check(model: StructuralModel, question: Question) -> None:
    graph = model.graph
    graph.node(question.of)
    for name in (*question.do, *question.versus):
        graph.node(name)
    for name in (*question.given, *question.after):
        if name != NO_FINDING:
            graph.node(name)
    if NO_FINDING in question.after and {*PATHOLOGY_NAMES} & {*question.do, *question.versus}:
        raise ConfigError(
            "a pathology is set; no_finding cannot also be seen after that: see the others by name"
        )
    if both := {*question.do, *question.versus} & set(question.after):
        raise ConfigError(f"{min(both)} is set; it cannot also be seen after that")
    missing = set(question.through) - set(graph.descendants(question.do))
    missing |= set(question.through) - set(graph.ancestors([question.of]))
    if missing or question.of in question.through:
        name = min(missing, default=question.of)
        raise ConfigError(
            f"no path leads from {', '.join(question.do)} through {name} to {question.of} in this "
            "graph; name a variable between them"
        )


def _pair(model: StructuralModel, question: Question) -> tuple[float, float, float]:
    """The value under the intervention and that under what it is compared with, and an error."""
    versus: dict[str, float | As] = dict(question.versus)
    if question.through:
        nested = versus | {name: As(-1) for name in question.through}
        then, error = _value(model, question, nested, question.do)
    else:
        then, error = _value(model, question, dict(question.do))
    before, other = _value(model, question, versus)
    return then, before, error + other


def _value(
    model: StructuralModel,
    question: Question,
    do: Mapping[str, float | As],
    mediators: Values | None = None,
) -> tuple[float, float]:
    """The value in the last of these worlds: as it was, of the mediators, of the question."""
    total, chance, error = 0.0, 0.0, 0.0
    for sign, given in settled(model, question.given):
        for other, after in settled(model, question.after):
            value, evidence, bound = _term(model, question, given, after, do, mediators)
            total += sign * other * evidence * value
            chance += sign * other * evidence
            error += evidence * bound
    if not chance > _NO_CHANCE:
        raise ConfigError("the model gives what was seen no chance at all; change the evidence")
    return total / chance, error / chance


def _term(
    model: StructuralModel,
    question: Question,
    given: Values,
    after: Values,
    do: Mapping[str, float | As],
    mediators: Values | None,
) -> tuple[float, float, float]:
    """The value given evidence on variables of the graph, the chance of it, and an error."""
    worlds = [World(*_seen(model, given))] if given else []
    if mediators is not None:
        worlds.append(World(*nothing(model), dict(mediators)))
        do = {n: As(len(worlds) - 1) if isinstance(v, As) else v for n, v in do.items()}
    worlds.append(World(*_seen(model, after), do))
    found = joint(model, worlds, [(len(worlds) - 1, question.of)])
    variable, evidence = model.variable(question.of), float(found.evidence[0])
    if variable.continuous:
        return float(found.mean()[0]), evidence, found.error
    value = len(variable.values) - 1 if question.value is None else question.value
    return float(found.probability(0, value)[0]), evidence, found.error


def _seen(model: StructuralModel, what: Values) -> tuple[np.ndarray, np.ndarray]:
    values, known = nothing(model)
    for name, value in what.items():
        i = model.graph.index[name]
        values[0, i], known[0, i] = value, True
    return values, known


def _interval(value: float, replicates: np.ndarray) -> tuple[float, float]:
    spread = 1.96 * float(replicates.std(ddof=1))
    return float(value - spread), float(value + spread)
