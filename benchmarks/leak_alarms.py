"""How often the leak check refuses a study that has no leak.

    python -m benchmarks.leak_alarms --data DATA[:SPLIT] --size 256 --match view \\
        [--studies 2000] --out runs/leak_alarms

Each study is drawn from one set: half of its images are called synthetic, as many in each stratum,
so nothing tells them apart, and the share of refused studies is the true false-alarm rate. What a
check measures of an image is measured once; the exchanges are drawn for every study. Every size of
study is one line of `cells.jsonl`, from which a rerun continues, and the table is printed.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks import resumed
from rfxray.command_line import ArgumentParser, Progress, exit_on_error, local_path
from rfxray.errors import DataError
from rfxray.readers import candidates, leaks, traces

IMAGES = (40, 100, 200)  # of a study


class Pool:
    """What the check measures of every image of a set.

    Args:
      source: Data set or folder.
      size: Side of the images, pixels.
      match: Attributes of a stratum.
    """

    def __init__(self, source: str, size: int, match: list[str]):
        found = candidates.find(source, None, match)
        values, grids = [], []
        with Progress("benchmarks.leak_alarms", len(found)) as progress:
            for each in found:
                image = leaks.shown(each.pixels(size))
                values.append(leaks.left_behind(image, leaks.encode({"image": image})["image"]))
                grids.append(traces.grids(image))
                progress.advance()
        self.names = list(values[0])
        # A study's files have one length
        self.values = np.array([list(each.values()) for each in values])
        self.values[:, self.names.index("bytes")] = 0
        self.grids = np.array([list(each.values()) for each in grids])
        self.strata = np.array(["/".join(each.facts[name] for name in match) for each in found])
        self.patients = np.array([each.patient or each.name for each in found])


def study(pool: Pool, images: int, rng: np.random.Generator) -> str:
    """The check that refuses a study without a leak, "" if it passes."""
    order = rng.permutation(len(pool.patients))
    _, first = np.unique(pool.patients[order], return_index=True)
    one_each = order[np.sort(first)]  # one image of a patient, as in a study
    if len(one_each) < images:
        raise DataError(f"{len(one_each)} patients are too few for studies of {images} images")
    chosen = one_each[:images]
    truth = np.zeros(images, bool)
    _, stratum = np.unique(pool.strata[chosen], return_inverse=True)
    kept = np.ones(images, bool)
    for each in range(stratum.max() + 1):
        own = np.flatnonzero(stratum == each)
        kept[own[len(own) // 2 * 2 :]] = False
        truth[rng.permutation(own[: len(own) // 2 * 2])[: len(own) // 2]] = True
    chosen, truth, stratum = chosen[kept], truth[kept], stratum[kept]
    places = rng.permutation(len(chosen)).astype(float)
    values = np.column_stack([pool.values[chosen], places])
    texts = pool.values[chosen, pool.names.index(leaks.TEXT)]
    p, _ = leaks.adjusted(values, pool.grids[chosen], texts, truth, stratum)
    names = [*pool.names, "order of files", leaks.GRID, f"{leaks.TEXT} by stratum"]
    lowest = int(np.argmin(p))
    return names[lowest] if p[lowest] <= leaks.FALSE_ALARM else ""


def measure(pool: Pool, images: int, studies: int) -> dict:
    """Refused studies of one size, by the check that was most extreme."""
    rng = np.random.default_rng(images)
    refused: dict[str, int] = {}
    for _ in range(studies):
        if name := study(pool, images, rng):
            refused[name] = refused.get(name, 0) + 1
    return {"images": images, "studies": studies, "refused": refused}


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    lines = [
        "| images | studies | refused | 95% interval | by |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        refused = sum(row["refused"].values())
        low, high = stats.binomtest(refused, row["studies"]).proportion_ci(0.95)
        by = ", ".join(f"{name} {count}" for name, count in sorted(row["refused"].items()))
        lines.append(
            f"| {row['images']} | {row['studies']:,} | {refused / row['studies']:.2%} "
            f"| {low:.2%} to {high:.2%} | {by or '–'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.leak_alarms", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", required=True, help="data set, DATA:SPLIT, or samples")
    parser.add_argument("--size", type=int, required=True, help="side of the images, in pixels")
    parser.add_argument("--match", default="view", help="attributes of a stratum, separated by ,")
    parser.add_argument("--studies", type=int, default=2000, help="of a size (default: 2000)")
    parser.add_argument("--out", required=True, type=local_path, help="output folder")
    arguments = parser.parse_args()
    with exit_on_error("benchmarks.leak_alarms"):
        arguments.out.mkdir(parents=True, exist_ok=True)
        log: Path = arguments.out / "cells.jsonl"
        rows = [row for row in resumed.read(log) if row["studies"] == arguments.studies]
        if missing := [n for n in IMAGES if n not in {row["images"] for row in rows}]:
            pool = Pool(arguments.data, arguments.size, arguments.match.split(","))
            for images in missing:
                rows.append(measure(pool, images, arguments.studies))
                resumed.add(log, rows[-1])
        print(table(sorted(rows, key=lambda row: row["images"])))
        print(f"written to {log}")


if __name__ == "__main__":
    main()
