"""The cache of the user."""

import errno

import pytest

from rfxray.errors import ConfigError, SaveFailed
from rfxray.outputs import cache
from tests import full_disk


def test_folder_is_made_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("RFXRAY_CACHE", str(tmp_path / "here"))
    assert cache.folder("features") == tmp_path / "here/features"
    assert (tmp_path / "here/features").is_dir()


def test_place_that_cannot_be_a_folder_is_refused(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RFXRAY_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="set RFXRAY_CACHE to a folder that can be written"):
        cache.folder("features")


def test_full_disk_is_worth_another_try(monkeypatch, tmp_path):
    monkeypatch.setenv("RFXRAY_CACHE", str(tmp_path / "here"))
    with (
        full_disk.refusing(tmp_path, 0, errno.ENOSPC),
        pytest.raises(SaveFailed, match="No space left"),
    ):
        cache.folder("features")
