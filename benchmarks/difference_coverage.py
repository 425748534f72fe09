"""Coverage of the intervals of paired differences of two models, where the truth is known.

    python -m benchmarks.difference_coverage --out runs/difference_coverage

Draws a real set and the samples of two models in 16 dimensions, 800 of each. A sample of either
model answers the same request as one of the other: both have the same mode as far as their shares
allow, and half of their variance in common. Measures how often a 95% interval of the difference
holds the analytic one, and how far it does if the requests are ignored. Each finished part is a
line of JSON in `parts.jsonl`; rerun the command to continue. The seed of a part follows from its
description. Prints the table as Markdown.
"""

import argparse
import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import resumed
from benchmarks.distance_coverage import PAIRS, WIDTH, Mixture, N, true_fd, true_kid
from rfxray.command_line import ArgumentParser, Progress, exit_on_error, local_path
from rfxray.evaluate import feature_pair, frechet_figure, kernel

PART = 50  # repetitions of a part
TRIED = 2  # parts with requests ignored too
_SAME, _APART = PAIRS["Gaussians apart"]
_MODES, _FAR = PAIRS["mixtures of other shares"]
_NEAR = dataclasses.replace(_MODES, weights=np.array([0.45, 0.3, 0.25]))

# Reals, first model, second model.
MODELS = {
    "both as the reals": (_SAME, _SAME, _SAME),
    "both as far from them": (_SAME, _APART, _APART),
    "the first nearer": (_MODES, _NEAR, _FAR),
}


def requested(
    rng: np.random.Generator, first: Mixture, second: Mixture
) -> tuple[np.ndarray, np.ndarray]:
    """Samples of two models that answer the same requests, `[N, width]` each."""
    share = rng.random(N)
    common = rng.normal(size=(N, WIDTH))
    found = []
    for model in (first, second):
        mode = np.searchsorted(np.cumsum(model.weights)[:-1], share)
        noise = np.sqrt(0.5) * (common + rng.normal(size=(N, WIDTH)))
        found.append(model.means[mode] + noise * model.scales)
    return found[0], found[1]


def repeat(name: str, films: int, seed: int, tried: bool) -> dict[str, tuple[float, bool, float]]:
    """Error of each difference, whether its interval holds the truth, and the interval's width."""
    rng = np.random.default_rng(seed)
    reals, one, other = MODELS[name]
    real = reals.draw(rng, N // films, films)
    first, second = requested(rng, one, other)
    patients = np.arange(N) // films
    requests = [f"request {i}" for i in range(N)]
    sides = ("real", N, patients), ("first", N, requests), ("second", N, requests)
    paired, _ = feature_pair.number(*sides)
    ways = {"": paired}
    if tried:
        loose = ("first", N, None), ("second", N, None)
        ways[", requests ignored"] = feature_pair.number(sides[0], *loose)[0]
    found = {}
    for what, codes in ways.items():
        of = codes[0], codes[1], codes[2]
        figures = (
            kernel.difference(real, first, second, of),
            frechet_figure.difference(real, first, second, of),
        )
        for figure in figures:
            true = truth(name, figure.name)
            if figure.value is None or figure.low is None or figure.high is None:
                raise RuntimeError(f"{figure} has no interval")
            held = bool(figure.low <= true <= figure.high)
            found[figure.name + what] = figure.value - true, held, figure.high - figure.low
    return found


def truth(name: str, what: str) -> float:
    """The analytic difference."""
    real, first, second = MODELS[name]
    of = true_kid if what.startswith("KID") else true_fd
    return of(real, first) - of(real, second)


@dataclasses.dataclass(frozen=True)
class Part:
    """Some repetitions of one line of the table."""

    name: str
    films: int
    part: int


def measure(part: Part) -> dict:
    """Number of hits, sums of errors and widths of a part."""
    rows = []
    for repetition in range(PART):
        seed = zlib.crc32(repr((part.name, part.films, part.part, repetition)).encode())
        rows.append(repeat(part.name, part.films, seed, part.part < TRIED))
    sums = {}
    for what in rows[0]:
        errors, hits, widths = np.array([row[what] for row in rows]).T
        sums[what] = {
            "sum": float(errors.sum()),
            "squares": float(errors @ errors),
            "hits": int(hits.sum()),
            "width": float(widths.sum()),
        }
    return {"part": dataclasses.asdict(part), "sums": sums}


def table(rows: Sequence[dict]) -> str:
    """The finished parts as Markdown."""
    lines = [
        "| models | films of a patient | figure | true | bias | deviation | width | covers "
        "| repetitions |",
        "|---" * 9 + "|",
    ]
    for name, films in ((n, f) for n in MODELS for f in (1, 4)):
        mine = [r for r in rows if (r["part"]["name"], r["part"]["films"]) == (name, films)]
        for what in dict.fromkeys(key for row in mine for key in row["sums"]):
            sums = [row["sums"][what] for row in mine if what in row["sums"]]
            count = PART * len(sums)
            mean, square, width, hits = (
                sum(each[key] for each in sums) / count
                for key in ("sum", "squares", "width", "hits")
            )
            lines.append(
                f"| {name} | {films} | {what} | {truth(name, what):.4f} | {mean:+.4f} "
                f"| {np.sqrt(max(square - mean**2, 0)):.4f} | {width:.4f} | {hits:.1%} | {count} |"
            )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(prog="python -m benchmarks.difference_coverage", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", required=True, type=local_path, help="output folder")
    parser.add_argument(
        "--repetitions", type=int, default=1000, help="of each line (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    with exit_on_error("benchmarks.difference_coverage"):
        arguments.out.mkdir(parents=True, exist_ok=True)
        log: Path = arguments.out / "parts.jsonl"
        rows = resumed.read(log)
        planned = [
            Part(name, films, part)
            for part in range(-(-arguments.repetitions // PART))
            for name in MODELS
            for films in (1, 4)
        ]
        with Progress("benchmarks.difference_coverage", len(planned), unit="part") as progress:
            for part in planned:
                if not any(row["part"] == dataclasses.asdict(part) for row in rows):
                    rows.append(measure(part))
                    resumed.add(log, rows[-1])
                progress.advance()
        print(table(rows))


if __name__ == "__main__":
    main()
