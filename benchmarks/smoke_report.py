"""Measures the smoke run and writes its report: `python benchmarks/smoke_report.py runs/smoke`.

Held-out phantoms and samples are asked to show the same attributes, and the same oracle reads both:
its figures on the phantoms are the ceiling. Exit status 1 where the figures fall short.
"""

import base64
import dataclasses
import html
import io
import json
import sys
import time
from pathlib import Path

import numpy as np
from einops import rearrange
from PIL import Image
from tqdm import tqdm

from data_prep import phantom
from data_prep.phantom import oracle
from rfxray import sampling
from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import INDEX
from rfxray.command_line import exit_on_error
from rfxray.data import pixels
from rfxray.data.pixels import to_float
from rfxray.evaluate import classifier
from rfxray.outputs import contact_sheet
from rfxray.runtime import distributed

SEED = 777  # of phantoms that neither the model nor the oracle was trained on
REQUESTS = 512
PAIRS = 256
SETTINGS = sampling.Settings(seed=SEED, steps=16, solver="heun", guidance=3.0, batch_size=128)

VIEW_SHARE = 0.97  # of the oracle's accuracy on phantoms
RATIO_RANGE = (0.8, 1.2)  # of the true difference in cardiothoracic ratio
REACHED = 0.8  # of the ceiling's distance above chance, by at least these and six in all
REQUIRED = ("pleural_effusion", "pneumothorax", "consolidation", "support_devices", "sex", "age")


def draw(attributes: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Phantoms [n, size, size] float32 in [−1, 1]."""
    return to_float(phantom.draw_images(attributes, SEED, indices, 64))


def with_cardiomegaly(attributes: np.ndarray, present: bool) -> np.ndarray:
    """The same patients with that one finding set, and No Finding as it follows."""
    changed = attributes.copy()
    changed[:, INDEX["cardiomegaly"]] = present
    known = np.ones(changed.shape, bool)
    known[:, INDEX["no_finding"]] = False
    changed[:, INDEX["no_finding"]] = 0
    return vocabulary.derive_no_finding(changed, known)[0]


def measure(reader: classifier.Oracle, model: sampling.Model) -> tuple[dict, dict]:
    """The figures, and the pictures that the report shows."""
    indices = np.arange(REQUESTS)
    asked = phantom.draw_attributes(SEED, indices)
    known = np.ones(asked.shape, bool)
    frontal = np.flatnonzero(asked[:, INDEX["view"]] < 2)[:PAIRS]
    total = REQUESTS + 2 * PAIRS
    with tqdm(total=total, unit="picture", disable=not sys.stderr.isatty()) as bar:

        def sample(attributes, indices):
            told = np.ones(attributes.shape, bool)
            drawn = sampling.generate(
                model, (attributes, told), indices=indices, settings=SETTINGS, progress=bar.update
            )
            return drawn.images

        samples = sample(asked, indices)
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

    ceiling = classifier.scores(reader, phantoms, asked, known)
    reached = classifier.scores(reader, samples, asked, known)
    blind = classifier.chance(asked, known)
    table = {
        name: {
            "chance": blind[name],
            "ceiling": ceiling[name],
            "samples": reached[name],
            # Where the ceiling is at chance (race) there is nothing to reach.
            "reached": classifier.reached(reached[name], ceiling[name], blind[name])
            if abs(ceiling[name] - blind[name]) > 0.3 * blind[name]
            else None,
        }
        for name in ceiling
    }
    ratio = {k: float(v) for k, v in moved.items()} | {"n": PAIRS}
    ratio["share"] = ratio["samples"] / ratio["phantoms"]
    return {"attributes": table, "cardiothoracic_ratio": ratio}, {
        "phantoms": phantoms[:36],
        "samples": samples[:36],
    }


def shortfalls(figures: dict) -> list[str]:
    """What misses its mark, in words; empty when the run is good."""
    table, ratio = figures["attributes"], figures["cardiothoracic_ratio"]
    missed = []
    view = table["view"]["samples"] / table["view"]["ceiling"]
    if view < VIEW_SHARE:
        missed.append(f"view {view:.2f} of the ceiling, not {VIEW_SHARE}")
    if not RATIO_RANGE[0] <= ratio["share"] <= RATIO_RANGE[1]:
        missed.append(f"cardiothoracic ratio moves by {ratio['share']:.2f} of the truth")
    for name in REQUIRED:
        reached = table[name]["reached"]
        if reached is None:
            missed.append(f"{name} is not read from phantoms either")
        elif reached < REACHED:
            missed.append(f"{name} reaches {reached:.2f}, not {REACHED}")
    return missed


# ---------------------------------------------------------------------------------------------
# The page


def picture(image: np.ndarray) -> str:
    """An `<img>` that holds a picture, [height, width] uint8."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def curve(workdir: Path) -> str:
    """Training and validation loss over steps as an SVG, both axes linear."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    series = {
        "training loss": ("loss", "#8ab4f8"),
        "validation loss, EMA": ("validation_loss/ema", "#f6ad55"),
    }
    points = {
        name: [(line["step"], line[key]) for line in lines if key in line]
        for name, (key, _) in series.items()
    }
    last = max(step for values in points.values() for step, _ in values)
    # The first log interval holds the fall from the untrained network and would flatten the rest.
    shown = [value for values in points.values() for step, value in values if step > last / 20]
    top, bottom = max(shown), min(shown)

    def place(step, value):
        return f"{40 + 640 * step / last:.1f},{20 + 200 * (top - value) / (top - bottom):.1f}"

    parts = ['<svg viewBox="0 0 700 250" width="700">']
    for row, (name, values) in enumerate(points.items()):
        colour = series[name][1]
        path = " ".join(place(*p) for p in values if p[1] <= top)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="480" y="{30 + 18 * row}" fill="{colour}">{name}</text>')
    parts.append(f'<text x="0" y="24">{top:.3f}</text><text x="0" y="224">{bottom:.3f}</text>')
    parts.append(f'<text x="600" y="245">{last} steps</text></svg>')
    return "".join(parts)


PAGE = """<!doctype html><meta charset="utf-8"><title>rfxray smoke report</title>
<style>
body {{ background: #14161a; color: #dde; font: 15px/1.5 system-ui, sans-serif; margin: 2em auto;
  max-width: 1240px; padding: 0 1em }}
h1, h2 {{ font-weight: 500 }} svg text {{ fill: #aab; font-size: 13px }} code {{ color: #9cf }}
table {{ border-collapse: collapse }} td, th {{ padding: 2px 14px; text-align: right }}
td:first-child, th:first-child {{ text-align: left }} tr.good td:last-child {{ color: #7d7 }}
.pair {{ display: flex; gap: 24px; flex-wrap: wrap }} figure {{ margin: 0 }}
img {{ max-width: 100% }}
</style>
<h1>rfxray smoke report</h1>
<p>{verdict}</p>
<p>{about}</p>
<h2>Phantoms and samples under the same attributes</h2>
<div class="pair"><figure>{phantoms}<figcaption>procedural phantoms the model has not seen
</figcaption></figure><figure>{samples}<figcaption>samples of the model (synthetic)</figcaption>
</figure></div>
<h2>Loss</h2>{curve}
<h2>Control</h2>
<p>Balanced accuracy of an oracle that was trained on other phantoms, {n} pictures; for age the
mean absolute error in years. <i>Reached</i>: the share of the ceiling's distance above chance. Race
changes no pixel of a phantom: it belongs at chance.</p>
<table><tr><th>attribute<th>chance<th>phantoms (ceiling)<th>samples<th>reached</tr>{rows}</table>
<p>Cardiothoracic ratio, cardiomegaly present against absent on {pairs} matched pairs: phantoms
+{true:.3f}, samples +{got:.3f}, {share:.2f} of the truth.</p>
<h2>Control at a glance</h2>{control}
"""


def control_table(model: sampling.Model) -> np.ndarray:
    """One attribute changed at a time, from the same noise: rows are views."""
    columns = ["as asked", "cardiomegaly", "pleural_effusion", "pneumothorax", "consolidation"]
    columns += ["support_devices", "age=20", "age=80", "sex=M"]
    base = {"age": 55, "sex": "F", "source": "phantom"}
    base |= dict.fromkeys((*vocabulary.PATHOLOGY_NAMES, "support_devices"), "absent")
    rows = []
    for view in ("PA", "AP", "lateral"):
        for column in columns:
            name, _, value = column.partition("=")
            changed = {} if column == "as asked" else {name: value or "present"}
            rows.append(vocabulary.encode({**base, "view": view, **changed}))
    values, known = (np.stack(part) for part in zip(*rows, strict=True))
    settings = dataclasses.replace(SETTINGS, seed=3, batch_size=len(rows))
    drawn = sampling.generate(
        model, (values, known), indices=np.zeros(len(rows), int), settings=settings
    )
    cells = rearrange(pixels.to_uint8(drawn.images), "(r c) h w -> r c h w", r=3)
    return contact_sheet.table(cells, ["PA", "AP", "lateral"], columns)


def report(folder: Path) -> list[str]:
    """Writes `report.html` and `figures.json` into the folder; returns the shortfalls."""
    reader = classifier.load(folder / "oracle.npz")
    model = sampling.load(folder / "train")
    figures, shown = measure(reader, model)
    missed = shortfalls(figures)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    rows = []
    for name, f in sorted(
        figures["attributes"].items(), key=lambda item: -(item[1]["reached"] or 0)
    ):
        share = "–" if f["reached"] is None else f"{f['reached']:.2f}"
        good = f["reached"] is not None and f["reached"] >= REACHED
        numbers = "".join(f"<td>{f[k]:.2f}" for k in ("chance", "ceiling", "samples"))
        rows.append(f'<tr class="{"good" if good else ""}"><td>{name}{numbers}<td>{share}</tr>')
    ratio = figures["cardiothoracic_ratio"]
    source = model.source
    about = (
        f"Checkpoint {source['checkpoint']} at step {source['step']}, EMA {source['ema']}; "
        f"{SETTINGS.solver}, {SETTINGS.steps} steps, guidance {SETTINGS.guidance:g}. "
        f"Written {time.strftime('%Y-%m-%d %H:%M')}."
    )
    verdict = (
        "Everything asked for was reached." if not missed else "Short of: " + "; ".join(missed)
    )
    page = PAGE.format(
        verdict=html.escape(verdict),
        about=html.escape(about),
        phantoms=picture(contact_sheet.grid(pixels.to_uint8(shown["phantoms"]), 6, least=96)),
        samples=picture(contact_sheet.grid(pixels.to_uint8(shown["samples"]), 6, least=96)),
        curve=curve(folder / "train"),
        n=REQUESTS,
        rows="".join(rows),
        pairs=ratio["n"],
        true=ratio["phantoms"],
        got=ratio["samples"],
        share=ratio["share"],
        control=picture(control_table(model)),
    )
    (folder / "report.html").write_text(page)
    return missed


def summary(figures: dict) -> str:
    """The figures in one line."""
    table = figures["attributes"]
    good = [n for n, f in table.items() if f["reached"] is not None and f["reached"] >= REACHED]
    return (
        f"view {table['view']['samples'] / table['view']['ceiling']:.3f} of the ceiling, "
        f"cardiothoracic ratio {figures['cardiothoracic_ratio']['share']:.2f} of the truth, "
        f"{len(good)} of {len(table)} attributes at {REACHED} or more ({', '.join(good)})"
    )


def main() -> None:
    folder = Path(sys.argv[1])
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
