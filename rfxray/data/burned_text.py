"""Text burned into a radiograph: names, dates and numbers that no header carries.

It detects lines of glyphs and does not read them: a stroke is thin and as white as the image gets
(or as black, on a bright background); strokes of similar height next to each other are a line, and
a line of four or more may name somebody. A single L or R, or a short marker, is not a line.
"""

import csv
import io
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from rfxray.data.record import deserialize
from rfxray.data.writing import Task, run_tasks
from rfxray.errors import DataError, first_line
from rfxray.outputs.files import remove_temporary, write_whole

# Thresholds for images of 512²; lengths scale with the size. 7 of 151 real radiographs are flagged:
# 6 show a word, 1 a hatched plate.
SIDE = 512  # pixels, of the images that these thresholds are for
STROKE = 9  # pixels, largest width of a stroke
CONTRAST = 70  # of 255, between a stroke and its surroundings
SATURATED = 225  # of 255, least peak of a stroke of overlaid text
HEIGHTS = (6, 44)  # pixels, of a glyph
GLYPHS = 4  # fewest in a line
GAP = 1.3  # heights, largest gap between neighbours
TABLE = "text.csv"


class Line(NamedTuple):
    """A likely line of text: number of glyphs and box in pixels."""

    glyphs: int
    top: int
    left: int
    height: int
    width: int


def lines(image: np.ndarray) -> list[Line]:
    """The likely lines of text in an image [size, size] uint16, from top to bottom."""
    eight = (image >> 8).astype(np.uint8)
    return sorted(
        (line for ground in (eight, 255 - eight) for line in _bright_lines(ground)),
        key=lambda line: line[1:],
    )


# ---------------------------------------------------------------------------------------------
# Over a data set


def scan(out: Path, manifest: Mapping[str, Any], *, workers: int, command: str) -> None:
    """Searches every record of a data set and writes `out/text.csv`; resumes an earlier search."""
    folder = out / "text"
    folder.mkdir(exist_ok=True)
    remove_temporary(folder)
    shards = [shard for split in manifest["splits"].values() for shard in split["shards"]]
    tasks = [
        Task((os.fspath(out / shard["file"]), os.fspath(folder)), shard["examples"])
        for shard in shards
        if not (folder / shard["file"]).exists()
    ]
    done = sum(shard["examples"] for shard in shards) - sum(task.items for task in tasks)
    run_tasks(scan_shard, tasks, workers=workers, folder=folder, command=command, done=done)
    whole = "".join((folder / shard["file"]).read_text(encoding="utf-8") for shard in shards)
    write_whole(out / TABLE, f"{','.join(('key', *Line._fields))}\n{whole}")
    shutil.rmtree(folder)


def scan_shard(file: str, folder: str, advance: Callable[[], None]) -> None:
    """Writes the lines found in a shard to a file of the same name in `folder`, atomically."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    try:
        reader = ArrayRecordReader(file)
        for i in range(reader.num_records()):
            record = deserialize(reader.read([i])[0])
            writer.writerows((record["key"], *line) for line in lines(record["image"]))
            advance()
        reader.close()
    except (DataError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{file} is damaged ({first_line(error)}); copy the shard again or build the data set "
            "again"
        ) from error
    write_whole(Path(folder) / Path(file).name, table.getvalue())


def read(out: Path) -> dict[str, list[Line]] | None:
    """The lines that `scan` found, by key; None if there was no scan."""
    try:
        with open(out / TABLE, encoding="utf-8", newline="") as file:
            found: dict[str, list[Line]] = {}
            for row in csv.DictReader(file):
                key = row.pop("key")
                found.setdefault(key, []).append(Line(**{k: int(v) for k, v in row.items()}))
            return found
    except FileNotFoundError:
        return None


# ---------------------------------------------------------------------------------------------
# Lines


def _bright_lines(image: np.ndarray) -> list[Line]:
    scale = len(image) / SIDE
    side = max(3, round(STROKE * scale)) | 1
    strokes = cv2.morphologyEx(image, cv2.MORPH_TOPHAT, np.ones((side, side), np.uint8))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(
        (strokes > CONTRAST).astype(np.uint8)
    )
    brightest = np.zeros(count, np.uint8)
    np.maximum.at(brightest, labels, image)  # pyright: ignore[reportArgumentType]  int32
    glyphs = [
        (int(x), int(y), int(w), int(h))
        for (x, y, w, h, area), peak in zip(boxes[1:], brightest[1:], strict=True)
        if HEIGHTS[0] * scale <= h <= HEIGHTS[1] * scale
        and w <= 1.5 * h
        and 0.15 * w * h < area
        and peak >= SATURATED
    ]
    return [_line(members) for members in _beside(sorted(glyphs)) if len(members) >= GLYPHS]


def _beside(glyphs: Sequence[tuple[int, int, int, int]]) -> list[list[tuple[int, int, int, int]]]:
    """Groups glyphs (left, top, width, height), sorted from the left, into lines."""
    found: list[list[tuple[int, int, int, int]]] = []
    for glyph in glyphs:
        x, y, _, h = glyph
        for line in found:
            left, top, width, height = line[-1]
            alike = max(h, height) <= 1.5 * min(h, height)
            level = abs((y + h / 2) - (top + height / 2)) <= 0.35 * max(h, height)
            if alike and level and -1 <= x - (left + width) <= GAP * height:
                line.append(glyph)
                break
        else:
            found.append([glyph])
    return found


def _line(glyphs: Sequence[tuple[int, int, int, int]]) -> Line:
    top, left = min(g[1] for g in glyphs), min(g[0] for g in glyphs)
    bottom, right = max(g[1] + g[3] for g in glyphs), max(g[0] + g[2] for g in glyphs)
    return Line(len(glyphs), top, left, bottom - top, right - left)
