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


def test_columns_that_are_not_read_are_named(folder, tmp_path):
    table = tmp_path / "films.csv"
    table.write_text("image,scanner,sex,site\na.png,x,F,y\nb.png,x,F,y\nc,x,F,y\n")
    assert open_pictures(folder, table).notes == ("columns of films.csv not read: scanner, site",)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("image\nnone.png\n", "line 2 names 'none.png', and .* has no such file"),
        ("image\na.png\na.png\n", "line 3 names 'a.png' a second time"),
        ("image,sex\na.png,dog\n", "line 2: sex has no value 'dog'"),
        ("file\na.png\n", "must have a header with a column image"),
        ("image;sex\na.png;F\n", "a column image, separated by commas"),
        ("image,Sex\na.png,F\n", "has a column 'Sex'; write it sex"),
        ("image,Pleural Effusion\na.png,1\n", "write it pleural_effusion"),
        ("image,sex,sex\na.png,F,M\n", "has two columns sex"),
        ("image,sex\na.png,F,x\n", "line 2 has 3 cells, and the header 2"),
        ("image,sex,view\na.png\n", "line 2 has 1 cells, and the header 3"),
        ('image,sex\n"a.png,F\n', "cannot be read .*; give a CSV in UTF-8"),
        ("image,age\n\na.png,nan\nb.png,inf\n", "line 4: age=inf is not a number of years"),
        ("image,edema\na.png,0.5\n", "line 2: edema has no value '0.5'"),
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
    file = folder / name
    if kind == "duplicate":
        shutil.copy(folder / "a.png", file)
    elif kind == "coloured":
        Image.fromarray(np.stack([image(5), image(6), image(7)], -1)).save(file)
    elif kind == "torn":
        whole = (folder / "a.png").read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
    elif kind == "header":
        file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00" * 60)
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "text":
        file.write_text("not a picture")
    elif kind == "tiff":
        name = "z_tiff.tif"
        Image.fromarray(image(5)).save(folder / name)
    elif kind == "small":
        Image.fromarray(image(5, 20, 20)).save(file)
    elif kind == "narrow":
        Image.fromarray(image(5, 400, 40)).save(file)
    elif kind == "constant":
        Image.fromarray(np.full((48, 40), 9, np.uint8)).save(file)
    elif kind == "two greys":
        Image.fromarray((image(5) > 128).astype(np.uint8) * 200).save(file)
    elif kind == "frames":
        second = [Image.fromarray(image(6))]
        Image.fromarray(image(5)).save(file, save_all=True, append_images=second)
    elif kind == "transparent":
        Image.fromarray(np.dstack([image(5), image(6)]), "LA").save(file)
    elif kind == "link to nothing":
        file.symlink_to(folder / "gone.png")
    elif kind == "link to a repeated file":
        file.symlink_to(folder / "a.png")
    elif kind == "pipe":
        os.mkfifo(file)
    return name


def read_all(folder, **how) -> list:
    found = open_pictures(folder, **how)
    return [found.read(number) for number in range(len(found))]


REASONS = {
    "duplicate": "same content as a.png",
    "coloured": "colour",
    "torn": "does not decode",
    "header": "does not decode: the header of the PNG is damaged",
    "empty": "an empty file",
    "text": "neither PNG, JPEG nor DICOM",
    "tiff": "neither PNG, JPEG nor DICOM",
    "small": "too small: 20 × 20 pixels",
    "narrow": "too narrow: 400 × 40 pixels",
    "constant": "blank: one grey value",
    "two greys": "only black and white",
    "frames": "several frames",
    "transparent": "partly transparent",
    "link to nothing": "cannot be opened: No such file",
    "link to a repeated file": "same content as a.png",
    "pipe": "cannot be opened: not a regular file",
}


@pytest.mark.parametrize("kind", REASONS)
def test_bad_file_is_refused_or_listed_never_skipped_in_silence(folder, kind):
    name = bad(folder, kind)
    with pytest.raises(DataError, match=f"{name}.*{REASONS[kind]}.*--skip-rejected"):
        read_all(folder, reject=False)
    with pytest.raises(DataError, match=f"{name}.*{REASONS[kind]}(?!.*--skip)"):  # no such flag
        read_all(folder)
    left = open_pictures(folder, reject=True)
    assert left.keys == ("a.png", "b.png", "more/c.png")
    assert list(left.rejected) == [name]
    assert REASONS[kind] in left.rejected[name]
    shared = left.rejected[name].partition(":")[0]  # what results count, without a name of a file
    assert ".png" not in shared
    assert str(folder) not in left.rejected[name]


@pytest.mark.parametrize("kind", ["torn", "8 bits", "duplicate"])
def test_bad_sample_is_refused_or_listed(tmp_path, kind):
    out = write_samples(tmp_path / "drawn")
    file = out / "sample_00002.png"
    if kind == "torn":
        file.write_bytes(file.read_bytes()[:60])
    elif kind == "8 bits":
        Image.fromarray(image(2)).save(file)
    else:
        shutil.copy(out / "sample_00001.png", file)
    with pytest.raises(DataError, match=r"sample_00002\.png.*--skip-rejected"):
        read_all(out, reject=False)
    left = open_pictures(out, reject=True)
    assert len(left) == len(left.patients) == len(left.attributes.values) == 3
    assert list(left.rejected) == ["sample_00002.png"]
    assert str(tmp_path) not in left.rejected["sample_00002.png"]


def test_samples_that_their_index_does_not_list_are_counted(tmp_path):
    out = write_samples(tmp_path / "drawn")
    assert open_pictures(out).notes == ()
    files.save_png(out / "sample_00009.png", image(9).astype(np.uint16) * 200)
    found = open_pictures(out)
    assert len(found) == 4
    assert found.notes == ("1 files are not in samples.json, so not in the set",)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{"file": "sample_00001.png", "attributes": {}}] * 2, r"lists sample_00001\.png twice"),
        ([{"file": "sample_00001.png", "attributes": {"no": 1}}], "does not list .*attribute 'no'"),
        ([{"file": "sample_00001.png", "attributes": None}], "does not list files of samples"),
        ([], "has no samples"),
    ],
)
def test_index_of_samples_that_is_wrong_is_refused(tmp_path, entries, said):
    out = write_samples(tmp_path / "drawn")
    (out / "samples.json").write_text(json.dumps({"pictures": entries}))
    with pytest.raises(DataError, match=said):
        open_pictures(out)


def test_images_are_found_by_their_content_and_other_files_are_counted(folder):
    assert open_pictures(folder).notes == ("2 files are hidden or not images, so not in the set",)
    shutil.copy(folder / "a.png", folder / "IM1")
    (folder / "a.png").unlink()
    Image.fromarray(image(8)).save(folder / "photo.bak", "JPEG")
    os.mkfifo(folder / "pipe")
    found = open_pictures(folder)
    assert found.keys == ("IM1", "b.png", "more/c.png", "photo.bak")
    assert found.notes == ("3 files are hidden or not images, so not in the set",)


def test_folder_above_sets_of_their_own_is_refused(tmp_path, tiny_data):
    (tmp_path / "all").mkdir()
    write_samples(tmp_path / "all" / "one")
    with pytest.raises(DataError, match=r"all/one is a set of its own, below .*all"):
        open_pictures(tmp_path / "all")
    shutil.copytree(tiny_data, tmp_path / "sets" / "data")
    with pytest.raises(DataError, match="sets/data is a set of its own"):
        open_pictures(tmp_path / "sets")


def test_name_that_is_not_utf_8_is_a_key(folder):
    shutil.copy(folder / "a.png", os.fsencode(folder) + b"/\xff.png")
    (folder / "a.png").unlink()
    found = open_pictures(folder)
    assert len(found) == 3
    assert len(found.fingerprint) == 64


def test_split_must_have_a_name(tiny_data):
    with pytest.raises(ConfigError, match="names no split after its colon"):
        open_pictures(f"{tiny_data}:")


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
