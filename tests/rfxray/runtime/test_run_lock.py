"""The lock of a run on several hosts: all of them must see one folder."""

import itertools
import socket

import pytest

from rfxray.errors import ConfigError
from rfxray.outputs import lock
from rfxray.runtime import run_lock


class Service(dict):
    """The keys of the coordination service."""

    key_value_set = dict.__setitem__

    def blocking_key_value_get(self, key, _):
        return self[key]


@pytest.fixture
def barriers(monkeypatch):
    """Names of the barriers that were passed; other hosts are always there."""
    passed, service = [], Service()
    monkeypatch.setattr(run_lock.distributed, "joined", lambda: True)
    monkeypatch.setattr(run_lock.distributed, "service", lambda: service)
    monkeypatch.setattr(run_lock.distributed, "barrier", lambda name, *_: passed.append(name))
    monkeypatch.setattr(run_lock, "SEEN", 0.3)
    texts = itertools.repeat(0)  # each host counts for itself
    monkeypatch.setattr(run_lock.distributed, "_texts", texts)
    return passed


def test_host_that_sees_the_lock_of_host_0_goes_on_and_notes_itself(tmp_path, barriers):
    (tmp_path / f"{lock.NAME}-host-7").write_text("left by a killed run of more hosts")
    with run_lock.locked_run(tmp_path, 0), run_lock.locked_run(tmp_path, 1):
        assert lock.read(tmp_path / f"{lock.NAME}-host-1").gone() is False
    assert len(barriers) == 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", [False, True])
def test_host_with_a_folder_of_its_own_at_that_path_is_refused(tmp_path, barriers, left):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    if left:  # an earlier run was killed there
        (there / lock.NAME).write_text(lock.myself().line())
    with run_lock.locked_run(here, 0):
        passed = len(barriers)
        with (
            pytest.raises(ConfigError, match="is not the folder of that path on host 0") as error,
            run_lock.locked_run(there, 1),
        ):
            pass
    assert f"{there} on {socket.gethostname()}" in str(error.value)
    assert len(barriers) == passed + 1  # host 0 never goes on
    assert not (there / f"{lock.NAME}-host-1").exists()
