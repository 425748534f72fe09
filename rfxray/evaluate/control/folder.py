"""The folder of a control: its page, its results, every pair, and what was read from each image."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rfxray.attributes.vocabulary import INDEX, Attributes, decode_value, lookup
from rfxray.evaluate import report, results
from rfxray.evaluate.control import figures, joint
from rfxray.evaluate.control.classifiers import Reading
from rfxray.evaluate.control.judge import Control
from rfxray.evaluate.folder import REJECTED, rejected, save
from rfxray.evaluate.pictures import Pictures
from rfxray.outputs import page, spreadsheet

PAIRS, IMAGES = "pairs.csv", "images.csv"
KIND = "rfxray.evaluate.control"
FILES = (report.NAME, results.NAME, PAIRS, IMAGES, REJECTED)
WORST = 40  # pairs on the page, and shifts of what was not requested


def write(
    out: Path, found: Mapping[str, Any], control: Control, sets: Mapping[str, Pictures]
) -> Path:
    """Writes all files, or none of them; `results.json` comes last.

    Args:
      out: Folder, which exists.
      found: Entries of the results before the figures.
      control: What was measured.
      sets: `synthetic`, and `real` if it was given.

    Returns:
      Path of the page.
    """
    found = {**found, **_numbers(control)}
    pictures = sets["synthetic"]
    html = page.render(
        Path(report.__file__).with_name("control.html"),
        title=f"Control of {pictures.name}",
        found=found,
        by_question=_by_question,
        reasons=_reasons,
        value=report.value,
        interval=report.interval,
        quantiles=joint.QUANTILES,
    )
    others = {
        IMAGES: _images(pictures, control.read),
        REJECTED: rejected(sets),
        PAIRS: _pairs(control.pairs),
    }
    return save(out, found, html, others)


def _numbers(control: Control) -> dict[str, Any]:
    return {
        "reached": control.reached,
        "reached_count": control.reached_count,
        "figures": [results.flat(row) for row in control.rows],
        "joint": None if control.pairs is None else _joint(control),
        "amplified": None
        if control.amplified is None
        else [results.flat(row) for row in sorted(control.amplified, key=_size)[:WORST]],
        "amplified_count": len(control.amplified or ()),
    }


def _joint(control: Control) -> dict[str, Any]:
    assert control.pairs is not None
    there = [row for row in control.pairs if row.figure.value is not None]
    once = [row for row in there if not _mirrored(row.value)]
    pairs = sorted((row for row in once if row.given != joint.ALL), key=_size)
    return {
        "weighted_by": list(control.weighted_by),
        "comparisons": len(there),
        "beyond": sum(row.beyond for row in there),
        "off": sum(abs(row.figure.value or 0) > joint.OFF for row in there),
        "mark": joint.OFF,
        "shares": [_compared(row) for row in once if row.given == joint.ALL],
        "worst": [_compared(row) for row in pairs[:WORST]],
        "ages": None if control.ages is None else dataclasses.asdict(control.ages),
    }


def _mirrored(value: str) -> bool:
    """Whether a value is the first of two, so that the share of the other one says the same."""
    name, _, text = value.partition("=")
    values = lookup(name).values
    return len(values) == 2 and text == values[0]


def _size(row: joint.Comparison | figures.Spill) -> float:
    return -abs(row.figure.value or 0)


def _compared(row: joint.Comparison) -> dict[str, Any]:
    """A comparison as one flat mapping; `value` is that of the figure."""
    return {"value_of": row.value, **results.flat(row)}


def _by_question(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Samples, reals and gap of each figure beside each other."""
    found: dict[tuple, dict[str, Any]] = {}
    for row in rows:
        key = (row["attribute"], row["asked"], row["name"])
        name = f"{row['attribute']}={row['asked']}" if row["asked"] else row["attribute"]
        empty = {"name": name, "figure": row["name"], "samples": None, "reals": None, "gap": None}
        found.setdefault(key, empty)[row["of"]] = row
    return list(found.values())


def _reasons(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why figures or intervals are missing: each reason once, with what it is of."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["reason"]:
            name = f"{row['attribute']}={row['asked']}" if row["asked"] else row["attribute"]
            what = f"{row['name']} of {name}" if row["value"] is None else row["name"]
            found.setdefault(row["reason"], []).append(what)
    return [f"{', '.join(dict.fromkeys(names))}: {why}" for why, names in found.items()]


def _pairs(rows: Sequence[joint.Comparison] | None) -> str:
    head = ["given", "value", "samples", "reals", "difference", "low", "high", "beyond"]
    table: list[Sequence[object]] = [[*head, "n_samples", "n_reals"]]
    for row in rows or ():
        of = row.figure
        numbers = [row.samples, row.reals, of.value, of.low, of.high]
        cells = ["" if number is None else f"{number:.6g}" for number in numbers]
        table.append([row.given, row.value, *cells, int(row.beyond), of.n_synthetic, of.n_real])
    return spreadsheet.text(table)


def _images(pictures: Pictures, reading: Reading) -> str:
    """A row for each sample: what was requested, what was read, and how sure."""
    values = reading.values
    head: list[object] = ["key"]
    for name in values:
        head += [f"{name} requested", f"{name} read"]
        head += [] if lookup(name).continuous else [f"{name} probability"]
    table: list[list[object]] = [head]
    asked = pictures.attributes
    for number, key in enumerate(pictures.keys):
        cells: list[object] = [key]
        for name, read in values.items():
            cells += [_requested(asked, number, name), _said(name, float(read[number]))]
            if not lookup(name).continuous:
                cells.append(f"{reading.answers[name][number].max():.4f}")
        table.append(cells)
    return spreadsheet.text(table)


def _requested(asked: Attributes | None, number: int, name: str) -> str:
    if asked is None:
        return ""
    column = INDEX[name]
    value = float(asked.values[number, column])
    return _said(name, value) if asked.known[number, column] else ""


def _said(name: str, value: float) -> str:
    shown = decode_value(name, value, True)
    return f"{shown:.4g}" if isinstance(shown, float) else str(shown)


def requested(pictures: Pictures) -> dict[str, float] | None:
    """Share of the images of which an attribute is requested, or known; None if nothing says."""
    if pictures.attributes is None:
        return None
    known = np.asarray(pictures.attributes.known).mean(0)
    return {name: round(float(known[i]), 4) for name, i in INDEX.items() if known[i]}


def said(control: Control) -> list[str]:
    """The main figures, a line each."""
    lines = []
    if control.reached:
        count = control.reached_count
        lines.append(
            f"{count['at']:g} of {count['of']:g} attributes reach {count['mark']:g} of what is "
            "read from the reals"
        )
    for row in control.rows:
        if row.figure.name == figures.AUROC and row.of == "samples":
            lines.append(f"{row.attribute}={row.asked}: {row.figure}, N {row.figure.n_synthetic:,}")
    if control.pairs is not None:
        of = _joint(control)
        lines.append(
            f"{of['off']:,} of {of['comparisons']:,} shares of one value where another is are off "
            f"by more than {joint.OFF:g}, {of['beyond']:,} beyond 0 by all intervals together"
        )
    return lines
