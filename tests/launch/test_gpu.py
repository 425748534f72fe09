"""launch/gpu.sh and launch/slurm.sbatch with a fake trainer that ends at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EVIL = "$(touch owned); 'touch owned' `touch owned`"


def executable(file: Path, text: str) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


@pytest.fixture
def machine(tmp_path):
    """`machine(script, *flags, codes=…)`: finished script; trainer i ends with code i.

    The interpreter is Python with three exceptions: `-m rfxray.train` and the benchmark record
    their arguments and end, and the check for a GPU succeeds unless NO_GPU is set.
    """
    python = executable(
        tmp_path / "bin" / "python",
        f"""#!/usr/bin/env bash
case "$1 $2" in
  "-m rfxray.train") printf '%s\\0' "$@" >"$OUT/words"
    env >"$OUT/env-${{SLURM_PROCID:-0}}"
    set -- $CODES; i=${{SLURM_PROCID:-0}}; shift $i; exit $1 ;;
  "-m benchmarks.train_step") echo "$*" >>"$OUT/benchmarks"; exit $CODES ;;
  "-c import jax"*) [ -z "${{NO_GPU-}}" ] || {{ printf 'Trace\nno CUDA here\n' >&2; exit 1; }} ;;
  *) exec {sys.executable} "$@" ;;
esac
""",
    )
    executable(
        tmp_path / "bin" / "srun",
        """#!/usr/bin/env bash
shift # --kill-on-bad-exit
for i in $(seq 0 $((SLURM_JOB_NUM_NODES - 1))); do
  SLURM_PROCID=$i "$@" || code=$?
done
exit ${code:-0}
""",
    )
    executable(
        tmp_path / "bin" / "scontrol",
        '#!/bin/sh\n[ $1 = show ] && printf "first\\nsecond\\n" || echo "$@" >>"$OUT/scontrol"\n',
    )

    def run(script: str, *flags: str, codes="0", **more: str) -> subprocess.CompletedProcess:
        environment = {
            **os.environ,
            **{"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHON": str(python)},
            **{"CODES": codes, "OUT": str(tmp_path), "SLURM_SUBMIT_DIR": str(ROOT)},
            **{"SLURM_JOB_ID": "31234", "SLURM_JOB_NODELIST": "node[1-2]"},
            **{"SLURM_CPUS_PER_TASK": "16"},
            **{"SLURM_JOB_NUM_NODES": str(len(codes.split())), **more},
        }
        return subprocess.run(
            ["bash", str(ROOT / "launch" / script), *flags],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


@pytest.mark.parametrize("code", [0, 65, 70, 78])
def test_gpu_script_ends_with_the_code_of_its_trainer(machine, tmp_path, code):
    flags = ["--workdir", str(tmp_path / "run"), "--config", "c.py", f"--config.data.make={EVIL}"]
    done = machine("gpu.sh", *flags, codes=str(code))
    assert done.returncode == code, done.stderr
    words = (tmp_path / "words").read_bytes().decode().split("\0")[:-1]
    assert words == ["-m", "rfxray.train", *flags]
    assert json.loads((tmp_path / "run/status/host-0.json").read_text())["code"] == code
    assert not list(tmp_path.rglob("owned"))


def test_gpu_script_restarts_the_trainer(machine, tmp_path):
    done = machine("gpu.sh", f"--workdir={tmp_path / 'run'}", codes="1", RESTARTS="2")
    assert done.returncode == 75
    assert done.stderr.count("restarting the trainer") == 2


def test_gpu_script_reports_what_is_missing(machine, tmp_path):
    assert "no --workdir" in machine("gpu.sh", "--config", "c.py").stderr
    flags = ["--workdir", str(tmp_path / "run")]
    for missing, said in (
        ({"NO_GPU": "1"}, "finds no GPU through JAX (no CUDA here)"),
        ({"PYTHON": str(tmp_path / "none")}, f"no {tmp_path}/none; create .venv"),
    ):
        done = machine("gpu.sh", *flags, **missing)
        assert done.returncode == 78
        (line,) = done.stderr.splitlines()
        assert said in line


def test_gpu_script_prints_its_help(machine):
    done = machine("gpu.sh", "--help")
    assert done.returncode == 0
    assert "bash launch/gpu.sh [--dry-run] --workdir DIR" in done.stdout


@pytest.mark.parametrize(("code", "tried"), [(0, 1), (69, 4), (1, 1), (78, 1)])
def test_benchmark_tries_smaller_batches_when_out_of_memory(machine, tmp_path, code, tried):
    few = {"BATCHES": "2 1", "REMATS": "dots full"}
    done = machine("../benchmarks/gpu.sh", codes=str(code), **few)
    assert done.returncode == code
    assert len((tmp_path / "benchmarks").read_text().splitlines()) == tried


def test_gpu_dry_run_is_safe_to_paste(machine, tmp_path):
    flags = ["--workdir", str(tmp_path / "a b"), f"--config.data.make={EVIL}"]
    line = machine("gpu.sh", "--dry-run", *flags).stdout
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, cwd=tmp_path
    ).stdout.split("\0")
    assert words[-4:-1] == flags
    assert not list(tmp_path.rglob("owned"))


@pytest.mark.parametrize(
    ("codes", "code", "requeued"),
    [
        ("0 0", 0, False),
        ("75 75", 0, True),
        ("1 75", 0, True),
        ("0 75", 0, True),
        ("75 70", 70, False),  # 75 is the higher code, but 70 decides
        ("65 75", 65, False),
        ("78", 78, False),
        ("75", 0, True),
    ],
)
def test_slurm_requeues_only_codes_that_can_resume(machine, tmp_path, codes, code, requeued):
    flags = ["--workdir", str(tmp_path / "run"), "--config", "c.py", f"--config.data.make={EVIL}"]
    done = machine("slurm.sbatch", *flags, codes=codes)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "scontrol").exists() == requeued
    if requeued:
        assert (tmp_path / "scontrol").read_text() == "requeue 31234\n"
    words = (tmp_path / "words").read_bytes().decode().split("\0")[:-1]
    assert words == ["-m", "rfxray.train", *flags]
    assert not list(tmp_path.rglob("owned"))
    environment = (tmp_path / f"env-{len(codes.split()) - 1}").read_text().splitlines()
    several = " " in codes
    assert ("JAX_COORDINATOR_ADDRESS=first:21234" in environment) == several
    assert ("JAX_NUM_PROCESSES=2" in environment) == several
    assert ("JAX_PROCESS_ID=1" in environment) == several
    assert "SRUN_CPUS_PER_TASK=16" in environment


def test_slurm_stops_requeueing_after_its_limit(machine, tmp_path):
    flags = ["--workdir", str(tmp_path / "run")]
    done = machine("slurm.sbatch", *flags, codes="75", SLURM_RESTART_COUNT="50")
    assert done.returncode == 75
    assert not (tmp_path / "scontrol").exists()


def test_slurm_does_not_requeue_a_job_that_never_started(machine, tmp_path):
    (tmp_path / "file").write_text("")
    done = machine("slurm.sbatch", "--workdir", str(tmp_path / "file" / "run"))
    assert done.returncode == 78
    assert not (tmp_path / "scontrol").exists()
