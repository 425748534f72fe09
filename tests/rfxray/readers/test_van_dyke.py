"""The Van Dyke study (1993) gives the results that the user guide of MRMCaov publishes."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import rfxray
from rfxray.commands import readers_analyse
from rfxray.readers import obuchowski_rockette as pooling
from rfxray.readers import panel, reading
from rfxray.readers.equivalence import TOLD_APART

SHARED = Path(os.environ.get("RFXRAY_SHARED", Path(rfxray.__file__).parents[2] / "shared"))
PATH = SHARED / "reader_data" / "VanDyke.csv"
COLUMNS = ["reader=reader", "case=case", "modality=treatment", "score=rating", "truth=truth"]

pytestmark = pytest.mark.skipif(
    not PATH.is_file(), reason="needs ratings of a published reader study"
)


@pytest.fixture(scope="module")
def van_dyke():
    return panel.panel(reading.read([PATH], None, COLUMNS, None))


def test_delong_covariances_give_the_published_comparison(van_dyke):
    merit = van_dyke.merit()
    assert merit.mean(1) == pytest.approx([0.8970370, 0.9408374], abs=5e-8)
    found = pooling.compare(merit, van_dyke.covariance("delong"))
    assert found.mean_squares[0] == pytest.approx(0.004796171, abs=5e-10)
    assert found.mean_squares[2] == pytest.approx(0.0005510306, abs=5e-11)
    assert found.covariances[2] == pytest.approx(0.0003395265, abs=5e-11)
    assert found.covariances[3] == pytest.approx(0.0002358497, abs=5e-11)
    assert found.f == pytest.approx(4.484854, abs=5e-7)
    assert found.df[1] == pytest.approx(15.06611, abs=5e-6)
    assert found.p == pytest.approx(0.05123303, abs=5e-9)
    assert found.difference_se == pytest.approx(0.0206825, abs=5e-8)


def test_unbiased_covariances_give_the_published_comparison(van_dyke):
    found = pooling.compare(van_dyke.merit(), van_dyke.covariance("unbiased"))
    assert found.covariances[2] == pytest.approx(0.000339065, abs=5e-10)
    assert found.covariances[3] == pytest.approx(0.0002356148, abs=5e-11)
    assert found.f == pytest.approx(4.489614, abs=5e-7)
    assert found.df[1] == pytest.approx(15.03418, abs=5e-6)
    assert found.p == pytest.approx(0.0511618, abs=5e-8)


def test_each_modality_has_the_published_standard_error(van_dyke):
    covariance = van_dyke.covariance("delong")
    for i, (se, df) in enumerate([(0.03307642, 12.59597), (0.02150464, 12.56530)]):
        found = pooling.reader_mean(van_dyke.merit()[i], covariance[i, :, i])
        assert found.se == pytest.approx(se, abs=5e-9)
        assert found.df == pytest.approx(df, abs=5e-6)


def test_jackknife_is_close_to_delong(van_dyke):
    found = van_dyke.covariance("jackknife")
    np.testing.assert_allclose(found, van_dyke.covariance("delong"), rtol=0.1, atol=2e-5)


def test_command_reads_the_published_table_as_it_is(tmp_path, capsys):
    flags = [word for column in COLUMNS for word in ("--map", column)]
    readers_analyse.main([str(PATH), *flags, "--out", str(tmp_path / "out")])
    assert f"1: {TOLD_APART}; mean 0.897 (0.825 to 0.969)" in capsys.readouterr().out
    numbers = json.loads((tmp_path / "out" / "results.json").read_text())
    (difference,) = numbers["comparisons"][0]["differences"]
    assert difference["difference"] == pytest.approx(-0.04380032, abs=5e-9)
    assert difference["interval"] == pytest.approx([-0.0878672, 0.0002666], abs=5e-8)
    # iMRMC's form of the same study, read back, is the same study.
    again = reading.read([tmp_path / "out" / "study.imrmc"], None, None, None)
    np.testing.assert_array_equal(
        np.sort(again.scores, -1), np.sort(reading.read([PATH], None, COLUMNS, None).scores, -1)
    )
