"""The report of a stress test: verdicts, figures, subgroups, and the pairs that flip."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rfxray import version
from rfxray.causes.leaning import LEANS, Finding, Pairs, Twins
from rfxray.causes.pairs import FOLDERS, Opened
from rfxray.evaluate.report import value
from rfxray.outputs import page, spreadsheet

TEMPLATE = Path(__file__).with_name("leaning.html")
SHOWN, SIDE = 12, 256  # pairs of a finding that are shown, and their largest side in pixels
WORST = 6  # subgroups of a finding on the page


def rows(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The findings as JSON values."""
    return [dataclasses.asdict(each) for each in findings]


def render(
    found: Mapping[str, Any],
    findings: Sequence[Finding],
    twins: Mapping[str, Twins],
    opened: Opened,
    threshold: float,
) -> str:
    """The page, one HTML file.

    Args:
      found: Entries of the results.
      findings: What was found.
      twins: Probabilities, by finding.
      opened: Pairs that were read.
      threshold: Probability from which on a finding counts as read.
    """
    return page.render(
        TEMPLATE,
        f"Does {found['classifier']['name']} lean on {opened.name}?",
        found=found,
        findings=rows(sorted(findings, key=lambda each: each.verdict != LEANS)),
        groups={each.name: _groups(each) for each in findings},
        flips={
            each.name: _flips(each.name, twins[each.name], opened, threshold) for each in findings
        },
        reasons=_reasons(findings),
        value=value,
        version=version.line(),
    )


def scores(twins: Mapping[str, Twins], pairs: Pairs) -> str:
    """A row for each pair, as CSV: its direction and all probabilities."""
    head, columns = ["pair", "direction"], []
    for name, of in twins.items():
        for label in FOLDERS:
            if (part := getattr(of, label)) is not None:
                head.append(f"{name} {label}")
                columns.append(part)
    table: list[list[object]] = [list(head)]
    for k, side in enumerate(pairs.sign):
        cells = ["" if np.isnan(part[k]) else f"{part[k]:.5f}" for part in columns]
        table.append([k, pairs.directions[int(side)], *cells])
    return spreadsheet.text(table)


def _reasons(findings: Sequence[Finding]) -> list[tuple[str, str, list[str]]]:
    """Each verdict with its reason once, and the findings that it is of."""
    found: dict[tuple[str, str], list[str]] = {}
    for each in findings:
        found.setdefault((each.verdict, each.why), []).append(each.name)
    return [(*words, names) for words, names in found.items()]


def _groups(finding: Finding) -> list[dict[str, Any]]:
    """The subgroups with the largest gaps."""
    largest = sorted(finding.groups, key=lambda each: -abs(each.gap.value or 0))[:WORST]
    return [dataclasses.asdict(each) for each in largest]


def _flips(name: str, of: Twins, opened: Opened, threshold: float) -> list[dict[str, Any]]:
    """The pairs in which a finding is read in one twin only, with the largest movement first."""
    flipped = (of.before >= threshold) != (of.after >= threshold)
    if name in opened.followed:
        flipped &= ~opened.followed[name]
    order = np.flatnonzero(flipped)
    order = order[np.argsort(-np.abs(of.after - of.before)[order], kind="stable")][:SHOWN]
    found = []
    for k in order:
        shown = []
        for label in FOLDERS[:3]:
            part = getattr(of, label)
            if label in opened.sets and part is not None and np.isfinite(part[k]):
                image = np.round(opened.sets[label].read(int(k)) * 255).astype(np.uint8)
                shown.append({"label": label, "p": part[k], "src": page.data_uri(image, SIDE)})
        found.append({"direction": opened.pairs.directions[int(opened.pairs.sign[k])], "of": shown})
    return found
