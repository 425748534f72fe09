"""Measures causal models on both worlds of the phantom, where the truth is known, and real tables.

    python -m benchmarks.causes --real DIR --out runs/causes.json
    python -m benchmarks.results --add causes=runs/causes.json

DIR is a folder with published metadata tables (NIH ChestX-ray14, CheXpert, PadChest, VinDr-CXR),
as torchxrayvision carries them.
"""

import argparse
import functools
import json
import platform
import shlex
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from data_prep.phantom import causes, dataset, interacting
from data_prep.sources.sets import SETS
from rfxray import version
from rfxray.attributes.states import known_from_states
from rfxray.attributes.vocabulary import NUM_ATTRIBUTES, Attributes, all_known
from rfxray.causes import contrasts, effects, fitting, independence, judged, tables
from rfxray.causes.graph import Graph, read_graph
from rfxray.causes.tables import Table
from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.outputs import files

FILES = {
    "nih": "Data_Entry_2017_v2020.csv.gz",
    "chexpert": "chexpert_train.csv.gz",
    "padchest": "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",
    "vindr": "vinbigdata-train.csv.gz",
}
ROWS, MANY, TRUTH = 100_000, 1_200_000, 200_000
TESTED = 40_000  # rows of a real table that its independences are tested on


def world(name: str, seed: int, rows: int) -> tuple[Graph, np.ndarray, np.ndarray | None]:
    """Graph, true attributes [rows, 19] and heart sizes [rows] of a population."""
    indices = np.arange(rows)
    if name == "additive":
        return read_graph(), causes.draw_attributes(seed, indices), None
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "graph.json"
        file.write_text(json.dumps(interacting.graph()))
        graph = read_graph(file)
    return graph, *interacting.draw(seed, indices)


def as_table(values: np.ndarray, heart: np.ndarray | None) -> Table:
    return tables.of_attributes(all_known(values), None if heart is None else heart[:, None])


def recorded(name: str, values: np.ndarray, heart: np.ndarray | None) -> Table:
    """What is recorded of the same patients."""
    draw = causes.draw_states if name == "additive" else interacting.draw_states
    states = draw(0, np.arange(len(values)), values)
    known = known_from_states(states)
    whole = as_table(values, heart)
    seen = np.concatenate([known, whole.known[:, NUM_ATTRIBUTES:]], 1)
    return Table(np.where(seen, whole.values, 0), seen, whole.patients, whole.keys)


def true_probability(name: str, values: np.ndarray, heart: np.ndarray | None) -> np.ndarray:
    if heart is None:
        return expit(causes.logit(name, values))
    return expit(interacting.logit(name, values, heart))


def of_world(name: str) -> dict[str, Any]:
    """Distances of flow and logistic from the truth, and effects with and without gaps."""
    graph, values, heart = world(name, 0, ROWS)
    table, found = as_table(values, heart), {}
    seconds, models = {}, {}
    for form in fitting.FORMS:
        began = time.process_time()
        models[form] = fitting.fit(graph, table, form, fitting.REPLICATES)
        seconds[form] = time.process_time() - began
        found[form] = distances(models[form], table, values, heart)
    whole = contrasts.measured(models["flow"])
    gaps = contrasts.measured(
        fitting.fit(graph, recorded(name, values, heart), "flow", fitting.REPLICATES)
    )
    keys = {key(each): each for each in [*whole, *gaps]}
    truth = {own: _true(name, each) for own, each in keys.items()}
    return {
        "world": name,
        "rows": ROWS,
        "seconds": seconds,
        **found,
        "effects": _errors(whole, truth),
        "effects_recorded": _errors(gaps, truth),
    }


def distances(model, table: Table, values, heart) -> dict[str, Any]:
    """Mean total variation of each finding, and how far cells of causes are from the truth."""
    variation, z = {}, []
    for name, mechanism in model.mechanisms.items():
        if not mechanism.parents or mechanism.continuous:
            continue
        true = true_probability(name, values, heart)
        probability = model.probability(name, table.values)
        variation[name] = float(np.abs(probability - true).mean())
        code = np.zeros(len(true), int)
        for parent in mechanism.parents:
            own = table.values[:, model.graph.index[parent]]
            if model.variable(parent).continuous:
                own = np.searchsorted(np.quantile(own, [0.2, 0.4, 0.6, 0.8]), own)
            code = code * 5 + own.astype(int)
        error = np.bincount(code, true * (1 - true)) ** 0.5
        off = np.abs(np.bincount(code, probability - true))
        z += (off[error > 0] / error[error > 0]).tolist()
    far = np.array(z)
    return {
        "variation": variation,
        "mean": float(np.mean(list(variation.values()))),
        "cells": len(z),
        "beyond_3": int((far > 3).sum()),
        "farthest": float(far.max()),
    }


def _true(name: str, effect: contrasts.Contrast) -> float:
    then, before = (_mean(name, effect.cause, value) for value in (effect.then, effect.before))
    return then[effect.effect] - before[effect.effect]


@functools.cache
def _mean(name: str, cause: str, value: float) -> dict[str, float]:
    """Mean of every variable of a world under an intervention, of its probability for findings."""
    do, indices = {cause: value}, np.arange(TRUTH)
    if name == "additive":
        drawn, heart = causes.draw_attributes(9, indices, do), None
    else:
        drawn, heart = interacting.draw(9, indices, do)
    means = {n: float(true_probability(n, drawn, heart).mean()) for n in causes.BASE}
    return means if heart is None else {**means, interacting.HEART: float(heart.mean())}


def key(effect: contrasts.Contrast) -> tuple[str, float, float, str]:
    return effect.cause, effect.before, effect.then, effect.effect


def _errors(found, truth: Mapping) -> dict[str, Any]:
    errors = [e.difference - truth[key(e)] for e in found]
    z = [
        abs(error) / max((e.high - e.low) / 3.92, 1e-9)
        for e, error in zip(found, errors, strict=True)
    ]
    wrong = [
        f"{e.cause} on {e.effect}"
        for e, error, each in zip(found, errors, z, strict=True)
        if abs(error) > 0.01 and each > 3
    ]
    return {
        "effects": len(found),
        "largest": float(np.abs(errors).max()),
        "within_01": int((np.abs(errors) <= 0.01).sum()),
        "inside": int((np.array(z) <= 1.96).sum()),
        "wrong": wrong,
    }


def many() -> dict[str, Any]:
    """Seconds to fit as many rows as the seven sets have, with gaps."""
    graph, values, _ = world("additive", 0, MANY)
    table = recorded("additive", values, None)
    began = time.process_time()
    fitting.fit(graph, table, "flow", fitting.REPLICATES)
    return {"rows": MANY, "seconds": time.process_time() - began, "replicates": fitting.REPLICATES}


def of_set(name: str, folder: Path) -> dict[str, Any]:
    """Fit, held-out likelihoods and tests of a real table."""
    file = folder / FILES[name]
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / file.name.removeprefix("chexpert_")).symlink_to(file.resolve())
        read = SETS[name].read
        assert read is not None
        rows = read(Path(place)).rows
    values, states = (
        np.frombuffer(b"".join(getattr(row, field) for row in rows), dtype).reshape(-1, 19)
        for field, dtype in (("attributes", "<f4"), ("states", "i1"))
    )
    attributes = Attributes(values.astype(np.float64), known_from_states(states))
    _, patients = np.unique([row.patient for row in rows], return_inverse=True)
    whole = tables.of_attributes(attributes)
    table = Table(whole.values, whole.known, patients, whole.keys)
    aside = table.held_out()
    train, held_out = table.rows(~aside), table.rows(aside)
    graph, dropped = usable(read_graph(), train)
    began = time.process_time()
    model = fitting.fit(graph, train, "flow", fitting.REPLICATES)
    seconds = time.process_time() - began
    logistic = fitting.fit(graph, train, "logistic")
    found = judged.judge(model, logistic, train, held_out, boosting=True)
    share = min(1.0, TESTED / len(train))
    tests = independence.checked(model, train.rows(train.held_out(share)))
    wrong = independence.failing(tests)
    return {
        "set": name,
        "rows": len(table),
        "patients": int(patients.max()) + 1,
        "seconds": seconds,
        "left_out": dropped,
        "notes": model.notes,
        "nodes": {
            n: {"rows": j.rows, "flow": j.flow, "logistic": j.logistic, "boosted": j.boosted}
            for n, j in found.items()
            if model.mechanisms[n].parents
        },
        "tested": sum(not t.edge for t in tests),
        "failing": [(t.cause, t.effect, t.size) for t in wrong],
        "edges": sum(t.edge for t in tests),
        "unseen": [(t.cause, t.effect) for t in independence.unseen(tests)],
        "e_value": _e_value(model),
    }


def usable(graph: Graph, table: Table) -> tuple[Graph, list[str]]:
    """The graph without variables that never vary in a table, which a fit refuses."""
    dropped = []
    for name in list(graph.parents):
        seen = table.values[table.known[:, graph.index[name]], graph.index[name]]
        if len(seen) and (seen == seen[0]).all():
            graph = graph.without(name)
            dropped.append(name)
    return graph, dropped


def _e_value(model) -> dict[str, float] | None:
    """Age 75 against 40 on cardiomegaly."""
    if not {"age", "cardiomegaly"} <= set(model.mechanisms):
        return None
    found = effects.answer(model, effects.Question("cardiomegaly", {"age": 75.0}, {"age": 40.0}))
    low, high = found.difference_interval or (0.0, 0.0)
    return {"difference": found.difference, "low": low, "high": high, "e": found.e_value or 1.0}


def table(found: Mapping[str, Any]) -> str:
    """The tables of docs/causes.md."""
    lines = [
        "| world | model | mean total variation | largest | cells beyond 3 s.e. | farthest | s |",
        "|---" * 7 + "|",
    ]
    for each in found["worlds"]:
        for form in fitting.FORMS:
            of = each[form]
            worst = max(of["variation"], key=lambda name: of["variation"][name])
            lines.append(
                f"| {each['world']} | {form} | {of['mean']:.4f} | {of['variation'][worst]:.4f} "
                f"({worst}) | {of['beyond_3']} of {of['cells']} | {of['farthest']:.1f} "
                f"| {each['seconds'][form]:.0f} |"
            )
    head = "| world | table | effects | within .01 | in interval | largest error | wrong |"
    lines += ["", head]
    lines += ["|---" * 7 + "|"]
    for each in found["worlds"]:
        for key, what in (("effects", "all known"), ("effects_recorded", "as recorded")):
            of = each[key]
            lines.append(
                f"| {each['world']} | {what} | {of['effects']} | {of['within_01']} "
                f"| {of['inside']} | {of['largest']:.4f} | {', '.join(of['wrong']) or '–'} |"
            )
    large = found["many"]
    lines += [
        "",
        f"{large['rows']:,} recorded phantoms, 16 variables, {large['replicates']} bootstrap "
        f"replicates: {large['seconds']:.0f} s.",
    ]
    return "\n".join([*lines, "", *_real(found["sets"])])


def _real(sets: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| set | rows | patients | s | variables | no data | fail | edges not seen |",
        "|---" * 8 + "|",
    ]
    for each in sets:
        missing = [note.split()[0] for note in each["notes"]] + each["left_out"]
        lines.append(
            f"| {each['set']} | {each['rows']:,} | {each['patients']:,} | {each['seconds']:.0f} "
            f"| {len(each['nodes'])} | {', '.join(missing) or '–'} | {len(each['failing'])} of "
            f"{each['tested']} | {len(each['unseen'])} of {each['edges']} |"
        )
    lines += ["", "| finding | " + " | ".join(each["set"] for each in sets) + " |"]
    lines += ["|---" * (len(sets) + 1) + "|"]
    names = list(dict.fromkeys(name for each in sets for name in each["nodes"]))
    for name in names:
        cells = []
        for each in sets:
            of = each["nodes"].get(name)
            if of is None:
                cells.append("–")
                continue
            boosted = "–" if of["boosted"] is None else f"{of['boosted']:.4f}"
            cells.append(f"{of['flow']:.4f} / {of['logistic']:.4f} / {boosted}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| set | largest dependences that the graph denies (nats a row) | edges not seen |",
    ]
    lines += ["|---" * 3 + "|"]
    for each in sets:
        wrong = ", ".join(f"{a}–{b} ({size:.2g})" for a, b, size in each["failing"][:6])
        unseen = ", ".join(f"{a} → {b}" for a, b in each["unseen"])
        lines.append(f"| {each['set']} | {wrong or '–'} | {unseen or '–'} |")
    return lines


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="python -m benchmarks.causes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--real", required=True, type=local_path, metavar="DIR", help="folder of tables")
    p.add_argument(
        "--workers", type=int, default=1, help="processes (default: %(default)s); seconds are CPU's"
    )
    p.add_argument("--out", required=True, type=local_path, metavar="FILE", help="results to write")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    with exit_on_error("benchmarks.causes"):
        began = time.monotonic()
        found: dict[str, Any] = {"written_by": version.versions()}
        with ProcessPoolExecutor(flags.workers) as pool:
            worlds = [pool.submit(of_world, name) for name in dataset.WORLDS]
            sets = [pool.submit(of_set, name, flags.real) for name in FILES]
            large = pool.submit(many)
            found["worlds"] = [each.result() for each in worlds]
            found["sets"] = [each.result() for each in sets]
            found["many"] = large.result()
        found |= {
            "command": shlex.join(["python", "-m", "benchmarks.causes", "--real", flags.real.name]),
            "device": f"CPU ({platform.machine()})",
            "seconds": time.monotonic() - began,
        }
        files.write_whole(flags.out, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        print(f"wrote {flags.out}")


if __name__ == "__main__":
    main()
