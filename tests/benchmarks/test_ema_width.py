"""The last part of a run, trained again with snapshots."""

import shutil

import pytest

from benchmarks import ema_width
from rfxray.errors import ConfigError
from tests.conftest import keep_signal_handlers


def test_last_part_of_a_run_is_trained_again_with_snapshots(
    trained, tiny_data, tmp_path, monkeypatch
):
    folder, one = tmp_path / "smoke", tmp_path / "one"
    folder.mkdir()
    (folder / "phantom").symlink_to(tiny_data)
    (folder / "train").symlink_to(trained)
    monkeypatch.setattr(ema_width, "SNAPSHOTS", 3)
    with keep_signal_handlers():
        workdir = ema_width.trained(folder, tmp_path / "out")
    steps = {path.name for path in (workdir / "ema").iterdir()}
    assert {"9", "12"} <= steps
    assert "3" not in steps
    (one / "train" / "checkpoints" / "12").mkdir(parents=True)
    shutil.copy(trained / "config.json", one / "train")
    with pytest.raises(ConfigError, match="has one checkpoint"):
        ema_width.trained(one, tmp_path / "other")
