import pytest

from rfxray import command_line, errors

KINDS = {
    errors.DataError: 65,
    errors.NonFiniteError: 70,
    errors.Preempted: 75,
    errors.ConfigError: 78,
}


@pytest.mark.parametrize(("kind", "code"), KINDS.items())
def test_expected_failure_exits_with_one_line_and_a_code(kind, code, capsys):
    with pytest.raises(SystemExit) as stopped, command_line.exit_on_error("rfxray.toy"):
        raise kind("what,\n  where   and what to do")
    assert stopped.value.code == code
    word = "stopped" if kind is errors.Preempted else "error"
    assert capsys.readouterr().err == f"rfxray.toy: {word}: what, where and what to do\n"


def test_unexpected_error_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), command_line.exit_on_error("rfxray.toy"):
        _ = 1 // 0


def test_success_passes_through():
    with command_line.exit_on_error("rfxray.toy"):
        done = True
    assert done


@pytest.mark.parametrize(
    ("argv", "reason"), [(["--n", "many"], "'many'"), ([], "--n"), (["--n=1", "-x"], "-x")]
)
def test_wrong_flag_exits_with_78(argv, reason, capsys):
    parser = command_line.ArgumentParser(prog="python -m rfxray.toy")
    parser.add_argument("--n", type=int, required=True)
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(argv)
    assert stopped.value.code == 78
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rfxray.toy: error: ")
    assert reason in line


def test_first_line_shortens_errors_of_other_libraries():
    assert errors.first_line(OSError(28, "No space left")) == "[Errno 28] No space left"
    assert errors.first_line(RuntimeError("\nwhat\nand a long trace")) == "what"
    assert errors.first_line(RuntimeError()) == "RuntimeError"
    assert len(errors.first_line(ValueError("x" * 999))) == 200


def test_config_error_is_a_value_error():
    assert issubclass(errors.ConfigError, ValueError)
