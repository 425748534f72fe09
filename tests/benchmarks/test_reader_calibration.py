"""The calibration of reader studies resumes, and gives the same figures each time."""

import sys

import pytest

from benchmarks import reader_calibration
from benchmarks.reader_calibration import Cell, before_rating, measure
from rfxray.readers.roe_metz import RoeMetz


def test_calibration_resumes_after_a_torn_line(tmp_path, monkeypatch, capsys):
    cells = [Cell("close", 3, 20, 0.1, 0.5), Cell("close", 3, 20, 0.1, 0.75, telling=1)]
    monkeypatch.setattr(reader_calibration, "cells", lambda: cells)
    monkeypatch.setattr(
        sys, "argv", ["reader_calibration", "--out", str(tmp_path), "--studies", "20"]
    )
    reader_calibration.main()
    first = capsys.readouterr().out
    assert len(first.splitlines()) == 4
    log = tmp_path / "cells.jsonl"
    whole = log.read_text()
    log.write_text(whole[:-30])
    reader_calibration.main()
    assert capsys.readouterr().out == first
    assert log.read_text() == whole


def test_rated_cells_have_the_auc_that_they_state():
    area = before_rating(RoeMetz(), 0.6)
    assert area > 0.6
    found = measure(Cell("close", 8, 400, 0.1, 0.6, ratings=True), 60)
    # The difference test sees .1 at an SE of .018 in nearly all studies, as planned.
    assert found["rates"]["covered"] > 0.8
    assert found["rates"]["difference"] == pytest.approx(found["planned"]["difference"], abs=0.06)


def test_cells_of_pairs_are_planned_and_measured_as_pairs():
    found = measure(Cell("close", 5, 100, 0.1, 0.6, pairs=True), 200)
    # 200 studies: two rates of .9 differ by .06 at two deviations
    assert found["rates"]["covered"] > 0.9
    assert found["rates"]["se"] == pytest.approx(found["planned"]["se"], rel=0.1)
    assert found["rates"]["difference"] == pytest.approx(found["planned"]["difference"], abs=0.1)
