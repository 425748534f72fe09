"""The results of a study as files: a page, numbers, and a table fit for a paper."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rfxray import version
from rfxray.outputs import files, page
from rfxray.readers import published
from rfxray.readers.analysis import Analysis
from rfxray.readers.equivalence import CHANCE, NOT_ESTIMABLE
from rfxray.readers.study import Study
from rfxray.readers.verdict import Verdict

PAGE, NUMBERS, TABLE, IMRMC = "analysis.html", "results.json", "table.md", "study.imrmc"
FILES = (PAGE, NUMBERS, TABLE, IMRMC)
WIDTH, HEIGHT = 560, 26  # of the plot of AUCs and of one of its rows, pixels


def write(out: Path, study: Study, found: Analysis, inputs: Mapping[str, str]) -> Path:
    """Writes all files.

    Args:
      out: Folder; it is created if needed.
      study: Answers and truth.
      found: What `analyse` found in them.
      inputs: SHA-256 of each file that was read, by path.

    Returns:
      Path of the page.
    """
    numbers = {
        "inputs": dict(inputs),
        "opened_key_sha256": study.key_sha256 or None,
        "written_by": version.versions(),
        **dataclasses.asdict(found),
    }
    with files.saving(out):
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(numbers, indent=1, allow_nan=False)
        files.write_whole(out / NUMBERS, text + "\n")
        files.write_whole(out / TABLE, table(found))
        if study.pairs:
            (out / IMRMC).unlink(missing_ok=True)  # it has no form for pairs
        else:
            files.write_whole(out / IMRMC, _imrmc(study))
        files.write_whole(out / PAGE, html(study, found, inputs))
    return out / PAGE


def _imrmc(study: Study) -> str:
    rows = [
        (study.readers[j], study.cases[k], study.modalities[i], float(study.scores[i, j, k]))
        for i, j, k in np.argwhere(~np.isnan(study.scores))
    ]
    truth = dict(zip(study.cases, map(bool, study.truth), strict=True))
    return published.imrmc_text(study.name, rows, truth)


def merit_name(found: Analysis) -> str:
    """What the figure of merit is called."""
    return "share correct" if found.pairs else "AUC"


def _number(value: float | None, interval: Sequence[float | None] | None = None) -> str:
    """`0.512 (0.431 to 0.593)`; an open end of an interval is ±∞."""
    if value is None:
        return NOT_ESTIMABLE
    if interval is None:
        return f"{value:.3f}"
    low, high = (
        f"{sign}∞" if end is None else f"{end:.3f}"
        for sign, end in zip("-+", interval, strict=True)
    )
    return f"{value:.3f} ({low} to {high})"


def headline(verdict: Verdict) -> str:
    """A verdict in one line."""
    if verdict.main.mean is None:
        return f"{verdict.verdict}: {verdict.reasons[0]}"
    return f"{verdict.verdict}; mean {_number(verdict.main.mean, verdict.main.interval)}"


def table(found: Analysis) -> str:
    """The main results as a Markdown table with a caption."""
    merit = merit_name(found)
    lines = [
        f"| modality | reader | cases | {merit} (95% CI) | accuracy (95% CI) | d′ (95% CI) |",
        "|---|---|---|---|---|---|",
    ]
    for row in found.readers:
        lines.append(
            f"| {row.modality} | {row.reader} | {row.answered} "
            f"| {_number(row.auc, row.auc_interval)} "
            f"| {_number(row.accuracy, row.accuracy_interval)} "
            f"| {_number(row.d_prime, row.d_prime_interval)} |"
        )
    for verdict in found.verdicts:
        mean = _number(verdict.main.mean, verdict.main.interval)
        count = found.counts["cases_analysed"]
        lines.append(f"| {verdict.modality} | mean of the panel | {count} | {mean} | | |")
    counts = found.counts
    lines += [
        "",
        f"{counts['readers_analysed']} of {counts['readers']} readers and "
        f"{counts['cases_analysed']} of {counts['cases']} cases "
        f"({counts['patients_analysed']} patients) in the panel. Mean: Obuchowski–Rockette, "
        f"readers and cases random, {found.method} covariances, Hillis' degrees of freedom. "
        f"Readers: AUC on the logit scale by DeLong, accuracy by Clopper–Pearson. "
        f"Margin of equivalence ±{found.margin:g} around {CHANCE:g}.",
        "",
        *(f"Verdict, {verdict.modality}: {headline(verdict)}." for verdict in found.verdicts),
    ]
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------
# The page


@dataclasses.dataclass(frozen=True)
class Line:
    """One row of the plot of AUCs, in pixels; `text` stands beside it."""

    name: str
    text: str
    y: float
    x: float | None
    low: float | None
    high: float | None
    panel: bool


def _plot(found: Analysis, modality: str, verdict: Verdict) -> dict:
    def place(value: float | None) -> float | None:
        return None if value is None else round(float(np.clip(value, 0, 1)) * WIDTH, 1)

    lines = []

    def add(name: str, value: float | None, interval: Sequence[float] | None, panel: bool) -> None:
        low, high = interval or (None, None)
        y = len(lines) * HEIGHT + HEIGHT
        text = _number(value, interval)
        lines.append(Line(name, text, y, place(value), place(low), place(high), panel))

    for row in found.readers:
        if row.modality == modality:
            add(row.reader, row.auc, row.auc_interval, False)
    add("mean of the panel", verdict.main.mean, verdict.main.interval, True)
    return {
        "lines": lines,
        "width": WIDTH,
        "height": (len(lines) + 1) * HEIGHT + 8,
        "low": place(CHANCE - found.margin),
        "high": place(CHANCE + found.margin),
        "ticks": [(f"{tick:g}", place(tick)) for tick in (0, 0.25, 0.5, 0.75, 1)],
    }


def _histograms(study: Study, modality: int) -> list[dict]:
    """Shares of the scores of each reader, real beside synthetic, as heights in pixels."""
    if study.pairs:
        return []
    values = np.unique(study.scores[modality][~np.isnan(study.scores[modality])])
    if not 2 <= len(values) <= 12:  # a scale of ratings; others are not shown
        return []
    found = []
    for j, reader in enumerate(study.readers):
        scores = study.scores[modality, j]
        bars = []
        for n, value in enumerate(values):
            for m, kind in enumerate((~study.truth, study.truth)):
                count = int((scores[kind] == value).sum())
                share = count / max(1, int((~np.isnan(scores[kind])).sum()))
                bars.append(
                    {
                        "x": n * 34 + m * 13 + 4,
                        "height": round(60 * share, 1),
                        "synthetic": bool(m),
                        "title": f"{value:g}, {'synthetic' if m else 'real'}: {count}",
                    }
                )
        labels = [(f"{value:g}", n * 34 + 12) for n, value in enumerate(values)]
        found.append(
            {"reader": reader, "bars": bars, "labels": labels, "width": 34 * len(values) + 4}
        )
    return found


def html(study: Study, found: Analysis, inputs: Mapping[str, str]) -> str:
    """The page."""
    return page.render(
        Path(__file__).with_name("analysis.html"),
        title=f"Reader study {found.study}",
        found=found,
        merit=merit_name(found),
        headlines={verdict.modality: headline(verdict) for verdict in found.verdicts},
        plots={v.modality: _plot(found, v.modality, v) for v in found.verdicts},
        histograms={name: _histograms(study, i) for i, name in enumerate(study.modalities)},
        number=_number,
        inputs=inputs,
        opened_key=study.key_sha256,
        version=version.line(),
    )
