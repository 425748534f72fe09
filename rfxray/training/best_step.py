"""The step of a run with the samples nearest to held-out images, by its evaluator fidelity."""

import json
from collections.abc import Collection
from pathlib import Path

_NAMES = ("fidelity/FD64", "fidelity/KID")  # the first one that a run logged decides


def best_step(workdir: Path) -> tuple[str, float, int] | None:
    """Name of the distance, its lowest value, and the step; None if the run logged none.

    The lowest of several is low by chance too: it chooses among steps, and does not measure one.
    """
    try:
        lines = (workdir / "metrics.jsonl").read_text(errors="replace").splitlines()
    except OSError:
        return None
    found: dict[str, tuple[float, int]] = {}
    for line in lines:
        try:
            row = json.loads(line)
            for name in _NAMES:
                if name in row:
                    here = (float(row[name]), int(row["step"]))
                    found[name] = min(found.get(name, here), here)
        except (ValueError, LookupError, TypeError):  # torn by a kill
            continue
    for name in _NAMES:
        if name in found:
            return name, *found[name]
    return None


def described(workdir: Path, kept: Collection[int]) -> str | None:
    """The best step in words, and whether its weights are among the kept steps; None if the run
    logged no distance."""
    found = best_step(workdir)
    if found is None:
        return None
    name, value, step = found
    line = f"{name} was lowest at step {step:,} ({value:.4g})"
    if step in kept:
        return f"{line}: --step {step} of rfxray sample, edit and export takes it"
    return f"{line}, of which no weights are kept; set checkpoint_keep_every or ema_every for that"
