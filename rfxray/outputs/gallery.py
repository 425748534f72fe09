"""A page of generated pictures, in one file, that is filtered by attribute."""

import base64
import html
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 160  # pixels of a thumbnail at most

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ background: #14161a; color: #dde; font: 15px/1.5 system-ui, sans-serif; margin: 1.5em }}
h1 {{ font-weight: 500; font-size: 1.3em }} code {{ color: #9cf }}
form {{ position: sticky; top: 0; background: #14161a; padding: .5em 0; display: flex;
  flex-wrap: wrap; gap: .4em 1.2em }}
select {{ background: #23272f; color: inherit; border: 1px solid #445; border-radius: 4px }}
main {{ display: flex; flex-wrap: wrap; gap: 6px }} figure {{ margin: 0 }}
figure[hidden] {{ display: none }} img {{ display: block; width: {side}px; image-rendering: auto }}
</style>
<h1>{title}</h1><p>Synthetic radiographs, not of persons. {note}</p>
<form>{filters}<span id="count"></span></form><main>{figures}</main>
<script>
const form = document.querySelector("form"), figures = [...document.querySelectorAll("figure")];
function show() {{
  let seen = 0;
  for (const figure of figures) {{
    const told = JSON.parse(figure.dataset.told);
    const fits = [...form.elements].every(
      s => !s.value || (told[s.name] ?? "not told") === s.value);
    figure.hidden = !fits; seen += fits;
  }}
  document.querySelector("#count").textContent = seen + " of " + figures.length;
}}
form.addEventListener("change", show); show();
</script></html>
"""


def write(
    path: Path, shown: Iterable[tuple[np.ndarray, Mapping[str, object]]], title: str, note: str
) -> None:
    """Writes the page; it needs no network and no other file.

    Args:
      path: of the page.
      shown: (image [height, width] uint8, what it was asked to be) of each picture.
      title: of the page.
      note: a sentence below it: the settings, and how many there are in all.
    """
    figures, values = [], {}
    for image, attributes in shown:
        told = {name: _words(name, value) for name, value in attributes.items()}
        for name, value in told.items():
            values.setdefault(name, set()).add(value)
        caption = html.escape(", ".join(f"{k} {v}" for k, v in attributes.items()))
        figures.append((_embedded(image), told, caption))
    for name, seen in values.items():
        if any(name not in told for _, told, _ in figures):
            seen.add("not told")
    filters = "".join(
        f'<label>{name} <select name="{name}"><option value="">any</option>'
        + "".join(f"<option>{html.escape(value)}</option>" for value in sorted(seen))
        + "</select></label>"
        for name, seen in values.items()
        if len(seen) > 1
    )
    body = "".join(
        f'<figure data-told="{html.escape(json.dumps(told))}" title="{caption}">'
        f'<img src="{data}"></figure>'
        for data, told, caption in figures
    )
    path.write_text(
        _PAGE.format(
            title=html.escape(title),
            note=html.escape(note),
            side=SIDE,
            filters=filters,
            figures=body,
        )
    )


def _words(name: str, value: object) -> str:
    return f"{int(value) // 10 * 10}-{int(value) // 10 * 10 + 9}" if name == "age" else str(value)


def _embedded(image: np.ndarray) -> str:
    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
