"""Guidance: velocities under several conditions, combined into the one that is integrated.

Every guidance is an affine combination of branches, v = v₀ + Σ_m w_m·(v_m − v₀): the conditions of
the branches make the kind (`classifier_free`, `factored`, `contrast`, `alike` for autoguidance),
and a rule says how they are combined (`affine`, by itself or in `within`, `rescaled`, `optimised`):

    branches = factored(attributes, groups, weights)
    velocity = guided(network, branches, rescaled(within(affine, 0.1, 0.9), 0.7))

All branches of a step go through the network as one batch. A weight may be a number or an array
over pixels, which is all that an edit mask is (editing.py).
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float

from rfxray.arrays import AnyArray
from rfxray.attributes.vocabulary import INDEX, NAMES, NUM_ATTRIBUTES, Attributes, lookup
from rfxray.errors import ConfigError
from rfxray.objectives.objective import Parts
from rfxray.objectives.objective import Velocity as ParametricVelocity
from rfxray.sampling.solvers import Scalar, State, Velocity

# A velocity with its parameters given: (x [n, ...], t [n], attributes [n, 19]) → dx/dt
Network: TypeAlias = Callable[[State, Float[Array, " n"], Attributes], State]

# A number, or an array that broadcasts against the velocity.
Weight: TypeAlias = float | np.floating | Float[AnyArray, "..."]

# (others, base, weights, t) → velocity: how the branches of one step are combined. `others` are the
# velocities of every branch except the base, and there are as many weights.
Rule: TypeAlias = Callable[[Sequence[State], State, Sequence[Weight], Scalar], State]


class Branches(NamedTuple):
    """The conditions under which the velocity of each image is evaluated, the base last.

    Attributes:
      attributes: Condition of each branch, [branches, batch, 19].
      weights: Weights of all branches except the base.
    """

    attributes: Attributes
    weights: list[Weight]


# ---------------------------------------------------------------------------------------------
# The conditions of the branches


def unguided(attributes: Attributes) -> Branches:
    """The plain conditional velocity, of attributes [batch, 19]."""
    return _stack([attributes], [])


def classifier_free(
    attributes: Attributes, weight: Weight, base: Attributes | None = None
) -> Branches:
    """v(b) + w·(v(c) − v(b)) (Ho and Salimans 2022, arXiv 2207.12598).

    Weight 1 is the plain conditional velocity, above 1 exaggerates every known attribute.

    Args:
      attributes: The whole condition c, [batch, 19].
      weight: Weight of the condition.
      base: The condition b that it leads away from, [batch, 19]; nothing known when None.
    """
    return _stack([attributes, _unconditioned(attributes) if base is None else base], [weight])


def factored(
    attributes: Attributes,
    groups: Bool[AnyArray, "groups ..."],
    weights: Sequence[Weight] | Float[AnyArray, " groups"],
    base: Attributes | None = None,
) -> Branches:
    """v(b) + Σ_m w_m·(v(c⁽ᵐ⁾) − v(b)), where c⁽ᵐ⁾ knows only group m (arXiv 2506.14399).

    Args:
      attributes: The whole condition c, [batch, 19].
      groups: Attributes of each group, bool [groups, 19] from `group_masks`, or
        [groups, batch, 19].
      weights: One weight for each group.
      base: The condition b, as for `classifier_free`.
    """
    parts = [attributes._replace(known=attributes.known & mask) for mask in groups]
    return _stack([*parts, _unconditioned(attributes) if base is None else base], list(weights))


def contrast(attributes: Attributes, changed: Bool[AnyArray, "... 19"], weight: Weight) -> Branches:
    """v(c∖m) + w·(v(c) − v(c∖m)): guided along one group given all the others.

    Weight 1 is the plain conditional velocity exactly, which `factored` is only if the groups act
    independently; and the base knows all the other attributes, so none of them is exaggerated.

    Args:
      attributes: The whole condition c, [batch, 19].
      changed: The group m, bool [19] or [batch, 19].
      weight: Weight of the group.
    """
    rest = attributes._replace(known=attributes.known & ~changed)
    return _stack([attributes, rest], [weight])


def alike(attributes: Attributes, weight: Weight) -> Branches:
    """Both branches under the same condition, for a network of two: see `autoguided`."""
    return _stack([attributes] * 2, [weight])


def group_masks(groups: Sequence[Sequence[str]]) -> Bool[np.ndarray, "groups 19"]:
    """Groups of attribute names as bool [groups + 1, 19]; the last group is all the others.

    Raises:
      ConfigError: For an unknown attribute, or one that is named twice.
    """
    masks = np.zeros((len(groups) + 1, NUM_ATTRIBUTES), bool)
    for mask, names in zip(masks, groups, strict=False):
        places = [INDEX[lookup(name).name] for name in names]
        if len({*places}) < len(places):
            raise ConfigError(f"--weight {'+'.join(names)} names an attribute twice; name it once")
        mask[places] = True
    twice = np.flatnonzero(masks.sum(0) > 1)
    if twice.size:
        raise ConfigError(f"{NAMES[twice[0]]} is in two groups of --weight; list it in one")
    masks[-1] = ~masks.any(0)
    return masks


def _unconditioned(attributes: Attributes) -> Attributes:
    return attributes._replace(known=jnp.zeros_like(attributes.known))


def _stack(conditions: Sequence[Attributes], weights: list[Weight]) -> Branches:
    return Branches(jax.tree.map(lambda *parts: jnp.stack(parts), *conditions), weights)


# ---------------------------------------------------------------------------------------------
# How they are combined


def affine(
    others: Sequence[Float[Array, " batch *shape"]],
    base: Float[Array, " batch *shape"],
    weights: Sequence[Weight],
    t: Scalar,
) -> Float[Array, " batch *shape"]:
    """v₀ + Σ_m w_m·(v_m − v₀): the plain `Rule`."""
    terms = [weight * (v - base) for v, weight in zip(others, weights, strict=True)]
    return functools.reduce(jnp.add, terms, base)


def within(rule: Rule, low: float, high: float) -> Rule:
    """Every weight is 1 outside of low ≤ t ≤ high (Kynkäänniemi et al. 2024, arXiv 2404.07724)."""

    def combine(others, base, weights, t):
        inside = (t >= low) & (t <= high)
        return rule(others, base, [jnp.where(inside, weight, 1.0) for weight in weights], t)

    return combine


def rescaled(rule: Rule, share: float) -> Rule:
    """Takes back that share of the contrast that guidance adds (Lin et al. 2023, arXiv 2305.08891).

    The standard deviation of each image's velocity is brought towards that of weight 1.
    """

    def combine(others, base, weights, t):
        guided = rule(others, base, weights, t)
        plain = rule(others, base, [jnp.ones_like(weight) for weight in weights], t)
        axes = tuple(range(1, base.ndim))
        wanted, found = (v.std(axes, keepdims=True) for v in (plain, guided))
        return guided * (1 + share * (wanted / found - 1))

    return combine


def optimised(rule: Rule) -> Rule:
    """Scales the base so that it lies as near as possible to the conditional velocity.

    One half of CFG-Zero* (Fan et al. 2025, arXiv 2503.18886): s = ⟨v₁, v₀⟩ / |v₀|² for each image.
    The other half, skipping the first interval, belongs to the time grid (`sampler.flow_to_data`).
    With several conditional branches s is taken of their mean.
    """

    def combine(others, base, weights, t):
        mean = functools.reduce(jnp.add, others) / len(others)
        axes = tuple(range(1, base.ndim))
        scale = (mean * base).sum(axes, keepdims=True) / (base**2).sum(axes, keepdims=True)
        return rule(others, scale * base, weights, t)

    return combine


# ---------------------------------------------------------------------------------------------
# The velocity that is integrated


def evaluate_branches(
    network: Network,
    x: Float[AnyArray, " branches batch *shape"],
    t: Float[AnyArray, ""],
    attributes: Attributes,
) -> list[Float[Array, " batch *shape"]]:
    """The velocity of every branch, from one call of the network.

    Args:
      network: `(x [n, ...], t [n], attributes [n, 19]) → dx/dt`.
      x: State at which each branch is evaluated, [branches, batch, ...].
      t: Time, a scalar.
      attributes: Condition of each branch, [branches, batch, 19].

    Returns:
      List of velocities [batch, ...], one for each branch.
    """
    rows, conditions = jax.tree.map(lambda a: rearrange(a, "m n ... -> (m n) ..."), (x, attributes))
    return jnp.split(network(rows, jnp.full(len(rows), t), conditions), len(x))


def guided(
    network: Network,
    branches: Branches,
    rule: Rule = affine,
    interval: tuple[float, float] = (0.0, 1.0),
    plain: Network | None = None,
) -> Velocity:
    """The combined velocity as a function of (x [batch, ...], t scalar).

    Args:
      network: Function as for `evaluate_branches`.
      branches: Conditions and weights.
      rule: How the branches are combined within the interval.
      interval: Times within which there is guidance; outside of it every weight is 1, see `within`.
        With one branch beside the base that is the velocity of the branch, and the base is not
        evaluated there.
      plain: Network that serves the branch there, if `network` needs both; `network` when None.
    """
    if interval != (0.0, 1.0) and len(branches.weights) == 1:
        both = guided(network, branches, rule)
        conditional = jax.tree.map(lambda a: a[:1], branches.attributes)
        low, high = interval

        def velocity_within(x, t):
            def outside():
                return evaluate_branches(plain or network, x[None], t, conditional)[0]

            return jax.lax.cond((t >= low) & (t <= high), lambda: both(x, t), outside)

        return velocity_within

    if interval != (0.0, 1.0):
        rule = within(rule, *interval)

    def velocity(x, t):
        copies = jnp.stack([x] * len(branches.attributes.known))
        *others, base = evaluate_branches(network, copies, t, branches.attributes)
        return rule(others, base, branches.weights, t) if others else base

    return velocity


def autoguided(velocity: ParametricVelocity, params: Parts, weak: Parts) -> Network:
    """Two networks of one shape as one: `params` serve the first half of the rows, `weak` the rest.

    With `alike` this is autoguidance, v = v_weak + w·(v − v_weak) (Karras et al. 2024,
    arXiv 2406.02507): away from the errors that a less trained network makes more of.

    Args:
      velocity: `(params, x, t [n], attributes [n, 19]) → dx/dt`.
      params, weak: Parameters of both networks, trees of the same structure.
    """
    both = jax.tree.map(lambda *pair: jnp.stack(pair), params, weak)

    def network(x, t, attributes):
        halves = jax.tree.map(
            lambda a: rearrange(a, "(two n) ... -> two n ...", two=2), (x, t, attributes)
        )
        return rearrange(jax.vmap(velocity)(both, *halves), "two n ... -> (two n) ...")

    return network
