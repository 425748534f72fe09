"""Parts of a set by attribute, and what two sets share."""

import numpy as np
import pytest

from rfxray.attributes import vocabulary
from rfxray.errors import DataError
from rfxray.evaluate import overlap
from rfxray.evaluate.curves import plot
from rfxray.evaluate.pictures import open_pictures
from rfxray.evaluate.strata import of, sources


def test_parts_are_by_known_values_only():
    asked = [
        {"view": "PA", "age": 39.9, "edema": "present", "source": "nih"},
        {"view": "PA", "age": 40, "edema": "absent"},
        {"sex": "F"},
    ]
    attributes = vocabulary.stack([vocabulary.encode(each) for each in asked])
    found = {name: np.flatnonzero(mask).tolist() for name, mask in of(attributes).items()}
    assert found == {
        "view=PA": [0, 1],
        "sex=F": [2],
        "source=nih": [0],
        "age=30 to 39": [0],
        "age=40 to 49": [1],
        "edema=present": [0],
    }
    assert sources(attributes) == {"nih"}
    assert sources(None) == set()


def test_unknown_patients_are_patients_of_their_own(tiny_data):
    pictures = open_pictures(f"{tiny_data}:validation")
    assert overlap.patients(pictures, "real") == list(pictures.patients)
    anonymous = vars(pictures) | {"patients": ("", "p", "p", *[""] * 17), "records": False}
    names = overlap.patients(type(pictures)(**anonymous), "a")
    assert len(set(names)) == 19
    assert names[1] == names[2] == "a: p"


def test_keys_count_between_data_sets_and_file_names_do_not(tiny_data):
    train, validation = (open_pictures(f"{tiny_data}:{s}") for s in ("train", "validation"))
    pixels = [np.arange(n).astype("V32") for n in (50, 20)]
    other = [np.arange(100, 120).astype("V32"), pixels[0]]
    overlap.refuse(train, pixels[0], validation, other[0])
    with pytest.raises(DataError, match="overlap: 20 pictures of the same keys"):
        overlap.refuse(validation, pixels[1], validation, other[0])
    with pytest.raises(DataError, match="overlap: 20 pictures of the same pixels"):
        overlap.refuse(train, pixels[0], validation, pixels[1])


def test_samples_are_paired_by_key_and_request_and_never_by_place(tiny_data):
    first = open_pictures(f"{tiny_data}:train")
    order = np.arange(50)[::-1]
    attributes = first.attributes.rows(order)
    values = attributes.values.copy()
    values[3, vocabulary.INDEX["age"]] += 1  # another request under the same key
    turned = vars(first) | {
        "keys": tuple(first.keys[i] for i in order),
        "attributes": vocabulary.Attributes(values, attributes.known),
    }
    found = overlap.pairs(first, type(first)(**turned))
    assert len(found) == 49
    assert all(i + k == 49 and first.keys[i] == key for key, i, k in found)


def test_curve_places_more_images_further_right_and_larger_values_higher():
    rows = [
        {"n_real": n, "n_synthetic": 400, "value": v, "low": None, "high": None}
        for n, v in ((100, 2.0), (50, 1.0), (400, 0.5))
    ]
    drawn = plot({"a": rows}, {"real floor": 0.1})
    marks = drawn["lines"][0]["marks"]
    assert [mark["n"] for mark in marks] == [50, 100, 400]
    assert marks[0]["x"] < marks[1]["x"] < marks[2]["x"]
    assert marks[1]["y"] < marks[0]["y"] < marks[2]["y"] < drawn["floors"][0]["y"]
    assert all(0 <= mark["y"] <= drawn["height"] for mark in marks)
