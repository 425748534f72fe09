"""Sizes, coverage and power of the reader-study analysis in simulated studies.

    python -m benchmarks.reader_calibration --out runs/reader_calibration

Simulates studies of the Roe–Metz model for every cell of the table, appends a line of JSON for each
finished cell to `cells.jsonl`, and prints the table as Markdown. Rerun the command to continue. The
seed of a cell follows from its description, so a cell is the same in every run. 10,000 studies of
all cells take about ten minutes on one core.
"""

import argparse
import dataclasses
import zlib
from pathlib import Path

import numpy as np
from scipy import optimize, stats

from benchmarks import resumed
from rfxray.command_line import ArgumentParser, Progress, exit_on_error, local_path
from rfxray.readers import power
from rfxray.readers.roe_metz import RoeMetz

READERS = (3, 5, 8)
CASES = (50, 100, 200, 400)
MARGINS = (0.05, 0.1)
# Readers who agree, and readers who differ and find the same images easy.
MODELS = {"close": RoeMetz(0.0055, 0.15, 0.15), "wide": RoeMetz(0.03, 0.3, 0.2)}
# Studies with readers who tell images apart among readers who cannot: AUC, how many of them.
MINORITIES = ((0.75, 1), (0.75, 2), (0.9, 1))
MINORITY_STUDIES = 200
# Ratings 1 to 5 of which a fifth each is given to real images: the thresholds of a normal score.
RATINGS = np.array([-0.84, -0.25, 0.25, 0.84])


@dataclasses.dataclass(frozen=True)
class Cell:
    """One line of the table."""

    model: str
    readers: int
    cases: int
    margin: float
    area: float
    telling: int = 0  # readers of the minority, who have `area`; all readers have it if 0
    ratings: bool = False
    pairs: bool = False  # cases are pairs of images


def cells() -> list[Cell]:
    """All cells of the table: centre and edge of the margin, and the minorities."""
    found = []
    for model in MODELS:
        for readers in READERS:
            for cases in CASES:
                for margin in MARGINS:
                    found.append(Cell(model, readers, cases, margin, 0.5))
                    found.append(Cell(model, readers, cases, margin, 0.5 + margin))
    for readers in READERS:
        found.append(Cell("close", readers, 200, 0.1, 0.5, ratings=True))
        found.append(Cell("close", readers, 200, 0.1, 0.6, ratings=True))
        for cases in (100, 200):
            found.append(Cell("close", readers, cases, 0.1, 0.5, pairs=True))
            found.append(Cell("close", readers, cases, 0.1, 0.6, pairs=True))
    for readers in (5, 8):
        for cases in (200, 400):
            for margin in MARGINS:
                for area, telling in MINORITIES:
                    found.append(Cell("close", readers, cases, margin, area, telling))
    return found


def before_rating(model: RoeMetz, rated: float) -> float:
    """AUC of continuous scores that are rated with this AUC, which is closer to .5."""
    deviation = np.sqrt(1 + model.reader)

    def shares(mean: float) -> np.ndarray:
        return np.diff(stats.norm.cdf(RATINGS, mean, deviation), prepend=0, append=1)

    def gap(area: float) -> float:
        real, synthetic = shares(0.0), shares(float(model.separation(area)))
        below = np.cumsum(real) - real
        return float(synthetic @ (below + real / 2)) - rated

    return optimize.root_scalar(gap, bracket=(0.3, 0.95)).root


def measure(cell: Cell, studies: int) -> dict:
    """Measured and planned rates of a cell."""
    described = repr(cell).replace(", pairs=False", "")  # as when there were no pairs yet
    rng = np.random.default_rng(zlib.crc32(described.encode()))
    images = cell.cases * (2 if cell.pairs else 1)
    truth = np.arange(images) < images // 2
    area = np.full(cell.readers, cell.area)
    if cell.telling:
        area[cell.telling :] = 0.5
    model = MODELS[cell.model]
    scale = None
    if cell.ratings:
        scale = power.Scale(RATINGS, before_rating(model, cell.area))
    found = power.simulated(
        model, area, cell.readers, truth, cell.margin, studies, rng, scale, cell.pairs
    )
    expected = power.expected(model, cell.area, cell.cases, cell.pairs)
    plan = power.planned(expected, cell.readers, cell.cases, cell.margin, cell.pairs)
    return {
        "cell": dataclasses.asdict(cell),
        "studies": studies,
        "rates": dataclasses.asdict(found),
        "planned": dataclasses.asdict(plan),
    }


def table(rows: list[dict]) -> str:
    """The finished cells as Markdown."""
    lines = [
        "| readers × images | model | margin | true AUC | SE / margin | TOST | planned "
        "| difference | planned | coverage | equivalent | apart |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cell, rates, plan = Cell(**row["cell"]), row["rates"], row["planned"]
        area, expected = (
            f"{cell.area:.2f}",
            (f"{plan['equivalence']:.1%}", f"{plan['difference']:.1%}"),
        )
        if cell.telling:
            area, expected = f"{cell.telling} at {cell.area:.2f}, the rest at 0.50", ("–", "–")
        model = cell.model + (", ratings 1–5" if cell.ratings else "")
        what = " pairs" if cell.pairs else ""
        lines.append(
            f"| {cell.readers} × {cell.cases}{what} | {model} | {cell.margin:g} | {area} "
            f"| {rates['se'] / cell.margin:.2f} | {rates['tost']:.1%} | {expected[0]} "
            f"| {rates['difference']:.1%} | {expected[1]} | {rates['covered']:.1%} "
            f"| {rates['equivalent']:.1%} | {rates['apart']:.1%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.reader_calibration", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", required=True, type=local_path, help="output folder")
    parser.add_argument(
        "--studies", type=int, default=10_000, help="studies of a cell (default: %(default)s)"
    )
    arguments = parser.parse_args()
    with exit_on_error("benchmarks.reader_calibration"):
        arguments.out.mkdir(parents=True, exist_ok=True)
        log: Path = arguments.out / "cells.jsonl"
        rows = resumed.read(log)
        planned = cells()
        with Progress("benchmarks.reader_calibration", len(planned), unit="cell") as progress:
            for cell in planned:
                studies = MINORITY_STUDIES if cell.telling else arguments.studies
                done = [
                    row
                    for row in rows
                    if row["cell"] == dataclasses.asdict(cell) and row["studies"] == studies
                ]
                if not done:
                    rows.append(measure(cell, studies))
                    resumed.add(log, rows[-1])
                progress.advance()
        print(table(rows))


if __name__ == "__main__":
    main()
