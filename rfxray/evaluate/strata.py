"""Parts of a set by attribute: view, sex, race, age decade, source, and each finding present."""

import numpy as np

from rfxray.attributes.vocabulary import FINDING_NAMES, INDEX, Attributes, lookup

LEAST = 50  # pictures of each set, from which on a part has a figure
_DECADE = 10  # years


def of(attributes: Attributes) -> dict[str, np.ndarray]:
    """The pictures of each part, by name such as `view=PA`.

    Args:
      attributes: Attributes of a set, [n, 19]; what is not known is in no part.

    Returns:
      Masks [n] bool; a part without a picture is absent.
    """
    parts: dict[str, np.ndarray] = {}
    for name in ("view", "sex", "race", "source"):
        values, known = _column(attributes, name)
        for index, value in enumerate(lookup(name).values):
            parts[f"{name}={value}"] = known & (values == index)
    ages, known = _column(attributes, "age")
    for decade in range(0, int(lookup("age").high) + 1, _DECADE):
        mask = known & (ages >= decade) & (ages < decade + _DECADE)
        parts[f"age={decade} to {decade + _DECADE - 1}"] = mask
    for name in FINDING_NAMES:
        values, known = _column(attributes, name)
        parts[f"{name}=present"] = known & (values > 0.5)
    return {name: mask for name, mask in parts.items() if mask.any()}


def sources(attributes: Attributes | None) -> set[str]:
    """The known sources of the pictures of a set."""
    if attributes is None:
        return set()
    values, known = _column(attributes, "source")
    return {lookup("source").values[int(index)] for index in np.unique(values[known])}


def _column(attributes: Attributes, name: str) -> tuple[np.ndarray, np.ndarray]:
    place = INDEX[name]
    return np.asarray(attributes.values)[:, place], np.asarray(attributes.known)[:, place]
