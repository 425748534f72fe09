import json
import pickle
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from data_prep.images import decoder, wire
from data_prep.images.decoder import Decoder
from rfxray.data.radiograph import Refused
from tests.data_prep import raw_trees

SIZE = 8
HONEST = {
    "fields": {
        "content_box": [0, 1, 8, 6],
        "original_size": [64, 48],
        "original_bits": 12,
        "pixel_spacing": [0.143, 0.143],
        "laterality": "L",
    },
    "digest": "5a" * 32,
    "notes": ["decimal comma: in WindowCenter"],
}
PIXELS = np.arange(SIZE * SIZE, dtype="<u2").tobytes()

# Answers every request with the bytes of a file, then does what its last argument says.
FAKE = """
import os, sys, time
while True:
    size = os.read(0, 4)
    if not size:
        sys.exit()
    os.read(0, int.from_bytes(size, "little"))
    os.write(1, open(sys.argv[1], "rb").read())
    if sys.argv[2] == "end":
        sys.exit()
    if sys.argv[2] == "sleep":
        time.sleep(99)
"""


class Harmful:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def message(header, rest=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + rest


def changed(**entries):
    """An honest answer with other fields."""
    return message({**HONEST, "fields": {**HONEST["fields"], **entries}}, PIXELS)


def fake(path, then):
    """A process that answers every request with the bytes of a file."""
    return subprocess.Popen(
        [sys.executable, "-S", "-c", FAKE, path, then],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@pytest.fixture
def answering(tmp_path, monkeypatch):
    """A function: bytes → what `Decoder.decode` makes of a process that answers with them."""

    def ask(data, then="serve"):
        (tmp_path / "answer").write_bytes(data)
        started = []

        def start():
            started.append(fake(tmp_path / "answer", then))
            return started[-1]

        monkeypatch.setattr(decoder, "_start", start)
        asked = Decoder()
        try:
            return asked.decode("/nowhere/a.png", SIZE)
        finally:
            asked.close()
            assert all(process.poll() is not None for process in started)

    return ask


def test_honest_answer_is_taken_with_its_types(answering):
    fields, digest, notes = answering(message(HONEST, PIXELS))
    assert fields["image"].dtype == np.uint16
    np.testing.assert_array_equal(fields.pop("image").ravel(), np.arange(SIZE * SIZE))
    assert fields == {
        "content_box": (0, 1, 8, 6),
        "original_size": (64, 48),
        "original_bits": 12,
        "pixel_spacing": (0.143, 0.143),
        "laterality": "L",
    }
    assert (digest, notes) == (b"Z" * 32, ("decimal comma: in WindowCenter",))
    with pytest.raises(Refused, match=r"^blank: one grey value$"):
        answering(message({"refused": "blank: one grey value"}))


def test_pickle_is_refused_and_runs_nothing(answering, tmp_path):
    harmful = pickle.dumps(Harmful(tmp_path / "created"))
    for data in (harmful, message(harmful), message(HONEST, PIXELS)[:-128] + harmful):
        with pytest.raises(Refused, match=r"^the decoder (answered nonsense|crashed): "):
            answering(data, "end")
    assert not (tmp_path / "created").exists()


NAN = json.dumps({**HONEST, "notes": []}).encode()
NONSENSE = {
    "a huge length": (b"\xff\xff\xff\xff", "a header of 4,294,967,295 bytes"),
    "not UTF-8": (message(b"\xff\xfe{}"), "a header that is not JSON"),
    "not JSON": (message(b"{"), "a header that is not JSON"),
    "nested": (message(b"[" * 60_000), "a header that is not JSON"),
    "a huge integer": (message(b'{"refused": ' + b"9" * 9_000 + b"}"), "a header that is not JSON"),
    "a list": (message([1]), "a header that is not an object"),
    "other entries": (message({"refused": "x", "image": 1}), "a header with other entries"),
    "other fields": (changed(key="mine/p/s/i"), "other fields"),
    "fields of text": (message({**HONEST, "fields": "image"}), "other fields"),
    "a reason of two lines": (message({"refused": "a\nb"}), "a reason that is not a short line"),
    "a reason with an escape": (message({"refused": "\x1b[2J"}), "a reason that is not a short"),
    "a long reason": (message({"refused": "a" * 301}), "a reason that is not a short line"),
    "a reason of numbers": (message({"refused": 5}), "a reason that is not a short line"),
    "half a surrogate": (message({"refused": "\udc80"}), "a reason that is not a short line"),
    "NaN": (message(NAN.replace(b"0.143]", b"NaN]"), PIXELS), "a header that is not JSON"),
    "infinity": (message(NAN.replace(b"0.143]", b"1e999]"), PIXELS), "a pixel_spacing that is not"),
    "a negative spacing": (changed(pixel_spacing=[-1.0, 1.0]), "a pixel_spacing that is not"),
    "a huge spacing": (changed(pixel_spacing=[10**400, 1.0]), "a pixel_spacing that is not"),
    "one spacing": (changed(pixel_spacing=[1.0]), "a pixel_spacing that is not"),
    "true as a number": (changed(original_bits=True), "original_bits out of range"),
    "no bits": (changed(original_bits=0), "original_bits out of range"),
    "sizes of fractions": (changed(original_size=[64.0, 48.0]), "original_size out of range"),
    "a box beyond": (changed(content_box=[4, 0, 8, 8]), "a content_box outside of the picture"),
    "an empty box": (changed(content_box=[0, 0, 0, 8]), "a content_box outside of the picture"),
    "a negative box": (changed(content_box=[-1, 0, 8, 8]), "content_box out of range"),
    "a box of three": (changed(content_box=[0, 0, 8]), "content_box out of range"),
    "another side": (changed(laterality="LEFT"), "a laterality that is not L, R or empty"),
    "a list as a side": (changed(laterality=[]), "a laterality that is not L, R or empty"),
    "a short digest": (message({**HONEST, "digest": "5a"}, PIXELS), "a digest of another length"),
    "a digest of words": (message({**HONEST, "digest": "z" * 64}, PIXELS), "a digest that is not"),
    "a spaced digest": (message({**HONEST, "digest": "5a  " * 16}, PIXELS), "a digest of another"),
    "many notes": (message({**HONEST, "notes": ["a"] * 17}, PIXELS), "notes that are not short"),
    "notes of lists": (message({**HONEST, "notes": [[]]}, PIXELS), "notes that are not short"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_is_a_refusal_that_says_what_was_wrong(answering, case):
    data, what = NONSENSE[case]
    with pytest.raises(Refused) as refused:
        answering(data)
    assert str(refused.value).startswith(f"the decoder answered nonsense: {what}")


@pytest.mark.parametrize("cut", [0, 2, 4, 50, -1])
def test_torn_answer_is_a_crash(answering, cut):
    with pytest.raises(Refused, match=r"^the decoder crashed: exit status 0$"):
        answering(message(HONEST, PIXELS)[:cut], "end")


def test_answer_that_does_not_end_is_given_up(answering, monkeypatch):
    monkeypatch.setattr(decoder, "ANSWER_SECONDS", 0.1)
    start = time.monotonic()
    with pytest.raises(Refused, match=r"nonsense: an answer that does not end"):
        answering(message(HONEST, PIXELS)[:-1], "sleep")
    assert time.monotonic() - start < 60


def test_unasked_answer_is_not_taken_for_the_next_file(tmp_path, monkeypatch):
    """A process that says more than it was asked is replaced before the next file."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(message(HONEST, PIXELS) + message({"refused": "smuggled"}))
    second.write_bytes(message({"refused": "blank"}))
    processes = iter([fake(first, "serve"), fake(second, "serve")])
    monkeypatch.setattr(decoder, "_start", lambda: next(processes))
    asked = Decoder()
    asked.decode("/nowhere/a.png", SIZE)
    with pytest.raises(Refused, match=r"^blank$"):
        asked.decode("/nowhere/b.png", SIZE)
    asked.close()
    assert not list(processes)


def test_reason_that_quotes_the_bytes_of_a_file_arrives_readable(tmp_path):
    """Whatever a library says of a file, the decoder sends one short line of it."""
    assert wire.plain("bad tag \x00\x1b[31m\udc80: " + "x" * 500).startswith("bad tag ��[31m�: xxx")
    named = tmp_path / "a\udcff\n.png"  # a file name that is neither UTF-8 nor one line
    raw_trees.put(named, raw_trees.pictures()[0])
    asked = Decoder()
    assert asked.decode(named, 32)[0]["image"].shape == (32, 32)
    asked.close()
