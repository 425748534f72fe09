"""The phase of diagnosis: what is asked, what the key knows of it, and what its answers say."""

import csv
import dataclasses
import json

import numpy as np
import pytest

pytest.importorskip("cv2", reason="the extra prep")

from rfxray.commands import readers as command
from rfxray.errors import ConfigError, DataError
from rfxray.outputs.files import save_png
from rfxray.readers import answers, diagnosis, key, reader_page, report, simulation, study
from rfxray.readers.analysis import analyse
from rfxray.readers.roe_metz import RoeMetz
from tests.rfxray.readers.test_design import candidates, film, made, shown


def test_findings_of_the_flag():
    assert len(diagnosis.findings("all")) == 12
    assert diagnosis.findings(" edema, fracture") == ("edema", "fracture")
    assert diagnosis.findings("") == ()
    for wrong in ("edema,edema", "oedema", "no_finding", "view"):
        with pytest.raises(ConfigError, match="--diagnosis takes all, or each once of"):
            diagnosis.findings(wrong)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, {}),
        ({"edema": "present"}, {"abnormal": 1, "edema": 1}),
        ({"edema": "-1", "view": "AP"}, {}),
        ({"fracture": "1"}, {"abnormal": 1}),
        ({"edema": "0"}, {"edema": 0}),
        ({"no_finding": "present", "edema": "absent"}, {"abnormal": 0, "edema": 0}),
        (dict.fromkeys(diagnosis.findings("all"), "0"), {"abnormal": 0, "edema": 0}),
    ],
)
def test_what_attributes_say_of_findings(facts, expected):
    assert diagnosis.known(facts, ("edema",)) == expected
    with pytest.raises(DataError, match="edema has no value"):
        diagnosis.known({**facts, "edema": "purple"}, ("edema",))


@pytest.mark.parametrize("modality", ["single", "pairs"])
def test_every_image_of_a_case_is_asked_once_before_all_else(modality):
    study_made = made(modality=modality, cases=8, training=2, diagnosis=("edema",))
    content = json.loads(study_made.key)
    orders = []
    for html in study_made.pages.values():
        items = shown(html)["items"]
        first = [i for i in items if i["phase"] == "diagnosis"]
        assert [i["item"] for i in items] == list(range(1, len(items) + 1))
        assert items[: len(first)] == first
        assert sorted(i["case"] for i in first) == list(content["diagnosis"])
        assert all(i["images"] == [i["case"]] for i in first)
        later = {name for i in items if i["phase"] == "reading" for name in i["images"]}
        assert later == set(content["diagnosis"])
        orders.append([i["case"] for i in first])
        assert shown(html)["diagnosis"] == ["diagnosis:abnormal", "diagnosis:edema"]
    assert orders[0] != orders[1]
    kinds = [image["truth"] for image in content["diagnosis"].values()]
    assert kinds.count(0) == kinds.count(1) == (8 if modality == "pairs" else 4)
    if modality == "pairs":
        reading = [str(i["item"]) for i in items if i["phase"] == "reading"]
        assert list(content["sides"]["reader-2"]) == reading


def files(tmp_path, said, **facts):
    """Files of two readers; `said[reader][finding]` lists 1, 0 or an empty text for each image."""
    images = {
        f"i{n}": {"truth": n % 2, "patient": f"p{n}", **{f: t[n] for f, t in facts.items()}}
        for n in range(8)
    }
    cases = {f"c{n}": {"truth": n % 2} for n in range(8)}
    content = {"study": "s", "modality": "single", "cases": cases, "diagnosis": images}
    (tmp_path / "key.json").write_text(json.dumps(content))
    opened = key.read(tmp_path / "key.json")
    found = []
    for reader, findings in said.items():
        rows = [row(reader, None, "key_sha256", "single", opened.sha256, "about")]
        for finding, scores in findings.items():
            for n, score in enumerate(scores):
                name = f"diagnosis:{finding}"
                rows.append(row(reader, n + 1, f"i{n}", name, str(score), "diagnosis"))
        for n in range(8):
            rows.append(row(reader, n + 9, f"c{n}", "single", str(1 + n % 5), "reading"))
        (tmp_path / f"{reader}.csv").write_text(answers.text(rows))
        found.append(answers.read(tmp_path / f"{reader}.csv"))
    return found, opened


def row(reader, item, case, modality, score, phase):
    return answers.Answer("s", reader, item, case, modality, score, "", 1.0, 0, phase)


def test_answers_are_compared_with_what_is_known_and_stay_out_of_the_verdict(tmp_path):
    truth = [1, 1, 1, 0, 0, 0, 0, 0]
    said = {
        "a": {"abnormal": [1] * 8, "edema": [1, 1, 0, 1, 0, 0, 0, 0]},
        "b": {"abnormal": [1, "", 0, 0, 0, 0, 0, "NA"], "edema": truth},
    }
    read, opened = files(tmp_path, said, edema=truth)
    joined = study.from_files(read, opened)
    assert joined.left_out["answers of the phase diagnosis"] == 32
    assert joined.modalities == ("single",)
    found = {(f.finding, f.images): f for f in analyse(joined, 0.1).diagnosis}
    edema = found["edema", "all"]
    assert (edema.present, edema.absent, edema.answered) == (3, 5, 16)
    first, second = edema.readers
    assert (first.sensitivity, first.specificity) == (2 / 3, 4 / 5)
    assert first.auc == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert first.auc_interval[0] < first.auc < first.auc_interval[1]
    assert second.auc == 1
    assert edema.same_as_truth == pytest.approx((6 / 8 + 1) / 2)
    assert edema.same == 6 / 8
    # κ by hand: agreement 6/8, chance (3·3 + 5·5)/64
    assert edema.kappa == pytest.approx((6 / 8 - 34 / 64) / (1 - 34 / 64))
    abnormal = found["abnormal", "all"]
    assert (abnormal.present, abnormal.absent, abnormal.answered, abnormal.auc) == (0, 0, 14, None)
    assert found["edema", "real"].present == 2
    assert found["edema", "synthetic"].present == 1
    html = report.html(joined, analyse(joined, 0.1), {})
    assert "<td>edema</td><td>synthetic</td><td>1</td><td>3</td><td>8</td>" in html


@pytest.mark.parametrize("modality", ["single", "pairs"])
def test_simulated_readers_answer_the_phase_too(tmp_path, modality):
    sides = [
        [
            dataclasses.replace(
                each, facts={**each.facts, "edema": ("absent", "present")[n // 2 % 2]}
            )
            for n, each in enumerate(candidates(kind, 70))
        ]
        for kind in ("real", "synthetic")
    ]
    design = made(*sides, modality=modality, cases=60, training=2, diagnosis=("edema",))
    (tmp_path / "key.json").write_bytes(design.key)
    opened = key.read(tmp_path / "key.json")
    abilities = simulation.Simulated((0.5, 0.6), 0, 0, 0.1, RoeMetz(), seed=1)
    read = []
    for reader, rows in simulation.answer(opened, abilities).items():
        (tmp_path / reader).write_text(answers.text(rows))
        read.append(answers.read(tmp_path / reader))
    for file in read:
        places = [answer.item for answer in file.answers if answer.phase == "reading"]
        assert min(places) > len(opened.diagnosis)
    joined = study.from_files(read, opened)
    found = {(f.finding, f.images): f for f in analyse(joined, 0.1).diagnosis}
    edema = found["edema", "all"]
    assert edema.answered == 2 * len(opened.diagnosis)
    # 60 images or 120: DIAGNOSED within four deviations
    share = simulation.DIAGNOSED
    error = 4 * np.sqrt(share * (1 - share) / edema.answered)
    assert abs(edema.same_as_truth - share) < error


def test_one_answer_to_everything_is_not_estimable(tmp_path):
    truth = [1, 1, 1, 0, 0, 0, 0, 0]
    read, opened = files(tmp_path, {"a": {"abnormal": [0] * 8, "edema": [0] * 8}}, edema=truth)
    (found,) = [
        f
        for f in diagnosis.analyse(study.from_files(read, opened).diagnosis)
        if (f.finding, f.images) == ("edema", "all")
    ]
    assert found.auc is None
    assert found.readers[0].specificity == 1
    assert found.same is None


@pytest.mark.parametrize(
    ("scores", "said"),
    [([2] * 8, "must be 0, 1 or empty"), ([0] * 9, "image 'i8' is not in the key's diagnosis")],
)
def test_wrong_answers_are_refused_in_one_line(tmp_path, scores, said):
    read, opened = files(tmp_path, {"a": {"abnormal": scores}})
    with pytest.raises(DataError, match=said):
        study.from_files(read, opened)


def test_images_too_large_for_a_page_need_the_folder(monkeypatch):
    monkeypatch.setattr(reader_page, "MOST", 1 << 16)
    with pytest.raises(ConfigError, match=r"24 images are 0 MiB .*give --images folder"):
        made(readers=1)
    assert len(made(readers=1, folder=True).images) == 24


def test_command_writes_a_folder_of_images_and_a_phase_of_diagnosis(tmp_path, capsys):
    for kind, start in (("real", 0), ("synthetic", 100)):
        (tmp_path / kind).mkdir()
        with (tmp_path / f"{kind}.csv").open("w") as table:
            writer = csv.writer(table)
            writer.writerow(["image", "view", "edema"])
            for n in range(8):
                image = film(start + n, 128)
                save_png(tmp_path / kind / f"{n}.png", image)
                writer.writerow([f"{n}.png", "PA", n % 2])
    words = ["design", "--study", "s", "--cases", "8", "--readers", "2", "--training", "0"]
    for kind in ("real", "synthetic"):
        words += [f"--{kind}", str(tmp_path / kind), f"--{kind}-csv", str(tmp_path / f"{kind}.csv")]
    words += ["--diagnosis", "edema", "--images", "folder", "--size", "64"]
    command.main([*words, "--key", str(tmp_path / "key.json"), "--out", str(tmp_path / "out")])
    sheets = sorted((tmp_path / "out" / "images").iterdir())
    assert len(sheets) == 8
    assert len({sheet.stat().st_size for sheet in sheets}) == 1
    opened = key.read(tmp_path / "key.json")
    assert sorted(f"{name}.css" for name in opened.diagnosis) == [s.name for s in sheets]
    assert {case.strata["edema"] for case in opened.diagnosis.values()} == {"0", "1"}
    for reader in ("reader-1", "reader-2"):
        html = (tmp_path / "out" / f"{reader}.html").read_text()
        assert len(html) < sheets[0].stat().st_size + 80_000
        assert shown(html)["images"] == {}
    assert np.unique([len(v) for v in shown(html)["sha256"].values()]) == [64]
