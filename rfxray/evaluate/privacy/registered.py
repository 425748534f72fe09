"""Correlation of the edges of two pictures where one lies best over the other.

The correlation at a shift is that of the pixels that both have there (Lewis 1995, "Fast Normalized
Cross-Correlation"), so a shift costs nothing but the strip that it moves out.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rfxray.evaluate.privacy.template import SIDE

REACH = 8  # pixels of a template: an eighth of its side, in each direction
_BATCH = 512  # pairs
_LEAST = 1e-6  # variance of a part without edges


def correlations(
    first: Float[np.ndarray, "n width"],
    second: Float[np.ndarray, "m width"],
    pairs: Int[np.ndarray, "pairs 2"],
) -> Float[np.ndarray, " pairs"]:
    """The largest correlation of each pair over shifts of at most `REACH` pixels.

    Args:
      first: Edges, [n, SIDE²] float32; see template.py.
      second: The same, [m, SIDE²].
      pairs: Number of a row of the first and of a row of the second, [pairs, 2].

    Returns:
      [pairs] float32 in [-1, 1].
    """
    found = np.zeros(len(pairs), np.float32)
    for start in range(0, len(pairs), _BATCH):
        rows = pairs[start : start + _BATCH]
        sides = [
            np.zeros((_BATCH, SIDE, SIDE), np.float32),
            np.zeros((_BATCH, SIDE, SIDE), np.float32),
        ]
        for side, of, numbers in zip(sides, (first, second), rows.T, strict=True):
            side[: len(rows)] = of[numbers].reshape(-1, SIDE, SIDE)
        found[start : start + len(rows)] = np.asarray(_best(*sides))[: len(rows)]
    return found


@jax.jit
def _best(a: Float[Array, "b s s"], b: Float[Array, "b s s"]) -> Float[Array, " b"]:
    size = SIDE + REACH  # so that no shift within reach wraps around
    spectra = [jnp.fft.rfft2(x, (size, size)) for x in (a, b)]
    # At [dy, dx]: the sum of a[y, x] · b[y - dy, x - dx].
    products = jnp.fft.irfft2(spectra[0] * jnp.conj(spectra[1]), (size, size))
    shifts = np.arange(-REACH, REACH + 1)
    products = products[:, shifts % size][:, :, shifts % size]
    sums_a, squares_a = (_inside(x, shifts) for x in (a, a**2))
    # The part of b that lies over a at a shift is the part of a at the opposite one.
    sums_b, squares_b = (_inside(x, -shifts) for x in (b, b**2))
    count = (SIDE - np.abs(shifts))[:, None] * (SIDE - np.abs(shifts))
    variance_a = jnp.maximum(squares_a - sums_a**2 / count, 0)
    variance_b = jnp.maximum(squares_b - sums_b**2 / count, 0)
    shared = products - sums_a * sums_b / count
    usable = jnp.minimum(variance_a, variance_b) > _LEAST
    ratio = shared / jnp.sqrt(jnp.where(usable, variance_a * variance_b, 1))
    return jnp.clip(jnp.where(usable, ratio, 0).max((1, 2)), -1, 1)


def _inside(x: Float[Array, "b s s"], shifts: np.ndarray) -> Float[Array, "b d d"]:
    """Sums over the part of each image that another one covers, by its shift down and right."""
    total = jnp.pad(x.cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))
    low, high = np.maximum(shifts, 0), SIDE + np.minimum(shifts, 0)
    rows = total[:, high] - total[:, low]
    return rows[:, :, high] - rows[:, :, low]
