"""Files that grow: closed in time, whole after a flush, silent about nothing."""

import builtins
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rfxray.errors import ConfigError, SaveFailed
from rfxray.outputs import files, journal
from tests import bucket

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """A folder like a mounted bucket: a file appears when it is closed."""
    for module in (builtins, io):
        monkeypatch.setattr(module, "open", io.open)  # put back afterwards
    bucket.mount(tmp_path)
    return tmp_path


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_stand_in_shows_a_file_only_when_it_is_closed(mounted):
    path = mounted / "log"
    for text in ("one\n", "two\n"):
        before = path.read_text() if path.exists() else ""
        with path.open("a") as file:
            file.write(text)
            file.flush()
            assert (path.read_text() if path.exists() else "") == before
        assert path.read_text() == before + text


def test_lines_appear_on_a_mounted_bucket_while_the_run_lives(mounted):
    with journal.Journal(every=0.05) as lines:
        for number in range(3):
            lines.add(mounted / "log", f"{number}\n".encode())
            end = f"{number}\n"
            wait_for(lambda: (mounted / "log").exists())
            wait_for(lambda end=end: (mounted / "log").read_text().endswith(end))
    assert (mounted / "log").read_text() == "0\n1\n2\n"


def test_flush_leaves_nothing_in_memory(mounted):
    with journal.Journal(every=3600) as lines:
        lines.add(mounted / "a", b"1\n")
        lines.add(mounted / "b", b"2\n")
        lines.flush()
        assert (mounted / "a").read_bytes() + (mounted / "b").read_bytes() == b"1\n2\n"
        lines.add(mounted / "a", b"3\n")
    assert (mounted / "a").read_bytes() == b"1\n3\n"  # the end of the block writes the rest


def test_what_was_flushed_survives_sigkill(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from rfxray.outputs.journal import Journal
from tests import bucket
bucket.mount(Path({str(tmp_path)!r}))
lines = Journal(every=3600)
lines.add(Path({str(tmp_path)!r}) / "log", b"before\\n")
lines.flush()
lines.add(Path({str(tmp_path)!r}) / "log", b"after\\n")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120)
    assert (tmp_path / "log").read_bytes() == b"before\n"


def test_an_append_costs_what_is_new_and_not_what_is_there(tmp_path, monkeypatch):
    """A million rows of metrics are never read or written again."""
    written = []
    monkeypatch.setattr(journal, "append", lambda path, new: written.append(len(new)))
    (tmp_path / "log").write_bytes(b"x" * 10**7)
    lines = journal.Journal(every=3600)
    for _ in range(100):
        lines.add(tmp_path / "log", b"0123456789")
        lines.flush()
    lines.close()
    assert sum(written) == 1000


def test_a_large_file_is_appended_to_every_minute(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "LARGE", 10)
    lines = journal.Journal(every=0.05)
    lines.add(tmp_path / "log", b"more than ten bytes\n")
    wait_for((tmp_path / "log").exists)
    lines.add(tmp_path / "log", b"later\n")
    time.sleep(0.3)
    assert b"later" not in (tmp_path / "log").read_bytes()
    lines.close()
    assert b"later" in (tmp_path / "log").read_bytes()


@pytest.mark.parametrize(
    ("number", "kind"), [(28, SaveFailed), (5, SaveFailed), (30, ConfigError), (13, ConfigError)]
)
def test_failure_in_the_background_reaches_the_loop_in_one_line(
    tmp_path, monkeypatch, number, kind
):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", refuse)
    lines = journal.Journal(every=0.01)
    lines.check()
    lines.add(tmp_path / "log", b"x\n")
    wait_for(lambda: lines._failure)
    for call in (lines.check, lines.flush, lines.close):
        with pytest.raises(kind, match=rf"log cannot be .*\({os.strerror(number)}\)"):
            call()


def test_nothing_follows_a_part_of_a_line(tmp_path, monkeypatch):
    def full(path, content):
        with path.open("ab") as file:
            file.write(content[:3])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(journal, "append", full)
    lines = journal.Journal(every=3600)
    lines.add(tmp_path / "log", b"a whole line\n")
    with pytest.raises(SaveFailed):
        lines.flush()
    monkeypatch.undo()  # somebody made space
    lines.add(tmp_path / "log", b"another\n")
    with pytest.raises(SaveFailed):
        lines.close()
    assert (tmp_path / "log").read_bytes() == b"a w"


def test_error_of_the_run_is_not_hidden_by_that_of_its_log(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "full")

    def fail():
        with journal.Journal(every=3600) as lines:
            lines.add(tmp_path / "log", b"x\n")
            raise ZeroDivisionError

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(ZeroDivisionError):
        fail()
