"""JSON that a person or another program wrote, and the numbers in it."""

import json
import math
from collections.abc import Sequence
from typing import Any


def parse(text: str) -> Any:
    """The value of a JSON text.

    Raises:
      ValueError: If it is none, names something twice in an object (all but the last would be
        lost), or is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def finite(value: object) -> float | None:
    """A number of a JSON text as a float; None if it is not a number, or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond a float
        return None
    return number if math.isfinite(number) else None


def _once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{max(names, key=names.count)} is there twice")
    return found
