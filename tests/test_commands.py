"""`rfxray NAME …`: the table of commands and its lookup."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import rfxray
from rfxray.commands import table


def test_every_command_names_a_module_with_a_main():
    for name, (module, text) in table.COMMANDS.items():
        assert name == name.lower().replace("_", "-")
        assert text
        assert text == text.strip(" .")
        assert "\ndef main(argv" in Path(find_spec(module).origin).read_text(), module


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_all_commands_are_listed_when_none_is_given(argv, capsys):
    table.main(argv)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("usage: rfxray COMMAND")
    assert [line.split()[0] for line in lines[2:]] == list(table.COMMANDS)
    assert max(map(len, lines)) <= 80


def test_version_flag_prints_the_package_version(capsys):
    table.main(["--version"])
    assert capsys.readouterr().out == f"rfxray {rfxray.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [("trian", "train"), ("compile_pod", "compile-pod"), ("posthoc", "posthoc-ema"), ("", "train")],
)
def test_unknown_command_error_names_the_nearest_one(refusal, typed, nearest):
    code, line = refusal(table.main, [typed, "--workdir", "w"])
    assert code == 78
    assert line.startswith(f"rfxray: error: no command {typed!r}; the nearest is {nearest} ")


def test_command_receives_its_flags_and_prefixes_its_errors(refusal):
    code, line = refusal(table.main, ["train", "--no-such-flag"])
    assert code == 78
    assert line.startswith("rfxray.train: error: ")


def test_python_m_rfxray_runs_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "rfxray", "status"], input="", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "none 0 -1 - no report\n"
