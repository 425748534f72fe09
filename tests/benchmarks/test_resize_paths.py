"""The cost of a resize path: that of the product is among the paths, and grows as sides shrink."""

import numpy as np
import pytest

from benchmarks import resize_paths
from rfxray.evaluate.features import extract
from rfxray.evaluate.model_size import through
from rfxray.evaluate.pictures import open_pictures
from tests.rfxray.evaluate.projection import projection


def test_first_path_is_that_of_the_resolution_floor(tiny_data, tmp_path):
    pictures, extractor = open_pictures(tiny_data), projection(8)
    down, quantise = next(iter(resize_paths.PATHS.values()))
    images = (down(pictures.read(number), 24) for number in range(len(pictures)))
    found = resize_paths.features(extractor, images, quantise)
    floor = extract(through(pictures, 24), extractor, tmp_path)
    np.testing.assert_allclose(found, floor, atol=1e-6)


def test_table_has_every_path_and_smaller_sides_cost_more(tiny_data, monkeypatch, capsys):
    monkeypatch.setattr(resize_paths, "open_extractor", lambda _: projection(8))
    monkeypatch.setattr(resize_paths, "SIDES", (32, 24, 8, 4))
    resize_paths.main(["--data", str(tiny_data), "--extractor", "projection"])
    out = capsys.readouterr().out
    assert "tiny:train+validation: 35 × 35 films; KID" in out
    rows = [line.split(" | ") for line in out.splitlines() if line.startswith("| ")][1:]
    assert [row[0].strip("| ") for row in rows] == list(resize_paths.PATHS)
    for row in rows:
        whole, *_, least = (float(cell.strip(" |")) for cell in row[1:])
        assert least > whole + 0.01
        assert whole == pytest.approx(0, abs=0.05)
