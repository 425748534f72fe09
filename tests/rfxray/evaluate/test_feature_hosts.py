"""Several hosts that share the extraction of one set: each its parts, and the bytes of one host."""

import json

import numpy as np
import pytest

from rfxray.evaluate import features
from rfxray.evaluate.pictures import open_pictures
from rfxray.runtime import supervise
from tests.rfxray.evaluate import one_host
from tests.rfxray.evaluate.projection import projection


@pytest.fixture
def single(tiny_data, tmp_path, monkeypatch):
    """Content of the cached files that one process writes, by name."""
    monkeypatch.setattr(features, "PART", 4)
    (tmp_path / "single").mkdir()
    features.extract(open_pictures(f"{tiny_data}:train"), projection(), tmp_path / "single")
    return content(tmp_path / "single")


@pytest.fixture
def extract(tiny_data, end_of_hosts, tmp_path):
    """`extract(hosts, seconds=…, seeds=…, **how)`: exit codes, lines, and what each host read."""
    for name in ("cache", "out"):
        (tmp_path / name).mkdir()

    def run(hosts, seconds=0.0, seeds=(0, 0), **how):
        words = [f"{tiny_data}:train", str(tmp_path / "cache"), str(tmp_path / "out"), str(seconds)]
        given = [[*words, str(seeds[host])] for host in range(hosts)]
        codes, lines = end_of_hosts(given, command=one_host.COMMAND, **how)
        said = [json.loads(f.read_text()) for f in sorted((tmp_path / "out").glob("*.json"))]
        return codes, lines, said

    return run


def content(cache) -> dict[str, bytes]:
    (folder,) = cache.iterdir()
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_two_hosts_read_each_picture_once_and_write_the_bytes_of_one(extract, single, tmp_path):
    codes, lines, said = extract(2)
    assert codes == [0, 0], lines
    assert content(tmp_path / "cache") == single
    assert set(single) == {"features.npy", "pictures.npy", "done.json"}
    by_turns = [[n for n in range(50) if n // 4 % 2 == host] for host in range(2)]
    assert [each["read"] for each in said] == by_turns
    assert len({(each["sum"], each["n"]) for each in said}) == 1


def parts(cache) -> list:
    return sorted(cache.glob("*/parts/*.npz"))


@pytest.mark.drill
@pytest.mark.parametrize("again", [1, 2])
def test_killed_host_ends_the_other_and_what_both_wrote_is_kept(extract, single, tmp_path, again):
    """Also if another number of hosts goes on."""
    cache = tmp_path / "cache"
    codes, lines, _ = extract(
        2,
        seconds=0.3,
        killed=lambda: len(parts(cache)) > 3,
        variables={host: {"RFXRAY_HEARTBEAT_TIMEOUT": "10"} for host in range(2)},
    )
    assert codes[1] == -9
    assert supervise.outcome(codes[0])[0] == 75, lines
    kept = {4 * int(file.stem) // 4 for file in parts(cache)}
    assert kept
    assert not list(cache.glob("*/done.json"))
    (folder,) = cache.iterdir()
    (folder / "parts" / ".00000000.npz.0123456789abcdef0123456789abcdef.tmp").write_bytes(b"half")
    codes, lines, said = extract(again)
    assert codes == [0] * again, lines
    read = sorted(n for each in said[:again] for n in each["read"])
    assert read == [n for n in range(50) if n // 4 * 4 not in kept]
    assert content(cache) == single


@pytest.mark.drill
def test_hosts_with_other_weights_end_in_one_line(extract, tmp_path):
    codes, lines, _ = extract(2, seeds=(0, 1))
    assert codes == [78, 78], lines
    assert "host 1: this host was given other pictures or weights than host 0" in lines[0][0]
    assert not list((tmp_path / "cache").glob("*/done.json"))


def test_what_a_kill_left_while_the_parts_were_joined_is_removed(tiny_data, tmp_path, single):
    (tmp_path / "cache").mkdir()
    pictures = open_pictures(f"{tiny_data}:train")
    folder = tmp_path / "cache" / features.identity(pictures, projection())
    folder.mkdir()
    (folder / ".features.npy.0123456789abcdef0123456789abcdef.tmp").write_bytes(b"half")
    found = features.extract(pictures, projection(), tmp_path / "cache")
    assert content(tmp_path / "cache") == single
    assert np.isfinite(found).all()
