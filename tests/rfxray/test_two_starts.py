"""Two starts of one command: one trainer goes on, the other says why not, and no row is lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rfxray.outputs import lock

ROOT = Path(__file__).resolve().parents[2]
STEPS = 120

# The same command on another machine, which sees the folder through a bucket: no flock.
ELSEWHERE = """
import fcntl, sys
def no_flock(*_):
    raise OSError("none here")
fcntl.flock = no_flock
from rfxray.outputs import lock
name = sys.argv.pop(1)
lock.machine = lambda: name
from rfxray import stop_signals, train
stop_signals.hear(stop_signals.ending("rfxray.train"))
train.main()
"""


@pytest.fixture
def start(environment, tiny_arguments, tiny_data, tmp_path):
    """`start(machine)`: a trainer in `tmp_path / "run"`, on this machine or on a named one."""
    keys = (f"data.dirs={tiny_data}", f"steps={STEPS}", "log_every=1", "checkpoint_every=20")
    arguments = tiny_arguments(tmp_path / "run", *keys)
    started = []

    def begin(machine: str = "") -> subprocess.Popen:
        how = ["-c", ELSEWHERE, machine] if machine else ["-m", "rfxray.train"]
        process = subprocess.Popen(
            [sys.executable, *how, *arguments],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()


def rows(workdir: Path) -> list[int]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def trains(workdir: Path, process: subprocess.Popen) -> None:
    """Waits until a trainer has logged some steps."""
    while not ((workdir / "metrics.jsonl").exists() and len(rows(workdir)) > 5):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


@pytest.mark.drill
def test_start_beside_a_running_trainer_is_refused_and_loses_no_row(start, tmp_path):
    first = start()
    trains(tmp_path / "run", first)
    first.send_signal(signal.SIGSTOP)  # or it would finish before the second has begun
    second = start()
    _, error = second.communicate(timeout=300)
    assert second.returncode == 78
    (line,) = error.splitlines()
    assert f"{os.uname().nodename}, process {first.pid}, since 20" in line
    first.send_signal(signal.SIGCONT)
    assert first.wait(300) == 0
    assert rows(tmp_path / "run") == list(range(1, STEPS + 1))


@pytest.mark.drill
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("machines", [("", ""), ("A", "A"), ("A", "B")])
def test_start_upon_a_dying_trainer_waits_and_goes_on(start, tmp_path, number, machines):
    first = start(machines[0])
    trains(tmp_path / "run", first)
    first.send_signal(number)
    second = start(machines[1])
    _, error = second.communicate(timeout=300)
    assert second.returncode == 0, error
    assert first.wait(300) in (75, -signal.SIGKILL)
    assert rows(tmp_path / "run") == list(range(1, STEPS + 1))
    assert not (tmp_path / "run" / lock.NAME).exists()


@pytest.mark.drill
@pytest.mark.parametrize("machines", [("", ""), ("A", "B")])
def test_of_two_starts_at_once_one_trains_to_the_end(start, tmp_path, machines):
    both = [start(machine) for machine in machines]
    errors = [process.communicate(timeout=300)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 78], [0, 75]), errors
    assert rows(tmp_path / "run") == list(range(1, STEPS + 1))


@pytest.mark.drill
def test_all_hosts_of_a_second_run_are_refused(environment, tiny_arguments, tiny_data, tmp_path):
    (tmp_path / "run").mkdir()
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    argv = tiny_arguments(tmp_path / "run", f"data.dirs={tiny_data}", "mesh.fsdp=2")
    address = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"}
    with lock.locked(tmp_path / "run"):
        hosts = [
            subprocess.Popen(
                [sys.executable, "-m", "rfxray.train", *argv],
                cwd=ROOT,
                env={**environment(), **address, "JAX_PROCESS_ID": str(host)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for host in range(2)
        ]
        said = [host.communicate(timeout=300)[1] for host in hosts]
    assert [host.returncode for host in hosts] == [78, 78], said
    for text in said:
        assert f"another process is writing {tmp_path / 'run'}: " in text
