"""Sets of pictures: what is read from a data set, from samples, from files of anybody."""

import json
import os
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from rfxray.attributes import vocabulary
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate.pictures import open_pictures
from rfxray.outputs import dicom, files


def image(number: int, height: int = 48, width: int = 40) -> np.ndarray:
    """A grey image with its number in it."""
    rng = np.random.default_rng(number)
    return cv2.resize(rng.integers(0, 255, (6, 5), np.uint8), (width, height))


@pytest.fixture
def folder(tmp_path):
    """Three PNG files, one of them in a folder below."""
    path = tmp_path / "films"
    (path / "more").mkdir(parents=True)
    for number, name in enumerate(("b.png", "a.png", "more/c.png")):
        Image.fromarray(image(number)).save(path / name)
    (path / "README.txt").write_text("not an image")
    (path / ".hidden.png").write_text("not looked at")
    return path


def write_samples(out, count=4, kind="png"):
    """A folder such as `rfxray sample` writes."""
    out.mkdir()
    entries = []
    for number in range(count):
        pixels = image(number).astype(np.uint16) * 200
        entry = {"synthetic": True, "index": number, "attributes": {"view": "PA", "age": 50.0}}
        name = f"sample_{number:05d}.{'dcm' if kind == 'dicom' else 'png'}"
        if kind == "dicom":
            dicom.save(out / name, pixels, entry)
        else:
            files.save_png(out / name, pixels, {"rfxray": entry})
        entries.append({"file": name, **entry})
    (out / "samples.json").write_text(json.dumps({"plan": {}, "pictures": entries}))
    (out / "plan.json").write_text("{}")
    files.save_png(out / "grid.png", image(99))
    return out


# ------------------------------------------------------------------------------------------------
# Data sets of ours


def test_data_set_gives_records_with_attributes_and_patients(tiny_data, tiny_records):
    found = open_pictures(f"{tiny_data}:validation")
    assert len(found) == 20
    assert found.records
    assert not found.synthetic
    for place, number in ((0, 50), (19, 69)):
        (record,) = tiny_records([number])
        assert found.keys[place] == record["key"]
        assert found.patients[place] == record["patient"]
        np.testing.assert_array_equal(found.read(place), record["image"] / np.float32(65535))
        said = vocabulary.decode(found.attributes.rows(place))
        assert said["age"] == number % 90
        assert "pneumonia" not in said  # uncertain
        assert said["edema"] == "absent"
    assert found.boxes.tolist() == [[0, 0, 32, 32]] * 20


def test_data_set_without_a_split_is_every_split(tiny_data):
    both = open_pictures(tiny_data)
    assert len(both) == 70
    assert both.keys[50:] == open_pictures(f"{tiny_data}:validation").keys
    np.testing.assert_array_equal(both.read(50), open_pictures(f"{tiny_data}:validation").read(0))
    with pytest.raises(ConfigError, match="no split 'test', only train, validation"):
        open_pictures(f"{tiny_data}:test")


def test_fingerprint_is_of_content_and_not_of_place(tiny_data, other_data, tmp_path):
    shutil.copytree(tiny_data, tmp_path / "copy")
    whole = open_pictures(tiny_data).fingerprint
    assert open_pictures(tmp_path / "copy").fingerprint == whole
    others = [f"{tiny_data}:train", f"{tiny_data}:validation", other_data]
    assert len({whole, *(open_pictures(each).fingerprint for each in others)}) == 4


def test_fingerprint_of_files_follows_their_content(folder, tmp_path):
    before = open_pictures(folder).fingerprint
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    assert open_pictures(copy).fingerprint == before
    times = (folder / "a.png").stat()
    content = bytearray((folder / "a.png").read_bytes())
    content[-1] ^= 1
    (folder / "a.png").write_bytes(content)  # as long as before, with the same name and time
    os.utime(folder / "a.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert open_pictures(folder).fingerprint != before


# ------------------------------------------------------------------------------------------------
# Samples


@pytest.mark.parametrize("kind", ["png", "dicom"])
def test_samples_are_read_as_they_were_written(tmp_path, kind):
    found = open_pictures(write_samples(tmp_path / "drawn", kind=kind))
    assert len(found) == 4
    assert found.synthetic
    assert not found.records
    np.testing.assert_allclose(
        found.read(2), image(2).astype(np.float32) * 200 / 65535, rtol=0, atol=1e-7
    )
    assert vocabulary.decode(found.attributes.rows(1)) == {"view": "PA", "age": 50.0}


def test_samples_that_are_gone_or_not_finished_are_refused(tmp_path):
    out = write_samples(tmp_path / "drawn")
    (out / "sample_00002.png").unlink()
    with pytest.raises(DataError, match=r"no file 'sample_00002\.png'"):
        open_pictures(out)
    (out / "samples.json").unlink()
    with pytest.raises(DataError, match="is not finished; repeat the command"):
        open_pictures(out)


def test_samples_outside_of_their_folder_are_refused(tmp_path):
    out = write_samples(tmp_path / "drawn")
    Image.fromarray(image(1)).save(tmp_path / "other.png")
    listed = [{"file": "../other.png", "attributes": {}}]
    (out / "samples.json").write_text(json.dumps({"pictures": listed}))
    with pytest.raises(DataError, match=r"has no file '\.\./other\.png'"):
        open_pictures(out)


# ------------------------------------------------------------------------------------------------
# Files of anybody


def test_files_are_found_at_any_depth_in_the_order_of_their_paths(folder):
    found = open_pictures(folder)
    assert found.keys == ("a.png", "b.png", "more/c.png")
    assert found.attributes is None
    assert found.patients == ("", "", "")
    assert found.read(2).shape == (48, 40)
    assert found.read(2).dtype == np.float32
    assert 0 <= found.read(2).min() <= found.read(2).max() <= 1


def test_links_to_folders_are_followed_once(folder):
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    assert len(open_pictures(folder)) == 3


def test_dicom_files_without_an_ending_are_found(folder):
    dicom.save(folder / "x.dcm", image(7).astype(np.uint16) * 200, {"attributes": {}})
    (folder / "x.dcm").rename(folder / "IM0001")
    assert "IM0001" in open_pictures(folder).keys


def test_table_gives_patients_and_attributes(folder, tmp_path):
    table = tmp_path / "films.csv"
    table.write_text("patient,image,sex,view,age\np1,c,Female,AP,063Y\np1,b.png,M,,\n")
    found = open_pictures(folder, table)
    assert found.keys == ("b.png", "more/c.png")
    assert found.patients == ("p1", "p1")
    assert vocabulary.decode(found.attributes.rows(1)) == {"sex": "F", "view": "AP", "age": 63.0}
    assert found.notes == ("1 files are not in films.csv, so not in the set",)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("image\nnone.png\n", "line 2 names 'none.png', and .* has no such file"),
        ("image\na.png\na.png\n", "line 3 names 'a.png' a second time"),
        ("image,sex\na.png,dog\n", "line 2: sex has no value 'dog'"),
        ("file\na.png\n", "must have a header with a column image"),
    ],
)
def test_table_that_does_not_fit_is_refused_by_line(folder, tmp_path, rows, said):
    table = tmp_path / "films.csv"
    table.write_text(rows)
    with pytest.raises(DataError, match=said):
        open_pictures(folder, table)


def bad(folder, kind: str) -> str:
    """Adds one bad file; its name."""
    name = f"z_{kind}.png"
    if kind == "duplicate":
        shutil.copy(folder / "a.png", folder / name)
    elif kind == "coloured":
        colours = np.stack([image(5), image(6), image(7)], -1)
        Image.fromarray(colours).save(folder / name)
    elif kind == "torn":
        whole = (folder / "a.png").read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    elif kind == "tiff":
        name = "z_tiff.tif"
        Image.fromarray(image(5)).save(folder / name)
    elif kind == "small":
        Image.fromarray(image(5, 20, 20)).save(folder / name)
    elif kind == "narrow":
        Image.fromarray(image(5, 400, 40)).save(folder / name)
    return name


def read_all(folder) -> list:
    found = open_pictures(folder)
    return [found.read(number) for number in range(len(found))]


REASONS = {
    "duplicate": "same content as a.png",
    "coloured": "colour",
    "torn": "does not decode",
    "tiff": "neither PNG, JPEG nor DICOM",
    "small": "too small: 20 × 20 pixels",
    "narrow": "too narrow: 400 × 40 pixels",
}


@pytest.mark.parametrize("kind", REASONS)
def test_bad_file_is_refused_or_listed_never_skipped_in_silence(folder, kind):
    name = bad(folder, kind)
    with pytest.raises(DataError, match=f"{name}.*{REASONS[kind]}.*--skip-rejected"):
        read_all(folder)
    left = open_pictures(folder, reject=True)
    assert left.keys == ("a.png", "b.png", "more/c.png")
    assert list(left.rejected) == [name]
    assert REASONS[kind] in left.rejected[name]


def test_empty_and_missing_folders_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty has no images"):
        open_pictures(tmp_path / "empty")
    with pytest.raises(DataError, match="no folder"):
        open_pictures(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="mount the bucket"):
        open_pictures("gs://bucket/data")


def test_labels_are_read_without_images(tiny_data):
    from rfxray.data.dataset import Records, open_dataset

    records = Records(open_dataset(tiny_data), "train")
    whole, labels = records[3], records.labels(3)
    assert "image" not in labels
    assert whole.keys() - labels.keys() == {"image"}
    assert labels["key"] == whole["key"]
