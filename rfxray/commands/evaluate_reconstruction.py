"""How much an autoencoder keeps of its images, beside how far it compresses them.

    rfxray evaluate reconstruction --original data/mine:test --reconstructed out/decoded \\
      --latent 32x32x4 --out runs/reconstruction

The reconstructions are a data set or a folder of images, one for each original, found by its key: a
file is a grey KEY.png. Its black is 0 and its white is the largest number of its type: no contrast
is stretched, so that a change of brightness counts. Only the radiograph itself is compared, not the
margins of its square. Writes results.json, table.md and images.csv (the measures of each image, by
its key). What the features of an extractor say of both sets, `rfxray evaluate fidelity` measures.
"""

import argparse
import dataclasses
import json
import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rfxray import version
from rfxray.attributes.vocabulary import ATTRIBUTES, INDEX
from rfxray.command_line import ArgumentParser, Progress, data_folder, exit_on_error, local_path
from rfxray.errors import ConfigError, DataError, first_line
from rfxray.evaluate import classifier, feature_pair, oracle_readings, reconstruction
from rfxray.evaluate.figure import Figure
from rfxray.evaluate.pictures import STORED, Pictures, open_pictures
from rfxray.outputs import files, folders, spreadsheet

COMMAND = "rfxray.evaluate.reconstruction"
NUMBERS, TABLE, IMAGES = "results.json", "table.md", "images.csv"
_ROWS = 512  # images that the oracle reads at once


@dataclasses.dataclass(frozen=True)
class Command:
    """What the flags say; see `parser`."""

    original: str
    reconstructed: str
    latent: tuple[int, ...]
    oracle: Path | None
    out: Path


def latent_size(text: str) -> tuple[int, ...]:
    """`32x32x4` as numbers."""
    try:
        sizes = tuple(int(part) for part in text.split("x"))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"must be such as 32x32x4 (got {text})")
    return sizes


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray evaluate reconstruction",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--original", required=True, type=data_folder, metavar="DATA[:SPLIT]", help="originals"
    )
    p.add_argument(
        "--reconstructed",
        required=True,
        type=data_folder,
        metavar="DIR",
        help="one reconstruction for each original",
    )
    p.add_argument(
        "--latent",
        required=True,
        type=latent_size,
        metavar="HxWxC",
        help="numbers that the autoencoder keeps of an image, for the compression",
    )
    p.add_argument(
        "--oracle",
        nargs="?",
        const=classifier.PACKAGED,
        type=local_path,
        metavar="FILE",
        help="read the attributes of phantoms back from their reconstructions (without FILE: with "
        "the oracle of the package)",
    )
    p.add_argument("--out", required=True, type=local_path, metavar="DIR", help="output folder")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    with exit_on_error(COMMAND):
        flags = parser().parse_args(argv)
        shown = [
            "--original",
            Path(flags.original).name,
            "--latent",
            "x".join(map(str, flags.latent)),
        ]
        run(Command(**vars(flags)), shlex.join(["rfxray", "evaluate", "reconstruction", *shown]))


def run(command: Command, shown: str) -> None:
    """Measures all pairs and writes the results.

    Args:
      command: What the flags say.
      shown: Command line for the results, without paths of this machine.
    """
    with folders.held(command.out, (NUMBERS, TABLE, IMAGES)):
        _run(command, shown)


def _run(command: Command, shown: str) -> None:
    originals = open_pictures(command.original)
    # A decoder may answer two images with the same one, which counts.
    reconstructed = open_pictures(command.reconstructed, repeats=True)
    read_original = _as_written(originals, command.original)
    read_reconstructed = _as_written(reconstructed, command.reconstructed)
    partners = reconstruction.matched(originals.keys, reconstructed.keys)
    oracle = _oracle(command.oracle, originals)
    print(f"{COMMAND}: {len(originals)} pairs by key, latent {'×'.join(map(str, command.latent))}")
    pairs, pixels = [], []
    with Progress(COMMAND, len(originals)) as progress:
        for number, partner in enumerate(partners):
            one, two = read_original(number), read_reconstructed(int(partner))
            box = None if originals.boxes is None else originals.boxes[number]
            try:
                pairs.append(reconstruction.measure(one, two, box))
            except DataError as error:
                raise DataError(f"{originals.keys[number]}: {error}") from error
            pixels.append(one.size)
            progress.advance()
    names = [name or f"image {i}" for i, name in enumerate(originals.patients)]
    clusters = feature_pair.number(("pair", len(names), names))[0][0]
    figures = {"reconstructed": reconstruction.figures(pairs, clusters)}
    if oracle is not None and originals.attributes is not None:
        for side, read_one, order in (
            ("original", read_original, range(len(originals))),
            ("reconstructed", read_reconstructed, partners),
        ):
            read = _read(oracle, read_one, order)
            found = oracle_readings.figures(read, originals.attributes, clusters, len(originals))
            figures[side] = [*figures.get(side, []), *found]
    compression = float(np.mean(pixels)) / math.prod(command.latent)
    write(command, shown, originals, reconstructed, pairs, figures, compression)
    for figure in figures["reconstructed"][:2]:
        print(f"{figure}, compression {compression:.4g}")
    print(f"wrote {command.out / TABLE}, {NUMBERS} and {IMAGES}")


def _as_written(pictures: Pictures, given: str) -> Callable[[int], np.ndarray]:
    """How a picture is read without a change of its contrast, which would hide an error of it."""
    if pictures.reading == STORED:
        return pictures.read
    folder = Path(given).expanduser()
    other = [key for key in pictures.keys if not key.lower().endswith(".png")]
    if other:
        raise DataError(
            f"{folder / other[0]} is not a PNG; write grey PNG files of 8 or 16 bits, or give a "
            "data set"
        )

    def read(number: int) -> np.ndarray:
        path = folder / pictures.keys[number]
        try:
            image = files.read_png(path)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(
                f"{path} cannot be read ({first_line(error)}); write it again"
            ) from error
        return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)

    return read


def _oracle(path: Path | None, originals: Pictures) -> classifier.Oracle | None:
    if path is None:
        return None
    source = INDEX["source"]
    drawn = originals.attributes
    phantom = ATTRIBUTES[source].values.index("phantom")
    if drawn is None or not (drawn.known[:, source] & (drawn.values[:, source] == phantom)).all():
        raise ConfigError(
            f"{originals.name} is not a data set of phantoms, and the oracle reads only these; "
            "leave --oracle out"
        )
    oracle = classifier.load(path)
    height, width = originals.read(0).shape
    if (height, width) != (oracle.size, oracle.size):
        raise ConfigError(
            f"the oracle reads images of {oracle.size}² and {originals.name} has {width}×{height}; "
            "make one with python -m data_prep.phantom.oracle"
        )
    return oracle


def _read(
    oracle: classifier.Oracle,
    read_one: Callable[[int], np.ndarray],
    order: Sequence[int] | np.ndarray,
) -> dict[str, np.ndarray]:
    parts = []
    for start in range(0, len(order), _ROWS):
        block = [read_one(int(number)) for number in order[start : start + _ROWS]]
        parts.append(oracle.predict(np.stack(block) * 2 - 1))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def write(
    command: Command,
    shown: str,
    originals: Pictures,
    reconstructed: Pictures,
    pairs: Sequence[reconstruction.Pair],
    figures: dict[str, list[Figure]],
    compression: float,
) -> None:
    """Writes the three files, or none of them."""
    found = {
        "command": shown,
        "written_by": version.versions(),
        "original": originals.fingerprint,
        "reconstructed": reconstructed.fingerprint,
        "images": len(originals),
        "latent": list(command.latent),
        "compression": compression,
        "figures": [
            {"of": side, "compression": compression, **dataclasses.asdict(figure)}
            for side, rows in figures.items()
            for figure in rows
        ],
    }
    contents = {
        TABLE: table(figures, compression),
        IMAGES: images(originals.keys, pairs),
        NUMBERS: json.dumps(found, indent=1, allow_nan=False) + "\n",
    }
    with files.saving(command.out):
        files.write_together(command.out, contents)


def table(figures: dict[str, list[Figure]], compression: float) -> str:
    """The figures as Markdown."""
    lines = ["| of | figure | value | 95% interval | images | compression |", "|---|" + "---|" * 5]
    for side, rows in figures.items():
        for row in rows:
            value = "not estimable" if row.value is None else f"{row.value:.4g}"
            interval = row.reason or f"{row.low:.4g} to {row.high:.4g}"
            lines.append(
                f"| {side} | {row.name} | {value} | {interval} | {row.n_synthetic} "
                f"| {compression:.4g} |"
            )
    return "\n".join(lines) + "\n"


def images(keys: Sequence[str], pairs: Sequence[reconstruction.Pair]) -> str:
    """The measures of each pair as CSV; an empty cell is not estimable."""
    bands = list(pairs[0].kept)
    banded = [(measure, band) for measure in reconstruction.BANDED for band in bands]
    head = ["key", "psnr", "ssim", *(f"{measure}_from_{band:g}" for measure, band in banded)]
    rows: list[list[str]] = [head]
    for key, pair in zip(keys, pairs, strict=True):
        cells = [pair.psnr, pair.ssim, *(getattr(pair, m).get(band) for m, band in banded)]
        rows.append([key, *("" if cell is None else f"{cell:.6g}" for cell in cells)])
    return spreadsheet.text(rows)


if __name__ == "__main__":
    main()
