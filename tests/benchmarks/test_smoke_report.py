"""The report of the smoke run: shortfalls, loss curves and page, from fixed figures."""

import json

import numpy as np
import pytest

from benchmarks import smoke_report


@pytest.fixture
def figures():
    """Figures of a run that meets every requirement."""
    good = {"chance": 0.5, "ceiling": 0.9, "samples": 0.9, "reached": 1.0}
    names = ("view", "race", *smoke_report.REQUIRED)
    table = {name: dict(good) for name in names}
    table["race"]["reached"] = None
    ratio = {"share": 1.0, "phantoms": 0.1, "samples": 0.1, "n": 256}
    normal = {"share": 0.95, "n": 256}
    return {"attributes": table, "cardiothoracic_ratio": ratio, "normal": normal}


def test_good_run_has_no_shortfalls(figures):
    assert smoke_report.shortfalls(figures) == []
    assert "view 1.000 of the ceiling" in smoke_report.summary(figures)


def test_race_is_in_no_denominator(figures):
    others = len(figures["attributes"]) - 1
    assert f"{others} of {others} attributes at 0.8 or more" in smoke_report.summary(figures)


def test_every_shortfall_is_named(figures):
    figures["attributes"]["view"]["samples"] = 0.8
    figures["attributes"]["sex"]["reached"] = 0.5
    figures["attributes"]["consolidation"]["reached"] = None  # its ceiling is near chance
    figures["cardiothoracic_ratio"]["share"] = 0.5
    figures["normal"]["share"] = 0.94
    view, ratio, normal, consolidation, sex = smoke_report.shortfalls(figures)
    assert view.startswith("view 0.89 of the ceiling")
    assert ratio == "cardiothoracic ratio moves by 0.50 of the truth"
    assert normal == "no_finding=present is normal in 0.94"
    assert consolidation == "consolidation is not read from phantoms either"
    assert sex == "sex reaches 0.50, not 0.8"


@pytest.fixture
def loss(tmp_path):
    """Loss curves of a short run; the first value is that of the untrained network."""
    lines = [{"step": 1, "loss": 9.0}, {"step": 50, "loss": 0.5}, {"step": 100, "loss": 0.25}]
    lines[-1]["validation_loss/ema"] = 0.3
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return smoke_report.loss_curves(tmp_path)


def test_loss_of_the_untrained_network_does_not_set_the_scale(loss):
    assert (loss["top"], loss["bottom"], loss["steps"]) == (0.5, 0.25, 100)
    training, validation = loss["lines"]
    assert training["points"] == "360.0,20.0 680.0,220.0"
    assert validation["points"] == "680.0,180.0"


def test_constant_loss_is_drawn(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}')
    training, _ = smoke_report.loss_curves(tmp_path)["lines"]
    assert training["points"] == "680.0,20.0"


def test_page_shows_every_figure_and_escapes_text(figures, loss):
    image = np.zeros((4, 4), np.uint8)
    pictures = dict.fromkeys(("phantoms", "samples", "control"), image)
    html = smoke_report.render(figures, "a <script> checkpoint", loss, **pictures)
    assert "Everything that is required was reached." in html
    assert "a &lt;script&gt; checkpoint" in html
    assert "<script" not in html
    assert html.count("data:image/png;base64,") == 3
    for name in figures["attributes"]:
        assert f"<td>{name}</td>" in html
    assert "phantoms +0.100, samples +0.100,\n1.00 of the truth" in html
    assert "0.95 of 256 samples normal" in html
    figures["attributes"]["sex"]["reached"] = 0.5
    assert "Fell short: sex reaches 0.50, not 0.8" in smoke_report.render(
        figures, "", loss, **pictures
    )
