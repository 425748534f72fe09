"""The report of the path through latents, from fixed figures."""

import numpy as np
import pytest

from benchmarks import latent_report


@pytest.fixture
def figures():
    """Figures that meet every requirement."""
    good = {"chance": 0.5, "ceiling": 0.92, "samples": 0.9, "reached": 0.95}
    good |= {"drawn": 0.9, "reconstructed": 0.89}
    names = ("view", "sex", "race", *(f"finding_{k}" for k in range(8)))
    table = {name: dict(good) for name in names}
    table["race"] |= {"reached": None, "reconstructed": 0.1}
    return {"attributes": table, "psnr": 30.0}


def test_good_path_has_no_shortfalls(figures):
    assert latent_report.shortfalls(figures) == []


def test_every_shortfall_is_named(figures):
    rows = figures["attributes"]
    rows["finding_3"]["reconstructed"] = 0.87
    rows["sex"]["reached"] = 0.89
    for k in range(3):
        rows[f"finding_{k}"]["reached"] = 0.79
    finding, sex, more = latent_report.shortfalls(figures)
    assert finding == "finding_3 of reconstructions is 0.967 of the ceiling, not 0.97"
    assert sex == "sex of samples reaches 0.89, not 0.9"
    assert more == "5 more attributes reach 0.8, not 6"


def test_error_of_an_age_is_better_if_it_is_lower(figures):
    age = {"chance": 19.0, "ceiling": 4.1, "samples": 5.0, "reached": 0.9}
    figures["attributes"]["age"] = age | {"drawn": 4.0, "reconstructed": 3.0}
    assert latent_report.shortfalls(figures) == []
    figures["attributes"]["age"]["reconstructed"] = 4.3
    assert latent_report.shortfalls(figures) == [
        "age of reconstructions is 0.930 of the ceiling, not 0.97"
    ]


def test_pixels_stand_beside(figures):
    lines = latent_report.table(figures, figures).splitlines()
    assert "| race | 0.500 | 0.920 | 0.111 | – | – |" in lines
    assert "| sex | 0.500 | 0.920 | 0.989 | 0.95 | 0.95 |" in lines
    assert "| sex | 0.500 | 0.920 | 0.989 | 0.95 | – |" in latent_report.table(figures, None)


def test_psnr_of_a_known_error():
    true = np.zeros((2, 8, 8))
    assert latent_report.psnr(true + 0.02, true) == pytest.approx(40)
