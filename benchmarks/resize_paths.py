"""How much of a distance is the resize path: films against others that went through a smaller side.

    python -m benchmarks.resize_paths --data DIR --extractor efficientnet_lite0 [--stored]

Half of the films is compared with the other half after that was made smaller and enlarged again to
the input of the extractor, by each path and through each side. Nothing else differs, so each KID is
what the path and the side cost. Prints the table as Markdown. A minute for a thousand films.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from rfxray.command_line import ArgumentParser, exit_on_error, require
from rfxray.evaluate import feature_pair, intervals, kernel
from rfxray.evaluate.extractors.extractor import Extractor, resize
from rfxray.evaluate.extractors.kinds import open_extractor
from rfxray.evaluate.pictures import open_pictures

SIDES = (256, 128, 64, 32)  # pixels
_ROWS = 16  # images of a batch
Path = Callable[[np.ndarray, int], np.ndarray]


def _area(image: np.ndarray, side: int) -> np.ndarray:
    require("prep", "cv2")
    from rfxray.data import canonical

    return np.clip(canonical.to_square(image, side)[0], 0, 1)


# Way down, and whether the way up rounds to 8 bits, before and after it. The first one is the
# resolution floor of `rfxray evaluate fidelity`.
PATHS: dict[str, tuple[Path, bool]] = {
    "area, float32": (_area, False),
    "bicubic, float32": (lambda image, side: resize(image, (side, side), "bicubic", False), False),
    "area, then 8 bits": (_area, True),
    "bicubic, 8 bits": (lambda image, side: resize(image, (side, side), "bicubic", True), True),
    "bilinear, 8 bits": (lambda image, side: resize(image, (side, side), "bilinear", True), True),
    "box, 8 bits": (lambda image, side: resize(image, (side, side), "area", True), True),
}


def features(extractor: Extractor, images: Iterator[np.ndarray], quantise: bool) -> np.ndarray:
    """Features [n, width] of images in [0, 1], enlarged or not, by the path of the extractor."""
    own = extractor.preprocessing
    found, batch = [], []

    def finish() -> None:
        padded = np.resize(np.stack(batch), (_ROWS, *batch[0].shape))
        found.append(extractor.features(padded)[: len(batch)])
        batch.clear()

    for image in images:
        grey = resize(image, (own.size, own.size), own.filter, quantise)
        channels = np.repeat(grey[..., None], own.channels, -1)
        batch.append((channels - np.float32(own.mean)) / np.float32(own.std))
        if len(batch) == _ROWS:
            finish()
    if batch:
        finish()
    return np.concatenate(found)


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(prog="python -m benchmarks.resize_paths", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", required=True, metavar="DATA[:SPLIT]", help="square films")
    parser.add_argument("--extractor", required=True, metavar="NAME[=WEIGHTS]", help="extractor")
    parser.add_argument(
        "--stored", action="store_true", help="values of files as they are stored, not displayed"
    )
    arguments = parser.parse_args(argv)
    with exit_on_error("benchmarks.resize_paths"):
        extractor = open_extractor(arguments.extractor)
        pictures = open_pictures(arguments.data, reject=True, display=not arguments.stored)
        names = [name or f"film {i}" for i, name in enumerate(pictures.patients)]
        codes = feature_pair.number(("films", len(names), names))[0][0]
        largest = int(np.bincount(codes).max())
        left, right = intervals.halves(codes, len(codes) // 2 - largest // 2, 0)
        of = feature_pair.patients(len(left), len(right), codes[left], codes[right])
        films = {int(row): pictures.read(int(row)) for row in (*left, *right)}

        def half(rows: np.ndarray) -> Iterator[np.ndarray]:
            return (films[int(row)] for row in rows)

        bases = {depth: features(extractor, half(left), depth) for depth in (False, True)}
        lines = [f"| path | {' | '.join(f'{side}²' for side in SIDES)} |", "|---" * 5 + "|"]
        for name, (down, depth) in tqdm(PATHS.items(), unit="path"):
            cells = []
            for side in SIDES:
                smaller = (down(image, side) for image in half(right))
                figure = kernel.distance(bases[depth], features(extractor, smaller, depth), of)
                cells.append("–" if figure.value is None else f"{figure.value:.4f}")
            lines.append(f"| {name} | {' | '.join(cells)} |")
        rejected = f", {len(pictures.rejected)} rejected" if pictures.rejected else ""
        print(f"{pictures.name}: {len(left)} × {len(right)} films{rejected}; KID\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
