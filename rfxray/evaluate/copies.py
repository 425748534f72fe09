"""Samples that look like a real image: the same picture at another size or compression, or learnt.

Sets with the same pixels are refused. A picture that was resized, compressed or slightly changed
has other pixels, and is found by its features: it is nearer to a real image than half that one's
distance to any other real image. Of 384 NIH films none is so near to one of 384 others (the nearest
is at .72 of that distance), and all are that went through half their size (at most .25).
"""

import numpy as np

from rfxray.errors import DataError
from rfxray.evaluate import intervals, manifold

NEAR = 0.5


def like(
    real: np.ndarray, synthetic: np.ndarray, near: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """Whether each sample looks like a real image.

    Args:
      real: Features of the real images, at the size of the samples if that is smaller,
        `[n, width] float32 or float64`.
      synthetic: Features of the samples, `[m, width]`.
      near: `manifold.nearest` of these sets, if it is there already.

    Returns:
      `[m] bool`; false for a single real image, which has no other.
    """
    if len(real) < 2:
        return np.zeros(len(synthetic), bool)
    return ~manifold.authentic(real, synthetic, NEAR, near)


def by_chance(real: np.ndarray, codes: np.ndarray, seed: int) -> float:
    """The share of real images that look like those of other patients, at most.

    Args:
      real: Features of the real images, `[n, width] float32 or float64`.
      codes: Patient of each, `[n] int`.
      seed: Seed of the two halves.

    Returns:
      Upper end of its 95% interval, or the share if there is none; 0 without two halves.
    """
    largest = int(np.bincount(codes).max())
    try:
        left, right = intervals.halves(codes, max(2, len(codes) // 2 - largest // 2), seed)
    except DataError:
        return 0.0
    hits = like(real[left], real[right])
    figure = intervals.proportion("copies", hits, codes[right], len(left), len(right))
    return float(hits.mean()) if figure.high is None or not hits.any() else figure.high
