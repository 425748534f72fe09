import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

import data_prep
from data_prep.audit import __main__ as audit_command
from data_prep.harmonise import main as harmonise
from data_prep.phantom import draw_attributes, draw_images
from rfxray.data import burned_text, radiograph
from tests.data_prep import raw_trees

SHARED = Path(os.environ.get("RFXRAY_SHARED", Path(data_prep.__file__).parents[2] / "shared"))
HANNOVER = SHARED / "real_cxr" / "hannover" / "png"
SIZE = 512


@pytest.fixture(scope="module")
def chests():
    indices = np.arange(12)
    return draw_images(draw_attributes(11, indices), 11, indices, SIZE)


def written(image, text, at, colour, scale=0.5):
    """Image with text drawn at three times its size, as workstations overlay it, then reduced."""
    large = cv2.resize((image >> 8).astype(np.uint8), (3 * SIZE, 3 * SIZE))
    place = (3 * at[0], 3 * at[1])
    cv2.putText(large, text, place, cv2.FONT_HERSHEY_SIMPLEX, 3 * scale, colour, 3, cv2.LINE_AA)
    small = cv2.resize(large, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return small.astype(np.uint16) * 257


def test_burned_in_name_is_found_at_its_position(chests):
    found = 0
    for image in chests:
        for at, colour in (((30, 40), 255), ((180, 250), 0), ((250, 480), 255)):
            lines = burned_text.lines(written(image, "DOE JANE 1961", at, colour))
            found += any(
                abs(line.left - at[0]) < 160 and line.top - 4 <= at[1] <= line.top + line.height + 4
                for line in lines
            )
    assert found >= 0.8 * 3 * len(chests)


def test_anatomy_and_side_markers_are_not_text(chests):
    """Every phantom contains a side marker."""
    assert sum(bool(burned_text.lines(image)) for image in chests) <= 1
    lone = [burned_text.lines(written(image, "L", (440, 60), 255, 0.9)) for image in chests]
    assert sum(map(bool, lone)) <= 1


@pytest.mark.skipif(not HANNOVER.is_dir(), reason=f"no real radiographs in {HANNOVER}")
def test_real_text_is_found_and_few_other_radiographs_flagged():
    flagged = {
        path.stem
        for path in sorted(HANNOVER.glob("*.png"))[::3]
        if burned_text.lines(radiograph.ingest(path, SIZE)["image"])
    }
    carry_a_word = {"436a6348", "865336ed", "a4318ac9", "b39206a9", "bd3ceeb6", "bfefde5d"}
    assert len(flagged - carry_a_word) <= 2
    for name in ("bd3ceeb6", "436a6348"):
        assert burned_text.lines(radiograph.ingest(HANNOVER / f"{name}.png", SIZE)["image"])


def test_audit_lists_and_shows_burned_in_text(chests, tmp_path):
    root, out = tmp_path / "nih", tmp_path / "out"
    raw_trees.nih(root)
    named = written(chests[3], "DOE JANE 1961", (30, 40), 255)
    raw_trees.put(root / "images_001/images/00000002_000.png", named)
    harmonise([f"--set=nih={root}", "--out", str(out), "--size", str(SIZE), "--workers", "1"])
    audit_command.main([str(out)])
    assert "Not looked for" in (out / "audit.html").read_text()
    audit_command.main([str(out), "--audit-text", "--workers", "1"])
    with open(out / "text.csv", newline="") as file:
        assert {row["key"] for row in csv.DictReader(file)} == {"nih/2/0/00000002_000.png"}
    page = (out / "audit.html").read_text()
    assert "Not looked for" not in page
    assert "<td>nih</td><td>1</td>" in page
    assert not (out / "text").exists()
