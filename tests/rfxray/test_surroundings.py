"""What a process finds around it: locale, encoding and variables of other programs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rfxray import train
from tests import conftest

ROOT = Path(__file__).resolve().parents[2]
SHOW = """
import locale, sys
from pathlib import Path
from rfxray.command_line import ArgumentParser
parser = ArgumentParser(prog="show")
parser.add_argument("file")
parser.parse_args()
print(sys.flags.utf8_mode, locale.getencoding(), "→ ä")
Path(sys.argv[1]).write_text("→ ä")
"""


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({"LC_ALL": "C.UTF-8"}, "→ ä"),
        ({"LC_ALL": "C"}, "→ ä"),
        ({"LANG": "tr_TR.UTF-8"}, "→ ä"),  # not installed on most machines: then like C
        ({"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "→ ä"),
        ({"PYTHONIOENCODING": "ascii"}, "\\u2192 \\xe4"),
        ({"PYTHONIOENCODING": "latin-1"}, None),
        ({}, "→ ä"),
    ],
)
def test_files_are_utf8_in_every_locale(tmp_path, variables, shown):
    script, file = tmp_path / "show.py", tmp_path / "ä ö.txt"
    script.write_text(SHOW)
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        [sys.executable, str(script), str(file)], env=environment, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert file.read_bytes().decode() == "→ ä"
    if shown is not None:
        assert done.stdout.decode().rstrip().endswith(shown)


EMBEDDED = """
import os, sys
os.execv = lambda *_: os._exit(3)
from rfxray import sample, edit
from rfxray.commands import table
sample.parser().parse_args(["--checkpoint", "run", "--out", "out"])
for main in (sample.main, edit.main, lambda words: table.main(["sample", *words])):
    try:
        main(["--help"])
    except SystemExit as stopped:
        assert stopped.code == 0, stopped.code
print(sys.flags.utf8_mode)
"""


def test_program_that_calls_a_command_is_not_started_again():
    ascii_only = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    variables = {"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "utf-8", **ascii_only}
    done = run(["-c", EMBEDDED], variables)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.splitlines()[-1] == "0"


@pytest.mark.parametrize("words", [["-m", "rfxray"], ["-m", "rfxray.sample"]])
def test_command_speaks_utf8_in_an_ascii_locale(words):
    variables = {"PATH": "/usr/bin:/bin", "LC_ALL": "POSIX", "PYTHONUTF8": "0"}
    done = run([*words, "--help"], {**variables, "PYTHONCOERCECLOCALE": "0"})
    assert done.returncode == 0, done.stderr[-500:]
    assert "usage" in done.stdout
    assert "\\u" not in done.stdout


def test_platform_that_is_not_installed_is_refused_in_one_line(environment, tmp_path):
    flags = ["--config", "configs/smoke.py", "--workdir", str(tmp_path / "run")]
    variables = {**environment(), "JAX_PLATFORMS": "abacus"}
    done = run(["-m", "rfxray.train", *flags], variables)
    assert done.returncode == 78
    (line,) = done.stderr.splitlines()
    assert "JAX has no platform JAX_PLATFORMS=abacus here" in line
    assert not (tmp_path / "run").exists()


def test_paths_may_have_quotes_commas_spaces_and_umlauts(tiny_arguments, tiny_data, tmp_path):
    folder = tmp_path / "Größe, 'ä' \"b\" [c] $(d) %s {e}"
    folder.mkdir()
    (folder / "data").symlink_to(tiny_data)
    listed = json.dumps([str(folder / "data")])
    short = ("steps=1", "optim.warmup=1", "checkpoint_every=0")
    with conftest.keep_signal_handlers():
        train.main(tiny_arguments(folder / "run", f"data.dirs={listed}", *short))
    assert (folder / "run" / "checkpoints" / "1").is_dir()
