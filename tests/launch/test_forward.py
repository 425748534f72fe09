"""A request to stop a script reaches what it runs, and the script ends after it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Stands in for Python, gcloud and srun: it takes half a second to save when it is asked to stop.
STUB = """#!{python} -IS
import os, pathlib, signal, sys, time
if "-c" in sys.argv[:2]:
    sys.exit()
folder = pathlib.Path({folder!r})
def stop(*_):
    time.sleep(0.5)
    (folder / "saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
with (folder / "started").open("a") as file:
    print(os.getpid(), file=file)
for _ in range(600):  # a signal just before one long sleep would be seen after it
    time.sleep(0.1)
"""

# In the place of launch/venv.sh, which would install.
VENV = (
    'cd "$(dirname "${BASH_SOURCE[0]}")/.." && source launch/forward.sh\npython=.venv/bin/python\n'
)

SCRIPTS = (
    "launch/smoke.sh",
    "launch/lint.sh",
    "launch/test.sh",
    "launch/test.sh suite",
    "launch/gpu.sh --workdir run",
    "benchmarks/gpu.sh",
    ".ci/run",
    "launch/tpu/create.sh",
    "launch/tpu/setup.sh",
    "launch/tpu/run.sh -- --config c",
    "launch/tpu/babysit.sh -- --config c",
    "launch/slurm.sbatch --workdir run",
)


@pytest.fixture
def checkout(tmp_path) -> Path:
    for folder in ("launch", "benchmarks", ".ci", "rfxray"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    (tmp_path / "launch" / "venv.sh").write_text(VENV)
    for name in (".venv/bin/python", "bin/gcloud", "bin/srun"):
        stub = tmp_path / name
        stub.parent.mkdir(parents=True, exist_ok=True)
        stub.write_text(STUB.format(python=sys.executable, folder=str(tmp_path)))
        stub.chmod(0o755)
    for name in ("dcmdump", "dciodvfy", "chromium", "git"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\necho 0123456789abcdef\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def start(checkout: Path, script: str, ignored: tuple[int, ...] = ()) -> subprocess.Popen:
    settings = {"RFXRAY_PROJECT": "my-project", "RFXRAY_BUCKET": "gs://my-bucket"}
    if "babysit" in script:  # it runs Python itself
        (checkout / ".venv/bin/python").unlink()
        settings["PYTHON"] = sys.executable
    slurm = {"SLURM_SUBMIT_DIR": ".", "SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_PER_TASK": "1"}
    slurm |= {"SLURM_JOB_ID": "1"}

    def signals():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    path = f"{checkout / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", *script.split()],
        cwd=checkout,
        env={**os.environ, **slurm, "PYTHON": ".venv/bin/python", **settings, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=signals,
    )


def child_of(checkout: Path, process: subprocess.Popen) -> int:
    """Waits for the first process that a script runs; returns its number."""
    file = checkout / "started"
    while not (file.exists() and file.read_text().endswith("\n")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    return int(file.read_text().splitlines()[0])


@pytest.mark.parametrize("script", SCRIPTS)
def test_stopped_script_waits_for_what_it_runs_and_ends_with_75(checkout, script):
    process = start(checkout, script)
    child_of(checkout, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert (checkout / "saved").exists()
    assert len((checkout / "started").read_text().splitlines()) == 1, "a second stage began"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_a_closed_terminal_stop_a_script(checkout, number):
    process = start(checkout, "launch/smoke.sh")
    child_of(checkout, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75
    assert (checkout / "saved").exists()
    assert output.splitlines()[-1] == (
        "smoke.sh: stopped as asked to; run the same command again to continue"
    )


def test_script_under_nohup_goes_on_when_the_terminal_closes(checkout):
    process = start(checkout, "launch/smoke.sh", ignored=(signal.SIGHUP,))
    child = child_of(checkout, process)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    os.kill(child, 0)
    assert process.poll() is None
    process.terminate()
    process.communicate(timeout=60)


def test_forward_keeps_code_words_and_input_of_a_command(tmp_path):
    code = (
        f"source {ROOT}/launch/forward.sh\n"
        "echo read | forward cat\n"
        "forward printf '<%s>' 'a  b' '*'\n"
        "forward bash -c 'exit 7' || echo $?\n"
        "forward bash -c 'kill -9 $$' || echo $?\n"
    )
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "read\n<a  b><*>7\n137\n"
