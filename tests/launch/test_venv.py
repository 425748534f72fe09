"""launch/venv.sh, smoke.sh and gpu.sh without a network, GNU tools or write access."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A Python of an environment: it records its arguments, its pip succeeds unless there is no network.
PYTHON = f"""#!/bin/sh
case "$*" in
  "-m pip --version"*) ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip install "*)
    echo "$@" >>"$OUT/pip"
    env >"$OUT/env"
    [ -z "$OFFLINE" ] || {{ echo "no network" >&2; exit 1; }} ;;
  "-m data_prep"* | "-m rfxray"* | "-m benchmarks"*) echo "$@" >>"$OUT/stages" ;;
  *) exec {sys.executable} "$@" ;;
esac
"""
# What a machine with bash has at least; neither nproc nor sha256sum.
TOOLS = ("sh", "bash", "env", "dirname", "cat", "mkdir", "sed", "grep", "ln", "cp", "rm")


@pytest.fixture
def machine(tmp_path):
    """`machine(script, *flags, …)`: finished script of a checkout with a space in its path."""
    checkout, tools, out = (tmp_path / name for name in ("a checkout", "tools", "out"))
    for folder in (checkout, tools, out):
        folder.mkdir()
    for name in ("launch", "setup.cfg", "setup.py", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, checkout / name)
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name))
    base = tools / "python3"
    base.write_text(PYTHON)
    base.chmod(0o755)

    def run(script: str, *flags: str, cwd: Path = tmp_path, **more: str):
        return subprocess.run(
            ["bash", str(checkout / "launch" / script), *flags],
            cwd=cwd,
            env={"PATH": str(tools), "OUT": str(out), "OFFLINE": "", **more},
            capture_output=True,
            text=True,
            timeout=120,
        )

    run.checkout, run.out = checkout, out
    return run


def test_smoke_needs_no_gnu_tools_and_installs_once(machine):
    for _ in range(2):
        done = machine("smoke.sh")
        assert done.returncode == 0, done.stderr
    assert len((machine.out / "pip").read_text().splitlines()) == 1
    phantom = (machine.out / "stages").read_text().splitlines()[0].split()
    assert int(phantom[phantom.index("--workers") + 1]) >= 1
    assert phantom[phantom.index("--out") + 1] == "runs/smoke/phantom"


@pytest.mark.parametrize("where", ["relative ö", "/absolute"])
def test_smoke_folder_is_seen_from_where_one_stands(machine, tmp_path, where):
    where = f"{tmp_path}{where}" if where[0] == "/" else where
    done = machine("smoke.sh", SMOKE=where)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / where
    assert folder.is_dir()
    assert f"--out {folder}/phantom " in (machine.out / "stages").read_text()


@pytest.mark.parametrize("script", ["smoke.sh", "test.sh", "lint.sh"])
def test_help_of_a_script_runs_nothing(machine, script):
    done = machine(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert not list(machine.out.iterdir())


@pytest.mark.parametrize(
    ("flag", "folder", "steps"),
    [
        ("--latent", "smoke", "phantom oracle vae encode latents report"),
        ("--plumbing", "plumbing", "phantom vae encode latents latents sample"),
    ],
)
def test_smoke_through_latents_has_its_stages_in_order(machine, flag, folder, steps):
    names = {
        "smoke_report": "report",
        "latent_report": "report",
        "phantom.oracle": "oracle",
        "-m data_prep.phantom ": "phantom",
        "--config rad_vae:size=tiny": "vae",
        "--config smoke:space=latent": "latents",
        "--config smoke ": "train",
        "rfxray.sample": "sample",
        "rfxray encode": "encode",
    }
    assert machine("smoke.sh", flag).returncode == 0
    lines = (machine.out / "stages").read_text().splitlines()
    assert all(f"runs/{folder}" in line for line in lines)
    found = [next((name for part, name in names.items() if part in line), "") for line in lines]
    assert [name for name in found if name] == steps.split()


def test_unknown_argument_of_smoke_is_refused(machine):
    done = machine("smoke.sh", "--fast")
    assert done.returncode == 78
    assert "it takes --latent, --plumbing or nothing (got --fast)" in done.stderr
    assert not list(machine.out.iterdir())


def change(machine, old: str, new: str) -> None:
    file = machine.checkout / "setup.cfg"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_start_without_a_network_goes_on_if_the_requirements_hold(machine):
    assert machine("smoke.sh").returncode == 0
    change(machine, "[options]", "# a comment\n[options]")
    done = machine("smoke.sh", OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert "every requirement of setup.cfg holds; going on" in done.stderr
    # It is tried again at the next start.
    assert machine("smoke.sh").returncode == 0
    assert len((machine.out / "pip").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("numpy>=2.4,<3", "numpy>=99", "launch: numpy>=99 is needed, "),
        ("    scipy", "    no-such-package\n    scipy", "launch: no-such-package is not installed"),
    ],
)
def test_start_without_a_network_is_refused_if_a_requirement_is_missing(machine, old, new, said):
    assert machine("smoke.sh").returncode == 0
    change(machine, old, new)
    done = machine("smoke.sh", OFFLINE="1")
    assert done.returncode == 78
    assert said in done.stderr


def test_environment_may_lie_outside_of_a_checkout_that_is_not_written(machine, tmp_path):
    before = sorted(machine.checkout.rglob("*"))
    done = machine("smoke.sh", RFXRAY_VENV="an environment", SMOKE="smoke")
    assert done.returncode == 0, done.stderr
    environment = tmp_path / "an environment"
    assert (environment / "installed").is_file()
    assert f"-e {environment}/checkout[prep,test,docs]" in (machine.out / "pip").read_text()
    assert (environment / "checkout" / "setup.cfg").samefile(machine.checkout / "setup.cfg")
    assert sorted(machine.checkout.rglob("*")) == before


def test_variables_of_other_environments_do_not_reach_pip(machine):
    done = machine("smoke.sh", PYTHONPATH="/x", PIP_TARGET="/x", PIP_USER="1", PYTHONHOME="/x")
    assert done.returncode == 0, done.stderr
    names = {line.split("=")[0] for line in (machine.out / "env").read_text().splitlines()}
    assert not names & {"PYTHONPATH", "PIP_TARGET", "PIP_USER", "PYTHONHOME"}


def test_machine_without_python_is_refused_in_one_line(machine):
    done = machine("smoke.sh", PYTHON="python9")
    assert done.returncode == 78
    assert "there is no python9; install Python 3.11 or newer" in done.stderr.splitlines()[-1]


def test_no_script_of_the_two_commands_needs_gnu_tools():
    """`nproc` and `sha256sum` are absent on macOS, `readlink -f` and `timeout` differ there."""
    for name in ("smoke.sh", "test.sh", "lint.sh", "venv.sh", "gpu.sh"):
        words = (ROOT / "launch" / name).read_text()
        for tool in ("nproc", "sha256sum", "readlink", "realpath", "timeout ", "mapfile"):
            assert tool not in words.replace("--timeout ", ""), f"{name}: {tool}"


def test_gpu_script_leaves_relative_paths_as_they_are(machine, tmp_path):
    """They are relative to where one stands, for the supervisor and the trainer alike."""
    done = machine("gpu.sh", "--dry-run", "--workdir", "runs/b", "--config", "c.py")
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert [words[i + 1] for i, word in enumerate(words) if word == "--workdir"] == ["runs/b"] * 2
    assert "cd " not in done.stdout
    assert os.fspath(machine.checkout).replace(" ", "\\ ") in done.stdout
