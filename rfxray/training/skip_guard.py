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

# Skipped steps that are remembered: the largest skip.limit.
REMEMBERED = 16


# Good steps before a gradient can be called larger than usual: the first ones fall tenfold.
WARM = 100


def fresh() -> dict:
    """A guard that has seen nothing.

    `usual`: running mean of the gradient norm over good steps, float32. `good`, `skipped`: int32
    counts. `steps` int32, `norms` float32, `firsts` and `worst` uint32, each [REMEMBERED], the
    newest last: the steps skipped (0 where none was), their gradient norms, and of their examples,
    by place in the order of the data, the first and the one with the largest loss.
    """
    return {
        "usual": jnp.zeros((), jnp.float32),
        "good": jnp.zeros((), jnp.int32),
        "skipped": jnp.zeros((), jnp.int32),
        "steps": jnp.zeros(REMEMBERED, jnp.int32),
        "norms": jnp.zeros(REMEMBERED, jnp.float32),
        "firsts": jnp.zeros(REMEMBERED, jnp.uint32),
        "worst": jnp.zeros(REMEMBERED, jnp.uint32),
    }


def judge(guard: dict, norm: jax.Array, losses: jax.Array, factor: float) -> jax.Array:
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


def remember(guard: dict, good: jax.Array, step, norm, losses, index) -> dict:
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


@dataclasses.dataclass
class Watch:
    """What the host makes of the guard at log steps.

    Attributes:
      skipped: total that has been seen.
    """

    skipped: int

    def new(self, guard: dict) -> list[Skip]:
        """The steps skipped since the last call, oldest first; of very many the last ones."""
        count = int(guard["skipped"]) - self.skipped
        self.skipped += count
        return remembered(guard)[-count:] if count else []


def remembered(guard: dict) -> list[Skip]:
    """The skipped steps that a fetched guard remembers, oldest first."""
    columns = (np.asarray(guard[key]).tolist() for key in ("steps", "norms", "firsts", "worst"))
    rows = zip(*columns, strict=True)
    return [Skip(*row) for row in rows if row[0]]


def too_many(guard: dict, new: list[Skip], limit: int, window: int) -> bool:
    """Whether one of the new skips is the last of `limit` or more within `window` steps."""
    steps = [skip.step for skip in remembered(guard)]
    return any(sum(s.step - window < step <= s.step for step in steps) >= limit for s in new)
