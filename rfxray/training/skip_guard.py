"""Keeps a step whose gradient is not finite, or far larger than usual, out of the run.

Judged and undone inside the compiled step, so nothing waits for the host: such a step leaves the
parameters, the optimizer, the averages and the metrics as they were. The guard is a part of the
state and remembers the last of them; the host reads it at log steps, and stops the run where there
were too many within a window (PaLM, arXiv 2204.02311 §5.1, restarts around such batches by hand).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from rfxray.config.schema import REMEMBERED_SKIPS

# Good steps before a gradient can be called larger than usual: the first ones fall tenfold.
WARM = 100


# The part of the train state below, or a tree like it.
Guard = dict[str, jax.Array]


def fresh() -> Guard:
    """A guard that has seen nothing.

    `usual`: running mean of the gradient norm over good steps, float32. `good`, `skipped`: int32
    counts. `steps` int32, `norms` float32, `firsts` and `worst` uint32, each [REMEMBERED_SKIPS],
    the newest last: the steps skipped (0 if none was), their gradient norms, and of their examples,
    by place in the order of the data, the first and the one with the largest loss.
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
    """Whether a step may count: a scalar bool.

    Args:
      guard: before the step.
      norm: of the gradient, before clipping.
      losses: [batch] of the examples.
      factor: above this many times the usual norm a gradient explodes; 0 judges finiteness alone.
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
    index: jax.Array,
) -> Guard:
    """The guard after a step.

    Args:
      guard: before it.
      good: as `judge` said.
      step: its number, from 1.
      norm, losses: as for `judge`.
      index: [batch] places of the examples in the order of the data.
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
    """One skipped step: its number, gradient norm, first example and that of the largest loss."""

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
    """Whether one of the new skips is the last of `limit` or more within `window` steps."""
    steps = [skip.step for skip in remembered(guard)]
    return any(sum(s.step - window < step <= s.step for step in steps) >= limit for s in new)
