"""Studies that are designed: what they show, what they hide, what they refuse."""

import functools
import json
import re

import numpy as np
import pytest

pytest.importorskip("cv2", reason="the extra prep")

from rfxray.commands import readers as command
from rfxray.errors import ConfigError, DataError
from rfxray.readers import answers, design, leaks
from rfxray.readers.candidates import Candidate
from rfxray.readers.reader_page import STRINGS

SIDE = 64


def film(seed: int, side: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    body = 30000 * np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) * 4)
    return (body + rng.normal(0, 2500, (side, side)) + 12000).clip(0, 65535).astype(np.uint16)


def candidates(kind: str, count: int, plant=None) -> list[Candidate]:
    start = 10_000 * kind.startswith("synthetic") + 1000 * kind.count("+")

    def pixels(seed, side):
        image = film(seed, side)
        return image if plant is None else plant(image)

    return [
        Candidate(
            f"{kind}-{n}", "", {"view": ("AP", "PA")[n % 2]}, functools.partial(pixels, start + n)
        )
        for n in range(count)
    ]


def wanted(**changes) -> design.Design:
    values = {"study": "s-1", "modality": "single", "cases": 20, "training": 4, "readers": 2}
    values |= {"repeats": 0.2, "match": ("view",), "size": SIDE}
    return design.Design(**(values | changes))


def made(real=None, synthetic=None, **changes) -> design.Made:
    rng = np.random.default_rng(3)
    real = candidates("real", 40) if real is None else real
    synthetic = candidates("synthetic", 40) if synthetic is None else synthetic
    return design.make(wanted(**changes), real, synthetic, rng, STRINGS)


def shown(html: str) -> dict:
    import html as markup

    return json.loads(markup.unescape(re.search(r'data-study="(.*?)"', html)[1]))


def test_cases_are_balanced_matched_and_repeated_after_a_washout():
    study = made()
    key = json.loads(study.key)
    truths = [(case["truth"], case["view"]) for case in key["cases"].values()]
    assert sum(truth for truth, _ in truths) == 10
    for view in ("AP", "PA"):
        assert truths.count((0, view)) == truths.count((1, view))
    orders = []
    for html in study.pages.values():
        items = [i for i in shown(html)["items"] if i["phase"] == "reading"]
        first = [i["case"] for i in items if not i["repeat"]]
        again = [i["case"] for i in items if i["repeat"]]
        assert sorted(first) == sorted(key["cases"])
        assert len(again) == 4
        assert all(len(first) + again.index(c) - first.index(c) >= 10 for c in again)
        orders.append(first)
    assert orders[0] != orders[1]


def test_pairs_show_the_synthetic_image_as_often_on_either_side():
    study = made(modality="pairs")
    key = json.loads(study.key)
    for reader, html in study.pages.items():
        for item in shown(html)["items"]:
            if item["phase"] == "reading":
                place = key["sides"][reader][str(item["item"])]
                found = [key["images"][name].split("-")[0] for name in item["images"]]
                assert found[("left", "right").index(place)] == "synthetic"
                assert found.count("real") == 1
        first = [key["sides"][reader][str(n)] for n in range(5, 25)]
        assert first.count("left") == 10
    with pytest.raises(DataError, match="left in 8 of 20"):
        leaks.refuse_imbalance(8, 20)


@pytest.mark.parametrize("modality", ["single", "pairs"])
def test_page_holds_no_truth_and_asks_for_nothing(modality):
    study = made(modality=modality)
    key = json.loads(study.key)
    for html in study.pages.values():
        content = shown(html)
        assert key["nonce"] not in html
        assert not any(name in html for name in key["images"].values())
        for item in content["items"]:
            expected = {"item", "case", "repeat", "phase", "images"}
            assert set(item) - expected == ({"feedback"} if item["phase"] == "training" else set())
        assert list(content["images"]) == sorted(content["images"])
        assert len({len(uri) for uri in content["images"].values()}) == 1
        assert not re.search(r"https?://|truth|nonce", html)


@pytest.mark.parametrize("wrong", [{"cases": 3}, {"cases": 21}, {"repeats": 0.6}, {"study": " "}])
def test_wrong_designs_are_refused(wrong):
    with pytest.raises(ConfigError):
        wanted(**wrong)


def test_command_refuses_a_key_beside_the_pages(tmp_path, refusal):
    code, line = refusal(
        command.main,
        [
            *("design", "--study", "s", "--real", tmp_path, "--synthetic", tmp_path),
            *("--cases", "8", "--readers", "1"),
            *("--key", tmp_path / "out" / "key.json", "--out", tmp_path / "out"),
        ],
    )
    assert code == 78
    assert "inside --out" in line


def test_answers_of_the_columns_are_those_of_the_format():
    (html, *_) = made().pages.values()
    assert tuple(shown(html)["columns"]) == answers.COLUMNS
