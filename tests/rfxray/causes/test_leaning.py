import numpy as np
import pytest
from scipy import stats

from rfxray.causes import leaning
from rfxray.causes.leaning import DOES_NOT, LEANS, UNDECIDED, Pairs, Twins

N = 400
SIGN = np.where(np.arange(N) % 2, 1, -1)


def pairs(patients=None, **groups):
    patients = np.arange(N) if patients is None else patients
    return Pairs(SIGN, patients, {1: "F → M", -1: "M → F"}, groups)


def scores(lean=0.0, trace=0.0, placebo=0.0, spread=0.02, seed=0):
    """Twins of which the change moves a score by `lean` up or down, and every edit by `trace`."""
    rng = np.random.default_rng(seed)
    before = rng.uniform(0.3, 0.7, N)
    after, other = (
        before + SIGN * drift + trace + rng.normal(0, spread, N) for drift in (lean, placebo)
    )
    return Twins(before, after, other, before.copy())


def width(figure):
    return figure.high - figure.low


def judged(twins, **changes):
    (found,) = leaning.judge({"edema": twins}, changes.pop("of", pairs()), **changes)
    return found


def test_drift_is_the_paired_t_interval_of_each_direction():
    twins = scores(lean=0.1, spread=0.1)
    moved = twins.after - twins.before
    up, down = moved[SIGN > 0], moved[SIGN < 0]
    found = judged(twins)
    assert found.drift.value == pytest.approx((up.mean() - down.mean()) / 2)
    error = np.sqrt(up.var(ddof=1) / len(up) + down.var(ddof=1) / len(down)) / 2
    half = stats.t.ppf(0.975, N - 1) * error
    assert width(found.drift) == pytest.approx(2 * half, rel=0.01)
    assert found.by_direction["F → M"].value == pytest.approx(up.mean())
    expected = ((twins.before >= 0.5) != (twins.after >= 0.5)).mean()
    assert found.flips.value == pytest.approx(expected)


def test_traces_of_an_edit_fall_out_and_a_lean_stays():
    assert judged(scores(trace=0.3)).verdict == DOES_NOT
    assert judged(scores(lean=0.1, trace=0.3)).verdict == LEANS
    assert judged(scores(lean=-0.1, trace=0.3)).drift.value == pytest.approx(-0.1, abs=0.01)


def test_a_placebo_that_moves_the_score_as_much_leaves_it_undecided():
    found = judged(scores(lean=0.1, placebo=-0.12))
    assert (found.verdict, found.why) == (
        UNDECIDED,
        "an unrelated edit of equal size moves it as much",
    )
    assert (found.excess.high or 0) < 0
    twins = scores(lean=0.1)
    moved_by_nothing = Twins(twins.before, twins.after, twins.placebo, twins.after)
    assert judged(moved_by_nothing).verdict == UNDECIDED


def test_no_verdict_without_both_placebos_or_with_few_patients():
    twins = scores(lean=0.2)
    assert judged(Twins(twins.before, twins.after, None, twins.nothing)).why == (
        "a placebo is missing"
    )
    assert judged(Twins(twins.before, twins.after, twins.placebo, None)).verdict == UNDECIDED
    unequal = np.full(N, np.nan)
    assert judged(Twins(twins.before, twins.after, unequal, twins.nothing)).verdict == UNDECIDED
    assert judged(twins, of=pairs(np.arange(N) % 8)).why == "it needs 10 patients"


def test_twins_of_one_patient_count_as_one():
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(N // 8), 8)
    common = rng.normal(0, 0.2, N // 8)[patients]
    before = rng.uniform(0.3, 0.7, N)
    twins = Twins(before, before + SIGN * (0.1 + common), before.copy(), before.copy())
    own, joint = (judged(twins, of=pairs(each)) for each in (None, patients))
    assert joint.drift.value == own.drift.value
    assert width(joint.drift) > 2 * width(own.drift)
    assert (own.verdict, joint.verdict) == (LEANS, UNDECIDED)


def test_pairs_in_which_the_finding_follows_are_in_no_figure():
    twins, follows = scores(lean=0.0), np.arange(N) < 100
    twins.after[follows] += 0.5 * SIGN[follows]
    assert judged(twins).verdict != DOES_NOT
    found = judged(twins, followed={"edema": follows})
    assert (found.verdict, found.left_out, found.drift.n_real) == (DOES_NOT, 100, 300)


def test_subgroups_are_compared_with_all_others():
    old = np.arange(N) % 8 < 4
    twins = scores(lean=0.05, spread=0.01)
    twins.after[old] += 0.1 * SIGN[old]
    few = np.arange(N) < 10
    found = judged(twins, of=pairs(**{"age=old": old, "view=PA": few}))
    (group,) = found.groups  # a subgroup of few pairs has no figure
    assert group.name == "age=old"
    assert group.drift.value == pytest.approx(0.15, abs=0.01)
    assert group.gap.value == pytest.approx(0.1, abs=width(group.gap) / 2)
    inside = judged(twins.rows(old), of=pairs().rows(old)).drift
    assert group.drift.high == pytest.approx(inside.high, abs=1e-4)


def test_more_findings_need_wider_intervals_and_one_that_leans_decides():
    twins = scores(lean=0.064, spread=0.1)
    assert judged(twins).verdict == LEANS
    many = leaning.judge({f"{k}": twins for k in range(200)}, pairs())
    assert many[0].verdict == UNDECIDED
    assert many[0].drift == judged(twins).drift  # the table shows 95% of each
    clean = judged(scores())
    assert leaning.overall([clean, judged(twins)]) == LEANS
    assert leaning.overall([clean, many[0]]) == UNDECIDED
    assert leaning.overall([clean]) == DOES_NOT


def test_clean_classifiers_are_called_leaning_in_at_most_the_level():
    called = [
        judged(scores(lean=leaning.MARGIN, spread=0.2, seed=seed)).verdict == LEANS
        for seed in range(400)
    ]
    assert np.mean(called) <= leaning.LEVEL  # at the very margin, one side of two
