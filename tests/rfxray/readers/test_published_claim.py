"""What the published table of three readers (arXiv 2606.19460) can and cannot conclude.

Only the accuracies are published: .49/.54, .54/.54 and .48/.60 in two presentations. Here every
read has 100 images, half of them synthetic, and the readers err independently, which is close to
their κ of -.08 to .15.
"""

import csv

import numpy as np
import pytest

from rfxray.readers import reading
from rfxray.readers.analysis import analyse

ACCURACY = {"first": (0.49, 0.54, 0.48), "second": (0.54, 0.54, 0.60)}
COLUMNS = ["reader=reader", "case=case", "score=score", "truth=truth", "modality=read"]


@pytest.fixture(scope="module")
def claimed(tmp_path_factory):
    """The study with these accuracies, as `rfxray readers analyse --map …` reads it."""
    path = tmp_path_factory.mktemp("claim") / "claim.csv"
    truth = np.arange(100) % 2
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["reader", "case", "score", "truth", "read"])
        for read, shares in ACCURACY.items():
            for j, share in enumerate(shares):
                rng = np.random.default_rng([j, len(read)])
                right = rng.permutation(np.arange(100) < round(100 * share))
                called = np.where(right, truth, 1 - truth)
                out.writerows([j, k, called[k], truth[k], read] for k in range(100))
    return reading.read([path], None, COLUMNS, 0.5)


@pytest.mark.parametrize("margin", [0.05, 0.1])
def test_published_reads_show_no_equivalence_within_five_points(claimed, margin):
    first, second = analyse(claimed, margin).verdicts
    assert first.main.mean == pytest.approx(np.mean(ACCURACY["first"]), abs=0.005)
    assert second.main.mean == pytest.approx(np.mean(ACCURACY["second"]), abs=0.005)
    assert first.verdict == ("not shown" if margin == 0.05 else "equivalent within ±0.1")
    assert second.verdict == "not shown"
    assert second.difference_p == pytest.approx(0.06, abs=0.01)


def test_accuracies_of_the_readers_are_those_published(claimed):
    found = analyse(claimed, 0.05).readers
    got = [round(row.accuracy, 2) for row in found]
    assert got == [*ACCURACY["first"], *ACCURACY["second"]]
    for row in found:
        low, high = row.accuracy_interval
        assert low < 0.5 < high or row.accuracy == 0.6
        assert high - low > 0.19  # ±.10
