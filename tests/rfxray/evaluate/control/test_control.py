"""`rfxray evaluate control` from flags to files."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from rfxray.commands import evaluate, evaluate_control
from rfxray.evaluate import classifier as oracles
from rfxray.evaluate import model_card
from rfxray.evaluate.control import classifiers
from rfxray.evaluate.extractors import xrv
from rfxray.outputs import files
from tests import conftest
from tests.rfxray.evaluate.projection import projection

# The tiny pictures show a disc: its place is the view, its size the heart.
JUDGE = """
import numpy as np

SIZE = 32
TRAINED_ON = ("nih",)


def predict(images):
    rows = images.mean(2)
    place = np.stack([rows[:, top : top + 4].mean(1) for top in (8, 14, 20)], 1)
    views = np.exp(40 * place) / np.exp(40 * place).sum(1, keepdims=True)
    big = 1 / (1 + np.exp(-200 * (images.mean((1, 2)) - 0.205)))
    return {"view": views, "cardiomegaly": big, "age": np.full(len(images), 45.0)}
"""


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    file = tmp_path_factory.mktemp("judge") / "judge.py"
    file.write_text(JUDGE)
    return file


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    place = tmp_path_factory.getbasetemp() / "control-cache"
    monkeypatch.setenv("RFXRAY_CACHE", str(place))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """60 samples as `rfxray sample` writes them; the view is requested of all, the heart of 40."""
    out = tmp_path_factory.mktemp("drawn") / "samples"
    out.mkdir()
    entries = []
    for number, record in enumerate(conftest.draw(range(200, 260))):
        name = f"sample_{number:05d}.png"
        files.save_png(out / name, record["image"])
        asked = {"view": ("PA", "AP", "lateral")[(200 + number) % 3]}
        if number < 40:
            asked["cardiomegaly"] = "present" if number % 2 else "absent"
        entries.append({"file": name, "attributes": asked})
    (out / "samples.json").write_text(json.dumps({"plan": {}, "pictures": entries}))
    return out


def run(*words):
    evaluate.main(["control", *map(str, words)])


def refused(capsys, code, *words):
    with pytest.raises(SystemExit) as stopped:
        run(*words)
    assert stopped.value.code == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in lines if "error" in line]) == 1
    return lines[-1]


@pytest.fixture(scope="module")
def controlled(tmp_path_factory, tiny_data, drawn, judge):
    out = tmp_path_factory.mktemp("controlled") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RFXRAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        words = ["--synthetic", drawn, "--real", tiny_data, "--classifier", f"python={judge}"]
        run(*words, "--out", out)
    return out


def test_samples_that_are_what_was_requested_are_read_so(controlled):
    found = json.loads((controlled / "results.json").read_text())
    assert "attributes reach 0.8 of" in model_card.markdown([model_card.read(controlled)])
    areas = {
        (row["attribute"], row["asked"], row["of"]): row
        for row in found["figures"]
        if row["name"] == "AUROC"
    }
    assert areas["view", "lateral", "samples"]["value"] > 0.95
    heart = areas["cardiomegaly", "present", "samples"]
    assert (heart["value"], heart["n_synthetic"]) == (pytest.approx(1.0, abs=0.02), 40)
    assert areas["cardiomegaly", "present", "gap"]["n_real"] == 70
    assert found["reached"]["view"]["reached"] > 0.9
    assert found["joint"]["weighted_by"] == ["view"]
    assert found["joint"]["comparisons"] > 10
    shown = [row["value_of"] for key in ("shares", "worst") for row in found["joint"][key]]
    assert "cardiomegaly=present" in shown
    assert "cardiomegaly=absent" not in shown  # says the same
    assert found["classifier"]["name"] == "python judge"
    assert len(found["classifier"]["hash"]) == 64
    assert "32x32 area" in found["classifier"]["resize_path"]


def test_what_may_be_shared_has_no_key_and_no_path(controlled, tiny_data, drawn):
    shared = (controlled / "report.html").read_text() + (controlled / "results.json").read_text()
    for place in (tiny_data.parent, drawn.parent, controlled.parent):
        assert str(place) not in shared
    assert "phantom/p" not in shared
    assert "sample_00001" not in shared
    assert "<script" not in shared


def test_every_image_and_every_pair_has_a_row(controlled):
    with (controlled / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    assert rows[0]["view requested"] == rows[0]["view read"] == "lateral"
    assert rows[50]["cardiomegaly requested"] == ""
    with (controlled / "pairs.csv").open() as file:
        pairs = list(csv.DictReader(file))
    of = {(row["given"], row["value"]): row for row in pairs}
    assert of["view=AP", "cardiomegaly=present"]["n_samples"] != ""
    assert ("all", "view=PA") not in of  # as often as it was requested


def test_samples_without_reals_have_figures_of_control_only(drawn, judge, tmp_path):
    run("--synthetic", drawn, "--classifier", f"python={judge}", "--out", tmp_path / "o")
    found = json.loads((tmp_path / "o/results.json").read_text())
    assert found["joint"] is None
    assert {row["of"] for row in found["figures"]} == {"samples"}


def test_samples_of_another_generator_are_described_by_a_table(drawn, judge, tmp_path):
    pictures = tmp_path / "theirs"
    pictures.mkdir()
    rows = ["image,view"]
    for number in range(30):
        shutil.copy(drawn / f"sample_{number:05d}.png", pictures / f"{number}.png")
        rows.append(f"{number}.png,{('PA', 'AP', 'lateral')[(200 + number) % 3]}")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(rows))
    words = ["--synthetic", pictures, "--classifier", f"python={judge}"]
    run(*words, "--csv", f"{pictures}={table}", "--out", tmp_path / "o")
    found = json.loads((tmp_path / "o/results.json").read_text())
    assert {row["attribute"] for row in found["figures"]} == {"view"}


def test_images_without_requests_are_refused(drawn, judge, tmp_path, capsys):
    pictures = tmp_path / "theirs"
    pictures.mkdir()
    for number in range(12):
        shutil.copy(drawn / f"sample_{number:05d}.png", pictures / f"{number}.png")
    words = ["--synthetic", pictures, "--classifier", f"python={judge}", "--out", tmp_path / "o"]
    assert "nothing says what was requested of theirs; give --csv" in refused(capsys, 65, *words)
    Image.new("RGB", (32, 32), (200, 0, 0)).save(pictures / "colour.png")
    assert "colour.png" in refused(capsys, 65, *words)
    assert not (tmp_path / "o").exists()


def test_samples_that_are_the_reals_are_refused(tiny_data, judge, tmp_path, capsys):
    words = ["--synthetic", tiny_data, "--real", f"{tiny_data}:validation"]
    line = refused(capsys, 65, *words, "--classifier", f"python={judge}", "--out", tmp_path / "o")
    assert "overlap" in line


def test_oracle_reads_no_radiographs(tiny_records, tmp_path, capsys, monkeypatch):
    oracle = classifiers.Classifier(projection(2, name="oracle answers"), ("sex",))
    monkeypatch.setattr(evaluate_control, "open_classifier", lambda spec: oracle)
    pictures = tmp_path / "films"
    pictures.mkdir()
    rows = ["image,view,source"]
    for number, record in enumerate(tiny_records(range(20))):
        files.save_png(pictures / f"{number}.png", record["image"])
        rows.append(f"{number}.png,{'PA' if number % 2 else 'AP'},nih")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(rows))
    words = ["--synthetic", pictures, "--csv", f"{pictures}={table}", "--out", tmp_path / "o"]
    line = refused(capsys, 78, *words, "--classifier", "oracle")
    assert "the oracle reads phantoms only, and the synthetic set films is of nih" in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "must be a file .py"),
        ("SIZE = 32", "must have SIZE, a number of pixels, and predict"),
        ("import nothing_of_this_name", "cannot be imported (ModuleNotFoundError"),
        ("SIZE = 8\ndef predict(x): return {}", "must return a mapping"),
        ("SIZE = 8\ndef predict(x): return {'edemaa': [1] * len(x)}", "did you mean edema"),
        ("SIZE = 8\ndef predict(x): return {'edema': [7] * len(x)}", "probabilities that sum to 1"),
        ("SIZE = 8\ndef predict(x): return {'view': [1] * len(x)}", "not [1, 3]"),
        ("SIZE = 8\nWEIGHTS = ['gone']\ndef predict(x): return {}", "there is no such file"),
        ("SIZE = 8\nWEIGHTS = 'gone'\ndef predict(x): return {}", "WEIGHTS must be a list"),
        (
            "SIZE = 8\nTRAINED_ON = 5\ndef predict(x): return {'edema': x[:, 0, 0]}",
            "must be a list",
        ),
        ("SIZE = True\ndef predict(x): return {}", "must have SIZE, a number of pixels"),
        ("import sys\nsys.exit(0)", "cannot be imported (SystemExit: 0; judge.py line 2)"),
        ("SIZE = 8\ndef predict(x): return 1 / 0", "predict failed (ZeroDivisionError: division"),
        ("SIZE = 8\ndef predict(x): return {'edema': [[1], [1, 2]]}", "not an array of numbers"),
        ("SIZE = 8\ndef predict(x): return {'edema': ['a']}", "not an array of numbers"),
    ],
)
def test_file_that_is_no_classifier_is_refused(content, words, drawn, tmp_path, capsys):
    file = tmp_path / "judge.py"
    if content is not None:
        file.write_text(content)
    flags = ["--synthetic", drawn, "--classifier", f"python={file}", "--out", tmp_path / "o"]
    with pytest.raises(SystemExit):
        run(*flags)
    assert words in capsys.readouterr().err


def test_unknown_classifier_is_refused_with_those_there_are(drawn, tmp_path, capsys):
    words = ["--synthetic", drawn, "--classifier", "radiologist", "--out", tmp_path / "o"]
    assert "there are oracle, xrv, run, python" in refused(capsys, 78, *words)


def test_answers_of_the_oracle_are_the_probabilities_of_what_it_reads():
    images = np.random.default_rng(0).random((3, 64, 64, 1), np.float32) * 2 - 1
    judge = classifiers.open_classifier("oracle")
    reading = judge.reading(judge.extractor.features(images))
    read = oracles.load().predict(images[..., 0])
    for name, values in reading.values.items():
        np.testing.assert_allclose(values, read[name], rtol=1e-5)
    assert all(a.sum(1) == pytest.approx(1) for n, a in reading.answers.items() if n != "age")


def test_scores_of_xrv_are_read_by_our_names(monkeypatch):
    theirs = list(xrv.THRESHOLDS)

    def scores(images):
        return {name: np.full(len(images), number / 20) for number, name in enumerate(theirs)}

    base = projection(name="xrv")
    scored = type(base)(**{**vars(base), "scores": scores})
    monkeypatch.setattr(classifiers.kinds, "open_extractor", lambda spec: scored)
    judge = classifiers.open_classifier("xrv=weights.safetensors")
    answers = judge.reading(judge.extractor.features(np.zeros((2, 16, 16, 1)))).answers
    assert len(answers) == 12
    for name, of in (("pleural_effusion", "Effusion"), ("edema", "Edema")):
        assert answers[name][0, 1] == pytest.approx(theirs.index(of) / 20)
