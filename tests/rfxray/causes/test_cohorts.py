import json

import numpy as np
import pytest

from data_prep import phantom
from rfxray import sample
from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import INDEX, PATHOLOGY_NAMES, Attributes
from rfxray.causes import cohorts, folder
from rfxray.causes.worlds import World, joint, nothing
from rfxray.errors import ConfigError

SEX = INDEX["sex"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, fitted):
    place = tmp_path_factory.mktemp("model")
    for name, content in folder.contents(fitted, {"held_out": {}}).items():
        (place / name).write_bytes(content)
    return place


def asked(*flags):
    words = ["--checkpoint", "run", "--out", "out", *flags]
    arguments = sample.parser().parse_args(words)
    return cohorts.asked_for(arguments, sample.request_of(arguments))


def test_a_population_has_the_shares_of_the_model_under_the_intervention(fitted):
    rows = cohorts.population(fitted, {"sex": 1.0}, np.arange(8000), seed=3)
    assert (rows.values[:, SEX] == 1).all()
    world = [World(*nothing(fitted), {"sex": 1.0})]
    for name in ("pneumothorax", "pleural_effusion"):
        share = joint(fitted, world, [(0, name)]).mean()[0]
        assert rows.values[:, INDEX[name]].mean() == pytest.approx(share, abs=4 * 0.5 / 8000**0.5)
    pathologies = rows.values[:, [INDEX[name] for name in PATHOLOGY_NAMES]]
    assert (rows.values[:, INDEX["no_finding"]] == (pathologies.sum(1) == 0)).all()
    assert not rows.known[:, INDEX["source"]].any()  # no variable of the graph


def test_interventions_of_one_seed_show_the_same_people_in_any_batch(fitted):
    indices = np.arange(500)
    men, women, all_ = (
        cohorts.population(fitted, do, indices, 0) for do in ({"sex": 1.0}, {"sex": 0.0}, {})
    )
    same = all_.values[:, SEX] == 1
    assert (all_.values[same] == men.values[same]).all()
    assert (all_.values[~same] == women.values[~same]).all()
    assert (men.values[:, INDEX["race"]] == women.values[:, INDEX["race"]]).all()
    order = np.random.default_rng(0).permutation(indices)
    again = cohorts.population(fitted, {"sex": 1.0}, order[:100], 0)
    assert (again.values == men.values[order[:100]]).all()
    other = cohorts.population(fitted, {"sex": 1.0}, indices, 1)
    assert (other.values != men.values).any(1).mean() > 0.9


def test_twins_of_records_keep_their_own_noise_by_their_key(fitted, recorded):
    rows, keys = recorded.rows(np.arange(120)), [f"k{k}" for k in range(120)]
    twins, follows = cohorts.twins(fitted, rows, keys, {"sex": 1.0}, 0)
    already = rows.known[:, SEX] & (rows.values[:, SEX] == 1)
    assert (twins.values[already] == np.where(rows.known, rows.values, 0)[already]).all()
    assert (twins.known[already] == rows.known[already]).all()
    assert any(follows)
    assert not any(np.array(follows)[already])
    order = np.arange(120)[::-1]
    again, _ = cohorts.twins(fitted, rows.rows(order), [keys[k] for k in order], {"sex": 1.0}, 0)
    assert (again.values == twins.values[order]).all()
    for names in follows:
        assert set(filter(None, names.split(","))) <= {*phantom.descendants("sex"), "no_finding"}


def test_flags_ask_for_a_cohort_of_which_image_i_is_always_the_same_person(place):
    whole = asked("--do", "sex=M", "--causes", str(place), "--n", "6", "--seed", "5")
    part = asked(
        *("--do", "sex=M", "--causes", str(place), "--n", "2", "--seed", "5"),
        *("--first-index", "3", "--set", "source=phantom"),
    )
    ours, theirs = part.asks.rows(np.array([3, 4])), whole.asks.rows(np.array([3, 4]))
    shared = theirs.known
    assert (ours.values[shared] == theirs.values[shared]).all()
    assert ours.known[:, INDEX["source"]].all()
    assert (whole.n, part.plan.first) == (6, 3)


def test_a_data_set_has_a_twin_for_each_record(place, tiny_data):
    made = asked(
        *(
            "--do",
            "age=80",
            "--causes",
            str(place),
            "--counterfactual-of",
            f"{tiny_data}:validation",
        )
    )
    assert made.n == 20
    rows = made.asks.rows(np.arange(20))
    assert (rows.values[:, INDEX["age"]] == 80).all()
    assert {"follows"} == set(made.asks.note(3))
    assert not rows.known[:, INDEX["race"]].any()  # what was unknown stays unknown
    json.dumps(made.asks.note(3))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--do", "sex=M"), "--do needs --causes"),
        (("--causes", "MODEL"), "does not read --causes"),
        (("--do", "sex=M", "--causes", "MODEL", "--balance", "view"), "--do does not read"),
        (("--do", "source=nih", "--causes", "MODEL"), "does not have source"),
        (("--do", "sex=unknown", "--causes", "MODEL"), "must be an actual value"),
        (("--do", "sex=M", "--causes", "MODEL", "--set", "age=60"), "the model draws age"),
        (
            ("--do", "sex=M", "--causes", "MODEL", "--counterfactual-of", "DATA", "--set", "age=6"),
            "leave --set out",
        ),
        (
            ("--do", "sex=M", "--causes", "MODEL", "--counterfactual-of", "DATA", "--n", "99"),
            "has 50 records",
        ),
        (("--do", "age=130", "--causes", "MODEL"), "130"),
    ],
)
def test_what_does_not_go_together_is_refused(place, tiny_data, flags, words):
    given = {"MODEL": str(place), "DATA": str(tiny_data)}
    with pytest.raises(ConfigError, match=words):
        asked(*(given.get(each, each) for each in flags))


def test_rows_are_what_a_model_can_be_requested_with(fitted):
    rows = cohorts.population(fitted, {"age": 40.0}, np.arange(50), 0)
    checked = vocabulary.requested(Attributes(rows.values, rows.known))
    assert (np.asarray(checked.values) == rows.values).all()
