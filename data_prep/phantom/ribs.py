"""What the ribs of a frontal and of a lateral chest have in common.

A rib is where the phase of a chest, its height in rib spacings along the course of the ribs, is a
whole number.
"""

from collections.abc import Callable

import numpy as np

from data_prep.phantom.raster import ellipse, smoothstep
from data_prep.phantom.scene import Scene

SPACING = 0.135
_COUNT = 10
_BROKEN = (-1, 0, 1)  # three neighbours break

# (side, x, y): beyond the break is where side · x exceeds x.
Locate = Callable[[Scene], tuple[np.ndarray, np.ndarray, np.ndarray]]


def course(scene: Scene, phase: np.ndarray, steepness, half: float) -> np.ndarray:
    """Ribs 0 to 9 of half-width `half` with a denser cortex, about 1 within, [n, size, size].

    Args:
      scene: Scene, for the width of its pixels.
      phase: Number of the rib at each position, [n, size, size], not rounded.
      steepness: Slope of the course against the horizontal, so that ribs keep their width.
    """
    number = np.round(phase)
    off = (phase - number) * SPACING / np.sqrt(1 + steepness * steepness)
    cortex = scene.band(np.abs(off) - 0.82 * half, 0.004)
    shown = (number >= 0) & (number < _COUNT)
    return (0.8 * scene.band(off, half, 0.012) + 0.35 * cortex) * shown


def displace(scene: Scene, phase: np.ndarray, locate: Locate) -> np.ndarray:
    """The phase with the fragments beyond a fracture dropped by 0.42 of a spacing."""
    rows = scene.patients.rows("fracture")
    if not rows.size:
        return phase
    part = scene.take(rows)
    side, x, y = locate(part)
    beyond = part.edge(side * part.x - x, 0.01)
    near = smoothstep((0.26 - np.abs(part.y - y)) / 0.06)
    phase = phase.copy()
    phase[rows] -= 0.42 * beyond * near
    return phase


def callus(scene: Scene, locate: Locate) -> None:
    """New bone around each break."""
    side, x, y = locate(scene)
    for k in _BROKEN:
        knot = ellipse(side * scene.x, scene.y, x, y + k * SPACING, 0.056, 0.040, 0.5)
        scene.density += 0.36 * scene.edge(knot, 0.03)
