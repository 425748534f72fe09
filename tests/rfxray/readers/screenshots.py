"""Screenshots of the page of a reader for its documentation, from phantoms:

python -m tests.rfxray.readers.screenshots docs
"""

import argparse
import functools
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.phantom.causes import draw_attributes
from data_prep.phantom.draw import draw_images
from rfxray.command_line import ArgumentParser
from rfxray.readers import design
from rfxray.readers.candidates import Candidate
from rfxray.readers.reader_page import STRINGS
from tests.rfxray.readers.browser import Page, started
from tests.rfxray.readers.person import SHOWN, enter, folder

SIZE = 512
FINDINGS = ("cardiomegaly", "edema", "pneumothorax", "pleural_effusion", "fracture")
COLOURS = 56  # of a file; the page has few besides greys


def candidates(kind: str, first: int) -> list[Candidate]:
    """Phantoms, frontal, under the name of a kind."""
    indices = np.arange(first, first + 6)
    attributes = draw_attributes(7, indices, {"view": 0.0})
    images = draw_images(attributes, 7, indices, SIZE)
    return [
        Candidate(f"{kind}-{n}", "", {}, functools.partial(lambda image, side: image, image))
        for n, image in enumerate(images)
    ]


def write(page: Page, file: Path) -> None:
    """What the window shows, as a PNG of few colours."""
    with Image.open(io.BytesIO(page.screenshot())) as image:
        few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(file, optimize=True)
    print(f"wrote {file} ({file.stat().st_size // 1024} KiB)")


def main() -> None:
    p = ArgumentParser(
        prog="python -m tests.rfxray.readers.screenshots",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("out", type=Path, help="folder of the documentation")
    out = p.parse_args().out
    program = shutil.which("chromium")
    assert program, "no chromium"
    wanted = design.Design("chest-1", "pairs", 4, 0, 1, 0, (), SIZE, FINDINGS)
    sets = candidates("real", 0), candidates("synthetic", 100)
    study = design.make(wanted, *sets, np.random.default_rng(0), STRINGS)
    with tempfile.TemporaryDirectory() as place:
        root = folder(Path(place) / "study", study)
        with started(program, Path(place) / "profile") as browser:
            page = browser.page()
            page.open(root / "reader-1.html")
            enter(page)
            page.until(SHOWN)
            page.press("d")
            write(page, out / "reader_page_diagnosis.png")
            for _ in range(8):
                page.until(SHOWN)
                page.press("n")
                page.press("Enter")
            page.click("#begin")
            page.until(SHOWN)
            for key in ("ArrowRight", "4"):
                page.press(key)
            write(page, out / "reader_page.png")


if __name__ == "__main__":
    main()
