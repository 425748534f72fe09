"""A fake gcloud that records every call and simulates a slice, its hosts and a bucket."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TPU = ROOT / "launch" / "tpu"
FAKE = Path(__file__).with_name("fake_gcloud.py")

# Settings of env.sh; in the environment each has the prefix RFXRAY_.
SETTINGS = {
    "PROJECT": "my-project",
    "ZONE": "us-central2-b",
    "NAME": "slice",
    "TYPE": "v4-32",
    "VERSION": "tpu-ubuntu2204-base",
    "KIND": "spot",
    "BUCKET": "gs://my-bucket",
    "RUN": "runs/xl",
    "TRIES": "3",
    "PAUSE": "0",
    "CREATE_TRIES": "4",
    "POLL": "0",
    "FUTILE": "2",
}


class Cloud:
    """Runs the scripts of launch/tpu against a fake gcloud.

    Args:
      folder: Folder for the state of the fake.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        (folder / "home").mkdir()
        gcloud = folder / "bin" / "gcloud"
        gcloud.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {FAKE} "$@"\n')
        gcloud.chmod(gcloud.stat().st_mode | stat.S_IXUSR)

    def play(self, **scenario) -> None:
        """Writes the scenario; see fake_gcloud.py."""
        (self.folder / "scenario.json").write_text(json.dumps(scenario))

    def run(self, script: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess:
        """Runs a script of launch/tpu to its end."""
        set_here = {f"RFXRAY_{name}": value for name, value in (SETTINGS | settings).items()}
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("RFXRAY_")},
            **set_here,
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "FAKE_GCLOUD": str(self.folder),
            "A_SECRET": "hunter2",
        }
        return subprocess.run(
            ["bash", str(TPU / f"{script}.sh"), *arguments],
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=240,
        )

    @property
    def calls(self) -> list[list[str]]:
        """Arguments of every call so far."""
        file = self.folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def count(self, *words: str) -> int:
        """Number of calls that contain these consecutive words."""
        text = " ".join(words)
        return sum(text in " ".join(call) for call in self.calls)


@pytest.fixture
def cloud(tmp_path) -> Cloud:
    made = Cloud(tmp_path / "cloud")
    made.play()
    return made
