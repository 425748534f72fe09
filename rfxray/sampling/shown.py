"""What a notebook shows of settings and images."""

import dataclasses
import html
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from rfxray.data.pixels import to_uint8
from rfxray.outputs import contact_sheet, page

SHOWN = 16  # images of a cell's output: 4 × 4, some 200 KB


@runtime_checkable
class Dataclass(Protocol):
    """An instance of any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


def settings_repr(settings: Dataclass) -> str:
    """A dataclass with those of its fields only that differ from their defaults."""
    fields = [(f.name, getattr(settings, f.name), f.default) for f in dataclasses.fields(settings)]
    given = [f"{name}={value!r}" for name, value, default in fields if value != default]
    return f"{type(settings).__name__}({', '.join(given)})"


def figure(images: np.ndarray, caption: str) -> str:
    """The first images of [n, height, width] in [−1, 1] as HTML, above a caption."""
    uri = page.data_uri(contact_sheet.grid(to_uint8(images[:SHOWN])))
    more = f" The first {SHOWN} are shown." if len(images) > SHOWN else ""
    said = html.escape(f"Synthetic: {caption}.{more}")
    return f'<figure><img src="{uri}" alt="{said}"><figcaption>{said}</figcaption></figure>'
