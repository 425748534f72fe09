"""Whatever a small study holds, its results are numbers, and every page can be made."""

import dataclasses
import json

import numpy as np
import pytest

from rfxray.errors import DataError
from rfxray.readers import bootstrap, report
from rfxray.readers.analysis import analyse
from rfxray.readers.published import Row
from rfxray.readers.study import from_rows
from rfxray.readers.verdict import METHODS


def study(rng):
    """A study of a few readers and cases, with blanks, clusters and perfect readers by chance."""
    modalities, readers, cases = rng.integers(1, 3), rng.integers(1, 6), rng.integers(2, 24)
    truth = rng.random(cases) < rng.choice([0.1, 0.5, 0.9])
    patient = rng.integers(0, cases, cases) if rng.random() < 0.5 else np.arange(cases)
    scores = rng.integers(1, rng.integers(2, 7), (modalities, readers, cases)).astype(float)
    if rng.random() < 0.2:
        scores[:, : rng.integers(1, readers + 1)] = np.where(truth, 5, 1)
    scores[rng.random(scores.shape) < rng.choice([0, 0.02, 0.3])] = np.nan
    timed = rng.random() < 0.5
    rows = [
        Row(
            reader=f"r{j}",
            case=f"c{k:02}",
            modality=f"m{i}",
            score=None if np.isnan(score) else float(score),
            truth=bool(truth[k]),
            patient=str(patient[k]),
            item=k if timed else None,
            seconds=1.0 if timed else None,
            repeat=0,
            strata={"third": str(k % 3)},
            line=1,
        )
        for (i, j, k), score in np.ndenumerate(scores)
    ]
    return from_rows("some.csv", rows, 3.0 if rng.random() < 0.7 else None)


@pytest.mark.filterwarnings("error")
def test_any_study_has_finite_results_and_a_page(monkeypatch):
    monkeypatch.setattr(bootstrap, "REPLICATES", 100)
    analysed = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        try:
            single = study(rng)
        except DataError:  # all cases of one kind
            continue
        found_pairs = np.where(np.isnan(single.scores), np.nan, single.scores > 2)
        pairs = dataclasses.replace(single, pairs=True, scores=found_pairs, middle=None)
        for one in (single, pairs):
            found = analyse(one, 0.1, str(rng.choice(METHODS)))
            json.dumps(dataclasses.asdict(found), allow_nan=False)
            assert report.table(found)
            assert report.html(one, found, {})
            analysed += 1
    assert analysed >= 8
