"""Labelled tables and grids of images, as one image."""

from collections.abc import Sequence

import numpy as np
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont

_GAP = 2  # pixels between images
_INK = 230  # grey of the labels, of 255


def _enlarged(images: np.ndarray, least: int) -> np.ndarray:
    """Repeats pixels until small images are about `least` pixels wide."""
    factor = max(1, round(least / images.shape[-1]))
    return images.repeat(factor, axis=-2).repeat(factor, axis=-1)


def table(
    cells: np.ndarray,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    title: str = "",
    least: int = 128,
) -> np.ndarray:
    """Draws a table of images, with columns wide enough for every label.

    Args:
      cells: Images, [rows, columns, height, width] uint8.
      rows: Label of each row, or nothing.
      columns: Label of each column, or nothing.
      title: Line above the table.
      least: Width in pixels that smaller images are enlarged towards, by a whole factor.

    Returns:
      Image of the table, [height, width] uint8.
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


def grid(images: np.ndarray, columns: int = 0, title: str = "", least: int = 128) -> np.ndarray:
    """Draws images in rows.

    Args:
      images: Images, [n, height, width] uint8.
      columns: Images in each row; 0 makes the grid as square as possible.
      title: Line above the grid.
      least: Width in pixels that smaller images are enlarged towards, by a whole factor.

    Returns:
      Image of the grid, [height, width] uint8.
    """
    columns = columns or int(np.ceil(np.sqrt(len(images))))
    blank = -len(images) % columns
    images = np.pad(images, ((0, blank), (0, 0), (0, 0)))
    return table(rearrange(images, "(r c) h w -> r c h w", c=columns), title=title, least=least)
