"""The release gate: limits in a file, and whether what was measured is within them.

| limit | default | what it says |
|---|---|---|
| samples | 1000 | least number of samples that were looked up |
| held_out | 100 | least number of held-out images |
| near_copies | 0.02 | largest share of near-copies; about 0.01 of new images are listed |
| membership_auc | 0.55 | largest AUC of membership inference |
| membership_tpr | 0.03 | largest true positive rate at 1% false positives |
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from rfxray.config import json_text
from rfxray.errors import ConfigError, first_line

DEFAULT = Path(__file__).with_name("gate.json")
_AT_LEAST = ("samples", "held_out")
_MOST = 10**9  # images
_SHARES = ("near_copies", "membership_auc", "membership_tpr")
_NAMES = (*_AT_LEAST, *_SHARES)


@dataclasses.dataclass(frozen=True)
class Check:
    """One limit and what was measured.

    Attributes:
      name: Name of the limit.
      limit: The limit.
      value: What was measured; None if it was not.
      passed: Whether it is within the limit; None if it was not measured.
    """

    name: str
    limit: float
    value: float | None
    passed: bool | None

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name} not measured"
        how = "at least" if self.name in _AT_LEAST else "at most"
        return f"{self.name} {self.value:.4g} ({how} {self.limit:g})"


def limits(file: Path) -> dict[str, float]:
    """The limits of a file, a JSON object of numbers.

    Raises:
      ConfigError: If it cannot be read, names a limit twice or one that there is not, leaves one
        out, or gives one that could not fail.
    """
    try:
        # Editors of Windows put a mark before the text.
        found = json_text.parse(file.read_text(encoding="utf-8-sig"))
        if not isinstance(found, dict):
            raise TypeError(f"it is a {type(found).__name__}")
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{file} is not a gate ({first_line(error)}); give a JSON object of {', '.join(_NAMES)}"
        ) from error
    for what, names in (("unknown", found.keys() - _NAMES), ("missing", _NAMES - found.keys())):
        if names:
            listed = ", ".join(sorted(names))
            raise ConfigError(f"{file}: {what} limits {listed}; a gate has {', '.join(_NAMES)}")
    numbers = {}
    for name in _NAMES:
        number, most = json_text.finite(found[name]), 1 if name in _SHARES else _MOST
        if number is None or not 0 <= number <= most:
            raise ConfigError(
                f"{file}: {name} must be a number from 0 to {most:,} (got {found[name]!r})"
            )
        numbers[name] = number
    return numbers


def checks(limits: Mapping[str, float], measured: Mapping[str, float | None]) -> list[Check]:
    """Every limit beside what was measured."""
    found = []
    for name, limit in limits.items():
        value = measured[name]
        within = None
        if value is not None:
            within = value >= limit if name in _AT_LEAST else value <= limit
        found.append(Check(name, limit, value, within))
    return found


def reason(found: Sequence[Check]) -> str | None:
    """Why the gate fails, in one line; None if it passes."""
    failed = [str(check) for check in found if check.passed is False]
    return "; ".join(failed) if failed else None
