"""Import rules: which packages may import which, and what an import loads."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rfxray

ROOT = Path(__file__).resolve().parents[1]
LINTER = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"


@pytest.fixture
def house(tmp_path) -> Path:
    """Copy of all packages that the import contracts cover."""
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    for package in ("rfxray", "data_prep", "configs", "benchmarks"):
        only_python = shutil.ignore_patterns("*.npz", "*.json", "*.csv", "*.md", "__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=only_python)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", LINTER], cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_imports_keep_the_contracts(house):
    done = lint(house)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("rfxray/errors.py", "import rfxray.command_line", "The floors of rfxray"),
        ("rfxray/sample.py", "def f(): import rfxray.edit", "The floors of rfxray"),
        ("rfxray/new_room.py", "", "not listed as layers"),
        ("rfxray/train.py", "import data_prep.build", "rfxray never imports what stands on it"),
        ("rfxray/objectives/flow.py", "import rfxray.networks.radit", "An objective gets"),
        ("rfxray/evaluate/classifier.py", "import rfxray.training.step", "evaluate judges"),
        ("rfxray/runtime/status.py", "def f(): import jax", "loads no JAX"),
        ("rfxray/runtime/supervise.py", "import rfxray.runtime.sharding", "loads no JAX"),
        ("data_prep/sources/nih.py", "import data_prep.sources.vindr", "Adapters of raw sets"),
        ("data_prep/phantom/scene.py", "import data_prep.sources.nih", "The floors of data_prep"),
        ("data_prep/audit/page.py", "import data_prep.build", "The floors of data_prep"),
        ("data_prep/build.py", "import rfxray.train", "data_prep imports rfxray only below"),
        ("configs/smoke.py", "import rfxray.networks.radit", "configs stand on the config only"),
    ],
)
def test_forbidden_import_is_reported(house, file, line, contract):
    with (house / file).open("a") as module:
        module.write(f"\n{line}\n")
    done = lint(house)
    assert done.returncode != 0
    said = [text for text in done.stdout.splitlines() if contract in text and "KEPT" not in text]
    assert said, done.stdout


def loaded_by(module: str, *flags: str) -> set[str]:
    """Top-level names of the modules that a fresh process has loaded after this import."""
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "rfxray.__main__",
        "rfxray.attributes.states",
        "rfxray.attributes.vocabulary",
        "rfxray.command_line",
        "rfxray.commands.table",
        "rfxray.outputs.files",
        "rfxray.runtime.supervise",
    ],
)
def test_modules_that_must_start_fast_load_no_jax(module):
    assert not loaded_by(module) & {"jax", "flax", "grain", "orbax"}


@pytest.mark.parametrize("module", ["rfxray.runtime.babysit", "rfxray.runtime.status"])
def test_supervising_modules_need_only_the_standard_library(module):
    assert "rfxray" in loaded_by(module, "-S")


def test_solvers_load_neither_orbax_nor_grain():
    assert not loaded_by("rfxray.sampling.solvers") & {"orbax", "grain"}


def test_citation_names_the_package_version():
    assert f"\nversion: {rfxray.__version__}\n" in (ROOT / "CITATION.cff").read_text()
