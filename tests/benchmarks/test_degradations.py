"""Faults grow with their level, films of a patient stay together, and blindness is named."""

import itertools
import json

import numpy as np
import pytest

from benchmarks import degradations
from rfxray.evaluate.extractors.extractor import Extractor, Preprocessing

SIZE = 16


@pytest.mark.parametrize("fault", ["blur", "noise", "contrast", "occlusion"])
def test_fault_grows_with_its_level(fault):
    image = np.random.default_rng(0).random((64, 64), np.float32)
    made = [degradations.FAULTS[fault](image, k, degradations.seed(fault)) for k in range(1, 7)]
    errors = [float(np.abs(each - image).mean()) for each in made]
    assert errors == sorted(set(errors))
    assert all(each.dtype == np.float32 and each.min() >= 0 and each.max() <= 1 for each in made)


def test_share_of_mirrored_films_is_the_level():
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    for level in (1, 3, 6):
        made = [degradations.mirrored(image, level, degradations.seed(k)) for k in range(600)]
        turned = np.mean([(each == image[:, ::-1]).all() for each in made])
        assert turned == pytest.approx(level / 6, abs=0.06)


def test_halves_share_no_patient():
    patients = [f"p{n % 37}" for n in range(200)]
    first, second = degradations.halves(patients)
    assert sorted([*first, *second]) == list(range(200))
    assert not {patients[n] for n in first} & {patients[n] for n in second}
    assert 0.4 < len(first) / 200 < 0.6


def test_films_that_are_lost_are_nested_and_replaced():
    ap = np.arange(120) % 3 == 0
    rows = [degradations.after_loss(ap, level) for level in range(7)]
    assert {len(each) for each in rows} == {80}
    lost = [set(each[ap[each]]) for each in rows]
    assert all(later < earlier for earlier, later in itertools.pairwise(lost))
    assert not lost[6]
    assert len(lost[0]) == round(80 / 3)


def test_study_says_what_an_extractor_sees_and_continues(tiny_data, tmp_path, monkeypatch, capsys):
    """Means of rows and columns see contrast; sorted ones cannot see a mirror."""
    preprocessing = Preprocessing(SIZE, "pad", "area", False, 1, (0.0,), (1.0,))
    called = []

    def features(images: np.ndarray) -> np.ndarray:
        called.append(len(images))
        grey = images[..., 0].reshape(len(images), -1)
        spread = np.sort(grey, 1).reshape(len(images), 64, -1).mean(-1)
        return np.concatenate([spread, grey.std(1, keepdims=True)], 1).astype(np.float32)

    extractor = Extractor("sorted", "0" * 64, 65, preprocessing, features, ())
    monkeypatch.setattr(degradations, "open_extractor", lambda spec: extractor)
    words = ["--data", f"{tiny_data}:train", "--extractor", f"sorted={tmp_path}/w"]
    words += ["--out", str(tmp_path)]
    degradations.main(words)
    found = json.loads((tmp_path / "degradations.json").read_text())
    assert found["command"].endswith("--data tiny:train --extractor sorted=w")
    (first,) = found["studies"]
    assert first["order"]["contrast"]["KID"] >= degradations.SEES
    assert abs(first["order"]["mirror"]["KID"]) < degradations.SEES
    assert first["order"]["noise"]["FD64"] is None  # 25 films
    assert (tmp_path / "degradations.svg").read_text().count("<polyline") == 6
    done = len(called)
    degradations.main(words)
    assert len(called) == done
    again = json.loads((tmp_path / "degradations.json").read_text())["studies"][0]
    assert again == first
    assert "too few films" in capsys.readouterr().out
