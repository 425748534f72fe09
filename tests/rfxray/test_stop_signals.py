"""Requests to stop, from the first line of a command on."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rfxray import stop_signals
from rfxray.commands.table import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Commands that import nothing heavy.
LIGHT = ("status", "supervise", "build", "audit", "evaluate", "readers", "causes")


def defaults() -> None:
    """As on a terminal: the tests themselves may run under nohup, or in the background."""
    for number in ALL:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(*words: str, before=defaults, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )


@pytest.fixture
def slow_numpy(tmp_path) -> str:
    """Folder for PYTHONPATH in which importing NumPy takes a minute."""
    (tmp_path / "numpy").mkdir()
    module = "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    (tmp_path / "numpy" / "__init__.py").write_text(module)
    return str(tmp_path)


def modules() -> list[tuple[str, tuple[str, ...]]]:
    heavy = {name: module for name, (module, _) in COMMANDS.items() if name not in LIGHT}
    ways = [
        (m.removesuffix(".__main__"), ("-m", m.removesuffix(".__main__"))) for m in heavy.values()
    ]
    return [
        *ways,
        ("rfxray.train", ("-m", "rfxray", "train")),
        ("rfxray.encode", ("-m", "rfxray", "encode")),
        ("data_prep.phantom", ("-m", "rfxray", "phantom")),
    ]


@pytest.mark.parametrize(("name", "words"), modules(), ids=lambda words: "-".join(words))
def test_sigterm_while_a_command_imports_ends_it_in_one_line(slow_numpy, name, words):
    process = start(*words, PYTHONPATH=slow_numpy)
    assert process.stdout.readline() == "importing\n", process.stderr.read()
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (
        75,
        f"{name}: stopped: asked to by SIGTERM; rerun the command to continue\n",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_a_closed_terminal_are_heard_like_sigterm(slow_numpy, number):
    process = start("-m", "rfxray.train", PYTHONPATH=slow_numpy)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 75
    assert (
        error
        == f"rfxray.train: stopped: asked to by {number.name}; rerun the command to continue\n"
    )


# A command that is busy in C, where Python runs no handlers, after it has begun to listen.
BUSY = """
from rfxray import stop_signals
stop_signals.hear(stop_signals.ending("toy"))
import hashlib
print("busy", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


def test_request_is_heard_while_the_main_thread_is_in_compiled_code():
    process = start("-c", BUSY)
    assert process.stdout.readline() == "busy\n"
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, len(error.splitlines())) == (75, 1)


def test_sighup_stays_ignored_under_nohup():
    code = BUSY.replace('hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)', "input()")
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert process.stdout.readline() == "busy\n"
    process.send_signal(signal.SIGHUP)
    process.communicate("\n", timeout=60)
    assert process.returncode == 0


def test_signal_to_a_forked_child_does_not_reach_the_parent():
    code = """
import os, signal, time
from rfxray import stop_signals
stop_signals.hear(stop_signals.ending("toy"))
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
time.sleep(0.2)
"""
    process = start("-c", code)
    output, error = process.communicate(timeout=60)
    assert (process.returncode, output, error) == (0, f"{-signal.SIGTERM}\n", "")


def test_reaction_is_over_before_the_next_line_of_the_main_thread():
    seen = []
    before = [signal.getsignal(number) for number in ALL]
    try:
        assert stop_signals.hear(seen.append) is None
        for number in ALL[:2]:
            os.kill(os.getpid(), number)
            assert seen[-1] == number
        assert stop_signals.hear(print) == seen.append
    finally:
        stop_signals.hear(None)
    assert [signal.getsignal(number) for number in ALL] == before


def test_signals_are_left_alone_outside_of_the_main_thread():
    before = [signal.getsignal(number) for number in ALL]
    thread = threading.Thread(target=stop_signals.hear, args=[print])
    thread.start()
    thread.join()
    assert [signal.getsignal(number) for number in ALL] == before


def test_request_to_a_command_with_worker_processes_ends_them_in_one_line():
    code = """
import os, time
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
from rfxray import stop_signals
from rfxray.data.writing import _start_worker
if __name__ == "__main__":
    stop_signals.hear(stop_signals.ending("toy"))
    spawn = multiprocessing.get_context("spawn")
    count = spawn.Value("q", 0)
    pool = ProcessPoolExecutor(1, spawn, initializer=_start_worker, initargs=(count,))
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 60).result()
"""
    process = start("-c", code)
    assert process.stdout.readline().strip().isdigit()
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=50)  # the worker holds the pipe until it ends
    assert (process.returncode, len(error.splitlines())) == (75, 1), error


def test_packages_imported_by_other_programs_leave_signals_alone():
    code = "import signal, rfxray, data_prep; print(signal.getsignal(signal.SIGTERM))"
    output, _ = start("-c", code).communicate(timeout=60)
    assert output == f"{signal.SIG_DFL}\n"


def test_farewells_run_once_and_cannot_keep_the_process():
    code = """
import threading
from rfxray import stop_signals
stop_signals.FAREWELL = 0.2
stop_signals.farewells += [threading.Event().wait, lambda: 1 / 0, lambda: print("freed")]
stop_signals.end("toy: stopped")
"""
    process = start("-u", "-c", code)
    assert process.communicate(timeout=60) == ("freed\n", "toy: stopped\n")
    assert process.returncode == 75
