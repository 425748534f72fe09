"""Features of sets of pictures: by content, in order, whatever interrupts them."""

import dataclasses
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from rfxray.errors import ConfigError, DataError
from rfxray.evaluate import features
from rfxray.evaluate.extractors.extractor import Preprocessing
from rfxray.evaluate.features import extract, extracted
from rfxray.evaluate.pictures import open_pictures
from tests.rfxray.evaluate.projection import projection

# Of float32 sums of 256 products, which CPUs order by the size of the batch: 1.2e-6 was seen.
ROUNDING = 5e-6


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of 20 pictures, so that a tiny set has several, the last one short."""
    monkeypatch.setattr(features, "PART", 20)


@pytest.fixture
def pictures(tiny_data):
    return open_pictures(f"{tiny_data}:train")


def one_by_one(pictures, extractor):
    return np.stack(
        [
            extractor.features(extractor.preprocessing.prepare(pictures.read(i))[None])[0]
            for i in range(len(pictures))
        ]
    )


def test_every_picture_has_its_features_in_order_the_short_last_batch_too(pictures, tmp_path):
    extractor = projection()
    found = extract(pictures, extractor, tmp_path)
    assert found.shape == (50, 8)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, one_by_one(pictures, extractor), rtol=0, atol=ROUNDING)


def test_second_call_reads_no_picture(pictures, tmp_path):
    first = extracted(pictures, projection(), tmp_path)
    log: list[int] = []
    unreadable = dataclasses.replace(pictures, load=lambda number: pytest.fail("read again"))
    second = extracted(unreadable, projection(log=log), tmp_path)
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(first.pictures, second.pictures)
    assert not log
    assert second.seconds == 0 < first.seconds


def test_cache_follows_content_weights_and_resize_path_and_nothing_else(
    pictures, tiny_data, other_data, tmp_path
):
    shutil.copytree(tiny_data, tmp_path / "renamed")
    extractor = projection()
    path = Preprocessing(16, "pad", "bicubic", False, 1, (0.5,), (0.25,))
    same = features.identity(open_pictures(f"{tmp_path / 'renamed'}:train"), extractor)
    assert features.identity(pictures, extractor) == same
    different = [
        features.identity(open_pictures(f"{tiny_data}:validation"), extractor),
        features.identity(open_pictures(other_data), extractor),
        features.identity(pictures, projection(seed=1)),
        features.identity(pictures, dataclasses.replace(extractor, preprocessing=path)),
    ]
    assert len({same, *different}) == 5


def test_killed_run_resumes_with_the_parts_that_it_wrote(pictures, tmp_path):
    def dies(number):
        if number == 45:
            raise KeyboardInterrupt
        return pictures.load(number)

    with pytest.raises(KeyboardInterrupt):
        extract(dataclasses.replace(pictures, load=dies), projection(), tmp_path)
    (folder,) = tmp_path.iterdir()
    assert len(list((folder / "parts").glob("*.npz"))) == 2
    read = []

    def noted(number):
        read.append(number)
        return pictures.load(number)

    found = extract(dataclasses.replace(pictures, load=noted), projection(), tmp_path)
    assert sorted(read) == list(range(40, 50))
    np.testing.assert_allclose(found, one_by_one(pictures, projection()), rtol=0, atol=ROUNDING)
    assert not (folder / "parts").exists()


def test_damaged_cache_is_extracted_again(pictures, tmp_path):
    before = np.array(extract(pictures, projection(), tmp_path))
    (folder,) = tmp_path.iterdir()
    content = bytearray((folder / "features.npy").read_bytes())
    content[-3] ^= 0xFF
    (folder / "features.npy").write_bytes(content)
    np.testing.assert_array_equal(extract(pictures, projection(), tmp_path), before)


def test_torn_part_is_extracted_again(pictures, tmp_path):
    before = np.array(extract(pictures, projection(), tmp_path))
    (folder,) = tmp_path.iterdir()
    (folder / "done.json").unlink()
    (folder / "parts").mkdir()
    (folder / "parts/00000020.npz").write_bytes(b"PK torn")
    np.testing.assert_array_equal(extract(pictures, projection(), tmp_path), before)


def test_picture_that_cannot_be_read_is_named_and_nothing_is_scored(pictures, tmp_path):
    def refuses(number):
        if number == 30:
            raise DataError("record 30 is damaged; copy it again")
        return pictures.load(number)

    with pytest.raises(DataError, match="record 30 is damaged"):
        extract(dataclasses.replace(pictures, load=refuses), projection(), tmp_path)
    assert not list(tmp_path.glob("*/done.json"))


def test_features_that_are_not_finite_are_refused_with_the_picture(pictures, tmp_path):
    good = projection()

    def spoiled(images):
        found = good.features(images).copy()
        found[3] = np.nan
        return found

    with pytest.raises(DataError, match=r"features of phantom/p3/s/i .* not finite"):
        extract(pictures, dataclasses.replace(good, features=spoiled), tmp_path)


def test_two_processes_do_not_write_the_same_features(pictures, tmp_path):
    waiting, go = threading.Event(), threading.Event()

    def slow(number):
        waiting.set()
        go.wait(30)
        return pictures.load(number)

    slower = dataclasses.replace(pictures, load=slow)
    first = threading.Thread(target=extract, args=(slower, projection(), tmp_path))
    first.start()
    try:
        assert waiting.wait(30)
        with pytest.raises(ConfigError, match="another process is writing"):
            extract(pictures, projection(), tmp_path)
    finally:
        go.set()
        first.join()
    assert len(extract(pictures, projection(), tmp_path)) == 50


def test_pictures_are_known_by_their_pixels(pictures, tiny_records, tmp_path):
    from rfxray.outputs.files import pixels_sha256

    found = extracted(pictures, projection(), tmp_path).pictures
    (record,) = tiny_records([7])
    assert bytes(found["pixels"][7]).hex() == pixels_sha256(record["image"])
    assert set(zip(found["height"].tolist(), found["width"].tolist(), strict=True)) == {(32, 32)}


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from rfxray.evaluate import features
from rfxray.evaluate.pictures import open_pictures
from tests.rfxray.evaluate.projection import projection
import jax
print(jax.local_device_count())
found = features.extract(open_pictures(sys.argv[1] + ":train"), projection(), Path(sys.argv[2]))
np.save(sys.argv[3], found)
"""


@pytest.mark.parametrize("devices", [3])
def test_features_are_the_same_on_any_number_of_devices(
    pictures, tiny_data, tmp_path, environment, devices
):
    here = extract(pictures, projection(), tmp_path)
    (tmp_path / "there").mkdir()
    words = [str(tiny_data), str(tmp_path / "there"), str(tmp_path / "found.npy")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words],
        cwd=Path(__file__).parents[3],
        env=environment(devices),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(devices)]
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), here, rtol=0, atol=ROUNDING)


def test_cache_holds_no_key_of_a_patient(pictures, tmp_path):
    extract(pictures, projection(), tmp_path)
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert b"phantom/p" not in file.read_bytes()
    assert json.loads(next(tmp_path.glob("*/done.json")).read_text()).keys() == {
        "features.npy",
        "pictures.npy",
    }
