"""The oracle: measurements agree with geometry, and predictions come from the image."""

import json

import numpy as np
import pytest

from data_prep import phantom
from data_prep.phantom import oracle
from rfxray.attributes.vocabulary import (
    FINDING_NAMES,
    INDEX,
    NUM_ATTRIBUTES,
    PATHOLOGY_NAMES,
    Attributes,
    all_known,
)
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate import classifier

SEED = 41


def pictures(attributes, indices, size, seed=SEED):
    return phantom.draw_images(attributes, seed, indices, size) / np.float32(32767.5) - 1


# ---------------------------------------------------------------------------------------------
# Measurements


@pytest.mark.parametrize("view", [0, 1], ids=["PA", "AP"])
@pytest.mark.parametrize("size", [64, 96])
def test_measured_cardiothoracic_ratio_agrees_with_geometry(view, size):
    indices = np.arange(200)
    attributes = phantom.draw_attributes(SEED, indices, {"view": float(view)})
    true = phantom.truth(attributes, SEED, indices)["cardiothoracic_ratio"]
    measured = oracle.measure(pictures(attributes, indices, size))["cardiothoracic_ratio"]
    assert np.corrcoef(measured, true)[0, 1] > 0.9
    assert abs((measured - true).mean()) < 0.015
    assert abs(np.polyfit(true, measured, 1)[0] - 1) < 0.1


def test_cardiomegaly_raises_the_measured_ratio_of_a_patient():
    indices = np.arange(256)
    ratio = {}
    for heart in (0.0, 1.0):
        attributes = phantom.draw_attributes(SEED, indices)
        attributes[:, INDEX["view"]] = 0
        attributes[:, INDEX["cardiomegaly"]] = heart
        true_ratio = phantom.truth(attributes, SEED, indices)["cardiothoracic_ratio"]
        measured = oracle.measure(pictures(attributes, indices, 64))["cardiothoracic_ratio"]
        ratio[heart] = true_ratio.mean(), measured.mean()
    true, measured = np.subtract(ratio[1.0], ratio[0.0])
    assert true > 0.14
    assert 0.9 < measured / true < 1.1


def test_thorax_width_grows_with_age():
    indices = np.arange(60)
    healthy = dict.fromkeys(PATHOLOGY_NAMES, 0.0) | {"view": 0.0, "age": 50.0}
    child = phantom.draw_attributes(SEED, indices, healthy | {"age": 6.0})
    adult = phantom.draw_attributes(SEED, indices, healthy)
    small, large = (
        oracle.measure(pictures(a, indices, 64))["thorax_width"].mean() for a in (child, adult)
    )
    assert abs(large - 1.37) < 0.06
    assert small < 0.85 * large


# ---------------------------------------------------------------------------------------------
# The reader


@pytest.fixture(scope="module")
def reader():
    return oracle.train(seed=1, n=1024, size=32, epochs=5)


@pytest.fixture(scope="module")
def unseen():
    indices = np.arange(600)
    attributes = phantom.draw_attributes(SEED, indices)
    return pictures(attributes, indices, 32), all_known(attributes)


def test_small_reader_beats_chance_except_on_race(reader, unseen):
    figures = classifier.scores(reader, *unseen)
    blind = classifier.chance(unseen[1])
    assert figures.keys() == blind.keys() == set(INDEX) - {"source"}
    assert figures["view"] > 0.9
    assert figures["cardiomegaly"] > 0.7
    assert figures["age"] < 0.8 * blind["age"]
    # The standard error of a mean over four classes of at least 80 is 0.025.
    assert abs(figures["race"] - 0.25) < 0.08


def test_side_markers_do_not_change_predictions(reader, unseen):
    images = unseen[0].copy()
    images[:, :4, :3] = 1.0
    images[:, :4, -3:] = 1.0
    before, after = reader.predict(unseen[0]), reader.predict(images)
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])


def test_predictions_are_encoded_as_attributes(reader, unseen):
    read = reader.predict(unseen[0][:5])
    assert all(values.shape == (5,) and values.dtype == np.float32 for values in read.values())
    assert set(np.unique(read["view"])) <= {0.0, 1.0, 2.0}
    assert all(set(np.unique(read[name])) <= {0.0, 1.0} for name in FINDING_NAMES)
    assert ((read["age"] >= 0) & (read["age"] <= 120)).all()


def test_saved_reader_predicts_the_same_after_loading(reader, unseen, tmp_path):
    reader.save(tmp_path / "oracle.npz")
    loaded = classifier.load(tmp_path / "oracle.npz")
    assert loaded.size == 32
    before, after = reader.predict(unseen[0][:8]), loaded.predict(unseen[0][:8])
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])


def test_bad_images_and_files_are_refused(reader, tmp_path):
    with pytest.raises(ConfigError, match="32, 32"):
        reader.predict(np.zeros((2, 64, 64), np.float32))
    with pytest.raises(DataError, match=r"data_prep\.phantom\.oracle --out"):
        classifier.load(tmp_path / "none.npz")
    (tmp_path / "torn.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"torn\.npz"):
        classifier.load(tmp_path / "torn.npz")
    with pytest.raises(ConfigError, match="phantoms"):
        oracle.train(n=3)


# ---------------------------------------------------------------------------------------------
# Scores


class _Known:
    """Reader that returns fixed predictions."""

    def __init__(self, read):
        self.read = read

    def predict(self, images):
        return self.read


def test_scores_are_balanced_and_skip_unknown_attributes():
    attributes = np.zeros((8, NUM_ATTRIBUTES), np.float32)
    known = np.zeros((8, NUM_ATTRIBUTES), bool)
    edema, age = INDEX["edema"], INDEX["age"]
    attributes[:, edema] = [1, 1, 0, 0, 0, 0, 0, 0]
    known[:7, edema] = True
    attributes[:, age] = [10, 20, 30, 40, 50, 60, 70, 80]
    known[:3, age] = True
    read = {
        "edema": np.array([1, 0, 0, 0, 0, 0, 0, 1], np.float32),
        "age": np.full(8, 20, np.float32),
    }
    figures = classifier.scores(_Known(read), None, Attributes(attributes, known))
    assert figures == {"edema": 0.75, "age": pytest.approx(20 / 3)}
    blind = classifier.chance(Attributes(attributes, known))
    assert blind == {"edema": 0.5, "age": pytest.approx(20 / 3)}


def test_chance_is_one_over_the_number_of_classes():
    attributes = np.zeros((4, NUM_ATTRIBUTES), np.float32)
    attributes[:, INDEX["race"]] = [0, 1, 2, 3]
    assert classifier.chance(all_known(attributes))["race"] == pytest.approx(1 / 4)


def test_reached_is_one_at_the_ceiling_and_zero_at_chance():
    assert classifier.reached(0.95, 0.95, 0.5) == 1
    assert classifier.reached(0.5, 0.95, 0.5) == 0
    assert classifier.reached(12.0, 4.0, 20.0) == pytest.approx(0.5)  # years of error


def test_command_writes_the_oracle_and_its_figures(tmp_path, capsys):
    flags = ["--size", "32", "--n", "64", "--epochs", "1", "--unseen", "96"]
    oracle.main(["--out", str(tmp_path / "oracle.npz"), *flags])
    figures = json.loads((tmp_path / "oracle.json").read_text())
    assert figures["chance"]["view"] == pytest.approx(1 / 3)
    assert figures["ceiling"].keys() == figures["chance"].keys()
    assert "pleural_effusion" in capsys.readouterr().out
    assert classifier.load(tmp_path / "oracle.npz").size == 32
    for wrong in (
        ["--out", str(tmp_path / "oracle.pkl")],
        ["--out", "gs://bucket/oracle.npz"],
        ["--output", "x.npz"],
    ):
        with pytest.raises(SystemExit) as stopped:
            oracle.main(wrong)
        assert stopped.value.code == 78
        assert capsys.readouterr().err.startswith("data_prep.phantom.oracle: error: ")
