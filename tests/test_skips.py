"""Skipped tests fail with CI=true unless they are listed, and pass otherwise."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import skips

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def suite(tmp_path):
    """`suite(CI)`: exit code and output of a suite with one listed and two unlisted skips."""
    folder = tmp_path / "tests"
    folder.mkdir()
    shutil.copy(ROOT / "tests" / "skips.py", folder)
    (folder / "__init__.py").touch()  # one of the peers installs a package `tests`
    (folder / "may_skip.txt").write_text("# why\ntests/test_a.py::test_listed  needs a GPU\n")
    (folder / "conftest.py").write_text('pytest_plugins = ("tests.skips",)\n')
    skip = "import pytest\ndef test_{}(): pytest.skip('no GPU')\n"
    (folder / "test_a.py").write_text(skip.format("listed") + skip.format("hidden"))
    (folder / "test_b.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")

    def run(ci: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--continue-on-collection-errors"],
            cwd=tmp_path,
            env={**os.environ, "CI": ci},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout

    return run


def test_unlisted_skip_fails_in_ci(suite):
    code, said = suite("true")
    assert code != 0
    assert "tests/test_a.py::test_hidden may not skip" in said
    assert "tests/test_b.py may not skip" in said
    assert "test_listed may not skip" not in said


def test_skips_pass_outside_ci(suite):
    code, said = suite("")
    assert code == 0
    assert "3 skipped" in said


def test_every_listed_skip_names_a_file_and_a_reason():
    for prefix, reason in skips.allowed().items():
        assert (ROOT / prefix.split("::")[0]).is_file(), prefix
        assert reason
