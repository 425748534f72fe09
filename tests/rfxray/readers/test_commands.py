"""`rfxray readers …` from flags to files."""

import json

import pytest

from rfxray.commands import readers, table
from rfxray.readers.equivalence import TOLD_APART

RUN = {
    "analyse": lambda words: table.main(["readers", "analyse", *words]),
    "simulate": lambda words: table.main(["readers", "simulate", *words]),
    "power": lambda words: table.main(["readers", "power", *words]),
}


def test_actions_are_listed_and_a_wrong_one_is_refused(refusal, capsys):
    with pytest.raises(SystemExit) as ended:
        readers.main(["--help"])
    assert not ended.value.code
    said = capsys.readouterr().out
    assert all(f"  {action} " in said for action in readers.ACTIONS)
    code, line = refusal(readers.main, ["anlyse"])
    assert code == 78
    assert line.startswith("rfxray readers: error: argument action: invalid choice: 'anlyse'")


@pytest.mark.parametrize("action", list(readers.ACTIONS))
@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_every_action_has_help_and_version(capsys, action, flag):
    with pytest.raises(SystemExit) as ended:
        readers.main([action, flag])
    assert not ended.value.code
    begins = f"usage: rfxray readers {action} " if flag == "--help" else "rfxray "
    assert capsys.readouterr().out.startswith(begins)


@pytest.mark.parametrize("pairs", [[], ["--pairs"]])
def test_simulated_study_is_analysed_to_a_page(tmp_path, capsys, pairs):
    study, out = tmp_path / "study", tmp_path / "out"
    words = ["--auc", "0.5,0.5,0.5,0.95", "--cases", "80", "--out", str(study), *pairs]
    RUN["simulate"](words)
    answers = sorted(map(str, study.glob("answers-*.csv")))
    assert len(answers) == 4
    given = [*answers, "--key", str(study / "key.json"), "--out", str(out), "--margin", "0.1"]
    RUN["analyse"](given)
    said = capsys.readouterr().out
    assert f": {TOLD_APART}; mean 0." in said
    assert "left out: 48 repeats, which are for agreement only" in said
    assert said.splitlines()[-1] == f"wrote {out / 'analysis.html'}"
    numbers = json.loads((out / "results.json").read_text())
    assert numbers["inputs"].keys() == {*answers, str(study / "key.json")}
    assert len(numbers["intra"]) == 4
    assert len(numbers["inter"]) == 6
    assert (out / "study.imrmc").exists() == (not pairs)
    page = (out / "analysis.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "reader-4" in (out / "table.md").read_text()
    RUN["analyse"](given)  # the same folder again


def test_simulation_of_a_designed_study_answers_its_cases(tmp_path):
    first, second, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    RUN["simulate"](["--auc", "0.5,0.5", "--cases", "20", "--out", str(first)])
    key = first / "key.json"
    RUN["simulate"](["--auc", "0.9,0.9,0.9", "--key", str(key), "--out", str(second)])
    answers = map(str, second.glob("answers-*.csv"))
    RUN["analyse"]([*answers, "--key", str(key), "--out", str(out)])
    (verdict,) = json.loads((out / "results.json").read_text())["verdicts"]
    assert verdict["main"]["mean"] > 0.75


def test_simulation_of_designed_pairs_answers_at_the_places_of_the_key(tmp_path, refusal):
    """The study was designed with four items of training and fewer repeats than are simulated."""
    from tests.rfxray.readers.test_design import made

    key, out = tmp_path / "key.json", tmp_path / "out"
    key.write_bytes(made(modality="pairs", cases=40, training=0, size=32, match=()).key)
    content = json.loads(key.read_text())
    shifted = {r: {str(int(k) + 4): v for k, v in s.items()} for r, s in content["sides"].items()}
    key.write_text(json.dumps(content | {"sides": shifted}))
    RUN["simulate"](
        ["--auc", "0.95,0.95", "--key", str(key), "--repeats", "1", "--out", str(tmp_path / "s")]
    )
    answers = sorted(map(str, (tmp_path / "s").glob("answers-*.csv")))
    RUN["analyse"]([*answers, "--key", str(key), "--out", str(out)])
    found = json.loads((out / "results.json").read_text())
    assert all(row["auc"] > 0.8 and row["answered"] == 40 for row in found["readers"])
    assert found["left_out"] == {"repeats, which are for agreement only": 16}
    code, line = refusal(
        RUN["simulate"], ["--auc", ".5,.5,.5", "--key", key, "--out", tmp_path / "t"]
    )
    assert code == 78
    assert "--auc has 3 readers, the study of --key 2" in line


def test_pairs_are_planned_from_a_pilot_of_pairs(tmp_path, capsys):
    study, out = tmp_path / "study", tmp_path / "out"
    model = ["--case-share", "0.5", "--reader-variance", "0.2", "--pairs"]
    auc = ",".join(["0.7"] * 12)
    RUN["simulate"](["--auc", auc, "--cases", "400", "--out", str(study), *model])
    answers = map(str, study.glob("answers-*.csv"))
    pilot = ["--pilot", *answers, "--key", str(study / "key.json"), "--studies", "20"]
    RUN["power"]([*pilot, "--pairs", "--readers", "5", "--cases", "101", "--out", str(out)])
    model = json.loads((out / "power.json").read_text())["wanted"]["model"]
    assert 0.05 < model["reader"] < 0.4
    assert 0.3 < model["case"] < 0.7
    assert "| 5 × 101 |" in capsys.readouterr().out


def test_bias_and_fatigue_of_simulated_readers_show(tmp_path):
    study, out = tmp_path / "study", tmp_path / "out"
    tired = ["--fatigue", "1", "--bias", "0.8", "--seed", "1"]
    areas = "0.95,0.95,0.95,0.95"
    RUN["simulate"](["--auc", areas, "--cases", "200", "--out", str(study), *tired])
    answers = map(str, study.glob("answers-*.csv"))
    RUN["analyse"]([*answers, "--key", str(study / "key.json"), "--out", str(out)])
    found = json.loads((out / "results.json").read_text())
    assert found["trends"]["single"]["interval"][1] < 0
    assert all(row["false_alarms"] > 0.4 for row in found["readers"])


def test_power_prints_designs_and_writes_a_page(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--margin", "0.1", "--readers", "3,5", "--cases", "40,60", "--studies", "50"]
    RUN["power"]([*words, "--out", str(out)])
    said = capsys.readouterr().out
    assert "| 3 × 40 |" in said
    assert "5 readers: 130 cases for TOST with power 80% at AUC 0.5, margin ±0.1" in said
    numbers = json.loads((out / "power.json").read_text())
    assert len(numbers["designs"]) == 4
    assert numbers["smallest"]["3"] == 424
    assert (out / "power.html").read_text().count("<polyline") == 2


def test_power_takes_the_variances_of_a_pilot(tmp_path, capsys):
    study, out = tmp_path / "study", tmp_path / "out"
    model = ["--case-share", "0.5", "--reader-variance", "0.2"]
    auc = ",".join(["0.7"] * 12)
    RUN["simulate"](["--auc", auc, "--cases", "200", "--out", str(study), *model])
    answers = map(str, study.glob("answers-*.csv"))
    pilot = ["--pilot", *answers, "--key", str(study / "key.json"), "--studies", "0"]
    RUN["power"]([*pilot, "--readers", "5", "--cases", "100", "--out", str(out)])
    model = json.loads((out / "power.json").read_text())["wanted"]["model"]
    assert 0.1 < model["reader"] < 0.4
    assert 0.3 < model["case"] < 0.7
    assert "–" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("action", "words", "code", "said"),
    [
        ("analyse", ["gone.csv", "--key", "gone.json"], 78, "gone.csv is not a file"),
        ("analyse", ["a.csv", "--margin", "0.6"], 78, "--margin must be above 0 and below 0.5"),
        ("analyse", ["a.csv", "--margin", "0"], 78, "--margin must be above 0 and below 0.5"),
        ("analyse", ["a.csv", "--margin", "nan"], 78, "--margin must be above 0 and below 0.5"),
        ("analyse", ["a.csv", "b.csv"], 78, "is not a file"),
        ("simulate", ["--auc", "0.5"], 78, "give --cases for a new study"),
        ("simulate", ["--auc", "0.5", "--cases", "2"], 78, "--cases must be at least 4"),
        ("simulate", ["--auc", "1.5", "--cases", "9"], 78, "each AUC must be above 0"),
        ("simulate", ["--auc", "a", "--cases", "9"], 78, "must be numbers with commas"),
        ("simulate", ["--auc", ".5", "--cases", "9", "--fatigue", "2"], 78, "--fatigue must be"),
        ("simulate", ["--auc", ".5", "--cases", "9", "--case-share", "2"], 78, "must sum to"),
        ("simulate", ["--auc", ".5", "--cases", "9", "--reader-variance", "-1"], 78, "at least 0"),
        ("simulate", ["--auc", ".5", "--key", "gone.json"], 78, "gone.json is not a file"),
        ("power", ["--readers", "1"], 78, "--readers must be at least 3"),
        ("power", ["--cases", "51"], 78, "--cases must be even"),
        ("power", ["--cases", "50.5"], 78, "must be whole numbers"),
        ("power", ["--auc", "1"], 78, "--auc must be above 0 and below 1"),
        ("power", ["--power", "80"], 78, "--power must be above 0 and below 1"),
        ("power", ["--key", "key.json"], 78, "does not read --key"),
        ("power", ["--pilot", "a.csv", "--case-share", "0.1"], 78, "--pilot gives the variances"),
    ],
)
def test_bad_flags_are_one_line(refusal, tmp_path, monkeypatch, action, words, code, said):
    monkeypatch.chdir(tmp_path)
    found, line = refusal(RUN[action], [*words, "--out", "out"])
    assert found == code
    assert line.startswith(f"rfxray readers {action}: ") or line.startswith(
        f"rfxray.readers.{action}: error: "
    )
    assert said in line
    assert not list(tmp_path.iterdir())


def test_bad_data_is_one_line_with_its_own_code(refusal, simulated, tmp_path):
    folder = simulated()
    path = folder.answers[0]
    path.write_text(path.read_text().replace(",reading,", ",reading,", 1)[:-200])
    words = [*folder.answers, "--key", folder.key, "--out", tmp_path / "out"]
    code, line = refusal(RUN["analyse"], words)
    assert code == 65
    assert line.startswith(f"rfxray.readers.analyse: error: {path}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("action", ["analyse", "power", "simulate"])
def test_folder_with_other_files_is_refused(refusal, simulated, tmp_path, action):
    folder = simulated()
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").touch()
    words = {
        "analyse": [*folder.answers, "--key", folder.key],
        "power": ["--studies", "0"],
        "simulate": ["--auc", "0.5", "--cases", "20"],
    }[action]
    code, line = refusal(RUN[action], [*words, "--out", out])
    assert code == 78
    assert "choose another --out" in line
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_truth_does_not_leak_into_answers(simulated):
    folder = simulated()
    for path in folder.answers:
        header = path.read_text().splitlines()[0]
        assert "truth" not in header
        assert "synthetic" not in path.read_text()
