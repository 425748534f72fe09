"""The wheel: its files, and its commands when it is installed outside the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.drill

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    *("model.size=32", "model.patch=8", "model.width=32", "model.depth=2", "model.heads=2"),
    *("model.mlp_width=48", "model.adaln_rank=4", "model.unroll=1", "batch_size=4", "steps=2"),
    *("evaluators.validation_loss.every=0", "evaluators.sample_grid.every=0"),
    *("checkpoint_every=0", "optim.warmup=1", "optim.decay=1"),
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Wheel built from the files that git tracks or would add in this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            copy = folder / "source" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy)
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "-w",
        folder,
        folder / "source",
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel) -> Path:
    """Folder of the programs of a new virtual environment with the wheel.

    Its dependencies are those of the current environment.
    """
    folder = wheel.parent / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel)
    (site,) = folder.glob("lib/python*/site-packages")
    # A line of a .pth file adds a folder to sys.path. The .pth files in that folder are not read,
    # so the editable install of the checkout is not found.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("elsewhere")


def run(*command, cwd: Path | None = None) -> str:
    """Output of a command that must succeed; variables that expose this checkout are removed."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_wheel_holds_both_packages_and_their_data_files(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"rfxray", "data_prep"}
    for package, folder in (
        ("rfxray", "rfxray"),
        ("data_prep", "data_prep"),
        ("rfxray/configs", "configs"),
    ):
        listed = subprocess.run(
            ["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True
        )
        kept = [ROOT / name for name in listed.stdout.split() if (ROOT / name).is_file()]
        assert {f"{package}/{file.relative_to(ROOT / folder)}" for file in kept} <= set(names)


def test_nothing_is_imported_from_the_checkout(installed, elsewhere):
    code = """
import pathlib, sys, data_prep.build, data_prep.phantom, rfxray.train, rfxray.configs.smoke
for name, module in list(sys.modules.items()):
    if name.split(".")[0] in ("rfxray", "data_prep", "configs", "benchmarks", "tests"):
        print(pathlib.Path(module.__file__).resolve())
"""
    files = run(installed / "python", "-c", code, cwd=elsewhere).split()
    assert len(files) > 20
    assert all(Path(file).is_relative_to(installed.parent.resolve()) for file in files)


def test_installed_commands_run_from_phantom_to_edit(installed, elsewhere):
    def rfxray(*words):
        return run(installed / "rfxray", *words, cwd=elsewhere)

    assert "compile-pod" in rfxray("--help")
    assert "the phantom model" in rfxray("sample", "--out", "first", "--n", "1", "--steps", "2")
    assert (elsewhere / "first" / "grid.png").is_file()
    rfxray("phantom", "--out", "data", "--n", "48", "--size", "32", "--seed", "0")
    overrides = [f"--config.{key}" for key in ("data.dirs=data", *TINY)]
    rfxray("train", "--config", "smoke", "--workdir", "run", *overrides)
    assert (elsewhere / "run" / "checkpoints" / "2").is_dir()
    rfxray("export", "--checkpoint", "run", "--out", "exported", "--data", "data")
    rfxray("sample", "--checkpoint", "exported", "--out", "samples", "--n", "1", "--steps", "2")
    picture = sorted((elsewhere / "samples").glob("*.png"))[0]
    rfxray(
        *("edit", "--checkpoint", "run", "--image", picture, "--from", "view=PA", "--steps", "2"),
        *("--set", "cardiomegaly=present", "--out", "edit"),
    )
    assert (elsewhere / "edit" / "edit.json").is_file()
