import csv
import dataclasses
import json

import numpy as np
import pytest

from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import INDEX, all_known
from rfxray.causes import pairs, tables, twinned
from rfxray.causes.twinned import Wanted
from rfxray.commands import causes, causes_stress
from rfxray.data.pixels import to_uint16
from rfxray.errors import ConfigError, DataError
from rfxray.outputs import files
from rfxray.sampling import pretrained
from rfxray.sampling.editing import EditSettings

READER = """
import numpy as np
SIZE = 16
def predict(images):
    return {"edema": 1 / (1 + np.exp(-8 * (images.mean((1, 2)) - 0.5)))}
"""


@pytest.fixture(scope="module")
def brighter():
    """A model that goes to a grey level of the sex and, less, of the race; nothing else shows."""
    from rfxray.runtime import sharding

    def velocity(params, x, t, attributes):
        grey = 0.3 * attributes.values[:, INDEX["sex"]] - 0.15
        grey = grey + 0.02 * attributes.values[:, INDEX["race"]]
        return x - grey[:, None, None, None]

    source = {"checkpoint": "none", "step": 0, "ema": 0.05, "weights": "a" * 64}
    return pretrained.Model({}, velocity, (32, 32, 1), sharding.make_mesh(1, 1, 1), source)


def radiographs(place, n=24):
    """A folder of grey images, and its table: half men, every second patient twice."""
    (place / "images").mkdir(parents=True)
    rows = ["image,patient,sex,race,view"]
    rng = np.random.default_rng(0)
    for k in range(n):
        image = np.clip(rng.normal(0, 0.2, (32, 32)), -1, 1)
        files.save_png(place / "images" / f"{k}.png", to_uint16(image))
        sex = "" if k == 0 else "MF"[k % 2]
        rows.append(f"{k}.png,p{k // 2 if k % 4 < 2 else k},{sex},{['White', 'Black'][k % 2]},AP")
    (place / "table.csv").write_text("\n".join(rows) + "\n")
    return place / "images", place / "table.csv"


@pytest.fixture
def stress(tmp_path, brighter, monkeypatch):
    """`stress(*flags)`: runs the command on such radiographs with that model."""
    monkeypatch.setattr(causes_stress, "load", lambda *given, **more: brighter)
    monkeypatch.setenv("RFXRAY_CACHE", str(tmp_path / "cache"))
    images, table = radiographs(tmp_path / "data")
    (tmp_path / "reader.py").write_text(READER)
    reads = ("--classifier", f"python={tmp_path / 'reader.py'}")
    data = ("--data", str(images), "--csv", f"{images}={table}", "--steps", "2")

    def run(*flags, data=data, out="out"):
        causes.main(["stress", *reads, *data, *flags, "--out", str(tmp_path / out)])
        return tmp_path / out

    return run


def test_a_report_of_twins_with_both_placebos_and_no_name_of_a_patient(stress, capsys):
    out = stress("--do", "sex", "--method", "flow", "--guidance", "1")
    found = json.loads((out / "results.json").read_text())
    assert found["pairs"] == 23  # the one of unknown sex is left out, and counted
    assert "1 of 24 pictures are not changed" in found["notes"][-1]
    assert found["directions"] == {"F → M": 12, "M → F": 11}
    (row,) = found["findings"]
    assert row["verdict"] == "leans"
    assert row["by_direction"]["F → M"]["value"] > 0 > row["by_direction"]["M → F"]["value"]
    assert abs(row["nothing"]["value"]) < 1e-6
    sizes = found["sizes"]
    assert sizes["placebo"] == pytest.approx(sizes["after"], rel=0.01)
    assert sizes["nothing"] < 1e-3
    scores = list(csv.DictReader((out / "scores.csv").open()))
    assert len(scores) == 23
    assert set(scores[0]) == {"pair", "direction", *(f"edema {name}" for name in pairs.FOLDERS)}
    page = (out / "report.html").read_text()
    assert "F → M" in page
    assert "Bonferroni" in page
    for file in out.rglob("*"):
        if file.is_file():
            assert b"p12" not in file.read_bytes(), file
    assert "sex: leans" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (None, "it is not known whether the radiographs are like its training data"),
        (0.0, "23 of 23 radiographs are far from the training data of the model"),
        (1e9, ""),
    ],
)
def test_radiographs_unlike_the_training_data_are_counted(
    stress, brighter, monkeypatch, capsys, limit, words
):
    model = dataclasses.replace(brighter, flow_loss_limit=limit)
    monkeypatch.setattr(causes_stress, "load", lambda *given, **more: model)
    out = stress("--do", "sex", "--method", "flow")
    notes = " ".join(json.loads((out / "results.json").read_text())["notes"])
    assert ("training data" in notes) == bool(words)
    assert words in notes
    assert words in capsys.readouterr().out
    assert words in (out / "report.html").read_text()


def test_the_same_twins_are_read_again_for_another_classifier(stress, tmp_path, refusal):
    out = stress("--do", "sex", "--method", "flow")
    (tmp_path / "reader.py").write_text(
        READER.replace("images.mean((1, 2)) - 0.5", "0 * images.mean((1, 2))")
    )
    again = stress(data=("--pairs", str(out / "pairs")), out="again")
    found = json.loads((again / "results.json").read_text())
    assert found["twins"] is None
    assert found["findings"][0]["verdict"] == "does not lean"  # it never moves
    assert not (again / "pairs").exists()


def test_a_killed_command_goes_on_where_it_stopped(stress, tmp_path, monkeypatch):
    monkeypatch.setattr(twinned, "BLOCK", 8)
    whole = stress("--do", "sex", "--method", "flow", out="whole")
    edit, calls = twinned._edited, []

    def dies(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return edit(*given)

    monkeypatch.setattr(twinned, "_edited", dies)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        stress("--do", "sex", "--method", "flow")
    assert not (tmp_path / "out" / "pairs" / "pairs.csv").exists()
    out = stress("--do", "sex", "--method", "flow")
    assert len(calls) == 4  # the first two blocks were there
    for file in sorted((whole / "pairs").rglob("*.png")):
        ours = out / "pairs" / file.relative_to(whole / "pairs")
        assert ours.read_bytes() == file.read_bytes()
    with pytest.raises(SystemExit) as ended:
        stress("--do", "sex", "--method", "flow", "--guidance", "1")
    assert ended.value.code == 78


def test_a_twin_is_drawn_by_the_key_of_the_radiograph_and_not_its_place(
    stress, tmp_path, brighter, monkeypatch
):
    """With `floor` the path of an inversion begins with a little noise, and FlowEdit is noise."""

    def grainy(params, x, t, attributes):  # its twin shows the noise that it was made by
        return brighter.velocity(params, x, t, attributes) * (1 + 0.2 * x)

    noisy = dataclasses.replace(brighter, velocity=grainy)
    monkeypatch.setattr(causes_stress, "load", lambda *given, **more: noisy)
    images, table = tmp_path / "data" / "images", tmp_path / "data" / "table.csv"
    for method in ("flow", "invert"):
        whole = stress("--do", "sex", "--method", method, out=f"{method}-whole")
        head, *rows = table.read_text().splitlines()
        part = tmp_path / f"{method}-part.csv"
        part.write_text("\n".join([head, *rows[5:]]) + "\n")
        some = tmp_path / f"{method}-some"
        some.mkdir()
        for row in rows[5:]:
            name = row.split(",")[0]
            (some / name).write_bytes((images / name).read_bytes())
        data = ("--data", str(some), "--csv", f"{some}={part}", "--steps", "2")
        fewer = stress("--do", "sex", "--method", method, data=data, out=f"{method}-fewer")
        twins = {}
        for place in (whole, fewer):
            after = (place / "pairs" / "before", place / "pairs" / "after")
            pair = [[file.read_bytes() for file in sorted(of.iterdir())] for of in after]
            twins[place] = dict(zip(*pair, strict=True))
        assert len(twins[fewer]) == 19
        assert all(twins[whole][before] == after for before, after in twins[fewer].items())


def test_twins_of_anybody_are_read_and_judged(stress, tmp_path):
    place = tmp_path / "own"
    rows = ["", " image, patient, from, to, follows"]  # as a person writes it
    rng = np.random.default_rng(0)
    for name in ("before", "after"):
        (place / name).mkdir(parents=True)
    for k in range(30):
        image = np.clip(rng.normal(0, 0.2, (32, 32)), -1, 1)
        files.save_png(place / "before" / f"{k:02d}.png", to_uint16(image))
        files.save_png(place / "after" / f"{k:02d}.png", to_uint16(image + 0.2))
        rows.append(f"{k:02d}.png,{k},age=40,age=80,{'edema' if k < 5 else ''}")
    (place / "pairs.csv").write_text("\n".join(rows) + "\n")
    files.save_png(place / "before" / "stray.png", to_uint16(image))
    out = stress(data=("--pairs", str(place)))
    results = json.loads((out / "results.json").read_text())
    assert results["notes"] == ["left out of before, since pairs.csv has no row: 1 files"]
    (row,) = results["findings"]
    assert (row["verdict"], row["why"], row["left_out"]) == (
        "not decided",
        "a placebo is missing",
        5,
    )
    assert row["drift"]["value"] > 0.1
    (place / "after" / "03.png").unlink()
    with pytest.raises(DataError, match="has no such file"):
        pairs.read(place)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--do", "race"), "race has more than two values"),
        (("--do", "sex", "--placebo", "age"), "--placebo age must be an attribute with categories"),
        (("--do", "sex", "--placebo", "sex"), "other than sex"),
        (("--do", "no_finding"), "no_finding follows from"),
        (("--do", "sex=unknown"), "must be an actual value"),
        (("--do", "fracture"), "can be changed in fracture"),
        (("--do", "sex", "--method", "noise"), "shows another patient"),
        (("--do", "sex", "--margin", "0"), "must be between 0 and 1"),
        ((), "give --data and --do"),
    ],
)
def test_what_cannot_be_tested_is_refused_in_a_line(stress, flags, words, capsys):
    with pytest.raises(SystemExit):
        stress(*flags)
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_value_that_the_causal_model_never_saw_is_refused(stress, tmp_path, capsys):
    rng, rows = np.random.default_rng(0), ["race,edema"]
    rows += [f"{('White', 'Black')[k % 2]},{rng.integers(2)}" for k in range(200)]
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "graph.json").write_text('{"parents": {"edema": ["race"]}}')
    places = [str(tmp_path / name) for name in ("table.csv", "graph.json", "model")]
    causes.main(["fit", "--data", places[0], "--graph", places[1], "--out", places[2]])
    with pytest.raises(SystemExit):
        stress("--do", "race=Asian", "--propagate", places[2])
    assert "no row of the table has race=Asian" in capsys.readouterr().err


def test_an_edit_is_enlarged_to_the_size_of_another():
    rng = np.random.default_rng(0)
    original = rng.uniform(-1, 1, (32, 32)).astype(np.float32)
    small, like = original + 0.01 * rng.normal(size=(32, 32)), np.clip(original + 0.1, -1, 1)
    equal = twinned.equalised(original, small.astype(np.float32), like)
    assert np.abs(equal - original).mean() == pytest.approx(
        np.abs(like - original).mean(), rel=1e-3
    )
    assert np.abs(equal).max() <= 1
    assert (twinned.equalised(original, original, like) == original).all()


def test_findings_follow_by_the_key_of_a_record_and_not_its_place(fitted, population):
    rows = population.rows(np.arange(60))
    wanted = Wanted("sex", None, "race", 60)
    keys = np.array([tables.named(f"k{k}") for k in range(60)])
    target, follows = twinned.changed_to(rows, wanted, fitted, keys)
    assert any(follows)
    order = np.arange(60)[::-1]
    turned, again = twinned.changed_to(rows.rows(order), wanted, fitted, keys[order])
    assert (turned.values == target.values[order]).all()
    assert again == [follows[k] for k in order]
    for k, names in enumerate(follows):
        moved = [vocabulary.NAMES[i] for i in np.flatnonzero(target.values[k] != rows.values[k])]
        assert set(moved) == {"sex", *names}
    still, none = twinned.changed_to(rows, wanted, None, keys)
    assert not any(none)
    assert (still.values[:, INDEX["sex"]] != rows.values[:, INDEX["sex"]]).all()


def test_lateral_views_stay_out_of_a_switch_of_the_projection(population):
    rows = all_known(np.asarray(population.values)[:50])
    wanted = Wanted("view", None, "race", 100)
    own = rows.values[wanted.rows(rows), INDEX["view"]]
    assert set(own) == {0.0, 1.0}
    with pytest.raises(ConfigError, match="at least 1"):
        Wanted("sex", None, "race", 0)
    assert EditSettings(method="flow")  # the methods that keep a patient are invert and flow
