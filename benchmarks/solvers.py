"""Solvers on a trained model: error against evaluations, and round trips of the inverters.

    python -m benchmarks.solvers --checkpoint runs/phantom_long/train --out runs/solvers

The error of a sample is its distance from the result of 100 RK4 steps on the same noise, relative
to the root mean square of that result; the evaluations of the adaptive solver follow from its
tolerance. The round trip inverts phantoms, from the default floor and from t = 0, and integrates
back. Writes `solvers.json` and `solvers.svg`, and prints Markdown. A few minutes on one core.
"""

import argparse
import dataclasses
import functools
import json
import math
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from data_prep import phantom
from rfxray import sampling
from rfxray.attributes.vocabulary import all_known
from rfxray.command_line import ArgumentParser, exit_on_error
from rfxray.data.pixels import to_float
from rfxray.runtime import distributed
from rfxray.sampling import adaptive, editing, guidance
from rfxray.sampling.editing import EditSettings
from rfxray.sampling.sampler import noise
from rfxray.sampling.solvers import EVALUATIONS, SOLVERS

SEED = 4242  # of phantoms that the model has not seen
BUDGETS = (8, 16, 32, 64, 128)  # evaluations
TOLERANCES = (0.3, 0.1, 0.03, 0.01, 0.003)  # of the adaptive solver
FLOORS = (0.2, 0.0)  # of the round trips
ROUND_TRIPS = [
    *(("euler", c) for c in (0, 2, 4)),
    *(("heun", c) for c in (0, 1, 2, 4)),
    *(("midpoint", c) for c in (0, 1, 2, 4)),
]
COLOURS = {
    **{"euler": "#888888", "heun": "#1f77b4", "midpoint": "#2ca02c", "rk4": "#9467bd"},
    **{"ab2": "#ff7f0e", "exponential": "#d62728", "adaptive": "#8c564b"},
}


def distance(images: np.ndarray, reference: np.ndarray) -> float:
    """Relative root mean square error, the mean over images."""
    axes = (1, 2)
    error = np.sqrt(((images - reference) ** 2).mean(axes))
    return float((error / np.sqrt((reference**2).mean(axes))).mean())


def errors(model, attributes, weight: float) -> dict[str, list]:
    """For each solver and time grid, [(evaluations, error), …]."""
    asked = all_known(attributes)

    def draw(**how):
        settings = sampling.Settings(seed=SEED, guidance=weight, batch_size=32, **how)
        return sampling.generate(model, asked, settings=settings).images

    reference = draw(solver="rk4", steps=100)
    found: dict[str, list] = {}
    grids = {"": {}, " quadratic": {"spacing": "quadratic"}, " shift 2": {"shift": 2.0}}
    # All solvers on the uniform grid, three of them also on the others.
    cases = [
        (solver, name, budget)
        for solver in SOLVERS
        for name in grids
        for budget in BUDGETS
        if not name or solver in ("exponential", "heun", "ab2")
    ]
    for solver, name, budget in tqdm(cases, desc="solvers", disable=None):
        steps = budget // EVALUATIONS[solver]
        images = draw(solver=solver, steps=steps, **grids[name])
        used = steps * EVALUATIONS[solver] - (solver == "heun")
        found.setdefault(solver + name, []).append((used, distance(images, reference)))
    found["adaptive"] = [
        (used, distance(images, reference)) for used, images in adaptively(model, asked, weight)
    ]
    return found


def adaptively(model, asked, weight: float):
    """For each tolerance (evaluations, samples [n, size, size]), all in one batch."""
    branches = guidance.classifier_free(asked, weight)
    x = noise(model.shape, SEED, np.arange(len(asked.values)))

    @functools.partial(jax.jit, static_argnames="tolerance")
    def draw(params, x, tolerance):
        network = functools.partial(model.velocity, params)
        return adaptive.integrate(guidance.guided(network, branches), x, 1.0, 0.0, tolerance)

    for tolerance in tqdm(TOLERANCES, desc="adaptive", disable=None):
        images, steps = draw(model.params, x, tolerance)
        # Tsit5 evaluates six times per step: its seventh stage is the first of the next step.
        yield 6 * int(steps), np.clip(np.asarray(images)[..., 0], -1, 1)


def round_trips(model, attributes, indices, steps: int) -> dict[str, float]:
    """Relative error of phantoms inverted and drawn again, by solver, corrections and floor."""
    real = to_float(phantom.draw_images(attributes, SEED, indices, model.size))
    shown = all_known(attributes)
    found = {}
    cases = [(*trip, floor) for floor in FLOORS for trip in ROUND_TRIPS]
    for solver, corrections, floor in tqdm(cases, desc="round trips", disable=None):
        plain = EditSettings(solver=solver, steps=steps, guidance=1.0, batch_size=16)
        how = dataclasses.replace(plain, corrections=corrections, floor=floor)
        path = editing.abduct(model, real, shown, how)
        back = editing.predict(model, path, shown, shown, how)
        found[f"{solver}, {corrections} corrections, floor {floor:g}"] = distance(back, real)
    return found


def plot(found: dict[str, list], title: str) -> str:
    """SVG of error against evaluations, both logarithmic."""
    width, height, left, bottom = 720, 430, 60, 40
    every = [point for points in found.values() for point in points]
    low, high = (math.log10(f(e for _, e in every)) for f in (min, max))
    low, high = math.floor(low * 2) / 2, math.ceil(high * 2) / 2

    def place(evaluations, error):
        x = (math.log2(evaluations) - 2.7) / (math.log2(BUDGETS[-1]) - 2.6)
        y = (math.log10(error) - low) / (high - low)
        return left + x * (width - left - 180), height - bottom - y * (height - bottom - 30)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="18" font-size="14">{title}</text>',
        f'<text x="{left + 150}" y="{height - 8}">evaluations of the network</text>',
    ]
    for budget in BUDGETS:
        x, _ = place(budget, 10**low)
        parts.append(f'<text x="{x - 8:.0f}" y="{height - 24}">{budget}</text>')
    for exponent in range(math.ceil(low), math.floor(high) + 1):
        _, y = place(BUDGETS[0], 10.0**exponent)
        parts.append(f'<path d="M{left} {y:.1f}H{width - 180}" stroke="#ddd"/>')
        parts.append(f'<text x="8" y="{y + 4:.1f}">10^{exponent}</text>')
    for row, (name, points) in enumerate(found.items()):
        solver, _, grid = name.partition(" ")
        dash = {"": "", "quadratic": "6 3", "shift 2": "2 3"}[grid]
        line = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in points)
        style = f'fill="none" stroke="{COLOURS[solver]}" stroke-width="2" stroke-dasharray="{dash}"'
        parts.append(f'<polyline points="{line}" {style}/>')
        y = 40 + 18 * row
        parts.append(f'<path d="M{width - 170} {y - 4}h26" {style}/>')
        parts.append(f'<text x="{width - 138}" y="{y}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.solvers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--checkpoint", required=True, metavar="WORKDIR", help="workdir of a run")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="output folder")
    parser.add_argument(
        "--n", type=int, default=16, help="number of samples, twice that of round trips"
    )
    parser.add_argument("--guidance", type=float, default=2.0, help="weight (default: 2)")
    parser.add_argument(
        "--steps", type=int, default=50, help="steps of the round trips (default: 50)"
    )
    arguments = parser.parse_args()
    with exit_on_error("benchmarks.solvers"):
        distributed.start()
        model = sampling.load(arguments.checkpoint)
        indices = np.arange(arguments.n)
        attributes = phantom.draw_attributes(SEED, indices)
        half = slice(arguments.n // 2)
        found = {
            "checkpoint": model.source,
            "jax": jax.__version__,
            "errors": errors(model, attributes, arguments.guidance),
            "round_trips": round_trips(model, attributes[half], indices[half], arguments.steps),
        }
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "solvers.json").write_text(json.dumps(found, indent=1) + "\n")
        title = f"Relative error of samples, guidance {arguments.guidance:g}"
        (arguments.out / "solvers.svg").write_text(plot(found["errors"], title))
    print(f"| solver | {' | '.join(f'{b} evaluations' for b in BUDGETS)} |")
    print("|---" * (len(BUDGETS) + 1) + "|")
    *others, (_, points) = found["errors"].items()
    for name, errors_of in others:
        print(f"| {name} | {' | '.join(f'{error:.2e}' for _, error in errors_of)} |")
    print("\n| adaptive, tolerance | evaluations | error |\n|---|---|---|")
    for tolerance, (used, error) in zip(TOLERANCES, points, strict=True):
        print(f"| {tolerance:g} | {used} | {error:.2e} |")
    print(f"\n| inverter, {arguments.steps} steps | round trip |\n|---|---|")
    for name, error in found["round_trips"].items():
        print(f"| {name} | {error:.1e} |")
    print(f"wrote solvers.json and solvers.svg into {arguments.out}")


if __name__ == "__main__":
    main()
