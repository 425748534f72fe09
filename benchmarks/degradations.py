"""Which faults of an image each distance sees: real films, made worse in six levels.

    python -m benchmarks.degradations --data DATA --extractor efficientnet_lite0 --out DIR

The films are split by patient. One half is the reference. The other is compared with it after it
was blurred, made noisy, flattened in contrast, covered by a black square, mirrored, or has lost its
AP films, more with each level. A distance sees a fault if it grows with the level: the rank
correlation of the six levels is then at least .9. Below that the extractor is blind to the fault by
that distance, which is a result.

The features are kept in DIR; rerun the command to continue. Writes
`degradations.json` and `degradations.svg`, and prints Markdown.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from scipy import ndimage, stats

from rfxray import version
from rfxray.attributes import vocabulary
from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.errors import DataError
from rfxray.evaluate import basis, energy, feature_pair, frechet, kernel, manifold
from rfxray.evaluate.extractors.kinds import open_extractor
from rfxray.evaluate.features import extract
from rfxray.evaluate.pictures import Pictures, open_pictures
from rfxray.outputs import files

LEVELS = range(7)  # 0 is the film itself
SEES = 0.9
VERSION = 1  # changes with the faults, so that no feature of another fault is read
Fault = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


# ------------------------------------------------------------------------------------------------
# Faults: of an image [h, w] float32 in [0, 1], of levels 1 to 6


def blurred(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur of .25% of the side, doubled with each level."""
    return ndimage.gaussian_filter(image, 0.0025 * 2 ** (level - 1) * image.shape[0])


def noisy(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of 1% of the range, doubled with each level."""
    noise = rng.standard_normal(image.shape, np.float32)
    return np.clip(image + np.float32(0.01 * 2 ** (level - 1)) * noise, 0, 1)


def flattened(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Contrast about the mean lowered by 12% with each level."""
    mean = image.mean()
    return mean + np.float32(1 - 0.12 * level) * (image - mean)


def covered(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """A black square of 8% of the side for each level, anywhere."""
    height, width = image.shape
    side = round(0.08 * level * min(height, width))
    top, left = (int(rng.integers(0, length - side + 1)) for length in (height, width))
    image = image.copy()
    image[top : top + side, left : left + side] = 0
    return image


def mirrored(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Left and right exchanged in a sixth of the films for each level."""
    return image[:, ::-1] if rng.random() < level / 6 else image


FAULTS: dict[str, Fault] = {
    "blur": blurred,
    "noise": noisy,
    "contrast": flattened,
    "occlusion": covered,
    "mirror": mirrored,
}
LOST = "lost AP films"


def seed(*words: object) -> np.random.Generator:
    """A generator that depends on the words only: a film has the same noise in any order."""
    digest = hashlib.sha256(repr(words).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


# ------------------------------------------------------------------------------------------------
# Halves, features, distances


def halves(patients: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the films of two halves without a common patient, of about the same size."""
    if "" in patients:
        raise DataError("the set must name the patient of every film, so that halves share no one")
    names = sorted(set(patients))
    order = seed("halves").permutation(len(names))
    first, total = set(), 0
    counts = dict.fromkeys(names, 0)
    for name in patients:
        counts[name] += 1
    for number in order:
        if total >= len(patients) / 2:
            break
        first.add(names[number])
        total += counts[names[number]]
    inside = np.array([name in first for name in patients])
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def after_loss(ap: np.ndarray, level: int) -> np.ndarray:
    """Rows of which a sixth of the AP films for each level are replaced by others.

    Args:
      ap: Whether each film is AP, [n] bool.
      level: Level, 0 to 6.

    Returns:
      Row numbers, as many at each level as there are films that are not AP.
    """
    order = seed("lost").permutation(len(ap))
    lost, kept = order[ap[order]], order[~ap[order]]
    size = len(kept)
    remaining = round(size * ap.mean() * (1 - level / 6))
    return np.sort(np.concatenate([lost[:remaining], kept[: size - remaining]]))


def part_of(pictures: Pictures, numbers: np.ndarray, fault: str, level: int) -> Pictures:
    """Films of a set after a fault, as a set of their own; at level 0 as they are."""

    def load(position: int) -> np.ndarray:
        number = int(numbers[position])
        image = pictures.read(number)
        if not level:
            return image
        return FAULTS[fault](image, level, seed(fault, level, pictures.keys[number]))

    decides = [pictures.fingerprint, VERSION, fault if level else "", level, numbers.tolist()]
    return dataclasses.replace(
        pictures,
        keys=tuple(pictures.keys[n] for n in numbers),
        patients=tuple(pictures.patients[n] for n in numbers),
        attributes=pictures.attributes and pictures.attributes.rows(numbers),
        boxes=None,
        fingerprint=hashlib.sha256(json.dumps(decides).encode()).hexdigest(),
        load=load,
    )


def distances(
    real: np.ndarray, worse: np.ndarray, patients: feature_pair.Patients, components: basis.Basis
) -> dict[str, float | None]:
    """What each distance says of a degraded half; None if there are too few films for it."""
    sides = frechet.moments(real), frechet.moments(worse)
    enough = min(len(real), len(worse)) >= basis.LEAST
    shape = manifold.prdc(real, worse)
    return {
        "KID": kernel.distance(real, worse, patients).value,
        components.name: frechet.principal(*sides, components) if enough else None,
        "energy distance": energy.distance(real, worse, patients).value,
        "precision": float(shape.inside.mean()),
        "recall": float(shape.reached.mean()),
        "density": float(shape.balls.mean() / shape.neighbours),
        "coverage": float(shape.covered.mean()),
    }


BETTER = ("precision", "recall", "density", "coverage")  # fall with a fault


def order(values: Sequence[float | None], measure: str) -> float | None:
    """Rank correlation of a measure with the levels 1 to 6, 1 if it always gets worse."""
    if any(value is None for value in values):
        return None
    if len(set(values)) == 1:
        return 0.0  # it does not change at all
    sign = -1 if measure in BETTER else 1
    ranks = stats.rankdata(values)
    return sign * float(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1])


def study(spec: str, pictures: Pictures, cache: Path) -> dict:
    """Distances of every fault and level, by fault and measure, of one extractor."""
    if pictures.attributes is None:
        raise DataError("the set must say which films are AP; give a data set, or a table")
    extractor = open_extractor(spec)
    reference, other = halves(pictures.patients)
    column = vocabulary.INDEX["view"]
    views = pictures.attributes.rows(other)
    ap_value = vocabulary.lookup("view").values.index("AP")
    ap = np.asarray(views.known[:, column] & (views.values[:, column] == ap_value))

    def features(numbers: np.ndarray, fault: str, level: int) -> np.ndarray:
        return extract(part_of(pictures, numbers, fault, level), extractor, cache)

    real, clean = features(reference, "", 0), features(other, "", 0)
    components = basis.packaged(extractor.name, extractor.hash)
    if components is None:
        moments = frechet.moments(real)
        components = basis.fit(moments.mean, moments.covariance, extractor.hash, pictures.name)
    found: dict[str, list[dict]] = {}
    for fault in (*FAULTS, LOST):
        found[fault] = []
        for level in LEVELS:
            rows = after_loss(ap, level) if fault == LOST else np.arange(len(other))
            worse = features(other, fault, level) if fault != LOST else clean[rows]
            names = [[pictures.patients[n] for n in side] for side in (reference, other[rows])]
            patients = feature_pair.patients(len(real), len(worse), *names)
            found[fault].append(distances(real, worse, patients, components))
    return {
        "extractor": extractor.name,
        "weights": extractor.hash,
        "resize_path": str(extractor.preprocessing),
        "basis": components.hash,
        "films": {"reference": len(reference), "degraded": len(other), LOST: int((~ap).sum())},
        "levels": found,
        "order": {
            fault: {m: order([row[m] for row in rows[1:]], m) for m in rows[0]}
            for fault, rows in found.items()
        },
    }


# ------------------------------------------------------------------------------------------------
# What people see


def table(found: dict) -> str:
    """Rank correlations of one extractor as Markdown, those below .9 in bold."""
    measures = list(next(iter(found["order"].values())))
    lines = [
        f"| {found['extractor']} | {' | '.join(measures)} |",
        "|---" * (len(measures) + 1) + "|",
    ]
    for fault, row in found["order"].items():
        cells = []
        for value in row.values():
            # Rounded down: what is shown as .90 has reached it.
            text = "too few films" if value is None else f"{math.floor(100 * value) / 100:.2f}"
            cells.append(text if value is None or value >= SEES else f"**{text}**")
        lines.append(f"| {fault} | {' | '.join(cells)} |")
    return "\n".join(lines)


def blind(studies: Sequence[dict]) -> str:
    """The faults that each measure does not see as Markdown, a line for each extractor."""
    measures = list(next(iter(studies[0]["order"].values())))
    lines = [f"| blind to | {' | '.join(measures)} |", "|---" * (len(measures) + 1) + "|"]
    for found in studies:
        cells = []
        for measure in measures:
            orders = {fault: row[measure] for fault, row in found["order"].items()}
            missed = [f for f, value in orders.items() if value is not None and value < SEES]
            cells.append(", ".join(missed) or "–")
        lines.append(f"| {found['extractor']} | {' | '.join(cells)} |")
    return "\n".join(lines)


COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#555555")


def plot(studies: Sequence[dict]) -> str:
    """SVG of KID against the level, a panel for each extractor."""
    width, height, left, top, bottom = 330, 300, 52, 34, 44
    whole = width * len(studies) + 120
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{whole}" height="{height}" fill="white"/>',
    ]
    for panel, found in enumerate(studies):
        x0 = panel * width + left
        every = [max(row["KID"], 0) for rows in found["levels"].values() for row in rows]
        # Roots, because distances span three orders and may be 0.
        most = math.sqrt(max(every)) or 1

        def place(level: int, value: float, x0: int = x0, most: float = most):
            y = math.sqrt(max(value, 0)) / most
            return x0 + level / 6 * (width - left - 20), height - bottom - y * (
                height - bottom - top
            )

        parts.append(f'<text x="{x0}" y="18" font-size="14">{found["extractor"]}: KID</text>')
        for share in (0, 1 / 16, 1 / 4, 9 / 16, 1):
            value = share * most * most
            _, y = place(0, value)
            parts.append(f'<path d="M{x0} {y:.1f}H{x0 + width - left - 20}" stroke="#ddd"/>')
            text = f"{value:.2g}" if value < 10 else f"{value:.0f}"
            parts.append(f'<text x="{x0 - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        for level in LEVELS:
            x, _ = place(level, 0)
            parts.append(f'<text x="{x - 3:.0f}" y="{height - 26}">{level}</text>')
        parts.append(f'<text x="{x0 + 90}" y="{height - 8}">level of the fault</text>')
        for colour, rows in zip(COLOURS, found["levels"].values(), strict=True):
            points = (place(level, row["KID"]) for level, row in enumerate(rows))
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(
                f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
            )
    for row, (colour, fault) in enumerate(zip(COLOURS, studies[0]["levels"], strict=True)):
        x, y = width * len(studies) + 4, 50 + 20 * row
        parts.append(f'<path d="M{x} {y - 4}h18" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 24}" y="{y}">{fault}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _shared(spec: str) -> str:
    """An extractor with the last part of the path of its weights: results are shared."""
    name, mark, path = spec.partition("=")
    return name + mark + Path(path).name


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(prog="python -m benchmarks.degradations", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--data", required=True, metavar="DATA[:SPLIT]", help="real films, with patients and views"
    )
    parser.add_argument(
        "--extractor", required=True, metavar="NAME[=WEIGHTS],…", help="extractors, by commas"
    )
    parser.add_argument("--out", required=True, type=local_path, help="output folder")
    arguments = parser.parse_args(argv)
    with exit_on_error("benchmarks.degradations"):
        began = time.monotonic()
        cache = arguments.out / "features"
        cache.mkdir(parents=True, exist_ok=True)
        pictures = open_pictures(arguments.data)
        studies = [study(spec, pictures, cache) for spec in arguments.extractor.split(",")]
        devices = jax.devices()
        given = [Path(arguments.data).name, ",".join(map(_shared, arguments.extractor.split(",")))]
        about = {
            "command": "python -m benchmarks.degradations --data {} --extractor {}".format(*given),
            "written_by": version.versions(),
            "device": f"{len(devices)} × {devices[0].device_kind}",
            "seconds": round(time.monotonic() - began),
            "data": {"name": pictures.name, "fingerprint": pictures.fingerprint},
            "studies": studies,
        }
        text = json.dumps(about, indent=1) + "\n"
        files.write_whole(arguments.out / "degradations.json", text)
        files.write_whole(arguments.out / "degradations.svg", plot(studies))
    print("\n\n".join(table(found) for found in studies))
    print(f"wrote degradations.json and degradations.svg into {arguments.out}")


if __name__ == "__main__":
    main()
