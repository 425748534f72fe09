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
_WIDTH, _HEIGHT, _ROW, _COLUMN = 170, 24, 42, 250


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
    """Boxes and lines of the graph: a column for each step away from the roots."""
    level: dict[str, int] = {}
    for child, parents in graph.parents.items():
        level[child] = 1 + max((level[p] for p in parents), default=-1)
    columns: dict[int, list[str]] = {}
    for name, column in level.items():
        columns.setdefault(column, []).append(name)
    tall = max(map(len, columns.values())) * _ROW
    place = {
        name: (column * _COLUMN, (i + 0.5) * tall / len(names) - _HEIGHT / 2)
        for column, names in columns.items()
        for i, name in enumerate(names)
    }
    lines = []
    for cause, effect in graph.edges():
        (x0, y0), (x1, y1) = place[cause], place[effect]
        lines.append(
            {
                "x0": x0 + _WIDTH,
                "y0": y0 + _HEIGHT / 2,
                "x1": x1,
                "y1": y1 + _HEIGHT / 2,
                "quiet": (cause, effect) in quiet,
                "title": f"{cause} → {effect}",
            }
        )
    boxes = [{"name": name, "x": x, "y": y} for name, (x, y) in place.items()]
    width = max(columns) * _COLUMN + _WIDTH
    return {"boxes": boxes, "lines": lines, "width": width, "height": tall}


def _row(model: StructuralModel, name: str, found: Mapping[str, Any] | None) -> dict[str, Any]:
    mechanism = model.mechanisms[name]
    row: dict[str, Any] = {
        "name": name,
        "parents": ", ".join(mechanism.parents) or "none",
        "rows": mechanism.rows,
        "found": found,
    }
    if found is not None:
        limit = 1.63 / found["rows"] ** 0.5
        row["uneven"] = found["kolmogorov"] > limit
        tenths = found["calibration"]
        row["gap"] = max((abs(p - share) for p, share, _ in tenths), default=None)
        points = [(100 * p, 100 - 100 * share) for p, share, _ in tenths]
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
