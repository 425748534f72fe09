"""Soft shapes on a pixel grid: signed distances and the anti-aliased edges made of them.

Lengths are in units of half the picture: x runs from −1 (image left) to 1, y from −1 (top) to 1. A
signed distance is positive inside. Every edge is as wide as its own softness and the pixel
together, and a band thinner than a pixel keeps its integral, so a small picture is, except for the
tone curve, the large one averaged. All arrays are float32 and broadcast to [n, size, size]: choose
between two constants as float32, or `np.where` makes float64 of everything that follows.
"""

import functools
import itertools

import numpy as np

from data_prep.phantom.noise import Noise


@functools.lru_cache(maxsize=8)
def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixel centres, x [1, 1, size] and y [1, size, 1]."""
    centres = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
    return centres[None, None, :], centres[None, :, None]


def smoothstep(t: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, 3t² − 2t³ between."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def edge(distance: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """From 0 (outside) to 1 (inside) over `width`, symmetric about distance 0."""
    return smoothstep(distance / width + 0.5)


def band(distance: np.ndarray, half: np.ndarray | float, width: np.ndarray | float) -> np.ndarray:
    """A stripe of half-width `half` along distance 0 with edges `width` wide; its integral across
    is 2·`half`, however thin."""
    peak = np.minimum(1, 2 * half / width)
    return np.clip((half - np.abs(distance)) / width + 0.5, 0, peak)


def bump(offset: np.ndarray, spread: np.ndarray | float) -> np.ndarray:
    """exp(−(offset / spread)²)."""
    scaled = offset / spread
    return np.exp(-scaled * scaled)


def ellipse(x, y, cx, cy, a, b, tilt: float | np.ndarray = 0.0) -> np.ndarray:
    """Signed distance, to first order, to an ellipse of semi-axes a, b, turned clockwise by
    `tilt` radians as one sees it."""
    dx, dy = x - cx, y - cy
    if np.any(tilt):
        cos, sin = np.cos(tilt), np.sin(tilt)
        dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
    return _first_order(dx / a, dy / b, 1 / a, 1 / b)


def egg(x, y, cx, cy, left, right, top, bottom) -> np.ndarray:
    """Signed distance, to first order, to four quarters of ellipses joined smoothly."""
    across = np.where(x < cx, 1 / left, 1 / right)
    along = np.where(y < cy, 1 / top, 1 / bottom)
    return _first_order((x - cx) * across, (y - cy) * along, across, along)


def _first_order(u, v, across, along):
    # ρ = √(u² + v²); the distance to ρ = 1 is (1 − ρ) / |∇ρ|.
    square = u * u + v * v + 1e-6
    slope = u * across
    slope = slope * slope
    other = v * along
    slope = slope + other * other + 1e-6
    return (np.sqrt(square) - square) / np.sqrt(slope)


def blend(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """The union of two signed distances, its inner corners rounded off."""
    part = np.clip((a - b) * (0.5 / radius) + 0.5, 0, 1)
    return b + (a - b) * part + radius * part * (1 - part)


def segment(x, y, x0, y0, x1, y1) -> np.ndarray:
    """Unsigned distance to the segment from (x0, y0) to (x1, y1)."""
    dx, dy = x1 - x0, y1 - y0
    t = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
    return np.hypot(x - x0 - t * dx, y - y0 - t * dy)


def polyline(x, y, knots) -> np.ndarray:
    """Unsigned distance to the broken line through knots [(x, y), …]."""
    return np.minimum.reduce([segment(x, y, *a, *b) for a, b in itertools.pairwise(knots)])


@functools.lru_cache(maxsize=32)
def _interpolation(size: int, cells: int) -> np.ndarray:
    # [size, cells]: smooth interpolation between `cells` knots, averaged over each pixel.
    fine = size * -(-2048 // size)
    position = (np.arange(fine) + 0.5) / fine * (cells - 1)
    left = np.minimum(position.astype(int), cells - 2)
    weight = smoothstep(position - left)
    matrix = np.zeros((fine, cells), np.float32)
    rows = np.arange(fine)
    matrix[rows, left] = 1 - weight
    matrix[rows, left + 1] = weight
    return matrix.reshape(size, -1, cells).mean(1)


def texture(noise: Noise, name: str, size: int, cells: int) -> np.ndarray:
    """Smooth noise of unit variance at its knots, `cells` of them a side, [n, size, size]."""
    knots = noise.normal(name, cells, cells)
    matrix = _interpolation(size, cells)
    return matrix @ knots @ matrix.T
