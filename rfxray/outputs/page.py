"""One HTML file from a Jinja template: in one style, with every text escaped, and self-contained.

A page needs neither a network nor another file: images are data URIs, and its content security
policy makes the browser refuse anything else. The only script that a browser runs is the one that
is given to `render`, which the policy names by its hash.
"""

import base64
import hashlib
import io
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["thousands"] = "{:,}".format


def render(template: Path, title: str, script: str = "", **values: object) -> str:
    """Renders a page.

    Args:
      template: Path of a Jinja template that extends `page.html`, with a block `content` and,
        below the title, `lead`.
      title: Title of the page.
      script: JavaScript to run after the content, as written: no value may be inserted into it.
      values: Variables of the template. Strings are escaped.

    Returns:
      The HTML file.

    Raises:
      jinja2.UndefinedError: if the template uses a variable that is not given.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    source = _environment.from_string(template.read_text(encoding="utf-8"))
    return source.render(title=title, script=script, script_sha256=digest, **values)


def data_uri(image: np.ndarray, most: int | None = None) -> str:
    """A PNG as a data URI, for the `src` of an `<img>`.

    Args:
      image: Greyscale image, [height, width] uint8.
      most: Longest side in pixels; a larger image is reduced to it.
    """
    picture = Image.fromarray(image)
    if most is not None:
        picture.thumbnail((most, most))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
