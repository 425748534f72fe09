"""A monotone rational-quadratic spline, row by row, and its inverse in closed form.

Between two knots it is the spline of Gregory and Delbourgo (1982), as normalising flows use it
(Durkan et al. 2019, "Neural spline flows", equations 4 to 8). Here it maps a value to its noise:
the heights are cumulative probabilities, so the slope is a density.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Spline:
    """A spline for each row.

    Attributes:
      knots: Values, increasing, [k + 1].
      heights: Height at each knot, increasing, [n, k + 1].
      slopes: Slope at each knot, positive, [n, k + 1].
    """

    knots: np.ndarray
    heights: np.ndarray
    slopes: np.ndarray

    def height(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The height and the slope at x, [n]; x outside of the knots counts as the nearest one."""
        x = np.clip(x, self.knots[0], self.knots[-1])
        k = np.clip(np.searchsorted(self.knots, x, side="right") - 1, 0, len(self.knots) - 2)
        left, width, low, rise, s, d0, d1 = self._bin(k)
        t = (x - left) / width
        bend = t * (1 - t)
        below = s + (d1 + d0 - 2 * s) * bend
        height = low + rise * (s * t**2 + d0 * bend) / below
        slope = s**2 * (d1 * t**2 + 2 * s * bend + d0 * (1 - t) ** 2) / below**2
        return height, slope

    def at(self, height: np.ndarray) -> np.ndarray:
        """The x of a height [n]: the inverse of `height`."""
        height = np.clip(height, self.heights[:, 0], self.heights[:, -1])
        k = (height[:, None] >= self.heights[:, 1:-1]).sum(1)
        left, width, low, rise, s, d0, d1 = self._bin(k)
        y = height - low
        pull = y * (d1 + d0 - 2 * s)
        a = rise * (s - d0) + pull
        b = rise * d0 - pull
        c = -s * y
        t = 2 * c / (-b - np.sqrt(np.maximum(b**2 - 4 * a * c, 0)))
        return left + width * np.clip(t, 0, 1)

    def _bin(self, k: np.ndarray) -> tuple[np.ndarray, ...]:
        rows = np.arange(len(k))
        low, high = self.heights[rows, k], self.heights[rows, k + 1]
        left, width = self.knots[k], self.knots[k + 1] - self.knots[k]
        rise = high - low
        return left, width, low, rise, rise / width, self.slopes[rows, k], self.slopes[rows, k + 1]


def through(knots: np.ndarray, heights: np.ndarray) -> Spline:
    """The spline through heights [n, k + 1] with the slopes of Fritsch and Butland (1984).

    The slope at a knot is the weighted harmonic mean of those beside it; at the ends that of the
    outer bin.
    """
    width = np.diff(knots)
    secant = np.maximum(np.diff(heights, axis=1) / width, 1e-300)
    before, after = width[:-1], width[1:]
    first, second = (before + 2 * after) / 3, (2 * before + after) / 3
    inner = (first + second) / (first / secant[:, :-1] + second / secant[:, 1:])
    return Spline(knots, heights, np.concatenate([secant[:, :1], inner, secant[:, -1:]], 1))
