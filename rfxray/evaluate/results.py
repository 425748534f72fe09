"""The results of a comparison as JSON: what was compared, by what, and every figure with its N."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfxray import version
from rfxray.errors import DataError
from rfxray.evaluate import gathering, overlap
from rfxray.evaluate.features import Features
from rfxray.evaluate.fidelity import Judged, Row
from rfxray.evaluate.gathering import Gathered
from rfxray.evaluate.pictures import Pictures

KIND = "rfxray.evaluate.fidelity"
NAME = "results.json"


def described(pictures: Pictures, features: Features) -> dict[str, Any]:
    """What is said of a set: numbers and hashes, no key and no path."""
    known = {name for name in pictures.patients if name}
    sizes = np.stack([features.pictures["height"], features.pictures["width"]], 1)
    shapes, counts = np.unique(sizes, axis=0, return_counts=True)
    return {
        "name": pictures.name,
        "images": len(pictures),
        "patients": len(known) if known else None,
        "fingerprint": pictures.fingerprint,
        "reading": pictures.reading,
        "side": gathering.side(features.pictures),
        "sizes": len(shapes),
        "most_common_size": shapes[int(counts.argmax())].tolist(),
        "repeated": overlap.repeated(features.pictures["pixels"]),
        "rejected": _counted(pictures.rejected),
        "notes": list(pictures.notes),
    }


def _counted(rejected: Mapping[str, str]) -> dict[str, int]:
    """Numbers of rejected files by reason; which ones they are stands in a table beside."""
    return dict(Counter(why.partition(":")[0] for why in rejected.values()))


def extractor(gathered: Gathered, judged: Judged) -> dict[str, Any]:
    """What is said of an extractor."""
    of, basis = gathered.extractor, judged.basis
    return {
        "hash": of.hash,
        "width": of.width,
        "resize_path": str(of.preprocessing),
        "trained_on": list(of.trained_on),
        "circular": judged.circular,
        "basis": None if basis is None else {"hash": basis.hash, "fitted_on": basis.fitted_on},
    }


def flat(row: Row) -> dict[str, Any]:
    """A figure as one flat mapping."""
    of = {k: v for k, v in dataclasses.asdict(row).items() if k != "figure"}
    return {**of, **dataclasses.asdict(row.figure)}


def head(command: str, seed: int, seconds: Mapping[str, float]) -> dict[str, Any]:
    """What every file of results begins with: how it was made."""
    devices = jax.devices()
    return {
        "kind": KIND,
        "command": command,
        "written_by": version.versions(),
        "device": f"{len(devices)} × {devices[0].device_kind}",
        "seed": seed,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }


def read(path: Path) -> dict[str, Any]:
    """Results that `rfxray evaluate fidelity` wrote.

    Args:
      path: Path of `results.json`, or of the folder that holds it.

    Raises:
      DataError: If there are none, or they are damaged.
    """
    file = path / NAME if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["kind"] != KIND:
            raise KeyError("kind")
        keys = {field.name for field in dataclasses.fields(Row)} - {"figure"}
        complete = all(keys <= row.keys() for row in found["figures"])
        complete &= all(name in found for name in ("command", "sets", "extractors"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} holds no results of rfxray evaluate fidelity ({type(error).__name__}); give "
            "its --out"
        ) from error
    if not complete:
        raise DataError(f"{file} was written by another version of rfxray; run its command again")
    return found


def chosen(figures: Sequence[Mapping[str, Any]], **values: str) -> list[Mapping[str, Any]]:
    """The figures that have these values."""
    return [row for row in figures if all(row[name] == value for name, value in values.items())]
