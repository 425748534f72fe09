"""Rates, gaps and gains of classifiers of which the answers are known."""

import numpy as np
import pytest

from rfxray.attributes.vocabulary import FINDING_NAMES, INDEX, Attributes
from rfxray.errors import DataError
from rfxray.evaluate.utility import figures
from rfxray.evaluate.utility.figures import (
    AGAIN,
    ALARMED,
    AUROC,
    BOTH,
    MEAN,
    MISSED,
    MORE,
    REAL,
    SYNTHETIC,
    THEN,
    UNDERDIAGNOSED,
    Films,
)
from tests.peers import import_peer

N, SEEDS = 1200, 3


@pytest.fixture(scope="module")
def films():
    """Edema, cardiomegaly and No Finding are known of most films; fracture of none."""
    rng = np.random.default_rng(0)
    values = np.zeros((N, 19), np.float32)
    known = np.zeros((N, 19), bool)
    for name in ("edema", "cardiomegaly"):
        values[:, INDEX[name]] = rng.random(N) < 0.3
        known[:, INDEX[name]] = rng.random(N) < 0.9
    sick = values[:, [INDEX["edema"], INDEX["cardiomegaly"]]].any(1)
    values[:, INDEX["no_finding"]], known[:, INDEX["no_finding"]] = ~sick, True
    values[:, INDEX["sex"]], known[:, INDEX["sex"]] = rng.random(N) < 0.5, rng.random(N) < 0.95
    values[:, INDEX["age"]], known[:, INDEX["age"]] = rng.uniform(0, 99, N), True
    values[:, INDEX["source"]], known[:, INDEX["source"]] = 4, True
    return Films(Attributes(np.where(known, values, 0), known), rng.integers(0, 900, N))


def scores(films, clear, seed=0, worse=None):
    """Answers that are `clear` standard deviations apart, and guesses about the films `worse`."""
    rng = np.random.default_rng(seed)
    truth = np.stack([films.truth(name)[0] for name in FINDING_NAMES], -1)
    ease = np.full((N, 1), clear)
    if worse is not None:
        ease[worse] = 0
    return rng.normal(truth * ease, 1, (SEEDS, N, 14)).astype(np.float32)


def pick(rows, training, measure, finding=MEAN, group="", of="value", fraction=0.1):
    (found,) = [
        row.figure
        for row in rows
        if (row.training, row.fraction, row.measure) == (training, fraction, measure)
        and (row.finding, row.group, row.of) == (finding, group, of)
    ]
    return found


@pytest.fixture(scope="module")
def women(films):
    values, known = films.attributes
    return np.asarray(known[:, INDEX["sex"]] & (values[:, INDEX["sex"]] == 0))


@pytest.fixture(scope="module")
def read(films, women):
    """The reals only fail women; samples mend that, and further reals mend it twice as well."""
    return {
        (SYNTHETIC, 0.0): scores(films, 1.0, 1),
        (REAL, 0.1): scores(films, 1.0, 2, worse=women),
        (AGAIN, 0.1): scores(films, 1.0, 6, worse=women),
        (BOTH, 0.1): scores(films, 1.0, 3),
        (THEN, 0.1): scores(films, 1.0, 4),
        (MORE, 0.1): scores(films, 2.0, 5),
    }


@pytest.fixture(scope="module")
def rows(read, films):
    return figures.rows(read, films)


def test_only_findings_with_enough_patients_are_judged(films, rows):
    names, left_out = figures.judged(films)
    assert names == ["cardiomegaly", "edema", "no_finding"]
    assert left_out["fracture"] == "it needs 10 patients with and 10 without (got 0, 0)"
    assert {row.finding for row in rows} == {*names, MEAN}


def test_auroc_and_rates_are_those_of_sklearn(films, rows, read):
    metrics = import_peer("sklearn.metrics")
    present, known = films.truth("edema")
    column = FINDING_NAMES.index("edema")
    areas, missed = [], []
    for own in read[REAL, 0.1][..., column]:
        areas.append(metrics.roc_auc_score(present[known], own[known]))
        limit = np.sort(own[known])[-present.sum()]
        matrix = metrics.confusion_matrix(present[known], own[known] >= limit)
        assert matrix[0, 1] == matrix[1, 0]  # as many calls as there are positive films
        missed.append(matrix[1, 0] / matrix[1].sum())
    assert pick(rows, REAL, AUROC, "edema").value == pytest.approx(np.mean(areas))
    both = [pick(rows, REAL, MISSED).value, np.mean(missed)]
    assert 0.5 < both[0] / both[1] < 2  # the mean has cardiomegaly too
    assert pick(rows, REAL, ALARMED).value < both[0]


def test_gaps_show_who_is_failed_and_that_samples_mend_it(rows):
    for measure, sign in ((AUROC, -1), (MISSED, 1)):
        before = pick(rows, AGAIN, measure, group="sex=F", of="gap")
        after = pick(rows, THEN, measure, group="sex=F", of="gap")
        change = pick(rows, THEN, measure, group="sex=F", of="gap change")
        assert sign * before.value > 0.1
        assert before.low > 0 or before.high < 0
        assert abs(after.value) < abs(before.value) / 2
        assert change.value == pytest.approx(after.value - before.value)
    other = pick(rows, REAL, AUROC, group="sex=M", of="gap")
    women = pick(rows, REAL, AUROC, group="sex=F", of="gap")
    assert other.value == pytest.approx(-women.value)


def test_underdiagnosed_are_the_sick_called_no_finding(films, read, rows):
    present, known = films.truth("no_finding")
    own = read[REAL, 0.1][..., FINDING_NAMES.index("no_finding")]
    limit = -np.sort(-own[:, known], axis=1)[:, present.sum() - 1]
    called = own >= limit[:, None]
    expected = called[:, known & ~present].mean()
    assert pick(rows, REAL, UNDERDIAGNOSED).value == pytest.approx(expected)


def test_gain_and_its_share(rows):
    gain = pick(rows, THEN, AUROC, of="gain")
    more = pick(rows, MORE, AUROC, of="gain")
    share = pick(rows, THEN, AUROC, of="share of the gain")
    assert share.value == pytest.approx(gain.value / more.value)
    real = pick(rows, AGAIN, AUROC)  # as many steps as both
    assert gain.value == pytest.approx(pick(rows, THEN, AUROC).value - real.value)
    assert pick(rows, BOTH, AUROC, of="gain").value == pytest.approx(
        pick(rows, BOTH, AUROC).value - pick(rows, REAL, AUROC).value
    )
    assert share.low < share.value < share.high
    assert share.low > 0
    assert share.high < 1
    assert not [
        row for row in rows if row.training in (REAL, AGAIN, SYNTHETIC) and row.of == "gain"
    ]


def test_no_share_of_a_gain_that_is_not_there(films):
    same = {(name, 0.1): scores(films, 1.0, 7) for name in (AGAIN, THEN, MORE)}
    found = pick(figures.rows(same, films), THEN, AUROC, of="share of the gain")
    assert found.value is None
    assert "gain nothing" in str(found.reason)


def test_groups_are_large_enough_and_ages_are_bands_of_twenty_years(films):
    parts = figures.groups(films.attributes)
    assert set(parts) == {"sex=F", "sex=M", *(f"age={a} to {a + 19}" for a in range(0, 100, 20))}
    ages = np.asarray(films.attributes.values)[:, INDEX["age"]]
    np.testing.assert_array_equal(parts["age=40 to 59"][0], (ages >= 40) & (ages < 60))


def test_a_test_set_that_judges_nothing_is_refused(films):
    few = np.arange(12)
    small = Films(films.attributes.rows(few), films.patients[few])
    with pytest.raises(DataError, match=r"can judge no finding .* give more test images"):
        figures.judged(small)
