"""The page of a fit: the graph, the mechanisms on held-out patients, effects, what is assumed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfxray import version
from rfxray.causes.graph import Graph
from rfxray.causes.independence import Test, failing, unseen
from rfxray.causes.mechanisms import StructuralModel
from rfxray.outputs import page

TEMPLATE = Path(__file__).with_name("page.html")
_WIDTH, _HEIGHT, _ROW, _COLUMN = 170, 24, 34, 230


def render(model: StructuralModel, record: Mapping[str, Any]) -> str:
    """The page, one HTML file.

    Args:
      model: Model.
      record: Record of the fit, as `folder.load` gives it back.
    """
    tests = [Test(**each) for each in record["tests"]]
    quiet = unseen(tests)
    return page.render(
        TEMPLATE,
        "Causes",
        graph=model.graph,
        table=record["table"],
        drawing=drawing(model.graph, [(t.cause, t.effect) for t in quiet]),
        mechanisms=[_row(model, name, record["held_out"].get(name)) for name in model.mechanisms],
        boosting=any(each["boosted"] is not None for each in record["held_out"].values()),
        effects=[_effect(model, each) for each in record["effects"]],
        wrong=failing(tests),
        quiet=quiet,
        tested=sum(not test.edge for test in tests),
        notes=model.notes,
        version=version.line(),
    )


def drawing(graph: Graph, quiet: list[tuple[str, str]]) -> dict[str, Any]:
    """Boxes and lines of the graph: a column for each step away from the roots.

    An edge over several columns has a place of its own in those between, so that no line goes
    through a box.
    """
    level: dict[str, int] = {}
    for child, parents in graph.parents.items():
        level[child] = 1 + max((level[p] for p in parents), default=-1)
    columns: list[list[str | tuple[str, str]]] = [[] for _ in range(max(level.values()) + 1)]
    for name, column in level.items():
        columns[column].append(name)
    for cause, effect in graph.edges():
        for column in range(level[cause] + 1, level[effect]):
            columns[column].append((cause, effect))
    tall = max(map(len, columns)) * _ROW
    middle: dict[str | tuple[str, str], float] = {}  # height of a box, or of a line in this column
    boxes, corners = [], {edge: [] for edge in graph.edges()}
    for column, entries in enumerate(columns):
        # Near to the causes, so that few lines cross.
        order = {each: _height_of_causes(graph, each, middle, tall / 2) for each in entries}
        for i, each in enumerate(sorted(entries, key=order.__getitem__)):
            middle[each] = (i + 0.5) * tall / len(entries)
            x, y = column * _COLUMN, middle[each]
            if isinstance(each, str):
                boxes.append({"name": each, "x": x, "y": y - _HEIGHT / 2})
            else:
                corners[each] += [(x, y), (x + _WIDTH, y)]
    lines = []
    for cause, effect in graph.edges():
        start = (level[cause] * _COLUMN + _WIDTH, middle[cause])
        end = (level[effect] * _COLUMN, middle[effect])
        lines.append(
            {
                "points": [start, *corners[cause, effect], end],
                "quiet": (cause, effect) in quiet,
                "title": f"{cause} → {effect}",
            }
        )
    width = (len(columns) - 1) * _COLUMN + _WIDTH
    return {"boxes": boxes, "lines": lines, "width": width, "height": tall}


def _height_of_causes(
    graph: Graph,
    each: str | tuple[str, str],
    middle: Mapping[str | tuple[str, str], float],
    otherwise: float,
) -> float:
    """The mean height of the causes of a box, or that of a line in the column before."""
    if isinstance(each, tuple):
        return middle.get(each, middle[each[0]])
    heights = [middle.get((cause, each), middle[cause]) for cause in graph.parents[each]]
    return sum(heights) / len(heights) if heights else otherwise


def _row(model: StructuralModel, name: str, found: Mapping[str, Any] | None) -> dict[str, Any]:
    mechanism = model.mechanisms[name]
    row: dict[str, Any] = {
        "name": name,
        "parents": ", ".join(mechanism.parents) or "none",
        "rows": mechanism.rows,
        "found": found,
    }
    if found is not None:
        row["uneven"] = found["kolmogorov"] > found["by_chance"]
        tenths = found["calibration"]
        row["gap"] = max((abs(p - share) for p, share, _ in tenths), default=None)
        row["most"] = most = max((max(p, share) for p, share, _ in tenths), default=1.0) or 1.0
        points = [(100 * p / most, 100 - 100 * share / most) for p, share, _ in tenths]
        row["points"] = [(round(x, 1), round(y, 1)) for x, y in points]
    return row


def _effect(model: StructuralModel, each: Mapping[str, Any]) -> dict[str, Any]:
    variable = model.variable(each["cause"])

    def said(value: float) -> str:
        return f"{value:g}" if variable.continuous else variable.values[int(value)]

    return {
        **each,
        "what": f"{each['cause']}: {said(each['before'])} → {said(each['then'])}",
        "clear": each["low"] > 0 or each["high"] < 0,
    }
