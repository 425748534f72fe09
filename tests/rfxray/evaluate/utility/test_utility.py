"""The command: what it trains, that it resumes, and what it refuses."""

import json

import numpy as np
import pytest
from scipy import special

from rfxray.attributes.vocabulary import FINDING_NAMES, INDEX
from rfxray.checkpoints.store import Store
from rfxray.commands import evaluate_utility, utility_runs
from rfxray.data.dataset import Records, open_dataset
from rfxray.errors import ConfigError, Preempted
from rfxray.evaluate import auc, model_card
from rfxray.evaluate.control.classifiers import open_classifier
from rfxray.evaluate.pictures import open_pictures
from rfxray.outputs import files
from tests.conftest import ROOT, write

TINY = (
    "--config.model.size=32",
    "--config.model.multipliers=1",
    "--config.model.width=4",
    "--config.steps=60",
    "--config.batch_size=8",
    "--config.optim.warmup=2",
    "--config.optim.decay=20",
    "--config.optim.learning_rate=0.02",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Discs of two sizes: reals to train on and to test, samples, and as many reals again."""
    out = tmp_path_factory.mktemp("utility")
    write(out / "mine", train=range(60), test=range(60, 120))
    write(out / "samples", train=range(200, 240))
    write(out / "more", train=range(300, 360))
    return out


def words(folder, **flags):
    given = {
        "real": folder / "mine:train",
        "test": folder / "mine:test",
        "synthetic": folder / "samples",
        "fractions": "0.5",
        "seeds": 1,
        "config": ROOT / "configs" / "classifier.py",
        "out": folder / "out",
        **flags,
    }
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def finished(folder):
    """A measurement that was killed after two classifiers, and then finished; what was trained."""
    trained, train = [], utility_runs.train

    def watched(config, workdir, allow):
        if len(trained) == 2:
            trained.append("killed")
            raise Preempted("saved")
        trained.append(workdir.name)
        train(config, workdir, allow)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utility_runs, "train", watched)
        with pytest.raises(SystemExit) as ended:
            evaluate_utility.main([*words(folder), *TINY])
        assert ended.value.code == Preempted.exit_code
        assert not (folder / "out" / "report.html").exists()
        evaluate_utility.main([*words(folder), *TINY])
    return trained


def results(folder):
    return json.loads((folder / "out" / "results.json").read_text())


def test_what_was_trained_is_not_trained_again(finished, folder):
    both, then = "both-0.5-0", "synthetic-then-0.5-0"
    again = "real-again-0.5-0"
    assert finished == ["synthetic-0", "real-0.5-0", "killed", again, both, then]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utility_runs, "train", None)
        before = results(folder)["figures"]
        evaluate_utility.main([*words(folder), *TINY])
    assert results(folder)["figures"] == before


def test_classifiers_read_the_discs(finished, folder):
    rows = results(folder)["figures"]
    areas = {
        (row["training"], row["fraction"]): row["value"]
        for row in rows
        if (row["measure"], row["finding"], row["group"], row["of"])
        == ("AUROC", "cardiomegaly", "", "value")
    }
    assert set(areas) == {
        ("real", 0.5),
        ("real, twice the steps", 0.5),
        ("synthetic", 0.0),
        ("both", 0.5),
        ("synthetic then real", 0.5),
    }
    assert min(areas.values()) > 0.9
    left_out = results(folder)["left_out"]
    assert set(FINDING_NAMES) - set(left_out) == {"cardiomegaly"}


def test_scores_are_of_the_test_images_in_their_order(finished, folder):
    test = open_pictures(f"{folder / 'mine'}:test")
    with np.load(folder / "out" / "answers" / "real-0.5-0.npz") as found:
        scores = found["scores"]
    assert test.attributes is not None
    truth = np.asarray(test.attributes.values)[:, INDEX["cardiomegaly"]] > 0.5
    placed = auc.placements(scores[None, :, FINDING_NAMES.index("cardiomegaly")], truth)
    (row,) = [
        row
        for row in results(folder)["figures"]
        if (row["training"], row["measure"], row["finding"], row["of"])
        == ("real", "AUROC", "cardiomegaly", "value")
    ]
    assert row["value"] == pytest.approx(auc.area(placed, truth)[0])


def test_a_classifier_of_samples_goes_on_with_the_reals(finished, folder):
    runs = folder / "out" / "runs"
    for name, steps in (("synthetic-0", [60]), ("synthetic-then-0.5-0", [60, 120])):
        store = Store(runs / name / "checkpoints", ("ema_0.050",))
        assert sorted(store.steps()) == steps
        store.close()


def test_data_of_the_trainer_have_the_images_and_no_patient(finished, folder):
    pictures = open_pictures(f"{folder / 'mine'}:train")
    rows = utility_runs.part(pictures, 0.5, 0)
    assert len(rows) == 30
    records = Records(open_dataset(folder / "out" / "data" / "real-0.5-0"), "train")
    assert len(records) == 30
    numbers = {int(records[i]["patient"].removeprefix("utility/")) for i in range(30)}
    assert numbers == set(rows.tolist())
    for i in range(30):
        record = records[i]
        row = int(record["key"].removeprefix("utility/"))
        np.testing.assert_array_equal(record["image"], np.round(pictures.read(row) * 65535))
        assert record["attributes"][INDEX["pneumonia"]] == 0  # uncertain, so unknown
    assert "classifiers of each training" in model_card.markdown([model_card.read(folder / "out")])
    for name in ("report.html", "results.json", "figures.csv"):
        assert "phantom/p" not in (folder / "out" / name).read_text()
        assert str(folder) not in (folder / "out" / name).read_text()


def test_a_run_is_a_classifier_of_control(finished, folder):
    run = folder / "out" / "runs" / "real-0.5-0"
    judge = open_classifier(f"run={run}")
    assert judge.names == FINDING_NAMES
    test = open_pictures(f"{folder / 'mine'}:test")
    prepare = judge.extractor.preprocessing.prepare
    images = np.stack([prepare(test.read(number)) for number in range(60)])
    reading = judge.reading(judge.extractor.features(images))
    with np.load(folder / "out" / "answers" / "real-0.5-0.npz") as found:
        odds = found["scores"][:, FINDING_NAMES.index("cardiomegaly")]
    np.testing.assert_allclose(
        reading.answers["cardiomegaly"][:, 1], special.expit(odds), atol=2e-3
    )
    assert reading.answers["edema"].shape == (60, 2)


def test_another_run_is_no_classifier(trained):
    with pytest.raises(ConfigError, match="trains a network of kind radit; run=WORKDIR reads"):
        open_classifier(f"run={trained}")
    with pytest.raises(ConfigError, match="run needs a workdir"):
        open_classifier("run")


def test_larger_shares_and_other_seeds_have_their_own_patients(folder):
    pictures = open_pictures(f"{folder / 'mine'}:train")
    small, large, other = (
        set(utility_runs.part(pictures, *each).tolist()) for each in ((0.2, 0), (0.6, 0), (0.2, 1))
    )
    assert (len(small), len(large)) == (12, 36)
    assert small < large
    assert small != other


@pytest.mark.parametrize(
    ("flags", "more", "line"),
    [
        ({"test": "mine:train"}, (), "mine:train and mine:train share 60 patients; give --test"),
        ({"synthetic": "mine:test"}, (), "mine:test and mine:test share 60 patients"),
        ({"synthetic": "more", "more": "samples"}, (), "has 40 images and --synthetic 60"),
        ({"fractions": "0.1"}, (), "a share of 0.1 of mine:train is 6 images; give at least 0.17"),
        ({"fractions": "0,1"}, (), "must be shares above 0 up to 1"),
        ({"seeds": 0}, (), "--seeds must be at least 1"),
        ({"config": "smoke"}, (), "trains radit by flow_matching; give one that starts from"),
        ({}, ("--config.steps=61",), "holds classifiers of another config; choose another --out"),
        ({}, ("--config.steps",), "no value"),
    ],
)
def test_bad_input_is_refused_in_one_line(finished, folder, capsys, flags, more, line):
    paths = ("test", "synthetic", "more")
    given = {name: folder / value if name in paths else value for name, value in flags.items()}
    if "fractions" in flags or "config" in flags or "more" in flags or len(flags) == 1:
        given["out"] = folder / "refused"
    with pytest.raises(SystemExit) as ended:
        evaluate_utility.main(
            [*words(folder, **given), *(TINY if "config" not in flags else ()), *more]
        )
    assert ended.value.code in (65, 78)
    (said,) = [each for each in capsys.readouterr().err.splitlines() if "error" in each]
    assert line in said


def test_samples_without_a_known_finding_are_refused(folder, tmp_path, refusal):
    records = Records(open_dataset(folder / "samples"), "train")
    rows, png = ["image,sex"], tmp_path / "png"
    png.mkdir()
    for number in range(12):
        files.save_png(png / f"{number}.png", records[number]["image"])
        rows.append(f"{number}.png,M")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    csv = f"{tmp_path / 'png'}={tmp_path / 'table.csv'}"
    given = words(folder, synthetic=tmp_path / "png", csv=csv, out=tmp_path / "out")
    code, line = refusal(evaluate_utility.main, [*given, *TINY])
    assert (code, "no finding is known of the images of png" in line) == (65, True), line


def test_command_line_of_the_results_has_no_path(folder):
    flags, rest = evaluate_utility.parser().parse_known_args(
        [*words(folder), "--config.data.dirs=/home/jane/films", "--config.steps=60"]
    )
    shown = evaluate_utility.shown(flags, rest)
    assert not [word for word in shown if "/" in word]
    assert shown[-2:] == ["--config.data.dirs=films", "--config.steps=60"]
