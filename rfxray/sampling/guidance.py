"""Guidance: velocities under several conditions, combined into the one that is integrated.

Every guidance is an affine combination of branches, v = v₀ + Σ_m w_m·(v_m − v₀): what the branches
are told makes the kind (`classifier_free`, `factored`, `contrast`, `alike` for autoguidance), and a
rule says how they are combined (`affine`, alone or inside `within`, `rescaled`, `optimised`):

    branches = factored(attributes, known, groups, weights)
    velocity = guided(network, branches, rescaled(within(affine, 0.1, 0.9), 0.7))

All branches of a step go through the network as one batch. A weight may be a number or an array
over pixels, which is all that an edit mask is (editing.py).
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from rfxray.attributes.vocabulary import INDEX, NAMES, NUM_ATTRIBUTES, lookup
from rfxray.errors import ConfigError
from rfxray.sampling.solvers import Velocity

# (x [n, ...], t [n], attributes [n, 19], known [n, 19]) → dx/dt, shaped like x
Network = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]

# (told, base, weights, t) → velocity: what is made of the branches of one step. `told` is a list of
# velocities, `weights` a list as long of numbers or arrays that broadcast against them.
Rule = Callable[[list[jax.Array], jax.Array, list[jax.Array], jax.Array], jax.Array]


class Branches(NamedTuple):
    """The conditions under which each picture's velocity is asked, the base last.

    Attributes:
      attributes, known: [branches, batch, 19].
      weights: of every branch but the base.
    """

    attributes: jax.Array
    known: jax.Array
    weights: list[jax.Array]


# ---------------------------------------------------------------------------------------------
# What the branches are told


def unguided(attributes: jax.Array, known: jax.Array) -> Branches:
    """The plain conditional velocity."""
    return Branches(attributes[None], known[None], [])


def classifier_free(attributes: jax.Array, known: jax.Array, weight) -> Branches:
    """v(∅) + w·(v(c) − v(∅)) (Ho and Salimans 2022, arXiv 2207.12598).

    Weight 1 is the plain conditional velocity, above 1 exaggerates everything that is told.
    """
    return _stack([(attributes, known), (attributes, jnp.zeros_like(known))], [weight])


def factored(attributes: jax.Array, known: jax.Array, groups: np.ndarray, weights) -> Branches:
    """v(∅) + Σ_m w_m·(v(c⁽ᵐ⁾) − v(∅)), c⁽ᵐ⁾ told group m alone (arXiv 2506.14399).

    Args:
      attributes, known: [batch, 19].
      groups: [groups, 19] bool, from `group_masks`.
      weights: one for each group.
    """
    told = [(attributes, known & mask) for mask in groups]
    return _stack([*told, (attributes, jnp.zeros_like(known))], list(weights))


def contrast(attributes: jax.Array, known: jax.Array, changed: np.ndarray, weight) -> Branches:
    """v(c∖m) + w·(v(c) − v(c∖m)): guided along one group given all the others.

    Weight 1 is the plain conditional velocity exactly, which `factored` is only where groups act
    independently; and the base stays within what is told, so nothing else is exaggerated.

    Args:
      attributes, known: [batch, 19].
      changed: [19] or [batch, 19] bool, the group m.
      weight: of it.
    """
    return _stack([(attributes, known), (attributes, known & ~changed)], [weight])


def alike(attributes: jax.Array, known: jax.Array, weight) -> Branches:
    """Both branches told the same, for a network of two: see `autoguided`."""
    return _stack([(attributes, known)] * 2, [weight])


def group_masks(groups: Sequence[Sequence[str]]) -> np.ndarray:
    """Groups of attribute names as [groups + 1, 19] bool; what none names is the last group.

    Raises:
      ConfigError: for an attribute that is not there or stands in two groups.
    """
    masks = np.zeros((len(groups) + 1, NUM_ATTRIBUTES), bool)
    for mask, names in zip(masks, groups, strict=False):
        mask[[INDEX[lookup(name).name] for name in names]] = True
    twice = np.flatnonzero(masks.sum(0) > 1)
    if twice.size:
        raise ConfigError(f"{NAMES[twice[0]]} stands in two groups of guidance")
    masks[-1] = ~masks.any(0)
    return masks


def _stack(conditions, weights) -> Branches:
    attributes, known = (jnp.stack(part) for part in zip(*conditions, strict=True))
    return Branches(attributes, known, weights)


# ---------------------------------------------------------------------------------------------
# How they are combined


def affine(told, base, weights, t):
    """v₀ + Σ_m w_m·(v_m − v₀)."""
    terms = [weight * (v - base) for v, weight in zip(told, weights, strict=True)]
    return functools.reduce(jnp.add, terms, base)


def within(rule: Rule, low: float, high: float) -> Rule:
    """Every weight is 1 outside of low ≤ t ≤ high (Kynkäänniemi et al. 2024, arXiv 2404.07724)."""

    def combine(told, base, weights, t):
        inside = (t >= low) & (t <= high)
        return rule(told, base, [jnp.where(inside, weight, 1.0) for weight in weights], t)

    return combine


def rescaled(rule: Rule, share: float) -> Rule:
    """Takes back that share of the contrast that guidance adds (Lin et al. 2023, arXiv 2305.08891).

    The standard deviation of each picture's velocity is brought towards that of weight 1.
    """

    def combine(told, base, weights, t):
        guided = rule(told, base, weights, t)
        plain = rule(told, base, [jnp.ones_like(weight) for weight in weights], t)
        axes = tuple(range(1, base.ndim))
        wanted, found = (v.std(axes, keepdims=True) for v in (plain, guided))
        return guided * (1 + share * (wanted / found - 1))

    return combine


def optimised(rule: Rule) -> Rule:
    """Scales the base to where it lies nearest to the told velocity.

    The one half of CFG-Zero* (Fan et al. 2025, arXiv 2503.18886): s = ⟨v₁, v₀⟩ / |v₀|² for each
    picture. The other, resting in the first step, is of the time grid (`generate.flow_to_data`).
    With several told branches s is of their mean.
    """

    def combine(told, base, weights, t):
        mean = functools.reduce(jnp.add, told) / len(told)
        axes = tuple(range(1, base.ndim))
        scale = (mean * base).sum(axes, keepdims=True) / (base**2).sum(axes, keepdims=True)
        return rule(told, scale * base, weights, t)

    return combine


# ---------------------------------------------------------------------------------------------
# The velocity that is integrated


def ask(network: Network, x: jax.Array, t: jax.Array, branches: Branches) -> list[jax.Array]:
    """The velocity of every branch, from one call of the network.

    Args:
      x: [branches, batch, ...], where each is asked.
      t: scalar.

    Returns:
      a list of [batch, ...], as long as there are branches.
    """
    rows = [rearrange(a, "m n ... -> (m n) ...") for a in (x, branches.attributes, branches.known)]
    velocities = network(rows[0], jnp.full(len(rows[0]), t), rows[1], rows[2])
    return jnp.split(velocities, len(x))


def guided(network: Network, branches: Branches, rule: Rule = affine) -> Velocity:
    """The combined velocity as a function of (x [batch, ...], t scalar)."""

    def velocity(x, t):
        *told, base = ask(network, jnp.stack([x] * len(branches.known)), t, branches)
        return rule(told, base, branches.weights, t) if told else base

    return velocity


def autoguided(apply, params, weak) -> Network:
    """Two networks of one shape as one: the first half of the rows asks `params`, the other `weak`.

    With `alike` this is autoguidance, v = v_weak + w·(v − v_weak) (Karras et al. 2024,
    arXiv 2406.02507): away from the errors that a less trained network makes more of.

    Args:
      apply: `(params, x, t, attributes, known) → dx/dt`.
      params, weak: parameters of the same tree.
    """
    both = jax.tree.map(lambda *pair: jnp.stack(pair), params, weak)

    def network(*rows):
        halves = [rearrange(a, "(two n) ... -> two n ...", two=2) for a in rows]
        return rearrange(jax.vmap(apply)(both, *halves), "two n ... -> (two n) ...")

    return network
