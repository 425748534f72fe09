"""Controls: real images that were changed; who misses the degraded ones shows no equivalence."""

import dataclasses
import functools
import json

import numpy as np
import pytest

pytest.importorskip("cv2", reason="the extra prep")

from rfxray.errors import ConfigError, DataError
from rfxray.readers import answers, degrade, design, key, simulation, study
from rfxray.readers.analysis import analyse
from rfxray.readers.reader_page import STRINGS
from rfxray.readers.roe_metz import RoeMetz
from tests.rfxray.readers.test_design import candidates, film, shown, wanted


def changed(seed, side):
    return np.roll(film(seed, side), 1, axis=0)


def reconstructions(real):
    return [
        dataclasses.replace(c, name=f"other/{c.name}.png", pixels=functools.partial(changed, n))
        for n, c in enumerate(real)
    ]


@functools.cache
def controlled(modality):
    real = candidates("real", 60)
    rng = np.random.default_rng(5)
    changes = {"modality": modality, "degraded": 8, "reconstructed": 4, "cases": 20, "training": 2}
    plan = wanted(**changes)
    made = design.make(
        plan, real, candidates("synthetic", 40), rng, STRINGS, reconstructions=reconstructions(real)
    )
    return plan, made


@pytest.mark.parametrize("modality", ["single", "pairs"])
def test_controls_are_among_the_cases_of_other_patients_and_in_the_key_only(modality):
    _, made = controlled(modality)
    content = json.loads(made.key)
    kinds = [case.get("control") for case in content["cases"].values()]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        None: 20,
        "degraded": 8,
        "reconstructed": 4,
    }
    changes = [c["change"] for c in content["cases"].values() if c.get("control") == "degraded"]
    assert len(set(changes)) >= 3
    names = list(content["images"].values())
    # A pair shows its original, of the same name; no original is also a case
    assert len(names) - len(set(names)) == (8 if modality == "pairs" else 0)
    for reader, html in made.pages.items():
        assert "degraded" not in html
        assert "reconstruct" not in html
        items = [i for i in shown(html)["items"] if i["phase"] == "reading"]
        first = [i for i in items if not i["repeat"]]
        assert len(first) == 32
        assert not any(content["cases"][i["case"]].get("control") for i in items if i["repeat"])
        if modality == "pairs":
            for chosen in (None, "degraded", "reconstructed"):
                assert any(content["cases"][i["case"]].get("control") == chosen for i in first)
            sides = content["sides"][reader]
            places = [
                sides[str(i["item"])]
                for i in first
                if not content["cases"][i["case"]].get("control")
            ]
            assert places.count("left") == 10


def test_a_control_of_a_pair_stands_at_the_side_that_the_key_names():
    _, made = controlled("pairs")
    content = json.loads(made.key)
    originals = [n for n in content["images"].values() if n.startswith("other/")]
    assert len(originals) == 4
    reader, html = next(iter(made.pages.items()))
    for item in shown(html)["items"]:
        if content["cases"].get(item["case"], {}).get("control") == "reconstructed":
            side = content["sides"][reader][str(item["item"])]
            name = item["images"][("left", "right").index(side)]
            assert content["images"][name].startswith("other/")


def read(tmp_path, modality, areas, change=lambda rows, content: rows):
    """An analysis of simulated readers of the study; a test may change their answers."""
    _, made = controlled(modality)
    place = tmp_path / "key.json"
    place.write_bytes(made.key)
    opened = key.read(place)
    simulated = simulation.Simulated(areas, 0.0, 0.0, 0.2, RoeMetz(), 3)
    files = []
    for reader, rows in simulation.answer(opened, simulated).items():
        path = tmp_path / f"{reader}.csv"
        path.write_text(answers.text(change(rows, json.loads(made.key))))
        files.append(answers.read(path))
    return analyse(study.from_files(files, opened), 0.45)


@pytest.mark.parametrize("modality", ["single", "pairs"])
def test_controls_are_reported_apart_and_change_no_number(tmp_path, modality):
    found = read(tmp_path, modality, (0.5, 0.5))
    assert found.counts["cases"] == 20
    rows = [(r.kind, r.result.reader, r.found) for r in found.controls]
    assert rows[:2] == [("degraded", "reader-1", True), ("degraded", "reader-2", True)]
    assert [row[:2] for row in rows[2:]] == [
        ("reconstructed", "reader-1"),
        ("reconstructed", "reader-2"),
    ]
    assert found.left_out["answers to controls (degraded), which are reported apart"] == 16
    answered = 8 if modality == "pairs" else 18  # beside the 10 real cases
    assert found.controls[0].result.answered == answered


def inattentive(rows, content):
    """The same answers, except that every control is called surely real."""
    control = {name for name, case in content["cases"].items() if case.get("control")}
    return [dataclasses.replace(row, score="1") if row.case in control else row for row in rows]


def test_equivalence_needs_readers_who_find_the_degraded_controls(tmp_path, monkeypatch):
    monkeypatch.setattr(simulation, "CONTROL_AREA", 0.9999)
    areas = (0.5, 0.5, 0.5)
    monkeypatch.setattr(
        "tests.rfxray.readers.test_controls.wanted", functools.partial(wanted, readers=3)
    )
    controlled.cache_clear()
    attentive = read(tmp_path, "single", areas)
    (verdict,) = attentive.verdicts
    assert verdict.verdict == "equivalent within ±0.45"
    blind = read(tmp_path, "single", areas, inattentive)
    (other,) = blind.verdicts
    assert other.verdict == "not shown"
    assert other.reasons[-1].startswith(
        "readers who did not find the degraded controls: reader-1, reader-2, reader-3"
    )
    assert other.main == verdict.main
    controlled.cache_clear()


@pytest.mark.parametrize("change", degrade.CHANGES)
def test_changes_are_visible_and_keep_size_and_type(change):
    image = (film(1, 128) >> 8).astype(np.uint8)
    image[10:20, 8:10] = 255
    image[18:20, 8:14] = 255
    changed = degrade.CHANGES[change](image, np.random.default_rng(0))
    assert (changed.shape, changed.dtype) == (image.shape, image.dtype)
    difference = np.abs(changed.astype(int) - image)
    if change == "marker removed":
        assert difference[11:19, 8:10].min() > 60
        assert difference[40:].max() == 0
    else:
        assert difference.mean() > 3


def test_an_image_without_a_marker_gets_the_next_change():
    flat = np.full((64, 64), 90, np.uint8)
    assert degrade.no_marker(flat, np.random.default_rng(0)) is None
    names = list(degrade.CHANGES)
    number = names.index("marker removed")
    assert degrade.degraded(flat, number, np.random.default_rng(0))[0] == names[0]


def test_wrong_controls_are_refused_in_one_line():
    with pytest.raises(ConfigError, match="--degraded must be 0 or at least 6"):
        wanted(degraded=5)
    with pytest.raises(ConfigError, match="at least 0"):
        wanted(reconstructed=-1)
    real, synthetic = candidates("real", 16), candidates("synthetic", 16)
    with pytest.raises(
        DataError, match="20 controls need 20 more real images of other patients, and 10 are left"
    ):
        design.make(
            wanted(degraded=20, cases=8, training=4),
            real,
            synthetic,
            np.random.default_rng(0),
            STRINGS,
        )
    alien = [dataclasses.replace(each, name=f"x{each.name}") for each in real]
    with pytest.raises(DataError, match="no reconstruction has the key or file name"):
        design.make(
            wanted(reconstructed=2, cases=8),
            real,
            synthetic,
            np.random.default_rng(0),
            STRINGS,
            reconstructions=alien,
        )
