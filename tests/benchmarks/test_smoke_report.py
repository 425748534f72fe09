"""The marks of the smoke run, on figures that are written down."""

import pytest

from benchmarks import smoke_report


@pytest.fixture
def figures():
    """Of a run that reaches all that it has to."""
    good = {"chance": 0.5, "ceiling": 0.9, "samples": 0.9, "reached": 1.0}
    names = ("view", "race", *smoke_report.REQUIRED)
    table = {name: dict(good) for name in names}
    table["race"]["reached"] = None
    return {"attributes": table, "cardiothoracic_ratio": {"share": 1.0}}


def test_a_good_run_has_no_shortfalls(figures):
    assert smoke_report.shortfalls(figures) == []
    assert "view 1.000 of the ceiling" in smoke_report.summary(figures)


def test_every_shortfall_is_named(figures):
    figures["attributes"]["view"]["samples"] = 0.8
    figures["attributes"]["sex"]["reached"] = 0.5
    figures["attributes"]["consolidation"]["reached"] = None  # its ceiling is near chance
    figures["cardiothoracic_ratio"]["share"] = 0.5
    view, ratio, consolidation, sex = smoke_report.shortfalls(figures)
    assert view.startswith("view 0.89 of the ceiling")
    assert ratio == "cardiothoracic ratio moves by 0.50 of the truth"
    assert consolidation == "consolidation is not read from phantoms either"
    assert sex == "sex reaches 0.50, not 0.8"
