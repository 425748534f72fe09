"""What is not requested is drawn from a table, image by image, and said so."""

import json
import shutil

import numpy as np
import pytest

from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import INDEX
from rfxray.data.dataset import open_dataset
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate.control.drawn import noted
from rfxray.evaluate.pictures import open_pictures
from rfxray.outputs import files
from rfxray.sampling import completion, requests
from rfxray.sampling.completion import Completion
from rfxray.sampling.flags import parser, request_of


def table(rows, seed=0):
    stacked = vocabulary.stack([vocabulary.encode(row) for row in rows])
    return Completion("table", stacked, 0, (), 0, seed)


def people(n=400):
    """An effusion in 4 of 5 with cardiomegaly, in 1 of 5 others; the sick are 70, the others 30."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(n):
        heart = number % 2 == 0
        wet = rng.random() < (0.8 if heart else 0.2)
        says = {True: "present", False: "absent"}
        rows.append(
            {
                "view": "PA" if number % 4 < 2 else "AP",
                "age": 70.0 if heart else 30.0,
                "cardiomegaly": says[heart],
                "pleural_effusion": says[bool(wet)],
            }
        )
    return rows


def column(attributes, name):
    return np.asarray(attributes.values)[:, INDEX[name]]


def test_findings_go_together_as_in_the_table_and_what_is_requested_stays():
    asks = requests.alike({"view": "AP"})
    filled = requests.Requests(asks.attributes, completion=table(people())).rows(np.arange(3000))
    assert (column(filled, "view") == 1).all()
    heart, wet = column(filled, "cardiomegaly") == 1, column(filled, "pleural_effusion") == 1
    there = vocabulary.stack([vocabulary.encode(r) for r in people() if r["view"] == "AP"])
    for value in (True, False):
        own = column(there, "cardiomegaly") == value
        share = (column(there, "pleural_effusion")[own] == 1).mean()
        assert wet[heart == value].mean() == pytest.approx(share, abs=0.04)
    assert (column(filled, "age")[heart] >= 70).all()
    assert (column(filled, "age")[~heart] < 35).all()


def test_image_has_the_same_row_whatever_is_drawn_with_it():
    asks = requests.Requests(requests.alike({}).attributes, completion=table(people()))
    every = asks.rows(np.arange(64))
    for numbers in ([5], [63, 5, 0]):
        some = asks.rows(np.array(numbers))
        np.testing.assert_array_equal(some.values, every.values[numbers])
    other = requests.Requests(requests.alike({}).attributes, completion=table(people(), seed=1))
    assert (other.rows(np.arange(64)).values != every.values).any(1).mean() > 0.5


def test_age_is_never_that_of_the_row_but_of_its_group_of_five_years():
    asks = requests.Requests(
        requests.alike({}).attributes,
        completion=table([{"age": 42.0}, {"age": 97.0}, {"age": 111.0}]),
    )
    ages = column(asks.rows(np.arange(300)), "age")
    young = ages < 60
    assert ((ages[young] >= 40) & (ages[young] < 45)).all()
    assert ((ages[~young] >= 90) & (ages[~young] < 95)).all()
    assert len(np.unique(ages)) == 300
    assert 0.2 < young.mean() < 0.45


def test_request_that_no_row_has_is_refused_in_one_line():
    rows = table(people())
    asked = requests.alike({"view": "lateral", "age": 40}).attributes
    with pytest.raises(ConfigError, match="no row of table has view=lateral, age=40") as refused:
        rows.fill(asked, np.array([0]))
    assert "\n" not in str(refused.value)
    near = requests.alike({"age": 66}).attributes  # within five years of 70
    assert column(rows.fill(near, np.array([0])), "age")[0] == 66


def test_no_finding_of_a_row_stays_in_agreement_with_its_findings():
    healthy = dict.fromkeys(vocabulary.PATHOLOGY_NAMES, "absent")
    rows = [healthy, {**healthy, "edema": "present"}]
    filled = table(rows).fill(requests.alike({}).rows(np.zeros(20, int)), np.arange(20))
    assert set(column(filled, "edema") + column(filled, "no_finding")) == {1.0}
    assert len(set(column(filled, "edema"))) == 2


def test_rows_of_a_data_set_are_those_that_know_what_most_know(tiny_data):
    found = completion.of_dataset(open_dataset(tiny_data), "train", 0)
    assert found.recorded == ("view", "age", "source", "cardiomegaly", "edema", "no_finding")
    assert (len(found.rows.values), found.left) == (50, 0)
    # Of 50 patients aged 0 to 49, no two of a group of ages have one view and one size of heart.
    assert 0 < found.unique <= 50
    assert "tiny:train" in str(found)
    with pytest.raises(ConfigError, match="has no split 'test'"):
        completion.of_dataset(open_dataset(tiny_data), "test", 0)


def asks_of(*words):
    return request_of(parser().parse_args(["--out", "o", *map(str, words)])).asks


def test_samples_say_what_was_requested_and_what_was_drawn(tiny_data, tmp_path):
    asks = asks_of("--n", 4, "--set", "view=AP", "--complete", f"table={tiny_data}")
    note = asks.note(2)
    assert note == {"drawn": "age,source,cardiomegaly,edema,no_finding"}
    entries = []
    for number in range(4):
        name = f"sample_{number:05d}.png"
        files.save_png(tmp_path / name, np.full((32, 32), number, np.uint16))
        asked = vocabulary.decode(asks.rows(np.array([number])).rows(0))
        row = {"row": dict(asks.note(number))} if number else {}
        entries.append({"file": name, "attributes": asked, **row})
    (tmp_path / "samples.json").write_text(json.dumps({"pictures": entries}))
    drawn = open_pictures(tmp_path).drawn
    assert drawn is not None
    assert drawn[1:, INDEX["age"]].all()
    assert not drawn[:, INDEX["view"]].any()
    assert not drawn[0].any()


def test_a_data_set_of_samples_says_what_was_drawn_too(tiny_data, tmp_path):
    data = shutil.copytree(tiny_data, tmp_path / "data")
    keys = open_pictures(data).keys
    drawn = {0: "age,view", 3: ""}
    entries = [
        {"key": key, "row": {"drawn": drawn[number]}} if number in drawn else {"key": key}
        for number, key in reversed(list(enumerate(keys)))  # by key, not by place
    ]

    def read(given):
        return noted(str(given), open_pictures(given)).drawn

    assert read(data) is None
    index = data / "samples.json"
    index.write_text(json.dumps({"pictures": entries}))
    found = read(f"{data}:train")
    assert found is not None
    assert np.argwhere(found).tolist() == [[0, INDEX["view"]], [0, INDEX["age"]]]
    index.write_text(json.dumps({"pictures": [{"key": key} for key in keys]}))
    assert read(data) is None
    index.write_text(json.dumps({"pictures": entries[:5]}))
    with pytest.raises(DataError, match=r"does not list the samples beside it \(KeyError"):
        read(data)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--complete", "causes"], "--complete must be table=DATA, "),
        (["--complete", "table="], "--complete must be table=DATA, "),
        (["--complete", "table= "], "--complete must be table=DATA, "),
        (["--complete", "table=gs://bucket/data"], "is not a path; mount the bucket"),
        (["--complete", "causes=gs://bucket/model"], "is not a path; mount the bucket"),
        (["--complete", "table=DATA", "--grid", "age=20,50"], "leave --complete out"),
    ],
)
def test_completion_that_is_none_is_refused(words, said, tiny_data):
    with pytest.raises(ConfigError, match=said):
        asks_of(*[word.replace("DATA", str(tiny_data)) for word in words])
