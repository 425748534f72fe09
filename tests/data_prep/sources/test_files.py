"""What lies below a folder: images, links, archives, and what must never be opened."""

import os
import socket

import pytest

from data_prep.sources.files import FileIndex
from rfxray.errors import DataError
from tests.data_prep.sources.test_folder import touch


def test_files_are_recognised_by_suffix_or_dicom_prefix(tmp_path):
    touch(tmp_path, "a.jpe", "b.ima", "c.dic")
    for name in ("d.IMA", "e.dic", "1.2.3", "f.tif"):
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM")
    assert FileIndex(tmp_path).paths == ["1.2.3", "a.jpe", "d.IMA", "e.dic"]


def test_what_is_not_a_file_is_listed_and_never_opened(tmp_path):
    """Opening a FIFO without a writer waits for ever, so this test would not end."""
    root = touch(tmp_path / "images", "a.png")
    for name in ("pipe", "pipe.png", "1.2.3", "table.csv", "deep.d/IM0001"):
        (root / name).parent.mkdir(exist_ok=True)
        os.mkfifo(root / name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "s.dcm"))
    (root / "device.png").symlink_to("/dev/zero")
    (root / "gone.png").symlink_to("nowhere")
    (root / "self").symlink_to("self")
    index = FileIndex(root)
    assert index.paths == ["a.png"]
    assert index.special == {
        **dict.fromkeys(("pipe", "pipe.png", "1.2.3", "table.csv", "deep.d/IM0001"), "a FIFO"),
        "s.dcm": "a socket",
        "device.png": "a device",
        **dict.fromkeys(("gone.png", "self"), "a link to nothing"),
    }


def test_files_behind_a_link_above_an_entered_folder_are_found(tmp_path):
    root, store = touch(tmp_path / "images", "a.png"), touch(tmp_path / "store", "x/b.png", "c.png")
    (root / "1").symlink_to(store / "x")
    (root / "2").symlink_to(store)
    index = FileIndex(root)
    assert index.paths == ["1/b.png", "2/c.png", "a.png"]
    assert index.at("2/x/b") == ["1/b.png"]  # its other name


def test_circles_of_links_end_and_no_file_appears_twice(tmp_path):
    root = touch(tmp_path / "images", "a.png", "deep/b.png")
    touch(tmp_path / "beside", "c.png")
    (root / "deep/up").symlink_to(root)
    (root / "again").symlink_to(root / "deep")
    (root / "above").symlink_to(tmp_path)
    (tmp_path / "beside/back").symlink_to(root / "deep")
    index = FileIndex(root)
    assert index.paths == ["a.png", "above/beside/c.png", "deep/b.png"]
    for second in ("again/b", "deep/up/deep/b", "above/images/deep/b", "above/beside/back/b"):
        assert index.at(second) == ["deep/b.png"], second
    assert index.at("deep/up/none") == []


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.zip"], "1 archive: unpack it (first: a.zip)"),
        ([f"images_{i:03}.tar.gz" for i in range(1, 13)], "12 archives: unpack them"),
        (["a.tar", "b.tgz", "c.7z", "d.RAR", "e.dcm.gz", "f.zst", "g.tar.xz"], "7 archives"),
        (["deid_png.part00", "a.zip.001", "a.z01", "t.csv.gz", "m.json.gz"], "3 archives"),
    ],
)
def test_folder_of_archives_says_to_unpack_them(tmp_path, names, said):
    with pytest.raises(DataError, match=r"has no file ending in \.png.*, but ") as refused:
        FileIndex(touch(tmp_path, *names))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_unreadable_folder_is_refused(tmp_path, monkeypatch):
    def scandir(folder):
        raise PermissionError(13, "Permission denied", folder)

    touch(tmp_path, "a.png")
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        FileIndex(tmp_path)
