"""The folder of a measurement of utility: its page, its results, and every figure as a table."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rfxray.evaluate import report, results
from rfxray.evaluate.folder import save
from rfxray.evaluate.utility import figures
from rfxray.evaluate.utility.figures import Row
from rfxray.outputs import page, spreadsheet

TABLE = "figures.csv"
KIND = "rfxray.evaluate.utility"
FILES = (report.NAME, results.NAME, TABLE)
WORST = 24  # groups on the page, those with the largest gaps of classifiers of reals
_WORDS = [field.name for field in dataclasses.fields(Row) if field.name != "figure"]
_HEAD = (*_WORDS, "value", "low", "high", "images", "reason")


def write(out: Path, found: Mapping[str, Any], rows: Sequence[Row]) -> Path:
    """Writes all files, or none of them; `results.json` comes last.

    Args:
      out: Folder, which exists.
      found: Entries of the results before the figures.
      rows: Figures.

    Returns:
      Path of the page.
    """
    flat = [{**results.flat(row), "images": row.figure.n_real} for row in rows]
    found = {**found, "figures": flat}
    html = page.render(
        Path(report.__file__).with_name("utility.html"),
        title=f"Utility of {found['sets']['synthetic']['name']}",
        found=found,
        trainings=list(dict.fromkeys((row["training"], row["fraction"]) for row in flat)),
        findings=list(dict.fromkeys(row["finding"] for row in flat)),
        chosen=lambda **wanted: chosen(flat, **wanted),
        worst=worst(flat),
        value=report.value,
        interval=report.interval,
    )
    return save(out, found, html, {TABLE: _table(flat)})


def chosen(rows: Sequence[Mapping[str, Any]], **wanted: object) -> Mapping[str, Any] | None:
    """The figure that has these values, if there is one."""
    return next((row for row in rows if all(row[k] == v for k, v in wanted.items())), None)


def worst(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The largest gaps of classifiers of reals, each with what the samples make of it."""
    real = [
        row
        for row in rows
        if row["of"] == "gap" and row["training"] == figures.AGAIN and row["value"] is not None
    ]
    real.sort(key=lambda row: -abs(row["value"]))
    found = []
    for row in real[:WORST]:
        same = {key: row[key] for key in ("fraction", "measure", "finding", "group")}
        then = chosen(rows, **same, training=figures.THEN, of="gap")
        change = chosen(rows, **same, training=figures.THEN, of="gap change")
        found.append({"real": row, "then": then, "change": change})
    return found


def _table(flat: Sequence[Mapping[str, Any]]) -> str:
    table: list[Sequence[object]] = [_HEAD]
    for row in flat:
        cells = [row[name] for name in _HEAD]
        table.append(
            [
                "" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else cell
                for cell in cells
            ]
        )
    return spreadsheet.text(table)


def said(rows: Sequence[Row]) -> list[str]:
    """The main figures, a line each."""
    lines = []
    for row in rows:
        if row.finding == figures.MEAN and row.measure == figures.AUROC and not row.group:
            of = "" if row.of == "value" else f", {row.of}"
            share = f", {row.fraction:g} of the reals" if row.fraction else ""
            lines.append(f"{row.training}{share}{of}: mean {row.figure}")
    return lines
