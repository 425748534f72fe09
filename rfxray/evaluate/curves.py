"""Curves over N as lines of a plot, in pixels."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 460, 190
LEFT, BOTTOM, TOP, RIGHT = 62, 28, 10, 14
COLOURS = ("blue", "orange", "good", "bad", "ink", "quiet")


def plot(
    lines: Mapping[str, Sequence[Mapping[str, Any]]], floors: Mapping[str, float]
) -> dict[str, Any]:
    """A plot of figures over the number of images, the latter on a logarithmic scale.

    Args:
      lines: Figures of each line, by its name; each has a value.
      floors: Values of horizontal lines, by name.

    Returns:
      What the template draws: `lines`, `floors`, `ticks` and `steps`, in pixels.
    """
    points = [row for rows in lines.values() for row in rows]
    ends = [row[name] for row in points for name in ("value", "low", "high")]
    values = [value for value in [*ends, *floors.values()] if value is not None]
    low, high = min([0.0, *values]), max(values)
    span = (high - low) or 1.0
    sizes = [min(row["n_real"], row["n_synthetic"]) for row in points]
    first, last = math.log(min(sizes)), math.log(max(sizes))

    def x(n: float) -> float:
        share = (math.log(n) - first) / (last - first) if last > first else 0.5
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(TOP + (high - value) / span * (HEIGHT - TOP - BOTTOM), 1)

    drawn = []
    for number, (name, rows) in enumerate(lines.items()):
        rows = sorted(rows, key=lambda row: min(row["n_real"], row["n_synthetic"]))
        marks = []
        for row in rows:
            n = min(row["n_real"], row["n_synthetic"])
            bar = None if row["low"] is None else (y(row["low"]), y(row["high"]))
            marks.append({"x": x(n), "y": y(row["value"]), "bar": bar, "n": n, "row": row})
        path = " ".join(f"{mark['x']},{mark['y']}" for mark in marks)
        colour = COLOURS[number % len(COLOURS)]
        drawn.append({"name": name, "colour": colour, "marks": marks, "path": path})
    return {
        "lines": drawn,
        "floors": [{"name": name, "y": y(value)} for name, value in floors.items()],
        "ticks": [{"x": x(n), "text": f"{n:,}"} for n in _sparse(sorted(set(sizes)))],
        "steps": [
            {"y": y(low + span * k / 4), "text": f"{low + span * k / 4:.3g}"} for k in range(5)
        ],
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "bottom": HEIGHT - BOTTOM,
    }


def _sparse(sizes: Sequence[int]) -> list[int]:
    """Sizes at least √2 apart, the last one among them: their labels do not touch."""
    kept: list[int] = []
    for size in reversed(sizes):
        if not kept or size * math.sqrt(2) <= kept[-1]:
            kept.append(size)
    return kept
