import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rfxray import train
from rfxray.checkpoints import weights
from rfxray.outputs import lock
from rfxray.outputs.lock import locked


def logged(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_missing_data_ends_with_65(refusal, tiny_arguments, tmp_path):
    absent = tmp_path / "none"
    code, line = refusal(train.main, tiny_arguments(tmp_path / "run", f"data.dirs={absent}"))
    assert code == 65
    assert str(absent) in line
    assert not (tmp_path / "run").exists()


def test_bucket_as_workdir_ends_with_78(refusal, tiny_arguments, tiny_data):
    argv = tiny_arguments("gs://bucket/run", f"data.dirs={tiny_data}")
    code, line = refusal(train.main, argv)
    assert code == 78
    assert "gs://bucket/run is not a path" in line
    assert not Path("gs:").exists()


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("model.depth=3", ["model.depth: 2 there, 3 here", "another run"]),
        ("batch_size=4", ["batch_size: 8 there, 4 here"]),
    ],
)
def test_another_run_in_the_workdir_ends_with_78(
    refusal, tiny_arguments, tiny_data, trained, override, parts
):
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*") if p.is_file()}
    argv = tiny_arguments(trained, f"data.dirs={tiny_data}", override)
    code, line = refusal(train.main, argv)
    assert code == 78
    for part in (*parts, str(trained)):
        assert part in line
    assert before == {p: p.stat().st_mtime_ns for p in trained.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        (("model.attention=cudnn",), "attention=cudnn needs an NVIDIA GPU"),
        (("model.attention=splash", "model.width=256"), "attention=splash needs a TPU (got cpu)"),
    ],
)
def test_kernel_of_another_backend_is_refused_before_the_run(
    refusal, tiny_arguments, tiny_data, tmp_path, keys, part
):
    argv = tiny_arguments(tmp_path / "run", f"data.dirs={tiny_data}", *keys)
    code, line = refusal(train.main, argv)
    assert code == 78
    assert part in line
    assert not (tmp_path / "run").exists()


def test_workdir_that_cannot_hold_checkpoints_is_refused(
    refusal, tiny_arguments, tiny_data, tmp_path
):
    (tmp_path / "checkpoints").touch()
    code, line = refusal(train.main, tiny_arguments(tmp_path, f"data.dirs={tiny_data}"))
    assert code == 78
    assert f"cannot create --workdir {tmp_path}" in line


def test_mesh_that_does_not_fit_the_devices_is_refused_before_the_run(
    refusal, tiny_arguments, tiny_data, tmp_path
):
    argv = tiny_arguments(tmp_path / "run", f"data.dirs={tiny_data}", "mesh.fsdp=3")
    code, line = refusal(train.main, argv)
    assert code == 78
    assert "fsdp 3" in line
    assert not (tmp_path / "run").exists()


def test_missing_weights_of_an_evaluator_are_refused_before_compiling(
    refusal, tiny_arguments, tiny_data, tmp_path, monkeypatch
):
    monkeypatch.delattr(train, "train_step")
    keys = ("fidelity.every=2", f"fidelity.extractor=rad_dino={tmp_path / 'none'}")
    keys = (f"data.dirs={tiny_data}", *(f"evaluators.{key}" for key in keys))
    code, line = refusal(train.main, tiny_arguments(tmp_path / "run", *keys))
    assert code == 78
    assert f"no weights in {tmp_path / 'none'}" in line


@pytest.fixture
def started(environment, tiny_arguments, tiny_data, tmp_path):
    """`started(workers)`: (process in its own process group, command, workdir) of a training."""
    groups = []

    def start(workers: int):
        workdir = tmp_path / "run"
        keys = ("steps=1000000", "log_every=5", "checkpoint_every=0", f"data.workers={workers}")
        argv = tiny_arguments(workdir, f"data.dirs={tiny_data}", *keys)
        command = [sys.executable, "-m", "rfxray.train", *argv]
        # The tests may run under nohup, and a process inherits what is ignored.
        hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        process = subprocess.Popen(
            command,
            cwd=Path(train.__file__).parents[1],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        signal.signal(signal.SIGHUP, hangup)
        groups.append(process.pid)
        return process, command, workdir

    yield start
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def reach(process, text: str) -> None:
    assert any(text in line for line in process.stdout), process.stderr.read()


def test_workdir_of_another_trainer_ends_with_78(refusal, tiny_arguments, tiny_data, trained):
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*") if p.is_file()}
    argv = tiny_arguments(trained, f"data.dirs={tiny_data}")
    with locked(trained):
        code, line = refusal(train.main, argv)
        assert not lock.read(trained / lock.NAME).gone()
    assert code == 78
    assert f"another process is writing {trained}: " in line
    assert f"process {os.getpid()}, since" in line
    assert before == {p: p.stat().st_mtime_ns for p in trained.rglob("*") if p.is_file()}


def test_worker_processes_end_with_a_killed_trainer(started):
    process, _, _ = started(workers=1)
    reach(process, "step 5/")
    process.kill()
    process.wait()
    for _ in range(600):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("a worker process is still running")


def test_request_to_stop_during_compilation_ends_at_once_and_frees_the_workdir(started):
    process, _, workdir = started(workers=0)
    reach(process, "a new run")
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=300)[1]
    assert (process.returncode, error) == (
        75,
        "rfxray.train: stopped: asked to by SIGTERM; rerun the command to continue\n",
    )
    assert (workdir / "run.log").read_text().endswith(" a new run\n")
    assert not (workdir / lock.NAME).exists()


@pytest.mark.drill
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["import", "load", "compile", "loop"])
def test_request_to_stop_at_any_moment_ends_in_one_line(started, moment, number):
    process, _, workdir = started(workers=0)
    if moment == "import":
        maps = Path(f"/proc/{process.pid}/maps")
        while "libjax_common" not in maps.read_text():
            time.sleep(0.01)
    elif moment == "load":
        while not (workdir / lock.NAME).exists():
            time.sleep(0.01)
    else:
        reach(process, {"compile": "a new run", "loop": "step 5/"}[moment])
    process.send_signal(number)
    error = process.communicate(timeout=300)[1]
    assert process.returncode == 75, error
    (line,) = error.splitlines()
    assert line.startswith("rfxray.train: stopped: ")
    assert line.endswith("rerun the command to " + ("resume" if moment == "loop" else "continue"))
    assert not (workdir / lock.NAME).exists()


@pytest.mark.parametrize(("workers", "number"), [(0, signal.SIGHUP), (1, signal.SIGTERM)])
def test_request_to_stop_saves_and_the_same_command_resumes(started, environment, workers, number):
    process, command, workdir = started(workers)
    reach(process, "step 5/")
    os.killpg(process.pid, number)
    error = process.communicate(timeout=300)[1]
    assert process.returncode == 75, error
    (stopped,) = [line for line in error.splitlines() if line.startswith("rfxray.train:")]
    (saved,) = [int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]
    assert saved >= 5
    assert stopped == (f"rfxray.train: stopped: saved at step {saved}; rerun the command to resume")
    last = saved + 12
    again = subprocess.run(
        [*command, f"--config.steps={last}"],  # the first command would run for ever
        cwd=Path(train.__file__).parents[1],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert again.returncode == 0, again.stderr
    assert f"resumed at step {saved}" in again.stdout
    assert again.stdout.splitlines()[-1].endswith(f"finished {last} steps: {workdir}")
    steps = [row["step"] for row in logged(workdir)]
    assert steps == [n for n in range(1, last + 1) if n % 5 == 0 or n == last]
    assert weights.read_config(workdir)["steps"] == last
