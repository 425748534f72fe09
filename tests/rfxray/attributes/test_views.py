import itertools

import pytest

from rfxray.attributes.views import read_view

FRAMES = ["{}", "{} view", "chest {}", "CXR-{}", "{}.", "{}, portable", "mobile_{}"]
POSTURES = ["", "erect", "semi-erect", "semi erect", "Upright", "SUPINE", "sitting", "horizontal"]


@pytest.mark.parametrize(("word", "view"), [("pa", "PA"), ("ap", "AP"), ("a.p.", "AP")])
def test_frontal_view_is_read_in_every_posture(word, view):
    for frame, posture, separator in itertools.product(FRAMES, POSTURES, " _-/"):
        cell = f"{frame.format(word)}{separator}{posture}".lower()
        assert read_view(cell) == view, cell


@pytest.mark.parametrize("side", ["", "left", "right", "l", "r", "lt"])
def test_lateral_view_is_read_with_its_side(side):
    for word, cell in itertools.product(("lateral", "lat", "lat."), ("{0} {1}", "{1}-{0}")):
        assert read_view(cell.format(word, side)) == "lateral"


@pytest.mark.parametrize(
    ("cell", "view"),
    [
        ("postero-anterior", "PA"),
        ("postero_anterior", "PA"),
        ("posteroanterior", "PA"),
        ("antero posterior erect", "AP"),
        ("frontal pa", "PA"),
        ("tórax ap portátil", "AP"),
        ("p.a. stehend", "PA"),
        ("a.p. im liegen", "AP"),
        ("perfil", "lateral"),
        ("seitlich", "lateral"),
        ("ll", "lateral"),
        ("l", "lateral"),
    ],
)
def test_other_spellings_are_read(cell, view):
    assert read_view(cell) == view


@pytest.mark.parametrize(
    "cell",
    [
        *("", "portable", "erect", "supine", "frontal", "oblique", "lao", "r", "left"),
        *("pa/lat", "pa and lateral", "ap/pa", "not ap", "ap?x", "ap left"),
        *("lld", "ap lld", "lateral decubitus", "left lateral decubitus"),  # frontal films
        *("lateral frontal", "lumbar spine ap", "apical"),
    ],
)
def test_unclear_views_are_not_guessed(cell):
    assert read_view(cell) is None
