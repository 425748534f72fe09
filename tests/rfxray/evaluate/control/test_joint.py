"""What goes with what: analytic shares, weights, patients, and how often an interval is right."""

import numpy as np
import pytest

from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import INDEX, Attributes
from rfxray.errors import DataError
from rfxray.evaluate.control import joint


def population(seed, n, together=0.3):
    """Effusion is read in 0.2 of images without cardiomegaly, and in 0.2 + together of others."""
    rng = np.random.default_rng(seed)
    heart = rng.random(n) < 0.4
    return {
        "view": rng.choice(3, n, p=[0.5, 0.3, 0.2]).astype(float),
        "cardiomegaly": heart.astype(float),
        "pleural_effusion": (rng.random(n) < 0.2 + together * heart).astype(float),
        "age": rng.uniform(0, 95, n),
    }


def compared(first, second, weights=None, patients=None, **more):
    n = [len(side["age"]) for side in (first, second)]
    groups = patients or [np.arange(count) for count in n]
    weights = np.ones(n[1]) if weights is None else weights
    rows = joint.compare((first, groups[0]), (second, groups[1]), weights, **more)
    return {(row.value, row.given): row for row in rows}


def test_share_of_one_value_where_another_is():
    found = compared(population(0, 4000), population(1, 4000))
    row = found["pleural_effusion=present", "cardiomegaly=present"]
    first, second = population(0, 4000), population(1, 4000)
    for side, share in ((first, row.samples), (second, row.reals)):
        rows = side["cardiomegaly"] == 1
        assert share == pytest.approx(side["pleural_effusion"][rows].mean())
    assert row.figure.n_synthetic == (first["cardiomegaly"] == 1).sum()
    assert not any(value.split("=")[0] == given.split("=")[0] for value, given in found)


def test_same_population_is_within_its_intervals_and_never_beyond_all_of_them():
    inside = total = 0
    for seed in range(6):
        rows = compared(population(2 * seed, 1500), population(2 * seed + 1, 1500)).values()
        there = [row.figure for row in rows if row.figure.low is not None]
        inside += sum(figure.low <= 0 <= figure.high for figure in there)
        total += len(there)
        assert not any(row.beyond for row in rows)
    assert 0.93 < inside / total < 0.98


def test_planted_difference_is_found_and_the_pair_that_has_it_is_named():
    found = compared(population(0, 6000, 0.0), population(1, 6000, 0.3))
    row = found["pleural_effusion=present", "cardiomegaly=present"]
    assert row.beyond
    assert row.figure.value == pytest.approx(-0.3, abs=0.04)
    assert not found["view=AP", "cardiomegaly=present"].beyond


def test_images_of_a_patient_count_as_one():
    first, second = population(0, 500), population(1, 500)
    once = compared(first, second)
    doubled = {name: np.tile(column, 2) for name, column in second.items()}
    twice = compared(first, doubled, patients=[np.arange(500), np.tile(np.arange(500), 2)])
    for key, row in once.items():
        if row.figure.low is not None:
            assert twice[key].figure.low == pytest.approx(row.figure.low, abs=1e-9)


def requested(seed, n, shares):
    rng = np.random.default_rng(seed)
    values, known = np.zeros((n, 19), np.float32), np.zeros((n, 19), bool)
    values[:, INDEX["view"]], known[:, INDEX["view"]] = rng.choice(3, n, p=shares), True
    return Attributes(values, known)


def test_reals_are_weighted_to_the_views_that_were_requested():
    asked, known = requested(0, 1000, [0.1, 0.9, 0]), requested(1, 2000, [0.5, 0.3, 0.2])
    weights, names = joint.weights(asked, known)
    assert names == ["view"]
    views = known.values[:, INDEX["view"]]
    share = (asked.values[:, INDEX["view"]] == 1).mean()
    assert weights[views == 1].sum() / weights.sum() == pytest.approx(share)
    assert not weights[views == 2].any()
    rows = compared(population(0, 1000), population(1, 2000), weights, without=names)
    assert not any(value.startswith("view=") for value, _ in rows)


def test_request_that_no_real_has_is_refused():
    with pytest.raises(DataError, match="with view=lateral, and no real has that"):
        joint.weights(requested(0, 100, [0.5, 0, 0.5]), requested(1, 100, [0.5, 0.5, 0]))


def test_full_requests_are_the_population():
    row = vocabulary.all_known(np.zeros((4, 19), np.float32))
    weights, names = joint.weights(row, row)
    assert names == []
    assert (weights == 1).all()


def test_ages_have_the_mean_and_deviation_of_a_uniform_and_unequal_weights_count():
    rng = np.random.default_rng(0)
    first, second = rng.uniform(20, 80, 5000), rng.uniform(0, 100, 5000)
    groups = np.arange(5000)
    found = joint.ages((first, groups), (second, groups), np.ones(5000))
    assert found.samples[:2] == pytest.approx((50, 60 / 12**0.5), rel=0.02)
    assert found.deviation.low < 60 / 12**0.5 - 100 / 12**0.5 < found.deviation.high
    assert found.samples[4] == pytest.approx(50, abs=1.5)
    inside = ((second >= 20) & (second <= 80)).astype(float)
    same = joint.ages((first, groups), (second, groups), inside)
    assert same.deviation.low < 0 < same.deviation.high
