"""Edits of phantoms, compared with their true counterfactuals.

    python -m benchmarks.editing --checkpoint runs/phantom_long/train \
      --oracle runs/smoke/oracle.npz --out runs/editing

A phantom can be drawn again with one attribute changed and everything else equal, so the correct
result of an edit is known. An oracle that was trained without the model reads the edits. Every
part writes a JSON file into --out and is skipped if that file exists; the tables are printed as
Markdown. About half an hour on one core.
"""

import argparse
import dataclasses
import json
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_prep import phantom
from rfxray import sampling, version
from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import INDEX, Attributes, all_known
from rfxray.causes import abduction, fitting, tables
from rfxray.causes.graph import read_graph
from rfxray.command_line import ArgumentParser, exit_on_error
from rfxray.data import pixels
from rfxray.data.pixels import to_float
from rfxray.evaluate import classifier
from rfxray.outputs import contact_sheet, files
from rfxray.runtime import distributed
from rfxray.sampling import editing
from rfxray.sampling.editing import EditSettings

SEED = 4242  # of patients that neither the model nor the oracle has seen
WEIGHTS = (1.0, 2.0, 3.0, 4.0, 5.0)  # of samples; edits use 1, 2, 3 and 5
# Attributes that are changed: a local finding, the size of the heart, the projection.
CHANGES = ("pleural_effusion", "cardiomegaly", "view")
CAUSES = ("age", "sex", "cardiomegaly", "pneumonia")  # of which effects follow
FITTED = 100_000  # phantoms that the flow is fitted to
SETTINGS = EditSettings(steps=12, solver="heun", corrections=2, batch_size=64)


def patients(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(indices, attributes [n, 19]) of frontal phantoms."""
    indices = np.arange(4 * n)
    attributes = phantom.draw_attributes(SEED, indices)
    frontal = np.flatnonzero(attributes[:, INDEX["view"]] < 2)[:n]
    return indices[frontal], attributes[frontal]


def switched(attributes: np.ndarray, name: str) -> np.ndarray:
    """The attributes with one finding or the frontal view inverted, and No Finding derived."""
    after = attributes.copy()
    after[:, INDEX[name]] = 1 - after[:, INDEX[name]]
    known = np.ones(after.shape, bool)
    known[:, INDEX["no_finding"]] = False
    return vocabulary.derive_no_finding(Attributes(after, known)).values


def draw(attributes: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return to_float(phantom.draw_images(attributes, SEED, indices, 64))


def levels(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference on the scale of 0 to 255."""
    return float(np.abs(a - b).mean() * 127.5)


def read(reader, images, attributes, name: str) -> dict:
    """Scores of the oracle on edited images.

    `effectiveness`: balanced accuracy on the changed attribute. `others`: balanced accuracy on each
    other attribute, except those derived from it and race, which is at chance on phantoms.
    `log_odds`: mean log-odds of the requested values of those others; it measures exaggeration,
    because it still grows when every answer is correct.
    """
    scores = classifier.scores(reader, images, all_known(attributes))
    others = [k for k in scores if k not in {name, "no_finding", "race", "age"}]
    outputs = reader.outputs(images)
    odds = []
    for other in others:
        values = np.asarray(outputs[other])
        right = np.eye(values.shape[1], dtype=bool)[attributes[:, INDEX[other]].astype(int)]
        rest = np.where(right, -np.inf, values)
        odds.append((values[right] - np.logaddexp.reduce(rest, axis=1)).mean())
    return {
        "effectiveness": scores[name],
        "others": {k: scores[k] for k in others},
        "log_odds": float(np.mean(odds)),
    }


# ---------------------------------------------------------------------------------------------
# The parts


def guidance(model, reader, n: int) -> dict:
    """Oracle scores of samples at guidance 1 to 5, and of phantoms with the same attributes."""
    indices = np.arange(n)
    asked = all_known(phantom.draw_attributes(SEED, indices))
    found = {"phantoms": classifier.scores(reader, draw(asked.values, indices), asked)}
    found["chance"] = classifier.chance(asked)
    findings = tuple(vocabulary.FINDING_NAMES)
    plain = sampling.Settings(seed=SEED, steps=12, solver="heun", guidance=1.0, batch_size=64)
    ways = {f"plain {w:g}": dataclasses.replace(plain, guidance=w) for w in WEIGHTS}
    # Two groups: patient and acquisition, and findings.
    ways["factored 3"] = dataclasses.replace(plain, guidance=3.0, weights=((findings, 3.0),))
    at_three = dataclasses.replace(plain, guidance=3.0)
    ways["within 0.1-0.9, 3"] = dataclasses.replace(at_three, interval=(0.1, 0.9))
    ways["rescale 0.7, 3"] = dataclasses.replace(at_three, rescale=0.7)
    ways["optimised, 3"] = dataclasses.replace(at_three, optimised=True)
    for name, settings in tqdm(ways.items(), desc="guidance", disable=None):
        images = sampling.generate(model, asked, settings=settings).images
        found[name] = classifier.scores(reader, images, asked)
    return found


def counterfactual(model, reader, n: int) -> dict:
    """Every change, by every guide and weight, against the true counterfactual."""
    indices, before = patients(n)
    real, source = draw(before, indices), all_known(before)
    path = editing.abduct(model, real, source, SETTINGS)
    found = {"n": n}
    for name in CHANGES:
        after = switched(before, name)
        true = draw(after, indices)
        rows = found[name] = {
            "truth": read(reader, true, after, name),
            "unedited": read(reader, real, after, name) | distances(real, true, real),
        }
        cases = [(kind, w) for w in (1.0, 2.0, 3.0, 5.0) for kind in editing.GUIDES]
        for kind, weight in tqdm(cases, desc=name, disable=None):
            how = dataclasses.replace(SETTINGS, guide=kind, guidance=weight)
            edited = editing.predict(model, path, source, all_known(after), how)
            rows[f"{kind} {weight:g}"] = read(reader, edited, after, name) | distances(
                edited, true, real
            )
        for weight in (1.0, 2.0, 3.0):
            how = dataclasses.replace(SETTINGS, method="flow", guidance=weight, steps=24)
            edited = editing.edit(model, real, source, all_known(after), how)
            rows[f"flow {weight:g}"] = read(reader, edited, after, name) | distances(
                edited, true, real
            )
    return found


def distances(edited: np.ndarray, true: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Mean absolute error to the true counterfactual: everywhere, and where that differs."""
    inside = np.abs(true - real) > 16 / 127.5
    return {"mae": levels(edited, true), "mae inside": levels(edited[inside], true[inside])}


def axioms(model, reader, n: int) -> dict:
    """Composition: edits that change nothing, 1 and 10. Reversibility: a change undone."""
    n = n // 4  # each takes ten edits in sequence
    indices, before = patients(n)
    real, source = draw(before, indices), all_known(before)
    after = all_known(switched(before, "pleural_effusion"))
    found = {"n": n}
    for kind in editing.GUIDES:
        how = dataclasses.replace(SETTINGS, guide=kind, guidance=3.0)
        image, composition = real, {}
        for k in tqdm(range(1, 11), desc=f"composition, {kind}", disable=None):
            image = editing.edit(model, image, source, source, how)
            composition[k] = levels(image, real)
        there = editing.edit(model, real, source, after, how)
        back = editing.edit(model, there, after, source, how)
        found[kind] = {
            "composition 1": composition[1],
            "composition 10": composition[10],
            "reversibility": levels(back, real),
        }
    return found


def masks(model, reader, n: int) -> dict:
    """Edits within one lung: changes outside the mask and gradients at its sides."""
    indices, before = patients(n)
    real, source = draw(before, indices), all_known(before)
    after = all_known(switched(before, "pleural_effusion"))
    inside = np.zeros((64, 64), bool)
    inside[8:60, 34:60] = True  # the patient's left lung and its angle
    found = {"n": n}
    for name, how in {
        "edit and keep": {"mask": inside, "keep": ~inside},
        "only keep": {"keep": ~inside},
        "only edit": {"mask": inside},
    }.items():
        edited = editing.edit(model, real, source, after, SETTINGS, **how)
        edge = np.zeros((64, 63), bool)
        edge[8:60, [33, 59]] = True  # the vertical sides, between a kept and an edited pixel
        step, was = (np.abs(np.diff(x, axis=2)) for x in (edited, real))
        found[name] = {
            "largest change outside, levels of 16 bits": float(
                np.abs(np.rint((edited - real)[:, ~inside] * 32767.5)).max()
            ),
            "mean change inside, levels of 8 bits": float(
                np.abs((edited - real)[:, inside]).mean() * 127.5
            ),
            "gradient at the seam": float(step[:, edge].mean() * 127.5),
            "there, unedited": float(was[:, edge].mean() * 127.5),
            "gradient elsewhere": float(step[:, ~edge].mean() * 127.5),
        }
    return found


def propagated(model, reader, n: int) -> dict:
    """Edits of a cause, with its effects as the phantom has them, by a fitted flow, or unchanged.

    The truth is the phantom drawn again under the intervention: the patient's own noise decides
    what follows. The flow abducts that noise from the attributes, so it can only be right on
    average.
    """
    began = time.monotonic()
    indices, before = patients(n)
    real, source = draw(before, indices), all_known(before)
    table = tables.of_attributes(all_known(phantom.draw_attributes(0, np.arange(FITTED))))
    causes = fitting.fit(read_graph(), table)
    path = editing.abduct(model, real, source, SETTINGS)
    how, found = dataclasses.replace(SETTINGS, guidance=2.0), {}
    for name in CAUSES:
        own = before[:, INDEX[name]]
        new = np.where(own < 50, 85.0, 25.0) if name == "age" else 1 - own
        after = phantom.draw_attributes(SEED, indices, {name: new})
        true = draw(after, indices)
        follow = [INDEX[each] for each in phantom.descendants(name)]
        targets = {"as in truth": after, "flow": np.empty_like(after), "not at all": before.copy()}
        targets["not at all"][:, INDEX[name]] = new
        if name in vocabulary.PATHOLOGY_NAMES:  # No Finding is no effect: it says the same
            targets["not at all"] = switched(before, name)
        for k in range(n):
            row, _ = abduction.counterfactual(
                causes, source.rows(np.array([k])), {name: float(new[k])}, keys=indices[k : k + 1]
            )
            targets["flow"][k] = row.values[0]
        rows = {
            "truth": read(reader, true, after, name),
            "unedited": read(reader, real, after, name) | distances(real, true, real),
        }
        rows["unedited"]["wrong"] = float((before != after)[:, follow].mean())
        for label, target in targets.items():
            edited = editing.predict(model, path, source, all_known(target), how)
            rows[label] = read(reader, edited, after, name) | distances(edited, true, real)
            rows[label]["wrong"] = float((target != after)[:, follow].mean())
        for row in rows.values():
            row["followed"] = float(
                np.mean([row["others"][f] for f in phantom.descendants(name) if f in row["others"]])
            )
        found[name] = rows
    words = ["python", "-m", "benchmarks.editing", "--parts", "propagated", "--n", str(n)]
    return {
        "n": n,
        "propagated": found,
        "command": " ".join(words),
        "seconds": time.monotonic() - began,
        "written_by": version.versions(),
        "device": f"CPU ({platform.machine()})",
    }


PARTS = {
    "guidance": guidance,
    "counterfactual": counterfactual,
    "axioms": axioms,
    "masks": masks,
    "propagated": propagated,
}


# ---------------------------------------------------------------------------------------------
# Tables


def table_of_propagated(found: Mapping[str, Any]) -> str:
    """Edits of causes as Markdown, a row for each way in which the effects follow."""
    parts = [
        f"{found['n']} phantoms, guidance 2:",
        "",
        "| change | effects follow | wrong | effectiveness | effects | amplification "
        "| error | where it differs |",
        "|---" * 8 + "|",
    ]
    for name, rows in found["propagated"].items():
        for way, row in rows.items():
            odds = row["log_odds"] - rows["truth"]["log_odds"]
            cells = [f"{row['wrong']:.1%}" if "wrong" in row else "–"]
            cells += [f"{row['effectiveness']:.2f}", f"{row['followed']:.2f}", f"{odds:+.2f}"]
            cells += [f"{row[key]:.2f}" if key in row else "–" for key in ("mae", "mae inside")]
            parts.append(f"| {name} | {way} | {' | '.join(cells)} |")
    return "\n".join(parts)


def markdown(found: dict) -> str:
    """The results of the parts as Markdown."""
    parts = []
    if "guidance" in found:
        ways = list(found["guidance"])
        parts += [f"| attribute | {' | '.join(ways)} |", "|---" * (len(ways) + 1) + "|"]
        for name in found["guidance"]["phantoms"]:
            cells = " | ".join(f"{found['guidance'][way][name]:.2f}" for way in ways)
            parts.append(f"| {name} | {cells} |")
    for name in CHANGES if "counterfactual" in found else ():
        rows = found["counterfactual"][name]
        truth = rows["truth"]["others"]
        parts += ["", f"**{name}**, {found['counterfactual']['n']} patients", ""]
        parts += ["| | effectiveness | amplification | others' accuracy | MAE | MAE inside |"]
        parts += ["|---|---|---|---|---|---|"]
        for way, row in rows.items():
            gaps = np.array([row["others"][k] - truth[k] for k in truth])
            mae = " | ".join(f"{row.get(key, 0):.2f}" for key in ("mae", "mae inside"))
            odds = row["log_odds"] - rows["truth"]["log_odds"]
            parts.append(
                f"| {way} | {row['effectiveness']:.3f} | {odds:+.2f} | {gaps.mean():+.3f} | {mae} |"
            )
    for part in ("axioms", "masks"):
        if part in found:
            rows = {k: v for k, v in found[part].items() if k != "n"}
            columns = list(next(iter(rows.values())))
            parts += ["", f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
            for name, row in rows.items():
                parts.append(f"| {name} | {' | '.join(f'{row[c]:.2f}' for c in columns)} |")
    if "propagated" in found:
        parts += ["", table_of_propagated(found["propagated"])]
    return "\n".join(parts)


def sheet(model, reader) -> np.ndarray:
    """Four patients unedited, and edited beside the truth for each change."""
    indices, before = patients(4)
    real, source = draw(before, indices), all_known(before)
    path = editing.abduct(model, real, source, SETTINGS)
    how = dataclasses.replace(SETTINGS, guidance=2.0)
    rows, labels = [real], ["unedited"]
    for name in CHANGES:  # at guidance 2
        after = switched(before, name)
        rows += [editing.predict(model, path, source, all_known(after), how), draw(after, indices)]
        labels += [f"{name}: edited", f"{name}: truth"]
    return contact_sheet.table(pixels.to_uint8(np.stack(rows)), labels)


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.editing", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--checkpoint", required=True, metavar="WORKDIR", help="workdir of a run")
    parser.add_argument(
        "--oracle", required=True, type=Path, metavar="NPZ", help="of `rfxray oracle`"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="output folder")
    parser.add_argument(
        "--n", type=int, default=64, help="number of patients, half that of samples"
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="parts to measure (default: all)")
    arguments = parser.parse_args()
    with exit_on_error("benchmarks.editing"):
        distributed.start()
        reader = classifier.load(arguments.oracle)
        model = sampling.load(arguments.checkpoint)
        arguments.out.mkdir(parents=True, exist_ok=True)
        found = {}
        for name in arguments.parts.split(","):
            file = arguments.out / f"{name}.json"
            if not file.exists():
                start, n = time.monotonic(), arguments.n * (2 if name == "guidance" else 1)
                result = PARTS[name](model, reader, n)
                file.write_text(json.dumps(result, indent=1) + "\n")
                print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
            found[name] = json.loads(file.read_text())
        if not (arguments.out / "edits.png").exists():
            files.save_png(arguments.out / "edits.png", sheet(model, reader))
    print(markdown(found))
    print(f"wrote the figures (JSON) and edits.png into {arguments.out}")


if __name__ == "__main__":
    main()
