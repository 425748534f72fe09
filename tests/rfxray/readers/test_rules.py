"""What comes in from people: each case has a rule, is counted, and never moves the verdict."""

import dataclasses
import json

import numpy as np
import pytest

from rfxray.readers.analysis import analyse
from rfxray.readers.equivalence import NOT_ESTIMABLE, TOLD_APART
from rfxray.readers.per_reader import exact_interval
from rfxray.readers.report import write

TRUTH = np.arange(60) % 2 == 0


@pytest.fixture
def ratings():
    """Ratings of five readers near chance, `[5, 60]`."""
    return np.random.default_rng(0).integers(1, 6, (5, 60)).astype(float)


def verdict(study, margin=0.1):
    (found,) = analyse(study, margin).verdicts
    return found


def without(found):
    """A verdict as numbers, for comparisons."""
    return json.loads(json.dumps(dataclasses.asdict(found)))


def test_reader_who_stopped_is_left_out_and_the_others_decide(table, ratings):
    others = verdict(table(ratings, TRUTH))
    stopped = np.vstack([ratings, np.where(np.arange(60) < 30, ratings[0], np.nan)])
    found = analyse(table(stopped, TRUTH), 0.1)
    assert found.excluded == {"r5": "stopped: answered 30 of 60 cases"}
    assert found.left_out == {"questions left open": 30}
    assert without(found.verdicts[0]) == without(others)
    (result,) = [row for row in found.readers if row.reader == "r5"]
    assert result.answered == 30
    assert result.auc is not None


def test_reader_outside_the_panel_can_still_refuse_equivalence(table):
    rng = np.random.default_rng(1)
    truth = np.arange(400) % 2 == 0
    ratings = rng.integers(1, 6, (5, 400)).astype(float)
    assert verdict(table(ratings, truth)).verdict == "equivalent within ±0.1"
    sure = np.where(truth, 5.0, 1.0)
    sure[200:] = np.nan
    found = verdict(table(np.vstack([ratings, sure]), truth))
    assert found.verdict == "not shown"
    assert "r5, who is not in the panel" in found.reasons[-1]


@pytest.mark.parametrize("answer", [1.0, 3.0, 5.0])
def test_reader_with_one_answer_is_not_estimable_and_left_out(table, ratings, answer):
    found = analyse(table(np.vstack([ratings, np.full(60, answer)]), TRUTH), 0.1)
    assert found.excluded == {"r5": "gave one answer to everything: not estimable"}
    assert without(found.verdicts[0]) == without(verdict(table(ratings, TRUTH)))
    (result,) = [row for row in found.readers if row.reader == "r5"]
    assert result.auc is None
    assert result.auc_interval is None


def test_blank_answer_leaves_the_case_out_for_the_panel(table, ratings):
    blank = ratings.copy()
    blank[2, 7] = np.nan
    found = analyse(table(blank, TRUTH), 0.1)
    assert found.counts["cases_analysed"] == 59
    assert found.left_out == {
        "questions left open": 1,
        "cases that a reader of the panel left open": 1,
    }
    keep = np.arange(60) != 7
    assert found.verdicts[0].main == verdict(table(ratings[:, keep], TRUTH[keep])).main
    assert [row.answered for row in found.readers] == [60, 60, 59, 60, 60]


def test_repeats_change_the_agreement_and_nothing_else(table, ratings):
    plain = analyse(table(ratings, TRUTH), 0.1)
    repeats = [(0, k, 6 - ratings[0, k]) for k in range(12)]
    found = analyse(table(ratings, TRUTH, repeats=repeats), 0.1)
    assert found.verdicts == plain.verdicts
    assert found.readers == plain.readers
    assert found.left_out == {"repeats, which are for agreement only": 12}
    (intra,) = found.intra
    assert intra.found.count == 12
    assert intra.found.same == np.mean(ratings[0, :12] == 3)
    assert intra.found.kappa[0] < 0


def test_films_of_a_patient_are_a_cluster(table, ratings):
    copies = np.repeat(ratings, 2, axis=1)
    truth, patient = np.repeat(TRUTH, 2), np.repeat(np.arange(60), 2)
    found = verdict(table(copies, truth, patient))
    assert found.main.se == pytest.approx(verdict(table(ratings, TRUTH)).main.se)
    assert found.main.se > verdict(table(copies, truth)).main.se
    reasons = {row.method: row.why for row in found.others}
    assert reasons["Gallas' one-shot estimate, readers and cases random"] == (
        "several films of a patient"
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_reader_at_one_or_zero_stays_with_a_score_interval(table, ratings, reverse):
    perfect = np.where(reverse != TRUTH, 5.0, 1.0)
    found = analyse(table(np.vstack([ratings, perfect]), TRUTH), 0.1)
    assert not found.excluded
    (result,) = [row for row in found.readers if row.reader == "r5"]
    assert result.auc == (0.0 if reverse else 1.0)
    low, high = result.auc_interval
    assert (low, high) != (result.auc, result.auc)
    assert result.d_prime is None
    assert found.verdicts[0].verdict == TOLD_APART
    assert any("r5" in reason for reason in found.verdicts[0].reasons)


def test_panel_that_is_always_right_has_a_verdict_without_a_mean(table):
    perfect = np.tile(np.where(TRUTH, 5.0, 1.0), (3, 1))
    perfect[:, 0] = 4  # not constant in any class
    found = verdict(table(perfect, TRUTH))
    assert found.verdict == TOLD_APART
    assert found.main.why
    assert found.tost_p is None


@pytest.mark.parametrize("keep", [0, 1])
def test_too_few_readers_give_no_verdict(table, ratings, keep):
    constant = np.full((3, 60), 3.0)
    found = verdict(table(np.vstack([ratings[:keep], constant]), TRUTH))
    assert found.verdict == NOT_ESTIMABLE
    assert found.main.mean is None


def test_two_readers_are_never_equivalent(table):
    rng = np.random.default_rng(2)
    truth = np.arange(400) % 2 == 0
    found = verdict(table(rng.integers(1, 6, (2, 400)), truth), margin=0.4)
    assert found.verdict == "not shown"
    assert "2 readers; 3 are needed for equivalence" in found.reasons


def test_one_case_of_a_kind_gives_no_verdict(table, ratings):
    truth = np.arange(60) == 0
    assert verdict(table(ratings, truth)).verdict == NOT_ESTIMABLE


def test_stratum_in_which_a_reader_gave_one_answer_has_no_mean(table, ratings):
    study = table(ratings, TRUTH)
    values = np.where(np.arange(60) < 20, "a", "b")
    study.scores[0, 1, :20] = 4
    study = dataclasses.replace(study, strata={"view": tuple(values)})
    first, second = analyse(study, 0.1).parts["m"]
    assert (first.value, first.mean) == ("a", None)
    assert first.why == "a reader gave one answer to all of these cases"
    assert second.mean is not None


def test_estimate_without_degrees_of_freedom_is_not_estimable(table):
    scores = [[3, 2, 1, 4, 3, 4], [4, 4, 4, 3, 1, 3]]  # one unbiased variance is negative
    found = verdict(table(scores, [1, 1, 1, 0, 1, 0]))
    (gallas,) = [row for row in found.others if row.method.startswith("Gallas")]
    assert gallas.interval is None
    assert gallas.why


def test_order_of_readers_and_cases_does_not_matter(table, ratings):
    rng = np.random.default_rng(3)
    cases = rng.permutation(60)
    first, second = (
        verdict(table(ratings, TRUTH)),
        verdict(table(ratings[::-1][:, cases], TRUTH[cases])),
    )
    assert second.main.mean == pytest.approx(first.main.mean)
    assert second.main.se == pytest.approx(first.main.se)
    assert second.distance == pytest.approx(first.distance)


def test_scale_of_scores_does_not_matter(table, ratings):
    found = verdict(table(np.exp(ratings), TRUTH, middle=None))
    assert found.main == verdict(table(ratings, TRUTH)).main


@pytest.mark.parametrize(("right", "count"), [(0, 20), (7, 20), (20, 20)])
def test_exact_interval_is_that_of_scipy(right, count):
    from scipy import stats

    expected = stats.binomtest(right, count).proportion_ci()
    assert exact_interval(right, count) == pytest.approx((expected.low, expected.high))


def test_results_of_a_broken_study_are_json_without_nan(table, tmp_path):
    ratings = np.full((3, 60), np.nan)
    ratings[0, :3] = [1, 3, 3]
    ratings[1] = 2
    study = table(ratings, TRUTH)
    page = write(tmp_path / "out", study, analyse(study, 0.05), {"a.csv": "0" * 64})
    numbers = json.loads((page.parent / "results.json").read_text())
    assert numbers["verdicts"][0]["verdict"] == NOT_ESTIMABLE
    assert "nan" not in page.read_text().lower().replace("finance", "")


def test_interval_of_a_mean_ends_where_an_auc_ends(table, ratings):
    """Two readers of .5 and almost 1 have a t interval beyond 1, which no AUC has."""
    nearly = np.where(TRUTH, 5.0, 1.0)
    nearly[:8] = 3
    found = verdict(table(np.vstack([ratings[:1], nearly]), TRUTH))
    low, high = found.main.interval
    assert high == 1
    assert low >= 0
    assert 0 < found.main.mean < 1
