"""Which code a command is: its version, its commit, and what a run writes about them."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version as installed
from pathlib import Path

import pytest

import rfxray
from rfxray import version
from rfxray.commands.table import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


def git(folder: Path, *words: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    return subprocess.run(
        ["git", "-C", folder, *names, *words],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A repository with one committed file in rfxray/."""
    folder = tmp_path / "Größe 'ä'"
    (folder / "rfxray").mkdir(parents=True)
    (folder / "rfxray" / "a.py").write_text("a = 1\n")
    shutil.copy(ROOT / "rfxray" / "commit.txt", folder / "rfxray")
    shutil.copy(ROOT / ".gitattributes", folder)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "a")
    return folder


def test_commit_of_a_checkout_says_whether_the_code_differs(checkout, monkeypatch):
    head = git(checkout, "rev-parse", "--short=12", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(ROOT / ".git"))  # as in a hook of another repository
    stamp = checkout / "rfxray" / "commit.txt"
    assert version.commit(checkout, stamp) == head
    (checkout / "notes.txt").write_text("no code")
    assert version.commit(checkout, stamp) == head
    (checkout / "rfxray" / "new.py").write_text("")
    assert version.commit(checkout, stamp) == f"{head}+dirty"


def test_commit_is_unknown_without_git_or_a_repository(checkout, monkeypatch, tmp_path):
    assert version.commit(checkout / "rfxray", checkout / "rfxray" / "commit.txt") == "unknown"
    assert version.commit(tmp_path, tmp_path / "absent") == "unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert version.commit(checkout) == "unknown"


def test_archive_of_a_commit_carries_it(checkout, tmp_path):
    """launch/tpu/setup.sh installs such an archive."""
    packed = subprocess.run(
        ["git", "-C", checkout, "archive", "HEAD"], capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    stamp = tmp_path / "unpacked" / "rfxray" / "commit.txt"
    found = version.commit(tmp_path / "unpacked", stamp)
    assert found == git(checkout, "rev-parse", "HEAD")[:12]


def test_line_names_every_version():
    line = version.line()
    assert line.startswith(f"rfxray {rfxray.__version__}, commit ")
    assert f"jax {installed('jax')}" in line
    assert f"python {'.'.join(map(str, sys.version_info[:3]))}" in line
    assert "\n" not in line


def test_every_command_has_the_version_flag(capsys):
    import importlib

    for name, (module, _) in COMMANDS.items():
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(module).main(["--version"])
        assert not ended.value.code, name
        assert capsys.readouterr().out == version.line() + "\n", name


def test_run_says_which_code_it_is(trained):
    written = json.loads((trained / "config.json").read_text())["written_by"]
    assert written == version.versions()
    assert version.line(written) in (trained / "run.log").read_text()
