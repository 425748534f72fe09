"""Skips a step if its gradient is not finite or is far larger than usual.

The check is part of the compiled step, so nothing waits for the host: a skipped step leaves the
parameters, the optimizer, the averages and the metrics as they were. The guard is part of the state
and remembers the last skipped steps; the host reads it at log steps and stops the run if there are
too many within a window (PaLM, arXiv 2204.02311 §5.1, restarts around such batches by hand).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from rfxray.arrays import AnyArray
from rfxray.config.schema import REMEMBERED_SKIPS

# Good steps before a norm can count as larger than usual: early in a run it falls tenfold.
WARM = 100


# See `fresh`; or a tree like it, of shapes or of shardings.
Guard = dict[str, jax.Array]


def fresh() -> Guard:
    """A guard that has seen no step.

    `usual`: running mean of the gradient norm of `model` over good steps, float32. `good`,
    `skipped`: int32 counts of steps. `steps` int32, `norms` float32, `firsts` and `worst` uint32,
    each [REMEMBERED_SKIPS], newest last: numbers of skipped steps (0 for none), their gradient
    norms, and the positions in the data of their first example and of the one with the largest
    loss.
    """
    return {
        "usual": jnp.zeros((), jnp.float32),
        "good": jnp.zeros((), jnp.int32),
        "skipped": jnp.zeros((), jnp.int32),
        "steps": jnp.zeros(REMEMBERED_SKIPS, jnp.int32),
        "norms": jnp.zeros(REMEMBERED_SKIPS, jnp.float32),
        "firsts": jnp.zeros(REMEMBERED_SKIPS, jnp.uint32),
        "worst": jnp.zeros(REMEMBERED_SKIPS, jnp.uint32),
    }


def judge(guard: Guard, norm: jax.Array, losses: jax.Array, factor: float) -> jax.Array:
    """Whether a step is good, that is, not skipped: a scalar bool.

    Args:
      guard: Guard before the step.
      norm: Norm of the gradient before clipping.
      losses: Losses of the examples, [batch].
      factor: Multiple of the usual norm above which a step is skipped; 0 checks only finiteness.
    """
    finite = jnp.isfinite(norm) & jnp.isfinite(losses).all()
    if not factor:
        return finite
    return finite & ((guard["good"] < WARM) | (norm <= factor * guard["usual"]))


def remember(
    guard: Guard,
    good: jax.Array,
    step: jax.Array,
    norm: jax.Array,
    losses: jax.Array,
    index: AnyArray,
) -> Guard:
    """The guard after a step.

    Args:
      guard: Guard before the step.
      good: Result of `judge`.
      step: Number of the step, from 1.
      norm, losses: Those of `judge`.
      index: Positions of the examples in the order of the data, [batch].
    """
    weight = 1.0 / jnp.minimum(guard["good"] + 1, WARM)
    counted = guard | {
        "usual": guard["usual"] + weight * (norm - guard["usual"]),
        "good": guard["good"] + 1,
    }
    newest = {
        "steps": step,
        "norms": norm,
        "firsts": index.min(),
        "worst": index[jnp.argmax(jnp.where(jnp.isnan(losses), jnp.inf, losses))],
    }
    skipped = guard | {"skipped": guard["skipped"] + 1}
    skipped |= {key: jnp.roll(guard[key], -1).at[-1].set(value) for key, value in newest.items()}
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), counted, skipped)


@dataclasses.dataclass(frozen=True)
class Skip:
    """A skipped step: number, gradient norm, first example, example with the largest loss."""

    step: int
    norm: float
    first: int
    worst: int


def remembered(guard: Guard) -> list[Skip]:
    """The skipped steps that a fetched guard remembers, oldest first."""
    columns = (np.asarray(guard[key]).tolist() for key in ("steps", "norms", "firsts", "worst"))
    rows = zip(*columns, strict=True)
    return [Skip(*row) for row in rows if row[0]]


def too_many(guard: Guard, new: list[Skip], limit: int, window: int) -> bool:
    """Whether one of the new skips ends a window of steps with `limit` or more skips."""
    steps = [skip.step for skip in remembered(guard)]
    return any(sum(s.step - window < step <= s.step for step in steps) >= limit for s in new)
