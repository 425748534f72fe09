"""Measures the path through latents: `python -m benchmarks.latent_report runs/smoke`.

The oracle reads held-out phantoms, the same phantoms after the autoencoder, and samples of the same
requested attributes; `figures.json` of the path in pixels stands beside them. Writes
`latent_figures.json` and `latent.png` into the folder. Exit code 1 if a figure falls short.
"""

import json
import sys
from pathlib import Path

import numpy as np

from benchmarks import smoke_report
from data_prep import phantom
from rfxray import sampling
from rfxray.attributes.vocabulary import all_known
from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.data.pixels import to_uint8
from rfxray.evaluate import classifier
from rfxray.outputs import contact_sheet
from rfxray.outputs.files import save_png, write_whole
from rfxray.runtime import distributed

RECONSTRUCTED = 0.97  # of the oracle's score on the phantoms, for every attribute above chance
SURE, REACHED, MORE = 0.9, 0.8, 6  # samples: view and sex, at least so many more
PHANTOMS, ROWS = 4096, 256  # through the autoencoder; decoded at once. Of 512, .02 is noise
SHOWN = 8


def psnr(made: np.ndarray, true: np.ndarray) -> float:
    """Mean peak signal-to-noise ratio of images in [-1, 1], dB."""
    error = np.square(made - true).mean((1, 2))
    return float((10 * np.log10(4 / error)).mean())


def measure(folder: Path) -> tuple[dict, np.ndarray]:
    """The figures, and phantoms, reconstructions and samples [3, n, size, size]."""
    reader = classifier.load(folder / "oracle.npz")
    model = sampling.load(folder / "latent_train")
    figures, _ = smoke_report.measure(reader, model)
    indices = np.arange(PHANTOMS)
    asked = phantom.draw_attributes(smoke_report.SEED, indices)
    true = smoke_report.draw(asked, indices)
    parts = [
        np.asarray(model.images(model.cells(true[k : k + ROWS])))[..., 0]
        for k in range(0, PHANTOMS, ROWS)
    ]
    made = np.clip(np.concatenate(parts), -1, 1)
    drawn, read = (classifier.scores(reader, images, all_known(asked)) for images in (true, made))
    for name, row in figures["attributes"].items():
        row |= {"drawn": drawn[name], "reconstructed": read[name]}
    figures["psnr"] = psnr(made, true)
    shown = sampling.generate(
        model, all_known(asked[:SHOWN]), indices=indices[:SHOWN], settings=smoke_report.SETTINGS
    )
    return figures, np.stack([true[:SHOWN], made[:SHOWN], shown.images])


def kept(row: dict) -> float:
    """What is read from reconstructions as a share of what is read from the same phantoms; of an
    error, the other way round."""
    share = row["reconstructed"] / row["drawn"]
    return share if row["drawn"] > row["chance"] else 1 / share


def shortfalls(figures: dict) -> list[str]:
    """The figures that fall short, in words."""
    table = {n: row for n, row in figures["attributes"].items() if row["reached"] is not None}
    shares = {name: kept(row) for name, row in table.items()}
    missed = [
        f"{name} of reconstructions is {share:.3f} of the ceiling, not {RECONSTRUCTED}"
        for name, share in shares.items()
        if share < RECONSTRUCTED
    ]
    for name in ("view", "sex"):
        if table[name]["reached"] < SURE:
            missed.append(f"{name} of samples reaches {table[name]['reached']:.2f}, not {SURE}")
    others = [n for n in table if n not in ("view", "sex") and table[n]["reached"] >= REACHED]
    if len(others) < MORE:
        missed.append(f"{len(others)} more attributes reach {REACHED}, not {MORE}")
    return missed


def table(figures: dict, pixels: dict | None) -> str:
    """The figures as Markdown, samples of the path in pixels beside them if they are given."""
    lines = [
        "| attribute | chance | ceiling | autoencoder keeps | samples reach | those in pixels |",
        "|---|---|---|---|---|---|",
    ]

    def shown(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    rows = figures["attributes"].items()
    for name, row in sorted(rows, key=lambda item: -(item[1]["reached"] or -9)):
        beside = pixels["attributes"][name]["reached"] if pixels else None
        lines.append(
            f"| {name} | {row['chance']:.3f} | {row['ceiling']:.3f} | {kept(row):.3f} "
            f"| {shown(row['reached'])} | {shown(beside)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.latent_report", description=__doc__)
    parser.add_argument("folder", type=local_path, help="folder of launch/smoke.sh --latent")
    folder = parser.parse_args().folder
    with exit_on_error("smoke"):
        distributed.start()
        figures, images = measure(folder)
        write_whole(folder / "latent_figures.json", json.dumps(figures, indent=1) + "\n")
        names = ["phantoms", "after the autoencoder", "samples"]
        save_png(folder / "latent.png", contact_sheet.table(to_uint8(images), names))
    pixels = folder / "figures.json"
    print(table(figures, json.loads(pixels.read_text()) if pixels.exists() else None))
    ratio, normal = figures["cardiothoracic_ratio"]["share"], figures["normal"]["share"]
    print(
        f"{figures['psnr']:.1f} dB, cardiothoracic ratio {ratio:.2f} of the truth, "
        f"no_finding=present normal in {normal:.2f}"
    )
    print(f"written: {folder / 'latent_figures.json'} and {folder / 'latent.png'}")
    if missed := shortfalls(figures):
        print(f"smoke failed: {'; '.join(missed)}")
        sys.exit(1)
    print("smoke ok: the path through latents")


if __name__ == "__main__":
    main()
