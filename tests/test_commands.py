"""`rfxray NAME …`: the table of commands and its lookup."""

import argparse
import importlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import rfxray
from rfxray.commands import table

ROOT = Path(__file__).resolve().parents[1]


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
    assert capsys.readouterr().out.startswith(f"rfxray {rfxray.__version__}, commit ")


class Parsed(Exception):
    """Carries a parser out of a command."""


@pytest.mark.parametrize("name", table.COMMANDS)
def test_every_flag_of_a_command_states_its_meaning_and_default(name, monkeypatch):
    def stop(self, *_, **__):
        raise Parsed(self)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
    with pytest.raises(Parsed) as caught:
        table.main([name])
    parser = caught.value.args[0]
    grouped = {a for group in parser._mutually_exclusive_groups for a in group._group_actions}
    for action in parser._actions:
        assert action.help, action.option_strings
        prints = action.default == argparse.SUPPRESS  # and sets nothing
        if prints or action.required or not action.option_strings or action in grouped:
            continue
        assert "default" in action.help, action.option_strings


SCRIPTS = [
    file
    for folder in ("benchmarks", "tests")
    for file in sorted((ROOT / folder).glob("*.py"))
    if "\nif __name__ ==" in file.read_text() and "\ndef main(" in file.read_text()
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: f"{file.parent.name}.{file.stem}")
@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_of_a_script_run_nothing_else(monkeypatch, capsys, tmp_path, script, flag):
    module = importlib.import_module(f"{script.parent.name}.{script.stem}")
    monkeypatch.setattr(sys, "argv", [str(script), flag])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert not ended.value.code
    name = f"python -m {script.parent.name}.{script.stem}"
    begins = f"usage: {name} " if flag == "--help" else "rfxray "
    assert capsys.readouterr().out.startswith(begins)
    assert not list(tmp_path.iterdir())


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
