"""The results of a comparison as JSON: what was compared, by what, and every figure with its N."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import jax
import numpy as np

from rfxray import version
from rfxray.errors import DataError, first_line
from rfxray.evaluate import gathering, overlap
from rfxray.evaluate.features import Features
from rfxray.evaluate.fidelity import Judged, Row
from rfxray.evaluate.figure import Figure
from rfxray.evaluate.gathering import Gathered, Sets

KIND = "rfxray.evaluate.fidelity"
_WORDS = [field.name for field in dataclasses.fields(Row) if field.name != "figure"]
NAME = "results.json"


def described(sets: Sets, label: str, found: Mapping[str, Features]) -> dict[str, Any]:
    """What is said of a set: numbers and hashes, no key and no path.

    Args:
      sets: Sets that are compared.
      label: Label of the set.
      found: Features of each set by its label.
    """
    pictures, features = sets.named()[label], found[label]
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
        "in_training_set": gathering.in_training_set(sets, label, found),
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
        "suspects": judged.suspects,
        "basis": None if basis is None else {"hash": basis.hash, "fitted_on": basis.fitted_on},
    }


class Measured(Protocol):
    """A dataclass that says what a figure is of."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def figure(self) -> Figure: ...


def flat(row: Measured) -> dict[str, Any]:
    """A figure as one flat mapping."""
    of = {k: v for k, v in dataclasses.asdict(row).items() if k != "figure"}
    return {**of, **dataclasses.asdict(row.figure)}


def head(command: str, seed: int, seconds: Mapping[str, float]) -> dict[str, Any]:
    """What every file of results of a comparison begins with: how it was made."""
    return {**made(KIND, command, seconds), "seed": seed}


def made(kind: str, command: str, seconds: Mapping[str, float]) -> dict[str, Any]:
    """How results were made: by which action, command line, versions and device, in what time."""
    devices = jax.devices()
    return {
        "kind": kind,
        "command": command,
        "written_by": version.versions(),
        "device": f"{len(devices)} × {devices[0].device_kind}",
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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} holds no results of rfxray evaluate fidelity ({type(error).__name__}); give "
            "its --out"
        ) from error
    try:
        _check(found)
    except (DataError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} is damaged, or of another version of rfxray ({first_line(error)}); run its "
            "command again"
        ) from error
    return found


def _check(found: Mapping[str, Any]) -> None:
    """Raises an error unless results have all that a table of them needs."""
    for name in ("command", "device"):
        _is(found, name, str)
    for name, kind in (("written_by", str), ("seconds", int | float)):
        for each in _is(found, name, dict):
            _is(found[name], each, kind)
    _is(found, "seed", int)
    for name in ("name", "fingerprint"):
        _is(found["sets"]["real"], name, str)
    for row in _is(found, "figures", list):
        for name in _WORDS:
            _is(row, name, str)
        of = found["extractors"][row["extractor"]]
        for name in ("hash", "resize_path"):
            _is(of, name, str)
        if _is(of, "basis", dict | None):
            _is(of["basis"], "hash", str)
        if row["protocol"] != "corrected":
            _is(found["published"], row["extractor"], str)
        numbers = [_is(row, name, int | float | None) for name in ("value", "low", "high")]
        counts = [_is(row, name, int) for name in ("n_real", "n_synthetic")]
        name, reason = _is(row, "name", str), _is(row, "reason", str | None)
        Figure(name, numbers[0], numbers[1], numbers[2], counts[0], counts[1], reason)


def _is(of: Mapping[str, Any], name: str, kind: Any) -> Any:
    """A value of this type, and a finite one."""
    value = of[name]
    if not isinstance(value, kind) or (isinstance(value, float) and not math.isfinite(value)):
        raise TypeError(f"{name} is not what it should be")
    return value


def chosen(figures: Sequence[Mapping[str, Any]], **values: str) -> list[Mapping[str, Any]]:
    """The figures that have these values."""
    return [row for row in figures if all(row[name] == value for name, value in values.items())]
