"""The results of comparisons as one page, self-contained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rfxray.evaluate import curves, results
from rfxray.outputs import page

NAME = "report.html"
FLOORS = ("real floor", "resolution floor")
NONE = "not estimable"


def value(row: Mapping[str, Any] | None) -> str:
    """A figure without its interval, to four digits."""
    if row is None:
        return "–"
    return NONE if row["value"] is None else f"{row['value']:.4g}"


def interval(row: Mapping[str, Any] | None) -> str:
    """The interval of a figure."""
    if row is None or row["low"] is None:
        return ""
    return f"{row['low']:.4g} to {row['high']:.4g}"


def numbers(row: Mapping[str, Any] | None) -> str:
    """The numbers of images of a figure, real and synthetic."""
    return "" if row is None else f"{row['n_real']:,} × {row['n_synthetic']:,}"


def reasons(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why figures or intervals are missing: each reason once, with its measures."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["reason"]:
            plain = row["kind"] in ("figure", "part", "difference")
            what = row["name"] if plain else f"{row['name']} ({row['kind']})"
            found.setdefault(row["reason"], []).append(what)
    return [f"{', '.join(dict.fromkeys(names))}: {why}" for why, names in found.items()]


def by_measure(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each measure with its figure and its floors."""
    found = []
    for name in dict.fromkeys(row["name"] for row in rows if row["kind"] == "figure"):
        own = {row["kind"]: row for row in rows if row["name"] == name and not row["part"]}
        found.append({"name": name, "of": [own.get(kind) for kind in ("figure", *FLOORS)]})
    return found


def by_part(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each part that has a figure, with it and its floors."""
    found = []
    for row in rows:
        if row["kind"] == "part" and row["value"] is not None:
            own = {each["kind"]: each for each in rows if each["part"] == row["part"]}
            found.append({"part": row["part"], "of": [row, *(own.get(kind) for kind in FLOORS)]})
    return found


def plots(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """A plot of each measure that has a curve, one line for each synthetic set."""
    found = {}
    points = [row for row in rows if row["kind"] == "curve"]
    for name in dict.fromkeys(row["name"] for row in points):
        own = [row for row in points if row["name"] == name]
        lines = {
            label: [row for row in own if row["synthetic"] == label]
            for label in dict.fromkeys(row["synthetic"] for row in own)
        }
        floors = {
            f"{kind}, {row['synthetic']}" if len(lines) > 1 else kind: row["value"]
            for kind in FLOORS
            for row in rows
            if row["kind"] == kind
            and row["name"] == name
            and row["value"] is not None
            and not row["part"]
        }
        found[name] = curves.plot(lines, floors)
    return found


def html(
    found: Mapping[str, Any],
    hardest: Mapping[str, Sequence[Mapping[str, Any]]],
    hidden: Mapping[str, str],
) -> str:
    """The page of one comparison.

    Args:
      found: Results, as `results.json` holds them.
      hardest: Pictures that are farthest from every real one, by `EXTRACTOR SET`: mappings with
        `image`, a data URI, and `text`.
      hidden: Why images of a set are not shown, by its label.
    """
    return page.render(
        Path(__file__).with_name("report.html"),
        title=f"Fidelity of {', '.join(labels(found))}",
        found=found,
        labels=labels(found),
        hardest=hardest,
        hidden=hidden,
        protocols=list(dict.fromkeys(row["protocol"] for row in found["figures"])),
        chosen=lambda **wanted: results.chosen(found["figures"], **wanted),
        value=value,
        interval=interval,
        numbers=numbers,
        reasons=reasons,
        by_measure=by_measure,
        by_part=by_part,
        plots=plots,
    )


def labels(found: Mapping[str, Any]) -> list[str]:
    """Labels of the synthetic sets."""
    return [label for label in found["sets"] if label not in ("real", "train")]
