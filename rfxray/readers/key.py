"""The key of a study: which case is synthetic. Its format is in `answers`."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from rfxray.errors import DataError
from rfxray.readers import sealing
from rfxray.readers.answers import SIDES

DEGRADED, RECONSTRUCTED = "degraded", "reconstructed"  # kinds of controls


@dataclasses.dataclass(frozen=True)
class Case:
    """What the key says of a case.

    Attributes:
      synthetic: Whether the image is synthetic; None for a pair, which has one of each.
      patient: Name of its patient, or of the case if the key names none.
      strata: Other facts, such as `view`, as text.
      control: Kind of control, "" for a case that is analysed.
    """

    synthetic: bool | None
    patient: str
    strata: Mapping[str, str]
    control: str = ""


@dataclasses.dataclass(frozen=True)
class Key:
    """A key that was read and checked.

    Attributes:
      study: Name of the study.
      modality: `single` or `pairs`.
      sha256: SHA-256 of the opened file.
      cases: Cases by name.
      sides: Side of the synthetic image for each reader and item, if the study has pairs.
      diagnosis: Images of the phase of diagnosis by name; strata are their findings, 1 or 0.
    """

    study: str
    modality: str
    sha256: str
    cases: Mapping[str, Case]
    sides: Mapping[str, Mapping[str, str]]
    diagnosis: Mapping[str, Case] = dataclasses.field(default_factory=dict)


def read(path: Path, passphrase: Callable[[], str] = sealing.ask) -> Key:
    """Reads a key, sealed or not.

    Args:
      path: Path of the file.
      passphrase: Function that is called if the key is sealed.

    Raises:
      DataError: If it does not open, is not a key, or lacks what an analysis needs.
    """
    content = sealing.opened(path, passphrase)
    try:
        found = json.loads(content)
        cases = {
            str(name): _case(path, str(name), dict(case), found["modality"])
            for name, case in found["cases"].items()
        }
        study, modality = str(found["study"]), str(found["modality"])
        sides = {r: dict(items) for r, items in found.get("sides", {}).items()}
        diagnosis = {
            str(name): _case(path, str(name), dict(image), "single")
            for name, image in found.get("diagnosis", {}).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not a key (JSON with study, modality and cases): {error}"
        ) from error
    if modality not in ("single", "pairs"):
        raise DataError(f"{path}: modality must be single or pairs (got {modality!r})")
    for reader, items in sides.items():
        for item, side in items.items():
            if side not in SIDES:
                raise DataError(
                    f"{path}: side of {reader}, item {item} must be left or right (got {side!r})"
                )
    digest = hashlib.sha256(content).hexdigest()
    return Key(study, modality, digest, cases, sides, diagnosis)


def _case(path: Path, name: str, fields: dict, modality: str) -> Case:
    truth = fields.pop("truth", None)
    if modality == "single" and (truth not in (0, 1) or isinstance(truth, float)):
        raise DataError(f"{path}: truth of case {name} must be 0 or 1 (got {truth!r})")
    patient = str(fields.pop("patient", None) or name)
    control = str(fields.pop("control", None) or "")
    strata = {key: str(value) for key, value in fields.items() if value is not None}
    return Case(None if modality == "pairs" else bool(truth), patient, strata, control)
