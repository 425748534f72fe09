"""Weights in the cache of the user: converted once, checked always, made again when damaged."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rfxray.checkpoints import torch_files
from rfxray.errors import DataError
from rfxray.evaluate.extractors.converted import tensors_of
from tests.torch_pickles import Call, Global, Storage, legacy_file, tensor

ROOT = Path(__file__).resolve().parents[3]


def weights(path, values=range(6)):
    storage = Storage("0", np.array(values, np.float32))
    return legacy_file(path, {"w": tensor(storage, (2, 3), (3, 1))}, [storage])


@pytest.fixture
def source(tmp_path):
    return weights(tmp_path / "weights.pth")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RFXRAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def opened(source) -> list:
    return tensors_of(source, "net")["w"].ravel().tolist()


@pytest.fixture
def conversions(monkeypatch) -> list:
    """Files that were read as torch's since the test began."""
    read, found = torch_files.read, []
    monkeypatch.setattr(torch_files, "read", lambda path: found.append(path) or read(path))
    return found


def test_weights_are_converted_once_and_found_by_content(source, cache, conversions, tmp_path):
    assert opened(source) == opened(source) == list(range(6))
    assert conversions == [source]
    source.rename(tmp_path / "other-name")
    assert opened(tmp_path / "other-name") == list(range(6))
    assert len(conversions) == 1
    weights(source, np.arange(6) + 1)
    assert opened(source) == [1, 2, 3, 4, 5, 6]
    assert len(conversions) == 2
    assert len(list(cache.iterdir())) == 2


def test_cached_file_names_no_path_of_the_user(source, cache):
    opened(source)
    (file,) = cache.iterdir()
    assert str(source.parent).encode() not in file.read_bytes()


@pytest.mark.parametrize("at", [0, 8, 20, -1, -20])
def test_damaged_cache_is_made_again_with_a_line(source, cache, conversions, capsys, at):
    opened(source)
    (file,) = cache.iterdir()
    good = file.read_bytes()
    damaged = bytearray(good)
    damaged[at] ^= 0x01
    file.write_bytes(damaged)
    assert opened(source) == list(range(6))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("it is converted again")
    assert file.read_bytes() == good
    assert len(conversions) == 2


@pytest.mark.parametrize("length", [0, 5, 60])
def test_truncated_cache_is_made_again(source, cache, capsys, length):
    opened(source)
    (file,) = cache.iterdir()
    good = file.read_bytes()
    file.write_bytes(good[:length])
    assert opened(source) == list(range(6))
    assert "converted again" in capsys.readouterr().err
    assert file.read_bytes() == good


def test_weights_are_opened_without_a_cache_that_can_be_written(
    source, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RFXRAY_CACHE", str(tmp_path / "file" / "cache"))
    assert opened(source) == list(range(6))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rfxray: the weights of net are not cached: ")


def test_full_disk_leaves_the_weights_usable(source, cache, monkeypatch, capsys):
    def full(file, *_):
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr("rfxray.evaluate.extractors.converted.write_whole", full)
    assert opened(source) == list(range(6))
    assert "not cached" in capsys.readouterr().err
    assert not list(cache.iterdir())


def test_attack_is_refused_before_anything_is_cached(tmp_path, cache):
    file = legacy_file(tmp_path / "w.pth", {"w": Call(Global("os", "system"), "true")})
    with pytest.raises(DataError, match=r"a call of os\.system"):
        opened(file)
    assert not list(cache.iterdir())


def test_missing_file_is_one_line(tmp_path, cache):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        opened(tmp_path / "absent.pth")


def test_processes_that_convert_at_once_all_read_whole_weights(tmp_path, cache):
    source = weights(tmp_path / "weights.pth")
    code = (
        "import sys, time; from pathlib import Path; "
        "from rfxray.evaluate.extractors.converted import tensors_of; "
        "Path(sys.argv[2]).touch(); "
        "[time.sleep(.01) for _ in range(6000) if len(list(Path(sys.argv[3]).iterdir())) < 2]; "
        "print([tensors_of(Path(sys.argv[1]), 'net')['w'].sum() for _ in range(20)][-1])"
    )
    ready = tmp_path / "ready"
    ready.mkdir()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, source, ready / str(number), ready],
            cwd=ROOT,
            env={**os.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for process in started:
        out, err = process.communicate(timeout=120)
        assert (out, err) == ("15.0\n", "")
    assert len(list(cache.iterdir())) == 1
