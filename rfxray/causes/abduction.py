"""What follows from an intervention, by a `StructuralModel` of the attributes.

Abduction is exact: given what was observed, the noise u of a finding is uniform below its
probability p (present) or above it (absent), and nothing else is known of it. An intervention
leaves every u as it is and changes the p of what descends from it, so a finding can only change in
the direction in which its p moved (Pearl 2009, §7.1: abduction, action, prediction).

What was not known stays unknown, but it is summed over: each row stands for `WORLDS` completions,
their unknown causes drawn from the population and their unknown findings from the mechanisms,
weighted by how likely they make what is known. 20,000 of them give a probability to ± 0.01.
"""

from collections.abc import Mapping

import numpy as np

from rfxray.attributes.vocabulary import (
    ATTRIBUTES,
    INDEX,
    PATHOLOGY_NAMES,
    Attributes,
    derive_no_finding,
)
from rfxray.causes.logistic import StructuralModel
from rfxray.errors import ConfigError

WORLDS = 20_000
NEAR_YEARS = 10  # rows of the population within these have the age of a patient


def counterfactual(
    model: StructuralModel, observed: Attributes, do: Mapping[str, float], seed: int = 0
) -> tuple[Attributes, dict[str, np.ndarray]]:
    """Abducts the noise of every finding, intervenes, and lets the descendants follow.

    An intervention that sets what was observed changes nothing. No Finding is derived again if a
    pathology changed, or became known, and is left as observed otherwise.

    Args:
      model: Model from `logistic.fit`.
      observed: Observed attributes, [n, 19].
      do: Interventions, attribute to encoded value.
      seed: Seed of the draw of u from what the observation leaves open.

    Returns:
      Attributes [n, 19] after the intervention, and for each descendant the probability [n] that it
      is then present, given all that was observed; and if no cause is unknown, given the new value
      of every ancestor.

    Raises:
      ConfigError: For an intervention on No Finding, which is derived, or on something that has
        descendants and is not known.
    """
    if "no_finding" in do:
        raise ConfigError("no_finding follows from the 12 pathologies; set those and propagate")
    follow = model.graph.descendants(do)
    for name in do:
        if model.graph.descendants([name]) and not observed.known[:, INDEX[name]].all():
            raise ConfigError(
                f"what follows from {name} depends on its value before the change; say --from "
                f"{name}=VALUE"
            )
    pathologies, last = [INDEX[name] for name in PATHOLOGY_NAMES], INDEX["no_finding"]
    before = Attributes(observed.values, observed.known.copy())
    normal = observed.known[:, last] & (observed.values[:, last] > 0.5)
    before.known[:, pathologies] |= normal[:, None]
    after = Attributes(before.values.copy(), before.known.copy())
    for name, value in do.items():
        after.values[:, INDEX[name]], after.known[:, INDEX[name]] = value, True
    rng = np.random.default_rng(seed)
    # Drawn for every child in one order: the noise of a finding does not depend on what is done.
    draws = {child: rng.random(len(observed.values)) for child in model.graph.parents}
    causes = [INDEX[name] for child in follow for name in model.graph.parents[child]]
    chances = _follow(model, before, after, follow, draws)
    for row in np.flatnonzero(~before.known[:, causes].all(1)).tolist():
        of_row = np.random.default_rng([seed, row])
        _complete(model, before.rows(row), after.rows(row), do, follow, chances, row, of_row)
    moved = (after.known != before.known) | (after.known & (after.values != before.values))
    rows = moved[:, pathologies].any(1)
    after.known[rows, last], after.values[rows, last] = False, 0
    after.values[rows], after.known[rows] = derive_no_finding(after.rows(rows))
    for name in do:
        moved[:, INDEX[name]] = True
    # Hide again findings that were known only through No Finding, unless they changed.
    after.known[:, pathologies] &= (observed.known | moved)[:, pathologies]
    return after, chances


def _follow(model, before, after, follow, draws) -> dict[str, np.ndarray]:
    """Lets the descendants that are known follow in `after`; the probability of each, [n]."""
    chances = {}
    for child in follow:
        i = INDEX[child]
        was, now = model.probability(child, before), model.probability(child, after)
        present = before.values[:, i] > 0.5
        # u | observed is uniform on [0, p) or [p, 1).
        u = np.where(present, draws[child] * was, was + draws[child] * (1 - was))
        after.values[:, i] = np.where(after.known[:, i], u < now, 0)
        chances[child] = np.where(
            present, np.minimum(now, was) / was, np.maximum(now - was, 0) / (1 - was)
        )
    return chances


def _complete(model, before, after, do, follow, chances, row, rng) -> None:
    """The same for one row, [19], summed over what is unknown there; in `after` and `chances`."""
    worlds = Attributes(*(np.tile(field, (WORLDS, 1)) for field in before))
    _draw_causes(model, worlds, before, rng)
    weights = np.ones(WORLDS)
    for child in model.graph.parents:
        i = INDEX[child]
        p = model.probability(child, worlds)
        if before.known[i]:
            weights *= p if before.values[i] > 0.5 else 1 - p
        else:
            worlds.values[:, i], worlds.known[:, i] = rng.random(WORLDS) < p, True
    weights /= weights.sum()
    then = Attributes(worlds.values.copy(), worlds.known.copy())
    for name in do:
        then.values[:, INDEX[name]] = after.values[INDEX[name]]
    draws = {child: rng.random(WORLDS) for child in follow}
    of_worlds = _follow(model, worlds, then, follow, draws)
    drawn = rng.choice(WORLDS, p=weights)
    for child in follow:
        i = INDEX[child]
        chances[child][row] = of_worlds[child] @ weights
        after.values[i] = then.values[drawn, i] if after.known[i] else 0


def _draw_causes(model: StructuralModel, worlds: Attributes, before: Attributes, rng) -> None:
    """Draws the unknown causes without causes in `worlds` from people like the one of `before`."""
    roots = {p for parents in model.graph.parents.values() for p in parents}
    roots -= set(model.graph.parents)
    unknown = [INDEX[name] for name in sorted(roots) if not before.known[INDEX[name]]]
    people = model.population
    alike = people.known[:, unknown].all(1)
    for name in sorted(roots):
        i = INDEX[name]
        if before.known[i]:
            reach = NEAR_YEARS if ATTRIBUTES[i].continuous else 0
            near = alike & (np.abs(people.values[:, i] - before.values[i]) <= reach)
            alike = near if near.any() else alike
    if unknown and alike.any():
        drawn = rng.choice(np.flatnonzero(alike), WORLDS)
        worlds.values[:, unknown] = people.values[drawn][:, unknown]
        worlds.known[:, unknown] = True
