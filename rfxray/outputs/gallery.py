"""A page of generated pictures, in one file, that is filtered by attribute."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rfxray.outputs import page
from rfxray.outputs.files import write_whole

SIDE = 160  # pixels of the longest side of a thumbnail
_FOLDER = Path(__file__).parent


def write(
    path: Path, shown: Iterable[tuple[np.ndarray, Mapping[str, Any]]], title: str, note: str
) -> None:
    """Writes the page. It has a filter for every attribute that differs between the pictures.

    Args:
      path: Path of the page.
      shown: Pairs of an image, [height, width] uint8, and the attributes requested for it.
      title: Title of the page.
      note: Sentence below the title, such as how many pictures there are in all.
    """
    entries = [(page.data_uri(image, SIDE), attributes) for image, attributes in shown]
    groups = [{name: _group(name, v) for name, v in a.items()} for _, a in entries]
    filters = {}
    for name in dict.fromkeys(name for requested in groups for name in requested):
        options = sorted({requested.get(name, "not requested") for requested in groups})
        if len(options) > 1:
            filters[name] = options
    pictures = [
        {
            "uri": uri,
            "requested": json.dumps(requested),
            "all": _words(attributes),
            "varying": _words({k: v for k, v in attributes.items() if k in filters}),
        }
        for (uri, attributes), requested in zip(entries, groups, strict=True)
    ]
    html = page.render(
        _FOLDER / "gallery.html",
        title=title,
        script=(_FOLDER / "gallery.js").read_text(encoding="utf-8"),
        note=note,
        side=SIDE,
        filters=filters,
        pictures=pictures,
    )
    write_whole(path, html)


def _group(name: str, value: Any) -> str:
    """The option of a filter that a value belongs to: its decade for an age."""
    if name != "age":
        return str(value)
    decade = int(value) // 10 * 10
    return f"{decade}-{decade + 9}"


def _words(attributes: Mapping[str, Any]) -> str:
    rounded = {k: round(v, 1) if isinstance(v, float) else v for k, v in attributes.items()}
    return ", ".join(f"{name} {value}" for name, value in rounded.items()).replace("_", " ")
