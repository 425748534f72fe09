import csv
import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

import data_prep
from data_prep.images import quality
from data_prep.images.survey import THUMBNAIL, halve, squeeze
from data_prep.phantom import draw_attributes, draw_images
from rfxray.attributes.vocabulary import ATTRIBUTES, INDEX
from rfxray.data.radiograph import Radiograph, read, square
from tests.data_prep import raw_trees

SHARED = Path(os.environ.get("RFXRAY_SHARED", Path(data_prep.__file__).parents[2] / "shared"))
HANNOVER = SHARED / "real_cxr" / "hannover"
real = pytest.mark.skipif(not HANNOVER.is_dir(), reason=f"no real radiographs in {HANNOVER}")


def scores(pixels):
    radiograph = Radiograph(np.ascontiguousarray(pixels, np.float32), 16)
    picture = square(radiograph, THUMBNAIL)
    return quality.scores(halve(squeeze(picture["image"], picture["content_box"])))


def verdict(pixels, frontal=True):
    return quality.verdict(scores(pixels), frontal)


def flags(pixels, view):
    return quality.flags(scores(pixels), view)


def on_plate(pixels, top=0.0, right=0.0, bottom=0.0, left=0.0, level=1.15):
    """A radiograph within plate, in shares of its sides; level 0 is black, 1 the brightest tissue,
    and unexposed plate is brighter.
    """
    dark, bright = np.percentile(pixels, [1, 99.5])
    height, width = pixels.shape
    above, before = int(height * top), int(width * left)
    size = (height + above + int(height * bottom), width + before + int(width * right))
    noise = np.random.default_rng(0).normal(0, 0.01, size)
    plate = (dark + (level + noise) * (bright - dark)).astype(np.float32)
    plate[above : above + height, before : before + width] = pixels
    return plate


ARRANGEMENTS = {
    "around": {"top": 0.3, "right": 0.3, "bottom": 0.3, "left": 0.3},
    "around, as bright as bone": {
        **{"top": 0.3, "right": 0.3, "bottom": 0.3, "left": 0.3},
        "level": 0.8,
    },
    "at the left": {"left": 0.5},
    "at the top": {"top": 0.5},
    "at both sides": {"left": 0.3, "right": 0.3},
    "in a corner": {"top": 0.4, "left": 0.4},
    "black, around": {"top": 0.3, "right": 0.3, "bottom": 0.3, "left": 0.3, "level": 0.0},
}


@pytest.fixture(scope="module")
def hannover():
    """(view, pixels) of every third radiograph, its longer side 400 pixels."""
    with open(HANNOVER / "metadata.csv", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["image_id"])[::3]
    films = []
    for row in rows:
        pixels = read(HANNOVER / "png" / f"{row['image_id']}.png").pixels
        scale = 400 / max(pixels.shape)
        small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        films.append((row["projection"].upper(), small))
    return films


@real
def test_real_radiographs_are_kept_without_a_flag(hannover):
    for view, pixels in hannover:
        assert verdict(pixels) == ""
        assert flags(pixels, view) == ()


TURNS = {
    "rotated: by 270° clockwise": lambda p: np.rot90(p),
    "rotated: by 180° clockwise": lambda p: np.rot90(p, 2),
    "rotated: by 90° clockwise": lambda p: np.rot90(p, 3),
    "inverted": lambda p: p.max() - p,
}


@real
@pytest.mark.parametrize("name", TURNS)
def test_turned_real_radiographs_are_dropped_if_the_turned_one_is_good_else_flagged(hannover, name):
    noticed = 0
    for view, pixels in hannover:
        seen = scores(np.ascontiguousarray(TURNS[name](pixels)))
        found = quality.verdict(seen, frontal=True)
        assert found in (name, "")
        if scores(pixels).upright >= 0.62:  # as good as the turned one then is
            assert found == name
        if found:
            assert max(seen.poses) >= 0.6
        noticed += found == name or f"possibly {name.replace(':', '')}" in quality.flags(seen, view)
    assert noticed >= 0.9 * len(hannover)


@real
@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_real_radiographs_on_unexposed_plate_are_kept(hannover, name):
    films = hannover[::3]
    seen = [scores(on_plate(pixels, **ARRANGEMENTS[name])) for _, pixels in films]
    assert [quality.verdict(one, frontal=True) for one in seen] == [""] * len(films)
    assert [quality.flags(one, "") for one in seen] == [()] * len(films)
    bare = [scores(pixels).upright for _, pixels in films]
    # Judged inside the plate, a picture is as good as without it
    assert np.median(np.subtract([one.upright for one in seen], bare)) > -0.05


@real
def test_negatives_on_plate_are_still_dropped(hannover):
    films = [pixels for _, pixels in hannover[::3]]
    plated = [on_plate(pixels, **ARRANGEMENTS["around"]) for pixels in films]
    found = Counter(verdict(pixels.max() - pixels) for pixels in plated)
    assert set(found) <= {"inverted", ""}
    assert found["inverted"] >= 0.7 * len(films)


def test_doubtful_pose_is_flagged_and_good_one_dropped():
    """Only a picture that is good when it is turned, and much better than upright, is dropped."""
    good = quality.Scores(20, upright=0.3, inverted=0.61)
    assert quality.verdict(good, frontal=True) == "inverted"
    poor = quality.Scores(20, upright=0.3, inverted=0.59)
    assert quality.verdict(poor, frontal=True) == ""
    assert quality.flags(poor, "AP") == quality.flags(poor, "") == ("possibly inverted",)
    close = quality.Scores(20, upright=0.55, turned_180=0.69)
    assert quality.verdict(close, frontal=True) == ""
    assert quality.flags(close, "PA") == ()
    turned = quality.Scores(20, upright=0.1, turned_90=0.5)
    assert quality.flags(turned, "PA") == ("possibly rotated by 90° clockwise",)
    assert quality.flags(turned, "lateral") == ()


def test_pose_is_checked_for_frontal_views_only():
    turned = np.rot90(raw_trees.pictures()[5], 2)
    assert verdict(turned) == "rotated: by 180° clockwise"
    assert verdict(turned, frontal=False) == ""


def test_images_without_a_chest_are_dropped():
    y, x = np.mgrid[:256, :256]
    glow = np.exp(-((x - 128) ** 2 + (y - 128) ** 2) / 6000)
    noise = np.random.default_rng(0).normal(100, 3, (256, 256))
    assert [verdict(one) for one in (x, glow, noise)] == ["blank", "blank", "no chest"]


# ---------------------------------------------------------------------------------------------
# View against picture


@pytest.fixture(scope="module")
def phantoms():
    """view → [40, 128, 128] uint16."""
    drawn = {}
    for view in ("PA", "lateral"):
        indices = np.arange(500, 540)
        attributes = draw_attributes(5, indices)
        attributes[:, INDEX["view"]] = ATTRIBUTES[INDEX["view"]].values.index(view)
        drawn[view] = draw_images(attributes, 5, indices, 128)
    return drawn


@pytest.mark.parametrize("mirror", [1, -1])
def test_laterals_labelled_frontal_are_flagged_and_kept(phantoms, mirror):
    found = Counter()
    for pixels in phantoms["lateral"][:, :, ::mirror]:
        assert verdict(pixels) == ""
        assert flags(pixels, "lateral") == flags(pixels, "") == ()
        found.update(flags(pixels, "AP"))
    assert set(found) == {"looks lateral but is labelled AP"}
    assert found.total() >= 34  # 378 of 400, over both ways


def test_frontals_labelled_lateral_are_flagged_and_kept(phantoms):
    found = Counter()
    for pixels in phantoms["PA"]:
        assert verdict(pixels, frontal=False) == ""
        found.update(flags(pixels, "lateral"))
    assert set(found) == {"looks frontal but is labelled lateral"}
    assert found.total() >= 36
    assert sum(bool(flags(pixels, "PA")) for pixels in phantoms["PA"]) <= 1


# ---------------------------------------------------------------------------------------------
# The exposed field


def field(content):
    return quality.exposed_field(np.asarray(content, np.float32))


def test_exposed_field_of_a_whole_radiograph_is_all_of_it(phantoms):
    for pixels in (*phantoms["PA"][:5], *phantoms["lateral"][:5]):
        content = cv2.resize(pixels / 257, (64, 64), interpolation=cv2.INTER_AREA)
        content = content.astype(np.float32)
        np.testing.assert_array_equal(field(content)[:, 20:44], content[:, 20:44])


@pytest.mark.parametrize("grey", [255, 180])
@pytest.mark.parametrize(
    "box", [(10, 12, 50, 60), (0, 20, 64, 64), (30, 30, 64, 64), (0, 0, 40, 64)]
)
def test_exposed_field_leaves_out_bright_plate(grey, box):
    top, left, bottom, right = box
    texture = np.random.default_rng(0).uniform(0, 160, (64, 64)).astype(np.float32)
    content = np.full((64, 64), grey, np.float32)
    content[top:bottom, left:right] = texture[top:bottom, left:right]
    expected = cv2.resize(texture[top:bottom, left:right], (64, 64))
    np.testing.assert_array_equal(field(content), expected)


def test_black_border_is_plate_only_if_it_ends_in_a_straight_edge():
    texture = np.random.default_rng(0).uniform(100, 250, (64, 64)).astype(np.float32)
    straight = np.where(np.arange(64) >= 20, texture, 5).astype(np.float32)
    np.testing.assert_array_equal(field(straight), cv2.resize(texture[:, 20:], (64, 64)))
    y, x = np.mgrid[:64, :64]
    body = np.where(((x - 32) / 24) ** 2 + ((y - 40) / 50) ** 2 < 1, texture, 5).astype(np.float32)
    np.testing.assert_array_equal(field(body), body)


def test_field_of_nothing_but_plate_is_finite():
    for grey in (0, 60, 130, 255):
        assert np.isfinite(field(np.full((64, 64), grey))).all()
        assert np.isfinite(quality.scores(np.full((64, 64), grey, np.uint8))).all()
