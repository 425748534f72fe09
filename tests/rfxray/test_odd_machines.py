"""Ordinary machines that are not ours: the same numbers, or one line and the documented code."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30


def memory(gib: int) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (gib * GIB, gib * GIB))


# What is set in the child before it begins, and in its environment (None: taken out).
MACHINES = {
    "as it is": (lambda: None, {}),
    "umask 077": (lambda: os.umask(0o077), {}),
    "one core": (lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}), {}),
    "3 GiB of memory": (lambda: memory(3), {}),
    "no variables except PATH": (lambda: None, dict.fromkeys(("HOME", "USER", "LANG", "TMPDIR"))),
    "a TMPDIR that is gone": (lambda: None, {"TMPDIR": "/nowhere"}),
    "Latin-1": (lambda: None, {"LC_ALL": "de_DE.ISO-8859-1", "PYTHONUTF8": "0"}),
    "pip and Python of others": (
        lambda: None,
        {
            "PIP_INDEX_URL": "http://x",
            "PYTHONHASHSEED": "7",
            "PYTHONOPTIMIZE": "1",
            "PYTHONSAFEPATH": "1",
        },
    ),
    "flags of JAX": (
        lambda: None,
        {"JAX_ENABLE_X64": "0", "JAX_TRACEBACK_FILTERING": "off", "JAX_LOG_COMPILES": "0"},
    ),
    "a cache that is not to be written": (lambda: None, {"JAX_COMPILATION_CACHE_DIR": "/proc/x"}),
}


@pytest.fixture
def train(environment, tiny_arguments, tiny_data, tmp_path):
    """`train(machine)`: the finished process of a training of 2 steps there, and its workdir."""

    def run(machine: str, **variables: str) -> tuple[subprocess.CompletedProcess, Path]:
        before, changes = MACHINES.get(machine, (lambda: None, variables))
        workdir = tmp_path / machine
        words = tiny_arguments(workdir, f"data.dirs={tiny_data}", "steps=2", "log_every=1")
        variables = {**environment(), "PYTHONPATH": str(ROOT), **changes}
        done = subprocess.run(
            [sys.executable, "-m", "rfxray.train", *words],
            cwd=ROOT,
            env={name: value for name, value in variables.items() if value is not None},
            preexec_fn=before,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done, workdir

    return run


def losses(workdir: Path) -> list[float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.drill
def test_training_is_the_same_on_every_machine(train):
    wanted = None
    for machine in MACHINES:
        done, workdir = train(machine)
        assert done.returncode == 0, (machine, done.stderr)
        assert "Traceback" not in done.stderr
        wanted = wanted or losses(workdir)
        assert losses(workdir) == wanted, machine
        if machine == "umask 077":
            modes = {path.stat().st_mode & 0o077 for path in (workdir, workdir / "metrics.jsonl")}
            assert modes == {0}


@pytest.mark.drill
@pytest.mark.parametrize("variables", [{"JAX_PLATFORMS": "cuda"}, {"JAX_PLATFORMS": "tpu"}])
def test_accelerator_of_another_machine_is_refused_in_one_line(train, variables):
    done, workdir = train("other", **variables)
    assert done.returncode == 78, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("rfxray.train:")]
    assert variables["JAX_PLATFORMS"] in line
    assert "Traceback" not in done.stderr
    assert not workdir.exists()
