import contextlib
import errno
import os
import subprocess
import sys

import pytest

from rfxray.errors import SaveFailed
from rfxray.outputs import files
from tests import full_disk


def test_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "notes.txt"
    for content in ("größer", b"\x00\xff", "a name that is not UTF-8: \udcff"):
        files.write_whole(path, content)
    assert path.read_bytes() == rb"a name that is not UTF-8: \udcff"
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "notes.txt"
    files.write_whole(path, "old")

    def full(handle):
        assert any(map(files.is_temporary, tmp_path.iterdir()))
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        files.write_whole(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize(("durable", "syncs"), [(True, 2), (False, 0)])
def test_only_a_durable_write_is_synced(tmp_path, monkeypatch, durable, syncs):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    files.write_whole(tmp_path / "beat.json", "{}", durable=durable)
    assert len(synced) == syncs  # the file, then the name in its folder


def test_remove_temporary_keeps_all_other_files(tmp_path):
    kill = (
        "import os, sys; from pathlib import Path; from rfxray.outputs import files\n"
        "with files.whole_file(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os._exit(9)"
    )
    killed = subprocess.run([sys.executable, "-c", kill, tmp_path / "notes.txt"])
    assert killed.returncode == 9
    (left,) = tmp_path.iterdir()
    assert files.is_temporary(left)
    (tmp_path / ".folder.tmp").mkdir()
    mine = ["notes.tmp", ".notes", "notes.txt"]
    for name in mine:
        (tmp_path / name).touch()
    files.remove_temporary(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(mine)


def test_failed_write_error_says_what_to_do(tmp_path):
    out = tmp_path / "none"
    said = r"none cannot be written \(No such file.*\); check free space"
    with pytest.raises(SaveFailed, match=said), files.saving(out):
        files.write_whole(out / "notes.txt", "x")


def test_files_that_belong_together_are_all_new_or_lack_the_last(tmp_path):
    old, new = ({name: f"{age} {name}" for name in "abc"} for age in ("old", "new"))
    files.write_together(tmp_path, old)
    for first in range(30):
        with (
            full_disk.refusing(tmp_path, first, errno.ENOSPC) as calls,
            contextlib.suppress(OSError),
        ):
            files.write_together(tmp_path, new)
        there = {path.name: path.read_text() for path in tmp_path.iterdir()}
        if len(calls) <= first:
            break
        assert there == old or "c" not in there
        old = there
    assert there == new
    assert first >= 6  # three files are opened and named
