import subprocess
import sys

import numpy as np
import pytest

from data_prep.images import decoder
from data_prep.images.decoder import Decoder
from rfxray.data import radiograph
from rfxray.data.radiograph import Refused
from tests.data_prep import raw_trees

# Decoding process that fails in the way that the file name says; its time limit is one second
BREAKING = """
import os, signal, sys
sys.path.insert(0, {root!r})
from data_prep.images import decoder

decoder.SECONDS = 1
decode = decoder._decode

def breaking(path, size):
    if "segfault" in path:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "endless" in path:
        while True:
            pass
    if "hungry" in path:
        return bytearray(3 << 30)
    if "chatty" in path:
        os.write(1, b"libfoo warning: bad marker")
    return decode(path, size)

decoder._decode = breaking
decoder._serve()
"""


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    return raw_trees.put(tmp_path_factory.mktemp("files") / "a.png", raw_trees.pictures()[0])


@pytest.fixture(scope="module")
def breaking(tmp_path_factory):
    """Decoder with a process that runs `BREAKING`."""
    script = tmp_path_factory.mktemp("script") / "breaking.py"
    script.write_text(BREAKING.format(root=str(raw_trees.Path(decoder.__file__).parents[2])))
    whole = decoder._start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            decoder,
            "_start",
            lambda: subprocess.Popen(
                [sys.executable, script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ),
        )
        yield Decoder()
    assert decoder._start is whole


def test_decoder_gives_the_same_record_as_ingest(breaking, picture):
    record, digest, notes = breaking.decode(picture, 32)
    expected = radiograph.ingest(picture, 32)
    assert record.keys() == expected.keys()
    np.testing.assert_array_equal(record["image"], expected["image"])
    assert record["original_bits"] == 16
    assert len(digest) == 32
    assert notes == ()


def test_digest_depends_on_pixels_not_on_the_file(breaking, picture, tmp_path):
    again = raw_trees.Image.open(picture)
    again.save(tmp_path / "other.png", compress_level=0)
    other = raw_trees.pictures()[0].copy()
    other[0, 0] ^= 1
    raw_trees.put(tmp_path / "changed.png", other)
    digests = [
        breaking.decode(path, 32)[1]
        for path in (picture, tmp_path / "other.png", tmp_path / "changed.png")
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("segfault.png", "the decoder crashed: SIGSEGV"),
        ("endless.png", "the decoder took too long: over 30 s"),
        ("hungry.png", "needs too much memory: over 2048 MiB"),
        ("missing.png", "unreadable: No such file or directory"),
    ],
)
def test_broken_file_is_refused_and_the_next_one_is_read(breaking, picture, name, reason):
    with pytest.raises(Refused) as refused:
        breaking.decode(f"/nowhere/{name}", 32)
    assert str(refused.value) == reason
    assert breaking.decode(picture, 32)[0]["image"].shape == (32, 32)


def test_output_of_c_libraries_is_not_taken_as_a_reply(breaking, picture, tmp_path):
    chatty = tmp_path / "chatty.png"
    chatty.write_bytes(picture.read_bytes())
    assert breaking.decode(chatty, 32)[0]["image"].shape == (32, 32)


@pytest.mark.drill
def test_every_fuzzed_file_is_decoded_or_refused(tmp_path):
    """Bytes are changed and files cut; a process that dies must be replaced."""
    rng = np.random.default_rng(0)
    seeds = [
        raw_trees.put(tmp_path / "a.png", raw_trees.pictures()[0]),
        raw_trees.put(tmp_path / "b.jpg", raw_trees.eight(1)),
    ]
    for name, options in (("c.dcm", {}), ("d.dcm", {"jpeg2000": True})):
        raw_trees.dicom(tmp_path / name, raw_trees.pictures()[2], **options)
        seeds.append(tmp_path / name)
    seeds = [path.read_bytes() for path in seeds]
    limited, outcomes = Decoder(), {"decoded": 0, "refused": 0}
    for i in range(10_000):
        data = bytearray(seeds[i % len(seeds)])
        for at in rng.integers(0, len(data), rng.integers(1, 30)):
            data[at] = rng.integers(256)
        if i % 3 == 0:
            data = data[: rng.integers(1, len(data))]
        path = tmp_path / ("fuzzed.dcm" if i % 4 > 1 else "fuzzed")
        path.write_bytes(bytes(data))
        try:
            record, *_ = limited.decode(path, 32)
            assert record["image"].shape == (32, 32)
            outcomes["decoded"] += 1
        except Refused:
            outcomes["refused"] += 1
    print(outcomes)
    assert min(outcomes.values()) > 1000
