import base64
import hashlib
import io
import re

import jinja2
import numpy as np
import pytest
from PIL import Image

from rfxray.outputs import page

ATTACK = """"'><script>alert(1)</script>&"""


@pytest.fixture
def template(tmp_path):
    def write(content):
        path = tmp_path / "some.html"
        path.write_text('{% extends "page.html" %}{% block content %}' + content + "{% endblock %}")
        return path

    return write


def test_every_value_is_escaped(template):
    path = template('<p title="{{ text }}">{{ text }}</p>{{ table.text }}')
    html = page.render(path, title=ATTACK, text=ATTACK, table={"text": ATTACK})
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 5  # the title occurs twice
    assert 'title="&#34;&#39;&gt;' in html


def test_content_policy_allows_only_the_given_script(template):
    policy = re.compile(r'Content-Security-Policy" content="([^"]*)"')
    (without,) = policy.findall(page.render(template(""), title="a page"))
    assert without == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    script = "if (1 < 2 && 'a') {}"
    html = page.render(template(""), title="a page", script=script)
    (policy_with,) = policy.findall(html)
    assert f"<script>{script}</script>" in html
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy_with == f"{without}; script-src 'sha256-{digest}'"


def test_missing_variable_raises(template):
    with pytest.raises(jinja2.UndefinedError, match="missing"):
        page.render(template("{{ missing }}"), title="a page")


def test_same_values_render_the_same_page(template):
    path = template("{{ count | thousands }}")
    assert page.render(path, title="a", count=12345) == page.render(path, title="a", count=12345)
    assert "12,345" in page.render(path, title="a", count=12345)


@pytest.mark.parametrize(
    ("shape", "most", "expected"),
    [((30, 20), None, (30, 20)), ((30, 20), 64, (30, 20)), ((128, 64), 32, (32, 16))],
)
def test_data_uri_holds_the_image_and_shrinks_a_large_one(shape, most, expected):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    kind, content = page.data_uri(image, most).split(",")
    assert kind == "data:image/png;base64"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert shown.shape == expected
    if shape == expected:
        np.testing.assert_array_equal(shown, image)
