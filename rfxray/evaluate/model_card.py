"""The evaluation part of a model card, as Markdown, from the results of several actions."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rfxray.errors import DataError
from rfxray.evaluate import results
from rfxray.evaluate.privacy import card

_WORST = 5  # parts, findings and groups


def read(path: Path) -> dict[str, Any]:
    """Results of fidelity, control, utility or privacy.

    Args:
      path: Folder that the action wrote, or its `results.json`.

    Raises:
      DataError: If there are none, or they are damaged.
    """
    file = path / results.NAME if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        kind = found["kind"]
        if kind not in _SECTIONS:
            raise KeyError(kind)
        markdown([found])
        _of(found)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise DataError(
            f"{file} holds no results of rfxray evaluate fidelity, control, privacy or utility "
            f"({why}); give the --out of one"
        ) from error
    return found


def markdown(runs: Sequence[Mapping[str, Any]]) -> str:
    """One section for each of the results, and whether all are of the same samples."""
    prints = {
        found["sets"][label]["fingerprint"][:12] for found in runs for label in _labels(found)
    }
    lines = ["# Evaluation", ""]
    if len(prints) == 1:
        lines.append(f"All figures are of one set of samples, {prints.pop()}.")
    else:
        lines.append(
            f"The figures are of {len(prints)} sets of samples, which may differ in the model or "
            "in what was requested; each section names its own."
        )
    for found in runs:
        lines += ["", *_SECTIONS[found["kind"]](found)]
        if found["kind"] != "rfxray.evaluate.privacy":
            made = found["written_by"]
            lines += [
                "",
                f"`{found['command']}`, rfxray {made['rfxray']}, commit {made['commit']}.",
            ]
        if len(prints) > 1:
            lines += ["", f"Samples: {_of(found)}."]
    return "\n".join(lines) + "\n"


def _labels(found: Mapping[str, Any]) -> list[str]:
    """Labels of the sets of samples."""
    return [
        label
        for label in found["sets"]
        if label not in ("real", "train", "heldout", "test", "more")
    ]


def _of(found: Mapping[str, Any]) -> str:
    sets = found["sets"]
    return ", ".join(
        f"{sets[each]['name']} {sets[each]['fingerprint'][:12]}" for each in _labels(found)
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _number(row: Mapping[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return "–"
    interval = "" if row["low"] is None else f" ({row['low']:.3g} to {row['high']:.3g})"
    return f"{row['value']:.3g}{interval}"


def _fidelity(found: Mapping[str, Any]) -> list[str]:
    rows = [row for row in found["figures"] if row["protocol"] == "corrected"]
    lines = ["## Fidelity", ""]
    cells = []
    for row in rows:
        if row["kind"] == "figure" and row["value"] is not None:
            same = {name: row[name] for name in ("name", "extractor", "synthetic")}
            floor = next(iter(results.chosen(rows, **same, kind="real floor", part="")), None)
            of = [row["synthetic"], row["extractor"], row["name"]]
            cells.append(
                [*of, _number(row), f"{row['n_real']:,} × {row['n_synthetic']:,}", _number(floor)]
            )
    lines += _table(["samples", "extractor", "measure", "value", "N", "halves of the reals"], cells)
    parts = [row for row in rows if row["kind"] == "part" and row["value"] is not None]
    parts.sort(key=lambda row: -row["value"])
    if parts:
        lines += ["", "Parts that are farthest from the reals:", ""]
        worst = [
            [row["part"], row["extractor"], f"{row['name']} {_number(row)}"]
            for row in parts[:_WORST]
        ]
        lines += _table(["part", "extractor", "value"], worst)
    return [*lines, *_circular(found)]


def _circular(found: Mapping[str, Any]) -> list[str]:
    reasons = [line for of in found["extractors"].values() for line in of.get("circular", [])]
    return ["", *[f"Circular: {line}." for line in reasons]] if reasons else []


def _control(found: Mapping[str, Any]) -> list[str]:
    lines = ["## Control", "", f"Read by {found['classifier']['name']}."]
    if found["reached_count"]:
        of = found["reached_count"]
        lines.append(
            f"{of['at']:g} of {of['of']:g} attributes reach {of['mark']:g} of what is read from "
            "the reals."
        )
    rows = [row for row in found["figures"] if row["name"] == "AUROC" and row["value"] is not None]
    samples = {(row["attribute"], row["asked"]): row for row in rows if row["of"] == "samples"}
    # What no classifier reads from the reals either, such as race from phantoms, is not a gap.
    gaps = [row for row in rows if row["of"] == "gap"]
    order = sorted(gaps or samples.values(), key=lambda row: row["value"])
    if order:
        cells = []
        for row in order[:_WORST]:
            gap = row if row["of"] == "gap" else None
            own = samples.get((row["attribute"], row["asked"]))
            cells.append([f"{row['attribute']}={row['asked']}", _number(own), _number(gap)])
        lines += ["", "Requests that are read worst:", ""]
        lines += _table(["requested", "AUROC of samples", "less that of reals"], cells)
    if found["joint"]:
        of = found["joint"]
        lines += [
            "",
            f"{of['off']:,} of {of['comparisons']:,} shares of one value where another one is are "
            f"off by more than {of['mark']:g}.",
        ]
    return lines


def _utility(found: Mapping[str, Any]) -> list[str]:
    rows = [row for row in found["figures"] if row["value"] is not None]
    means = [
        row
        for row in rows
        if row["measure"] == "AUROC" and row["finding"] == "mean" and not row["group"]
    ]
    cells = [
        [
            row["training"],
            f"{row['fraction']:g}" if row["fraction"] else "–",
            row["of"],
            _number(row),
        ]
        for row in means
    ]
    lines = ["## Utility", "", f"Mean AUROC of {found['seeds']} classifiers of each training:", ""]
    lines += _table(["trained on", "share of the reals", "figure", "value"], cells)
    gaps = sorted((row for row in rows if row["of"] == "gap"), key=lambda row: -abs(row["value"]))
    if gaps:
        lines += ["", "Largest gaps of a group:", ""]
        worst = [
            [row["group"], row["training"], f"{row['measure']} {row['finding']}", _number(row)]
            for row in gaps[:_WORST]
        ]
        lines += _table(["group", "trained on", "figure", "value"], worst)
    return lines


def _privacy(found: Mapping[str, Any]) -> list[str]:
    return card.markdown(found).rstrip("\n").split("\n")


_SECTIONS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "rfxray.evaluate.fidelity": _fidelity,
    "rfxray.evaluate.control": _control,
    "rfxray.evaluate.utility": _utility,
    "rfxray.evaluate.privacy": _privacy,
}
