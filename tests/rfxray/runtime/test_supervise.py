"""The supervisor of a host, with one-line trainers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rfxray.runtime import status, supervise

ROOT = Path(__file__).resolve().parents[3]
HEARTBEAT = """
import json, os, pathlib
folder = pathlib.Path({workdir!r}) / "status"
(folder / "heartbeat-host-0.json").write_text(json.dumps(dict(step={step}, pid=os.getpid())))
"""


def start(workdir, code: str, *flags: str, **how) -> subprocess.Popen:
    """Starts a supervisor of a trainer that runs Python code; `how` is passed to Popen."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "rfxray.runtime.supervise", "--workdir", str(workdir)),
            *("--attempt", "A", "--interval", "0.1", *flags, "--", sys.executable, "-c", code),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


def run(workdir, code: str, *flags: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a supervisor that ends by itself."""
    process = start(workdir, code, *flags)
    output, error = process.communicate(timeout=300)
    return process.returncode, output, error


def report(workdir) -> dict:
    return json.loads((Path(workdir) / "status" / "host-0.json").read_text())


@pytest.mark.parametrize(
    ("returncode", "code", "ended"),
    [
        *((n, n, f"exit {n}") for n in (0, 65, 70, 75, 78)),
        *((-n, 75, n.name) for n in (signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV)),
        (134, 75, "SIGABRT"),
        (137, 75, "SIGKILL"),
        (1, 75, "exit 1"),
        (2, 75, "exit 2"),
        (255, 75, "exit 255"),
    ],
)
def test_outcome_maps_every_return_code_to_an_exit_code(returncode, code, ended):
    assert supervise.outcome(returncode) == (code, ended)


@pytest.mark.parametrize(
    ("code", "expected", "ended"),
    [
        ("raise SystemExit(0)", 0, "exit 0"),
        ("raise SystemExit(65)", 65, "exit 65"),
        ("raise SystemExit(78)", 78, "exit 78"),
        ("import os; os.abort()", 75, "SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 75, "SIGKILL"),
        ("1 / 0", 75, "exit 1"),
    ],
)
def test_end_of_the_trainer_is_reported(tmp_path, code, expected, ended):
    began = time.time()
    found, _, error = run(tmp_path, HEARTBEAT.format(workdir=str(tmp_path), step=7) + code)
    assert found == expected
    found = report(tmp_path)
    assert began <= found.pop("time") <= time.time()
    assert found == {
        **{"host": 0, "hosts": 1, "attempt": "A"},
        **{"code": expected, "ended": ended, "step": 7},
    }
    last = error.splitlines()[-1]
    assert last == (
        f"rfxray.runtime.supervise: trainer ended at step 7 with {ended}; exit code {expected}"
    )
    assert not list((tmp_path / "status").glob("*.new"))


def test_heartbeat_of_another_process_is_ignored(tmp_path):
    (tmp_path / "status").mkdir()
    (tmp_path / "status" / "heartbeat-host-0.json").write_text('{"step": 9, "pid": 1}')
    run(tmp_path, "")
    assert report(tmp_path)["step"] is None


@pytest.mark.parametrize(
    ("number", "received"),
    [
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGHUP, signal.SIGTERM),
    ],
)
def test_a_signal_is_passed_on_once_and_prevents_restarts(tmp_path, number, received):
    trainer = f"""
import signal, sys, time
seen = []
signal.signal({int(received)}, lambda *_: seen.append(1))
print("ready", flush=True)
while not seen: time.sleep(0.01)
time.sleep(0.3)
print("signals", len(seen), flush=True)
sys.exit(75)
"""
    # The tests themselves may run under nohup, or in the background of a shell.
    listens = {"preexec_fn": lambda: signal.signal(number, signal.SIG_DFL)}
    process = start(tmp_path, trainer, "--restarts", "3", **listens)
    assert process.stdout.readline() == "ready\n"
    while report(tmp_path)["code"] is not None:
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75
    assert output == "signals 1\n"
    assert report(tmp_path)["ended"] == "exit 75"


def test_sighup_is_ignored_under_nohup(tmp_path):
    trainer = f"""
import pathlib, time
print("ready", flush=True)
while not (pathlib.Path({str(tmp_path)!r}) / "go").exists(): time.sleep(0.01)
"""
    nohup = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    process = start(tmp_path, trainer, **nohup)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    (tmp_path / "go").touch()
    process.communicate(timeout=300)
    assert process.returncode == 0


def test_reports_are_rewritten_while_the_trainer_runs(tmp_path):
    process = start(tmp_path, "import time; time.sleep(2)")
    times = set()
    while process.poll() is None:
        try:
            found = report(tmp_path)
        except FileNotFoundError:
            continue
        times.add(found["time"]) if found["code"] is None else None
        time.sleep(0.02)
    process.communicate()
    assert len(times) >= 3
    assert report(tmp_path)["code"] == 0


def test_output_is_passed_on_and_logged(tmp_path):
    code = "import sys; print('said'); print('complained', file=sys.stderr)"
    _, output, _ = run(tmp_path, code)
    assert output == "said\ncomplained\n"
    assert (tmp_path / "logs" / "A" / "host-0.log").read_text() == output


@pytest.mark.parametrize("also", [False, True])
def test_trainer_continues_when_nobody_reads_its_output(tmp_path, also):
    """As after `… | head`, or `… 2>&1 | head`."""
    code = f"""
import pathlib, time
print("ready", flush=True)
while not (pathlib.Path({str(tmp_path)!r}) / "go").exists(): time.sleep(0.01)
for _ in range(20): print("x" * 50_000)
raise SystemExit(70)
"""
    process = start(tmp_path, code)
    assert process.stdout.readline() == "ready\n"
    process.stdout.close()
    if also:
        process.stderr.close()
    (tmp_path / "go").touch()
    assert process.wait(timeout=300) == 70
    assert report(tmp_path)["code"] == 70
    assert len((tmp_path / "logs" / "A" / "host-0.log").read_text()) == 6 + 20 * 50_001


def test_log_keeps_the_end_of_a_long_output(tmp_path, monkeypatch):
    monkeypatch.setattr(supervise, "KEPT", 8)
    reports = supervise.Reports(str(tmp_path), 0, 1, "A")
    reports.open()
    for chunk in (b"step 1\n", b"step 2\n", b"step 3\n"):
        reports.keep(chunk)
        assert reports.write(None, None, None)
    assert (tmp_path / "logs" / "A" / "host-0.log").read_text() == "\nstep 3\n"


def test_child_processes_end_with_the_trainer(tmp_path):
    code = """
import os, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    found, output, _ = run(tmp_path, code)
    assert found == 75
    stat = Path(f"/proc/{int(output)}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_trainer_is_asked_to_stop_when_its_supervisor_is_killed(tmp_path):
    trainer = f"""
import os, pathlib, signal, sys, time
def stop(*_):
    pathlib.Path({str(tmp_path)!r}, "saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""
    process = start(tmp_path, trainer)
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate(timeout=50)
    until = time.monotonic() + 50
    while not (tmp_path / "saved").exists():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_trainer_is_restarted_while_it_makes_progress(tmp_path):
    # Reaches steps 1, 2, 3, then makes no progress.
    trainer = f"""
import json, os, pathlib
count = pathlib.Path({str(tmp_path)!r}) / "count"
n = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(n))
file = pathlib.Path({str(tmp_path)!r}) / "status" / "heartbeat-host-0.json"
file.write_text(json.dumps(dict(step=min(n, 3), pid=os.getpid())))
raise SystemExit(75)
"""
    found, _, error = run(tmp_path, trainer, "--restarts", "2")
    assert found == 75
    assert (tmp_path / "count").read_text() == "5"
    assert error.count("restarting the trainer") == 4


@pytest.mark.parametrize("code", [0, 65, 70, 78])
def test_trainer_is_not_restarted_after_a_final_code(tmp_path, code):
    found, _, error = run(tmp_path, f"raise SystemExit({code})", "--restarts", "5")
    assert found == code
    assert "restarting" not in error


def test_unwritable_workdir_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    found, output, error = run(tmp_path / "file" / "run", "print('trains')")
    assert (found, output) == (78, "")
    (line,) = error.splitlines()
    assert line.startswith(
        f"rfxray.runtime.supervise: error: {tmp_path}/file/run/status cannot be written"
    )


def test_attempt_that_is_not_a_folder_name_is_refused(refusal, tmp_path):
    for attempt in ("..", "a/b", "."):
        argv = ["--workdir", tmp_path / "run", "--attempt", attempt, "--", "true"]
        code, line = refusal(supervise.main, argv)
        assert code == 78
        assert f"--attempt must be the name of a folder, without / (got {attempt!r})" in line
    assert not (tmp_path / "run").exists()


def test_command_that_cannot_be_started_is_reported(tmp_path):
    command = [
        sys.executable,
        "-m",
        "rfxray.runtime.supervise",
        "--workdir",
        str(tmp_path),
        "--",
        "/none",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 78
    (line,) = done.stderr.splitlines()
    assert "/none cannot be started" in line
    assert report(tmp_path)["code"] == 78


def test_failed_report_does_not_end_the_trainer(tmp_path):
    code = "import shutil, time; shutil.rmtree('status'); time.sleep(0.5); print('trained')"
    before = f"import os; os.chdir({str(tmp_path)!r}); "
    # The folder is back before the end, like a bucket that was unavailable for a while.
    after = "; os.mkdir('status')"
    found, output, error = run(tmp_path, before + code + after)
    assert found == 0
    assert "trained" in output
    assert "rfxray.runtime.supervise: report not written: " in error
    assert report(tmp_path)["code"] == 0


def test_supervise_does_not_import_jax():
    code = "import sys, rfxray.runtime.supervise; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_environment_is_not_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("A_SECRET", "hunter2")
    _, output, error = run(tmp_path, "", "--restarts", "1")
    files = "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert "hunter2" not in output + error + files


# ---------------------------------------------------------------------------------------------
# Verdicts


def reports(*codes, hosts=None, ages=None, attempt="A", step=5):
    ages = ages or [0] * len(codes)
    return [
        status.Status(i, hosts or len(codes), attempt, code, code and f"exit {code}", step, -age)
        for i, (code, age) in enumerate(zip(codes, ages, strict=True))
    ]


@pytest.mark.parametrize(
    ("codes", "ages", "word", "code"),
    [
        ((), (), "none", 0),
        ((None, None), (0, 0), "running", 0),
        ((None, None), (99, 0), "running", 0),
        ((None, None), (99, 99), "lost", 75),
        ((0, 0), (0, 0), "finished", 0),
        ((0, 75), (0, 0), "resume", 75),
        ((75, None), (0, 0), "running", 0),  # the other host is about to notice
        ((75, None), (20, 0), "resume", 75),  # the other host did not notice
        ((75, None), (20, 99), "resume", 75),
        ((0, None), (0, 0), "running", 0),
        ((75, 78), (0, 0), "stop", 78),
        ((75, 70), (0, 0), "stop", 70),
        ((None, 65), (0, 0), "stop", 65),
    ],
)
def test_verdict_on_the_reports_of_all_hosts(codes, ages, word, code):
    verdict = status.judge(reports(*codes, ages=ages), now=0, stale=60, grace=10)
    assert (verdict.word, verdict.code) == (word, code)


def test_run_is_not_finished_if_a_host_has_not_reported():
    assert status.judge(reports(0, hosts=2), now=0, stale=60, grace=10).word == "resume"


def test_latest_attempt_is_judged_by_default():
    both = reports(78, None, attempt="1")[:1] + reports(None, None, attempt="2", step=9)[1:]
    verdict = status.judge(both, now=0, stale=60, grace=10)
    assert (verdict.word, verdict.attempt, verdict.step) == ("running", "2", 9)
    assert status.judge(both, now=0, stale=60, grace=10, attempt="1").word == "stop"
    assert status.judge(both, now=0, stale=60, grace=10, attempt="3").word == "none"


def test_report_round_trips_and_damaged_lines_are_skipped(capsys):
    (one,) = reports(75, hosts=4)
    assert status.parse([one.line(), "", '{"host": 0}', "torn"]) == [one]
    assert len(capsys.readouterr().err.splitlines()) == 2


# ---------------------------------------------------------------------------------------------
# A bucket


def test_reports_and_log_are_written_to_a_bucket(tmp_path):
    """Against a storage emulator: pip install gcp-storage-emulator gcsfs."""
    pytest.importorskip("gcsfs", reason="no gcsfs; it comes with the extra tpu")
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="no gcp-storage-emulator")
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    server = emulator.create_server("localhost", port, in_memory=True, default_bucket="bucket")
    server.start()
    address = f"http://localhost:{port}"
    code = "print('trains'); raise SystemExit(70)"
    command = [sys.executable, "-m", "rfxray.runtime.supervise", "--workdir", "gs://bucket/runs/xl"]
    command += ["--attempt", "A", "--host", "2", "--hosts", "4", "--", sys.executable, "-c", code]
    read = """
from etils import epath
run = epath.Path("gs://bucket/runs/xl")
print((run / "status" / "host-2.json").read_text(), (run / "logs/A/host-2.log").read_text())
"""
    environment = {**os.environ, "STORAGE_EMULATOR_HOST": address}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 70, done.stderr
        done_reading = subprocess.run(
            [sys.executable, "-c", read], env=environment, capture_output=True, text=True
        )
    finally:
        server.stop()
    line, log, *_ = done_reading.stdout.splitlines()
    assert json.loads(line)["code"] == 70
    assert log.strip() == "trains"
