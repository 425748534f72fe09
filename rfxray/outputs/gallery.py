"""A page of generated pictures that is filtered by attribute, with links to their files."""

import json
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rfxray.outputs import page
from rfxray.outputs.files import write_whole

SIDE = 160  # pixels of the longest side of a thumbnail
_FOLDER = Path(__file__).parent


def write(
    path: Path, shown: Iterable[tuple[np.ndarray, Mapping[str, Any], str | None]], title: str
) -> None:
    """Writes the page. It has a filter for every attribute that differs between the pictures.

    Args:
      path: Path of the page.
      shown: Images, [height, width] uint8, each with the attributes requested for it and the name
        of its file beside the page, which its thumbnail is a link to; None for no link.
      title: Title of the page.
    """
    entries = [(page.data_uri(image, SIDE), asked, file) for image, asked, file in shown]
    groups = [{name: _group(name, v) for name, v in a.items()} for _, a, _ in entries]
    filters = {}
    for name in dict.fromkeys(name for requested in groups for name in requested):
        options = sorted({requested.get(name, "not requested") for requested in groups})
        if len(options) > 1:
            filters[name] = options
    pictures = [
        {
            "uri": uri,
            "link": None if file is None else urllib.parse.quote(file),
            "requested": json.dumps(requested),
            "all": _words(attributes),
            "varying": _words({k: v for k, v in attributes.items() if k in filters}),
        }
        for (uri, attributes, file), requested in zip(entries, groups, strict=True)
    ]
    html = page.render(
        _FOLDER / "gallery.html",
        title=title,
        script=(_FOLDER / "gallery.js").read_text(encoding="utf-8"),
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
