"""Lengths read off frontal images by image analysis only: the heart against the thorax."""

import functools

import numpy as np

from data_prep.phantom.anatomy import HEART_OFFSET, HEART_PROPORTION, HEART_TILT

_GRID = 64  # pixels: measurements are taken at this size whatever the picture's

# The heart is sought as a deformable template: an ellipse of the mean tilt and proportion, of any
# of these widths (as a ratio to the thorax's), heights and offsets.
_RATIOS = np.arange(0.38, 0.76, 0.01, dtype=np.float32)
_LEVELS = np.linspace(0.13, 0.37, 10, dtype=np.float32)  # of the heart's centre, adult
_SHIFTS = np.linspace(-0.07, 0.07, 8, dtype=np.float32)
_ADULT_WIDTH = 1.37  # of a thorax, in halves of the picture


def measure(images: np.ndarray) -> dict[str, np.ndarray]:
    """Lengths of frontal images [n, size, size] in [-1, 1], by image analysis only.

    The inner chest walls are the paths of steepest brightening outwards; the heart is the ellipse
    along the visible borders of which the image darkens most.

    Returns:
      `cardiothoracic_ratio`, the heart's greatest width over the inner width of the thorax, and
      `thorax_width`, in halves of the picture: float32 [n].
    """
    size = np.shape(images)[-1]
    shrink = _overlap(size, _GRID)
    images = shrink @ np.asarray(images, np.float32) @ shrink.T
    right, left = _chest_walls(images)
    # A wall hidden by fluid or thick pleura is found too far in; then the other side stands for it.
    hidden = np.abs(right - left) > 0.12
    width = np.where(hidden, 2 * np.maximum(right, left) - 0.05, right + left) + 0.016
    middle = np.where(hidden, 0, (left - right) / 2)
    soft = _smooth(_smooth(images, 1), 2)
    down, across = np.gradient(soft, axis=(1, 2))
    ratios = [_heart(*each) for each in zip(across, down, width, middle, strict=True)]
    return {
        "cardiothoracic_ratio": np.asarray(ratios, np.float32).reshape(len(images)),
        "thorax_width": width.astype(np.float32),
    }


def _overlap(size: int, target: int) -> np.ndarray:
    # [target, size]: how much of each target pixel a source pixel covers.
    edges, wanted = np.arange(size + 1) / size, np.arange(target + 1) / target
    low = np.maximum(edges[None, :-1], wanted[:-1, None])
    high = np.minimum(edges[None, 1:], wanted[1:, None])
    return (np.maximum(high - low, 0) * target).astype(np.float32)


def _smooth(images: np.ndarray, axis: int) -> np.ndarray:
    padding = [(0, 0)] * 3
    padding[axis] = (1, 1)
    padded = np.pad(images, padding, mode="edge")
    parts = [np.take(padded, np.arange(k, k + images.shape[axis]), axis) for k in range(3)]
    return (parts[0] + 2 * parts[1] + parts[2]) / 4


def _chest_walls(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far the right and the left inner wall lie from the middle of the picture, [n] each."""
    half = _GRID // 2
    slope = np.gradient(_smooth(images, 1), axis=2)[:, int(0.30 * _GRID) : int(0.72 * _GRID)]
    columns = np.arange(half)
    walls = []
    for outward in (-slope[:, :, half - 1 :: -1], slope[:, :, half:]):
        gain = np.where(columns > 0.35 * half, np.minimum(outward, 0.15), -0.02)
        path = _steepest_path(gain)
        seen = np.take_along_axis(gain, path[:, :, None], 2)[..., 0] > 0.03
        # The sixth widest row: the greatest width, except a few rows that went astray.
        walls.append((np.sort(np.where(seen, path, -1), 1)[:, -6] + 0.5) / half)
    return walls[0], walls[1]


def _steepest_path(gain: np.ndarray) -> np.ndarray:
    """The column per row, [n, rows], with the greatest sum of `gain` [n, rows, columns] among paths
    that move at most one column a row (dynamic programming)."""
    n, rows, columns = gain.shape
    best, came = gain[:, 0], []
    for row in range(1, rows):
        padded = np.pad(best, ((0, 0), (1, 1)), constant_values=-np.inf)
        before = np.stack([padded[:, k : k + columns] for k in range(3)])
        came.append(before.argmax(0) - 1)
        best = gain[:, row] + before.max(0)
    path = [best.argmax(1)]
    for step in reversed(came):
        path.append(path[-1] + step[np.arange(n), path[-1]])
    return np.stack(path[::-1], 1)


@functools.cache
def _contour() -> tuple[np.ndarray, ...]:
    """Points [p] of the unit template and their outward normals, where its border can be seen."""
    angle = np.linspace(-np.pi, np.pi, 64, endpoint=False)
    cos, sin = np.cos(HEART_TILT), np.sin(HEART_TILT)
    long = 1 / np.hypot(cos, HEART_PROPORTION * sin)  # so that half of its width is 1
    u, v = np.cos(angle), np.sin(angle)
    x, y = (
        long * (u * cos - HEART_PROPORTION * v * sin),
        long * (u * sin + HEART_PROPORTION * v * cos),
    )
    nx, ny = u * cos - v / HEART_PROPORTION * sin, u * sin + v / HEART_PROPORTION * cos
    norm = np.hypot(nx, ny)
    # Neither the flat top, under the great vessels, nor what lies below the diaphragm.
    seen = (np.abs(nx / norm) > 0.6) & (y < 0.45) & (y > -0.75)
    return tuple(a[seen].astype(np.float32) for a in (x, y, nx / norm, ny / norm))


def _heart(across, down, width, middle) -> float:
    px, py, nx, ny = _contour()
    scale = width / _ADULT_WIDTH
    extent = _RATIOS[:, None, None, None] * width / 2
    cx = middle + HEART_OFFSET * extent + _SHIFTS[:, None, None] * scale
    cy = _LEVELS[:, None] * scale
    column = ((cx + extent * px + 1) * (_GRID / 2)).astype(np.int32).clip(0, _GRID - 1)
    row = ((cy + extent * py + 1) * (_GRID / 2)).astype(np.int32).clip(0, _GRID - 1)
    # Clipped, so that one bright line does not outweigh a whole border.
    border = np.clip(-(across[row, column] * nx + down[row, column] * ny), -0.02, 0.08)
    fit = border[..., px > 0].mean(-1) + border[..., px < 0].mean(-1)
    # A mild pull to where hearts lie.
    fit -= 0.004 * ((_LEVELS - 0.25) / 0.1) ** 2 + 0.0012 * (_SHIFTS[:, None] / 0.07) ** 2
    fit = fit.max((1, 2))
    weight = np.exp((fit - fit.max()) / 0.003)
    return float((weight * _RATIOS).sum() / weight.sum())
