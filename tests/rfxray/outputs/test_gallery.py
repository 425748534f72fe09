import re
from html.parser import HTMLParser

import numpy as np
import pytest

from rfxray.outputs import gallery

ATTACK = """"'><script>alert(1)</script>"""


class Page(HTMLParser):
    """The start tags of a page with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def written(tmp_path):
    def write(*attributes, title="a title", file=None):
        image = np.zeros((4, 4), np.uint8)
        path = tmp_path / "gallery.html"
        gallery.write(path, [(image, each, file) for each in attributes], title)
        return path.read_text(encoding="utf-8")

    return write


def test_attributes_that_vary_have_a_filter(written):
    text = written(
        {"view": "PA", "sex": "F", "age": 23.456}, {"view": "PA", "sex": "M", "age": 29}, {"age": 7}
    )
    page = Page(text)
    assert [attrs["name"] for attrs in page.named("select")] == ["view", "sex", "age"]
    options = re.findall(r"<option[^>]*>([^<]*)</option>", text)
    assert options == [
        *("any", "PA", "not requested"),
        *("any", "F", "M", "not requested"),
        *("any", "0-9", "20-29"),
    ]
    figures = page.named("figure")
    assert [attrs["title"] for attrs in figures] == [
        "view PA, sex F, age 23.5",
        "view PA, sex M, age 29",
        "age 7",
    ]
    assert figures[0]["data-requested"] == '{"view": "PA", "sex": "F", "age": "20-29"}'


def test_shared_attributes_have_no_filter_and_no_caption(written):
    text = written({"view": "PA", "pleural_effusion": "present"}, {"view": "PA"})
    assert [attrs["name"] for attrs in Page(text).named("select")] == ["pleural_effusion"]
    assert re.findall("<figcaption>(.*?)</figcaption>", text) == ["pleural effusion present"]


def test_images_without_attributes_have_no_filters(written):
    page = Page(written({}, {}))
    assert page.named("select") == page.named("button") == []
    assert len(page.named("figure")) == 2


def test_values_are_escaped(written):
    text = written({ATTACK: ATTACK}, {"view": ATTACK}, title=ATTACK, file=ATTACK)
    page = Page(text)
    assert len(page.named("script")) == 1  # the script of the gallery
    assert [attrs["name"] for attrs in page.named("select")] == [ATTACK, "view"]
    assert text.count("<script>alert") == 0


def test_page_needs_no_other_file(written):
    text = written({"sex": "F"}, {"sex": "M"})
    assert "://" not in text
    assert all(attrs["src"].startswith("data:image/png") for attrs in Page(text).named("img"))
    assert not Page(text).named("link")
