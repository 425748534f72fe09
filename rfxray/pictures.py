"""Pictures as people look at them: labelled grids, and PNG files that say what they are."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from rfxray.errors import DataError

_GAP = 2  # pixels between pictures
_INK = 230


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Pixels in [−1, 1], clipped to it, as uint8."""
    return np.round((np.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def _enlarged(images: np.ndarray, least: int) -> np.ndarray:
    """Repeats pixels so that small pictures are seen without a magnifying glass."""
    factor = max(1, round(least / images.shape[-1]))
    return images.repeat(factor, axis=-2).repeat(factor, axis=-1)


def table(
    cells: np.ndarray,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    title: str = "",
    least: int = 128,
) -> np.ndarray:
    """A labelled table of pictures, wide enough for every label.

    Args:
      cells: [rows, columns, height, width] uint8.
      rows, columns: a label for each, or none.
      title: a line above.
      least: pictures narrower than this are enlarged by a whole factor towards it, pixels.

    Returns:
      [height, width] uint8.
    """
    cells = _enlarged(cells, least)
    font = ImageFont.load_default(13)

    def room(texts):
        return max((8 + int(font.getlength(text)) for text in texts if text), default=0)

    beside = max(_GAP, room(columns) - cells.shape[-1])
    cells = np.pad(cells, ((0, 0), (0, 0), (0, _GAP), (0, beside)))
    body = Image.fromarray(rearrange(cells, "r c h w -> (r h) (c w)"))
    left, top = room(rows), (20 if title else 0) + (20 if columns else 0)
    sheet = Image.new("L", (max(left + body.width, room([title])), top + body.height))
    sheet.paste(body, (left, top))
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((4, 3), title, _INK, font)
    for i, text in enumerate(columns):
        draw.text((left + i * cells.shape[-1] + 2, top - 18), text, _INK, font)
    for i, text in enumerate(rows):
        draw.text((4, top + i * cells.shape[-2] + cells.shape[-2] // 2 - 8), text, _INK, font)
    return np.asarray(sheet)


def grid(images: np.ndarray, columns: int = 0, **labels) -> np.ndarray:
    """Pictures [n, height, width] uint8 in rows, labelled as by `table`: [height, width] uint8."""
    columns = columns or int(np.ceil(np.sqrt(len(images))))
    blank = -len(images) % columns
    images = np.pad(images, ((0, blank), (0, 0), (0, 0)))
    return table(rearrange(images, "(r c) h w -> r c h w", c=columns), **labels)


def save_png(path: Path, image: np.ndarray, text: Mapping[str, object] | None = None) -> None:
    """Writes a greyscale PNG, whole or not at all.

    Args:
      path: of the file.
      image: [height, width] uint8 or uint16.
      text: what the file says of itself, as PNG text chunks.
    """
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value if isinstance(value, str) else json.dumps(value))
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", pnginfo=info)
    write_whole(path, buffer.getvalue())


def read_png(path: Path) -> np.ndarray:
    """The pixels of a grey PNG: [height, width] uint8 or uint16.

    Grey may be stored as a palette or as three equal channels; what is transparent is black.

    Raises:
      DataError: where it is in colour.
    """
    with Image.open(path) as picture:
        if picture.mode == "L" or picture.mode.startswith("I"):
            return np.asarray(picture).astype(np.uint8 if picture.mode == "L" else np.uint16)
        black = Image.new("RGBA", picture.size, "black")
        channels = np.asarray(Image.alpha_composite(black, picture.convert("RGBA")))[..., :3]
    if (channels != channels[..., :1]).any():
        raise DataError(f"{path} is in colour, where grey is needed")
    return channels[..., 0]


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
