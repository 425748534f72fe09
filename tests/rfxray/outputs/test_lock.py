"""One process at a time writes a folder, on this machine and on several."""

import contextlib
import dataclasses
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rfxray.errors import ConfigError
from rfxray.outputs import lock

ROOT = Path(__file__).resolve().parents[3]

# Holds the lock of a folder on another machine, on a file system without flock.
ELSEWHERE = """
import errno, fcntl, sys, time
from pathlib import Path
from rfxray.outputs import journal, lock
def no_flock(*_):
    raise OSError(errno.ENOLCK, "none here")
fcntl.flock = no_flock
lock.machine = lambda: sys.argv[2]
lock.BEAT, lock.PATIENCE = 0.2, float(sys.argv[3])
with lock.locked(Path(sys.argv[1])):
    journal.Journal(every=3600).add(Path(sys.argv[1]) / "log", b"a line in memory")
    print("holds", flush=True)
    time.sleep(float(sys.argv[4]))
"""


def elsewhere(folder: Path, machine: str, patience=60.0, seconds=60.0) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE, folder, machine, str(patience), str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def no_flock(monkeypatch):
    """A file system on which `flock` does not bind, and short intervals."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "none here")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    monkeypatch.setattr(lock, "BEAT", 0.1)


def other(**changes) -> lock.Holder:
    """A holder on another machine, with a clock that is years off."""
    here = dataclasses.replace(lock.myself(), host="tpu-7", pid=71, machine="other", token="a")
    return dataclasses.replace(here, since="2009-01-01 00:00:00 UTC", **changes)


@contextlib.contextmanager
def renewed(file: Path, holder: lock.Holder, beats: int):
    """Renews a lock file so many times, then removes it; before the block it is written once."""
    file.write_text(holder.line())

    def renew():
        for beat in range(1, beats):
            time.sleep(0.1)
            fresh = file.with_name("fresh")
            fresh.write_text(dataclasses.replace(holder, beat=beat).line())
            fresh.replace(file)
        file.unlink()

    thread = threading.Thread(target=renew)
    thread.start()
    yield
    thread.join()


def test_second_lock_on_a_folder_is_rejected_with_the_name_of_the_first(tmp_path):
    for _ in range(2):
        with (
            lock.locked(tmp_path),
            pytest.raises(ConfigError, match="another process is writing") as refused,
            lock.locked(tmp_path),
        ):
            pass
        assert f"{os.uname().nodename}, process {os.getpid()}, since 20" in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_lock_of_a_killed_process_is_taken_over_at_once(tmp_path, capsys):
    kill = (
        "import os, sys; from pathlib import Path; from rfxray.outputs import lock\n"
        "with lock.locked(Path(sys.argv[1])): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", kill, tmp_path], cwd=ROOT).returncode == 9
    (left,) = tmp_path.iterdir()
    assert lock.is_lock(left)
    with lock.locked(tmp_path):
        assert lock.read(left).pid == os.getpid()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"rfxray: {tmp_path} was held by ")
    assert line.endswith("which is gone: taken over")


def test_process_that_reused_the_number_of_the_holder_does_not_hold_the_lock(tmp_path):
    mine = lock.myself()
    (tmp_path / lock.NAME).write_text(dataclasses.replace(mine, started=mine.started - 1).line())
    with lock.locked(tmp_path):
        pass


@pytest.mark.usefixtures("no_flock")
def test_holder_on_another_machine_that_renews_the_lock_keeps_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock, "PATIENCE", 60.0)
    with (
        renewed(tmp_path / lock.NAME, other(), beats=20),
        pytest.raises(ConfigError, match=r"tpu-7, process 71, since 2009-01-01 00:00:00 UTC"),
        lock.locked(tmp_path),
    ):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert "waiting for it up to 60 s for a sign of life" in line


@pytest.mark.usefixtures("no_flock")
@pytest.mark.parametrize("stopping", [False, True])
def test_holder_on_another_machine_that_is_silent_loses_the_lock(
    tmp_path, monkeypatch, capsys, stopping
):
    monkeypatch.setattr(lock, "PATIENCE", 0.5)
    (tmp_path / lock.NAME).write_text(other(stopping=stopping).line())
    with lock.locked(tmp_path):
        assert lock.read(tmp_path / lock.NAME).pid == os.getpid()
    waits, took = capsys.readouterr().err.splitlines()
    assert "is held by tpu-7, process 71, since 2009" in waits
    assert "silent for" in took
    assert took.endswith("taken over")


@pytest.mark.usefixtures("no_flock")
def test_start_waits_for_a_holder_that_is_stopping_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock, "PATIENCE", 60.0)
    with renewed(tmp_path / lock.NAME, other(stopping=True), beats=8), lock.locked(tmp_path):
        assert lock.read(tmp_path / lock.NAME).pid == os.getpid()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("waiting for it to be gone")


def test_start_waits_for_a_holder_of_this_machine_that_is_stopping(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from rfxray.outputs import lock\n"
        "lock.BEAT = 0.1\n"
        "with lock.locked(Path(sys.argv[1])) as held:\n"
        "    held.stopping(); time.sleep(1); print('ends', flush=True)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    while not ((found := lock.read(tmp_path / lock.NAME)) and found.stopping):
        time.sleep(0.01)
    with lock.locked(tmp_path):
        assert holder.stdout.readline() == "ends\n"
    assert holder.wait() == 0


@pytest.mark.usefixtures("no_flock")
def test_holder_that_wakes_after_its_lock_was_taken_over_ends_with_75(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.5)
    holder = elsewhere(tmp_path, "A")
    assert holder.stdout.readline() == "holds\n"
    holder.send_signal(signal.SIGSTOP)
    with lock.locked(tmp_path):
        holder.send_signal(signal.SIGCONT)
        _, error = holder.communicate(timeout=60)
        assert holder.returncode == 75
        assert f"{tmp_path} was taken over by {os.uname().nodename}, process" in error
        assert lock.read(tmp_path / lock.NAME).pid == os.getpid()
        assert not (tmp_path / "log").exists()  # the folder is another's


def test_of_two_starts_at_once_one_goes_on_even_without_flock(tmp_path):
    both = [elsewhere(tmp_path, machine, seconds=8) for machine in "AB"]
    errors = [process.communicate(timeout=120)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 1], [0, 75]), errors  # 1: the ConfigError of a start that came second


def test_full_disk_is_a_warning_and_the_lock_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    write, failed = lock.Lock._write, threading.Semaphore(0)
    with lock.locked(tmp_path):

        def full(self):
            failed.release()
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(lock.Lock, "_write", full)
        assert all(failed.acquire(timeout=60) for _ in range(3))
        monkeypatch.setattr(lock.Lock, "_write", write)
        with pytest.raises(ConfigError, match="another process"), lock.locked(tmp_path):
            pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"rfxray: {tmp_path / lock.NAME} is not renewed: No space left on device"


def test_temporary_files_may_be_removed_while_the_lock_is_renewed(tmp_path, monkeypatch, capsys):
    from rfxray.outputs.files import remove_temporary

    monkeypatch.setattr(lock, "BEAT", 0.001)
    with lock.locked(tmp_path):
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            remove_temporary(tmp_path)
    assert capsys.readouterr().err == ""


def test_torn_lock_file_holds_nothing_once_it_stays_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock, "PATIENCE", 0.3)
    (tmp_path / lock.NAME).write_text('{"host":')
    with lock.locked(tmp_path):
        pass
    assert "held by an unknown host" in capsys.readouterr().err
