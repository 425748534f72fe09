"""What is not requested, drawn from a causal model: beside a population, and beside rejection."""

import numpy as np
import pytest

from rfxray import sample
from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import INDEX, PATHOLOGY_NAMES, Attributes
from rfxray.causes import completion, folder
from rfxray.causes.abduction import abduct
from rfxray.causes.completion import CausalCompletion
from rfxray.errors import ConfigError
from rfxray.sampling import requests
from rfxray.sampling.flags import parser, request_of
from tests.rfxray.causes.conftest import true_model

SEVERAL = ("cardiomegaly", "pleural_effusion", "atelectasis", "support_devices")


def asking(values, n):
    one = vocabulary.encode(values)
    return Attributes(np.tile(one.values, (n, 1)), np.tile(one.known, (n, 1)))


def present(attributes, name):
    return np.asarray(attributes.values)[:, INDEX[name]] > 0.5


def test_completed_views_are_like_the_population(fitted, population):
    """Shares of pairs of findings and ages, of 4,000 requests with a view of 20,000 phantoms."""
    n = 4000
    views = np.zeros((n, 19), bool)
    views[:, INDEX["view"]] = True
    asked = Attributes(np.where(views, population.values[:n], 0), views)
    filled = CausalCompletion(fitted, "model", 3).fill(asked, np.arange(n))
    assert filled.known[:, [i for each, i in INDEX.items() if each != "source"]].all()
    np.testing.assert_array_equal(filled.values[:, 0], population.values[:n, 0])
    for a in PATHOLOGY_NAMES:
        for b in (*PATHOLOGY_NAMES, "no_finding"):
            both = [(present(of, a) & present(of, b)).mean() for of in (filled, population)]
            assert both[0] == pytest.approx(both[1], abs=0.03)  # 4 standard errors of .11
    ages = [np.asarray(of.values)[:, INDEX["age"]] for of in (filled, population)]
    assert ages[0].mean() == pytest.approx(ages[1].mean(), abs=1.6)
    assert ages[0].std() == pytest.approx(ages[1].std(), abs=1.2)
    derived = vocabulary.derive_no_finding(filled).values
    np.testing.assert_array_equal(derived, filled.values)


def test_causes_of_what_is_requested_follow_from_it():
    """Beside rejection: the population in which it happens to be so."""
    model, n = true_model(*SEVERAL), 6000
    given = {"atelectasis": "present", "support_devices": "absent"}
    filled = CausalCompletion(model, "model", 0).fill(asking(given, n), np.arange(n))
    nothing = np.zeros((200_000, 19))
    drawn = abduct(model, nothing, nothing > 0, np.arange(200_000, dtype=np.uint64), 9).values
    kept = (drawn[:, INDEX["atelectasis"]] > 0.5) & (drawn[:, INDEX["support_devices"]] < 0.5)
    for name in ("cardiomegaly", "pleural_effusion"):
        rejected = drawn[kept, INDEX[name]].mean()
        assert present(filled, name).mean() == pytest.approx(rejected, abs=0.025)
        assert abs(drawn[:, INDEX[name]].mean() - rejected) > 0.04 or name == "cardiomegaly"


def test_what_the_graph_lacks_stays_open_and_is_named():
    made = CausalCompletion(true_model(*SEVERAL), "mine", 0)
    filled = made.fill(asking({"view": "PA", "age": 50}, 8), np.arange(8))
    known = {name for name, i in INDEX.items() if filled.known[:, i].all()}
    assert known >= {"view", "age", *SEVERAL}
    assert not filled.known[:, INDEX["edema"]].any()
    assert "causal model mine" in str(made)
    assert "edema" in str(made)
    assert "no_finding" not in str(made)


def test_image_has_the_same_values_whatever_is_drawn_with_it(fitted):
    asked = asking({"view": "AP", "edema": "present"}, 64)
    every = CausalCompletion(fitted, "model", 5).fill(asked, np.arange(64))
    for numbers in ([5], [63, 5, 0]):
        some = CausalCompletion(fitted, "model", 5).fill(asked.rows(np.array(numbers)), numbers)
        np.testing.assert_array_equal(some.values, every.values[numbers])
    other = CausalCompletion(fitted, "model", 6).fill(asked, np.arange(64))
    assert (other.values != every.values).any(1).mean() > 0.9
    asks = requests.Requests(
        requests.alike({"view": "AP", "edema": "present"}).attributes,
        completion=CausalCompletion(fitted, "model", 5),
    )
    np.testing.assert_array_equal(asks.rows(np.arange(64)).values, every.values)
    drawn = asks.note(7)["drawn"].split(",")
    assert {"sex", "age", "fracture"} <= set(drawn)
    assert not {"view", "edema", "no_finding"} & set(drawn)  # edema settles No Finding


def test_no_finding_that_is_requested_holds(fitted):
    healthy = CausalCompletion(fitted, "model", 0).fill(
        asking({"no_finding": "present"}, 50), np.arange(50)
    )
    assert not any(present(healthy, name).any() for name in PATHOLOGY_NAMES)
    few = true_model("cardiomegaly", "atelectasis")
    sick = CausalCompletion(few, "model", 0).fill(
        asking({"no_finding": "absent"}, 200), np.arange(200)
    )
    assert (present(sick, "cardiomegaly") | present(sick, "atelectasis")).all()
    assert not present(sick, "no_finding").any()
    others = {name: "absent" for name in PATHOLOGY_NAMES if name != "fracture"}
    impossible = asking({**others, "no_finding": "absent"}, 1)
    with pytest.raises(ConfigError, match=r"drew no pathology in 200 draws .* leave --comp"):
        CausalCompletion(few, "model", 0).fill(impossible, np.arange(1))


def test_flag_opens_the_folder_of_a_fit(tmp_path):
    for name, content in folder.contents(true_model(*SEVERAL), {}).items():
        (tmp_path / name).write_bytes(content)
    words = ["--out", "o", "--n", "4", "--seed", "2", "--complete", f"causes={tmp_path}"]
    arguments = parser().parse_args(words)
    asks = request_of(arguments, completion.of_model).asks
    assert isinstance(asks, requests.Requests)
    filled = asks.rows(np.arange(4))
    expected = CausalCompletion(true_model(*SEVERAL), "", 2).fill(asking({}, 4), np.arange(4))
    np.testing.assert_array_equal(filled.values, expected.values)


def test_folder_without_a_model_is_refused_in_one_line(tmp_path, refusal):
    code, line = refusal(sample.main, ["--out", "o", "--complete", f"causes={tmp_path}"])
    assert code == 78
    assert "holds no causes.json; give a folder that rfxray causes fit wrote" in line
