"""Measures the smoke run and writes its report: `python -m benchmarks.smoke_report runs/smoke`.

Held-out phantoms and samples have the same requested attributes, and the same oracle reads both:
its scores on the phantoms are the ceiling. Exit code 1 if a figure falls short.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
from einops import rearrange
from tqdm import tqdm

from data_prep import phantom
from data_prep.phantom import oracle
from rfxray import sampling
from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import INDEX, Attributes, all_known
from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.data import pixels
from rfxray.data.pixels import to_float
from rfxray.evaluate import classifier
from rfxray.outputs import contact_sheet, page
from rfxray.outputs.files import write_whole
from rfxray.runtime import distributed

SEED = 777  # of phantoms that neither the model nor the oracle was trained on
REQUESTS = 512
PAIRS = 256
NORMALS = 256
SETTINGS = sampling.Settings(seed=SEED, steps=16, solver="heun", guidance=3.0, batch_size=128)

VIEW_SHARE = 0.97  # of the oracle's accuracy on phantoms
RATIO_RANGE = (0.8, 1.2)  # of the true difference in cardiothoracic ratio
NORMAL = 0.95  # of the samples of no_finding=present, guidance 2
REACHED = 0.8  # of the ceiling's distance above chance, for these attributes
REQUIRED = ("pleural_effusion", "pneumothorax", "consolidation", "support_devices", "sex", "age")


def draw(attributes: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Phantoms [n, size, size] float32 in [−1, 1]."""
    return to_float(phantom.draw_images(attributes, SEED, indices, 64))


def with_cardiomegaly(attributes: np.ndarray, present: bool) -> np.ndarray:
    """The same patients with cardiomegaly set, and No Finding derived."""
    changed = attributes.copy()
    changed[:, INDEX["cardiomegaly"]] = present
    known = np.ones(changed.shape, bool)
    known[:, INDEX["no_finding"]] = False
    changed[:, INDEX["no_finding"]] = 0
    return vocabulary.derive_no_finding(Attributes(changed, known)).values


def measure(reader: classifier.Oracle, model: sampling.Model) -> tuple[dict, dict]:
    """The figures, and the images that the report shows."""
    indices = np.arange(REQUESTS)
    asked = phantom.draw_attributes(SEED, indices)
    frontal = np.flatnonzero(asked[:, INDEX["view"]] < 2)[:PAIRS]
    total = REQUESTS + 2 * PAIRS + NORMALS
    with tqdm(total=total, unit="image", disable=not sys.stderr.isatty()) as bar:

        def draw_samples(requests, indices, settings=SETTINGS):
            drawn = sampling.generate(
                model, requests, indices=indices, settings=settings, progress=bar.update
            )
            return drawn.images

        def sample(attributes, indices):
            return draw_samples(all_known(attributes), indices)

        samples = sample(asked, indices)
        mild = dataclasses.replace(SETTINGS, guidance=2.0)
        normals = draw_samples({"no_finding": "present"}, indices[:NORMALS], mild)
        phantoms = draw(asked, indices)
        pairs = [with_cardiomegaly(asked[frontal], present) for present in (False, True)]
        moved = {
            name: np.subtract(
                *(
                    oracle.measure(make(pair, frontal))["cardiothoracic_ratio"]
                    for pair in reversed(pairs)
                )
            ).mean()
            for name, make in (("phantoms", draw), ("samples", sample))
        }

    ceiling = classifier.scores(reader, phantoms, all_known(asked))
    reached = classifier.scores(reader, samples, all_known(asked))
    blind = classifier.chance(all_known(asked))
    table = classifier.control(ceiling, reached, blind)
    ratio = {k: float(v) for k, v in moved.items()} | {"n": PAIRS}
    ratio["share"] = ratio["samples"] / ratio["phantoms"]
    normal = {"share": float((reader.predict(normals)["no_finding"] == 1).mean()), "n": NORMALS}
    return {"attributes": table, "cardiothoracic_ratio": ratio, "normal": normal}, {
        "phantoms": phantoms[:36],
        "samples": samples[:36],
    }


def shortfalls(figures: dict) -> list[str]:
    """The figures that fall short, in words; empty if the run is good."""
    table, ratio = figures["attributes"], figures["cardiothoracic_ratio"]
    missed = []
    view = table["view"]["samples"] / table["view"]["ceiling"]
    if view < VIEW_SHARE:
        missed.append(f"view {view:.2f} of the ceiling, not {VIEW_SHARE}")
    if not RATIO_RANGE[0] <= ratio["share"] <= RATIO_RANGE[1]:
        missed.append(f"cardiothoracic ratio moves by {ratio['share']:.2f} of the truth")
    if figures["normal"]["share"] < NORMAL:
        missed.append(f"no_finding=present is normal in {figures['normal']['share']:.2f}")
    for name in REQUIRED:
        reached = table[name]["reached"]
        if reached is None:
            missed.append(f"{name} is not read from phantoms either")
        elif reached < REACHED:
            missed.append(f"{name} reaches {reached:.2f}, not {REACHED}")
    return missed


# ---------------------------------------------------------------------------------------------
# The page


def loss_curves(workdir: Path) -> dict:
    """Training and validation loss over steps in an SVG of 700 × 250, both axes linear.

    Returns:
      Dictionary with `lines` (name, colour and points of each), `top` and `bottom` (limits of the
      vertical axis) and `steps` (limit of the other).
    """
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    series = {
        "training loss": ("loss", "var(--blue)"),
        "validation loss, EMA": ("validation_loss/ema", "var(--orange)"),
    }
    points = {
        name: [(line["step"], line[key]) for line in lines if key in line]
        for name, (key, _) in series.items()
    }
    last = max(step for values in points.values() for step, _ in values)
    # The first log interval holds the untrained network, which would flatten the rest.
    shown = [value for values in points.values() for step, value in values if step > last / 20]
    top, bottom = max(shown), min(shown)

    def place(step, value):
        height = (top - value) / max(top - bottom, 1e-9)
        return f"{40 + 640 * step / last:.1f},{20 + 200 * height:.1f}"

    return {
        "lines": [
            {
                "name": name,
                "colour": series[name][1],
                "points": " ".join(place(*p) for p in values if p[1] <= top),
            }
            for name, values in points.items()
        ],
        "top": top,
        "bottom": bottom,
        "steps": last,
    }


def control_table(model: sampling.Model) -> np.ndarray:
    """Samples of the same noise with one attribute changed per column; rows are views."""
    columns = ["as requested", "cardiomegaly", "pleural_effusion", "pneumothorax", "consolidation"]
    columns += ["support_devices", "age=20", "age=80", "sex=M"]
    base = {"age": 55, "sex": "F", "source": "phantom"}
    base |= dict.fromkeys((*vocabulary.PATHOLOGY_NAMES, "support_devices"), "absent")
    rows = []
    for view in ("PA", "AP", "lateral"):
        for column in columns:
            name, _, value = column.partition("=")
            changed = {} if column == "as requested" else {name: value or "present"}
            rows.append(vocabulary.encode({**base, "view": view, **changed}))
    settings = dataclasses.replace(SETTINGS, seed=3, batch_size=len(rows))
    drawn = sampling.generate(
        model, vocabulary.stack(rows), indices=np.zeros(len(rows), int), settings=settings
    )
    cells = rearrange(pixels.to_uint8(drawn.images), "(r c) h w -> r c h w", r=3)
    return contact_sheet.table(cells, ["PA", "AP", "lateral"], columns)


def render(figures: dict, about: str, loss: dict, **images: np.ndarray) -> str:
    """The page.

    Args:
      figures: Figures that `measure` returns.
      about: Sentence about the model, its settings and the time.
      loss: Curves that `loss_curves` returns.
      images: `phantoms`, `samples` and `control`, each [height, width] uint8.
    """
    rows = figures["attributes"].items()
    return page.render(
        Path(__file__).with_suffix(".html"),
        title="rfxray smoke report",
        missed=shortfalls(figures),
        about=about,
        loss=loss,
        requests=REQUESTS,
        attributes=sorted(rows, key=lambda row: -(row[1]["reached"] or 0)),
        mark=REACHED,
        ratio=figures["cardiothoracic_ratio"],
        normal=figures["normal"],
        **{name: page.data_uri(image) for name, image in images.items()},
    )


def report(folder: Path) -> list[str]:
    """Writes `report.html` and `figures.json` into the folder; returns the shortfalls."""
    reader = classifier.load(folder / "oracle.npz")
    model = sampling.load(folder / "train")
    figures, shown = measure(reader, model)
    write_whole(folder / "figures.json", json.dumps(figures, indent=1) + "\n")
    source = model.source
    about = (
        f"Checkpoint {source['checkpoint']} at step {source['step']}, EMA {source['ema']}; "
        f"{SETTINGS.solver}, {SETTINGS.steps} steps, guidance {SETTINGS.guidance:g}. "
        f"Written {time.strftime('%Y-%m-%d %H:%M')}."
    )
    html = render(
        figures,
        about,
        loss_curves(folder / "train"),
        phantoms=contact_sheet.grid(pixels.to_uint8(shown["phantoms"]), 6, least=96),
        samples=contact_sheet.grid(pixels.to_uint8(shown["samples"]), 6, least=96),
        control=control_table(model),
    )
    write_whole(folder / "report.html", html)
    return shortfalls(figures)


def summary(figures: dict) -> str:
    """The figures in one line."""
    table = figures["attributes"]
    judged = classifier.counted(table)
    good = [n for n in judged if (table[n]["reached"] or 0) >= REACHED]
    return (
        f"view {table['view']['samples'] / table['view']['ceiling']:.3f} of the ceiling, "
        f"cardiothoracic ratio {figures['cardiothoracic_ratio']['share']:.2f} of the truth, "
        f"no_finding=present normal in {figures['normal']['share']:.2f}, "
        f"{len(good)} of {len(judged)} attributes at {REACHED} or more ({', '.join(good)})"
    )


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.smoke_report", description=__doc__)
    parser.add_argument("folder", type=local_path, help="folder of a run of launch/smoke.sh")
    folder = parser.parse_args().folder
    with exit_on_error("smoke"):
        distributed.start()
        missed = report(folder)
    figures = json.loads((folder / "figures.json").read_text())
    print(f"report: {folder / 'report.html'}")
    if missed:
        print(f"smoke failed: {'; '.join(missed)} ({summary(figures)})")
        sys.exit(1)
    print(f"smoke ok: {summary(figures)}")


if __name__ == "__main__":
    main()
