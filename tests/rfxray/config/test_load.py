"""Configs from a file, flags or JSON: how they are read, and errors of one line."""

import json
from pathlib import Path

import pytest

from rfxray import command_line, compile_pod, train
from rfxray.config.load import check_config, from_json, load_config, override, overrides
from rfxray.config.schema import defaults, flatten, keys_of
from rfxray.errors import ConfigError


def test_every_key_can_be_set_to_its_own_default(make_config):
    config = make_config()
    texts = [f"{key}={value}" for key, value in flatten(config).items()]
    assert flatten(make_config(*texts)) == flatten(config)


def test_values_are_read_as_the_type_of_their_default(make_config):
    config = make_config(
        "seed=7",
        "optim.learning_rate=1e-4",
        "objective.prediction=v",
        "data.weights=2,3",
        "data.closed_vocabulary_negatives=false",
        "data.dirs=a,b",
        "ema_sigmas=0.2",
    )
    assert (config.seed, config.optim.learning_rate) == (7, 1e-4)
    assert config.objective.prediction == "v"
    assert config.data.closed_vocabulary_negatives is False
    assert (config.data.dirs, config.data.weights) == (("a", "b"), (2, 3))
    assert config.ema_sigmas == (0.2,)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("steps=1e3", 1000),
        ("steps=1_000", 1000),
        ("steps= 1000 ", 1000),
        ("steps=1000.0", 1000),
        ("steps='1000'", 1000),
        ("steps=0100", 100),
        ("steps=0x10", 16),
        ("steps=1.5e3", 1500),
        ("optim.clip=1", 1.0),
        ("optim.clip=.5", 0.5),
        ("optim.clip=1_0.5", 10.5),
        ("data.closed_vocabulary_negatives=True", True),
        ("data.closed_vocabulary_negatives=yes", True),
        ("data.closed_vocabulary_negatives=1", True),
        ("data.closed_vocabulary_negatives=FALSE", False),
        ("data.closed_vocabulary_negatives=off", False),
        ("data.closed_vocabulary_negatives=0", False),
        ("ema_sigmas=[0.05,0.1]", (0.05, 0.1)),
        ("ema_sigmas=[0.05, 0.1]", (0.05, 0.1)),
        ("ema_sigmas=(0.05,0.1,)", (0.05, 0.1)),
        ("ema_sigmas=5e-2,1e-1", (0.05, 0.1)),
        ("ema_sigmas=['0.05']", (0.05,)),
        ("objective.prediction='v'", "v"),
        ("data.dirs=2024", ("2024",)),
        ("data.dirs=None", ("None",)),
        ("data.dirs=my scans", ("my scans",)),
        ("data.dirs=[a b]", ("a b",)),
        ("data.dirs=['a']", ("a",)),
        ("data.dirs=it's", ("it's",)),
        ("data.dirs=~/scans", ("~/scans",)),
        ('data.dirs=["a,b"]', ("a,b",)),
        ("data.dirs='a,b'", ("a,b",)),
        ('data.dirs="Müller, \'25"', ("Müller, '25",)),
        ("data.make=a 'b' c=d", "a 'b' c=d"),
        ("data.make='a' 'b'", "'a' 'b'"),
    ],
)
def test_value_may_be_written_as_people_write_it(make_config, override, value):
    key = override.partition("=")[0]
    found = flatten(make_config(override))[key]
    assert (found, type(found)) == (value, type(value))


def test_lists_of_two_directories_are_read_in_every_spelling(make_config):
    for text in ("a,b", "a, b", "[a,b]", "['a', 'b']", '("a","b",)'):
        config = make_config(f"data.dirs={text}", "data.weights=[1, 2]")
        assert (config.data.dirs, config.data.weights) == (("a", "b"), (1.0, 2.0))


def test_checked_config_is_frozen(make_config):
    with pytest.raises(AttributeError):
        make_config().model.width = 64


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("model.widht=64", "no config key 'model.widht'; did you mean model.width or"),
        ("qwxz=1", "no config key 'qwxz'; --config.help lists all"),
        ("=1", "no config key ''; --config.help lists all"),
        ("optim.lr=1", "no config key 'optim.lr'; did you mean optim.learning_rate?"),
        ("lr=1", "did you mean optim.learning_rate?"),
        ("optim.wd=1", "did you mean optim.weight_decay?"),
        ("bs=1", "did you mean batch_size?"),
        ("width=64", "did you mean model.width?"),
        ("Model.Width=64", "did you mean model.width?"),
        ("modle.width=64", "did you mean model.width?"),
        ("optim.learning-rate=1", "did you mean optim.learning_rate?"),
        ("evaluators.val_loss.every=1", "validation_loss.every"),
        ("mesh=4", "it is a section, write --config.mesh.data=VALUE or another of its keys: data"),
        ("mesh=4", "fsdp, sequence, tensor"),
        ("model=3", "no config key 'model'; it is a section"),
        ("model.width", "--config.model.width has no value; write --config.model.width=VALUE"),
        # keys that do not exist
        ("flow.prediction=v", "did you mean objective.prediction"),
        ("attention=xla", "did you mean model.attention"),
        ("eval.every=1", "no config key 'eval.every'"),
        # values that only look like numbers
        ("steps=1e400", "steps must be of type int (got inf)"),
        ("steps=1e999999999", "steps must be of type int (got inf)"),
        ("steps=1e-3", "steps must be of type int (got 0.001)"),
        ("steps=nan", "steps must be of type int (got 'nan')"),
        ("steps=1,000", "steps must be of type int (got '1,000')"),
        ("steps=", "steps must be of type int (got '')"),
        ("steps=None", "steps must be of type int (got None)"),
        ("optim.clip=0,5", "optim.clip must be of type float (got '0,5')"),
        ("optim.clip=1/3", "optim.clip must be of type float (got '1/3')"),
        ("optim.clip=nan", "optim.clip must be finite (got nan)"),
        # wrong types
        ("steps=many", "steps must be of type int (got 'many')"),
        ("steps=1.5", "steps must be of type int (got 1.5)"),
        ("steps=True", "steps must be of type int (got True)"),
        ("optim.clip=x", "optim.clip must be of type float (got 'x')"),
        ("data.closed_vocabulary_negatives=2", "must be of type bool (got 2)"),
        ("data.closed_vocabulary_negatives=maybe", "must be of type bool (got 'maybe')"),
        ("data.closed_vocabulary_negatives=None", "must be of type bool (got None)"),
        ("data.weights=a,b", "data.weights must hold values like those of its default (1.0,)"),
        ("data.weights=None", "data.weights must hold values like"),
        ("ema_sigmas=None", "ema_sigmas must hold values like"),
        ("ema_sigmas=[[0.05]]", "ema_sigmas must hold values like"),
        ("data.dirs=/scans/a,b", "holds a comma, quote it as in --config.data.dirs='[\"a,b\"]'"),
        # not one of the choices, braces included
        ("objective.prediction=eps", "objective.prediction must be one of v, x (got eps)"),
        ("optim.schedule=linear", "optim.schedule must be one of constant, cosine, wsd (got"),
        ("model.attention=flash", "must be one of auto, xla, cudnn, splash (got flash)"),
        ("model.attention={x}", "must be one of auto, xla, cudnn, splash (got {x})"),
        ("model.remat=some", "must be one of none, dots, attention, full (got some)"),
        ("model.dtype=float16", "model.dtype must be one of float32, bfloat16 (got float16)"),
        ("evaluators.sample_grid.solver=ddim", "must be one of euler, heun,"),
        ("data.verify=all", "data.verify must be one of none, sample, full (got all)"),
        # out of bounds
        ("steps=0", "steps must be at least 1 (got 0)"),
        ("batch_size=-8", "batch_size must be at least 1 (got -8)"),
        ("model.depth=0", "model.depth must be at least 1 (got 0)"),
        ("model.adaln_rank=0", "model.adaln_rank must be at least 1"),
        ("evaluators.validation_loss.batches=0", "validation_loss.batches must be at least 1"),
        ("evaluators.validation_loss.every=-1", "validation_loss.every must be at least 0"),
        ("evaluators.sample_grid.every=-1", "sample_grid.every must be at least 0"),
        ("evaluators.sample_grid.guidance=-1.0", "sample_grid.guidance must be at least 0"),
        ("data.workers=-1", "data.workers must be at least 0"),
        ("seed=-1", "seed must be at least 0 (got -1)"),
        ("seed=4294967296", "seed must lie in [0, 2³²) (got 4294967296)"),
        ("mesh.tensor=0", "mesh.tensor must be at least 1 (got 0)"),
        ("mesh.fsdp=0", "mesh.fsdp must be at least 1"),
        ("mesh.data=-7", "mesh.data must be -1 or at least 1 (got -7)"),
        ("mesh.data=0", "mesh.data must be -1 or at least 1 (got 0)"),
        ("optim.clip=0", "optim.clip must be above 0 (got 0.0)"),
        ("optim.learning_rate=-1.0", "optim.learning_rate must be above 0"),
        ("optim.learning_rate=1e400", "optim.learning_rate must be finite (got inf)"),
        ("data.weights=(1e400,)", "data.weights must be finite"),
        ("optim.eps=0.0", "optim.eps must be above 0"),
        ("optim.weight_decay=-0.1", "optim.weight_decay must be at least 0"),
        ("optim.warmup=-1", "optim.warmup must be at least 0"),
        ("model.rope_theta=0.0", "model.rope_theta must be above 1"),
        ("objective.t_std=0.0", "objective.t_std must be above 0"),
        ("objective.shift=0", "objective.shift must be above 0"),
        ("objective.drop_each=-0.1", "objective.drop_each must be at least 0"),
        # combinations of keys that are not allowed
        ("profile.first=13", "profile.first must be at most steps=12 (got 13)"),
        ("batch_size=1000000000", "are more than the 2³² examples that a run counts"),
        ("skip.limit=17", "skip.limit must be at most 16"),
        ("data.weights=1,2", "must have the same length"),
        ("data.weights=0.0", "data.weights must be above 0 (got (0.0,))"),
        ("ema_sigmas=()", "ema_sigmas must lie in (0, 0.25] (got ())"),
        ("ema_sigmas=0.3", "ema_sigmas must lie in (0, 0.25] (got (0.3,))"),
        ("ema_sigmas=0.05,0.0501", "ema_sigmas must differ when rounded to three decimals"),
    ],
)
def test_wrong_value_is_refused_in_one_line(make_config, override, line):
    with pytest.raises(ConfigError) as caught:
        make_config(override)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_run_without_data_is_refused(make_config):
    with pytest.raises(ConfigError, match=r"data\.dirs=\(\) and data\.weights=\(\) must have"):
        make_config("data.dirs=()", "data.weights=()")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"evaluators": {"Loss": "validation_loss"}}, "'Loss' must be a lower-case word"),
        ({"evaluators": {"a/b": "validation_loss"}}, "'a/b' must be a lower-case word"),
        ({"parts": {"2nd": "radit"}}, "'2nd' must be a lower-case word"),
        ({"parts": {"model": "radit"}}, "parts.model is the name of the network itself"),
    ],
)
def test_name_of_an_evaluator_or_part_must_be_a_word(arguments, line):
    with pytest.raises(ConfigError, match=line):
        check_config(defaults(**arguments))


# ---------------------------------------------------------------------------------------------
# Files


@pytest.fixture
def write_config(tmp_path):
    """`write_config(*lines)`: path of a config file that runs these lines on the defaults `c`."""

    def write(*lines: str) -> str:
        file = tmp_path / "mine.py"
        body = "".join(f"    {line}\n" for line in ("c = defaults()", *lines, "return c"))
        file.write_text(
            f"from rfxray.config.schema import defaults\n\ndef get_config(which='steps'):\n{body}"
        )
        return str(file)

    return write


def test_config_file_receives_the_argument_after_the_colon(write_config):
    file = write_config("c[which] = 7")
    assert load_config(file).steps == 7
    config = load_config(f"{file}:seed")
    assert (config.seed, config.steps) == (7, 100_000)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("c.steps = 'x'", "mine.py fails: TypeError"),
        ("c.stepz = 3", "no config key 'stepz'; did you mean steps"),
        ("c.unlock(); del c.steps", "config key 'steps' is missing; start from"),
        ("c.unlock(); del c.parts", "config key 'parts' is missing; start from"),
        ("c = None", "must return a ConfigDict, not None"),
        ("1 // 0", "mine.py fails: ZeroDivisionError"),
        ("raise SystemExit(3)", "mine.py fails: SystemExit"),
        ("c = defaults(model='radict')", "did you mean radit?"),
    ],
)
def test_faulty_config_file_is_refused_in_one_line(write_config, line, said):
    with pytest.raises(ConfigError) as caught:
        load_config(write_config(line))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_path_that_is_not_a_config_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no config file .*absent\.py"):
        load_config(str(tmp_path / "absent.py"))
    text = tmp_path / "config.yaml"
    text.write_text("steps: 3\n")
    with pytest.raises(ConfigError, match=r"no config file .*config\.yaml"):
        load_config(str(text))


# ---------------------------------------------------------------------------------------------
# The command line


def test_flag_value_follows_an_equals_sign_or_a_space():
    both = ["--config.a.b=1", "--config.c", "2", "--config.d", "-3", "--config.e="]
    assert overrides(both) == ["a.b=1", "c=2", "d=-3", "e="]
    assert overrides(["--config.a", "--config.b=1"]) == ["a", "b=1"]  # reported later


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("--steps=3", "did you mean --config.steps=3?"),
        ("steps=3", "did you mean --config.steps=3?"),
        ("-config.steps=3", "did you mean --config.steps=3?"),
        ("config.steps=3", "did you mean --config.steps=3?"),
        ("—config.steps=3", "did you mean --config.steps=3?"),  # a dash of a word processor
        ("-x", "set a config key with --config.KEY=VALUE (--config.help lists all"),
        ("0.1", "set a config key with --config.KEY=VALUE"),
    ],
)
def test_any_other_flag_is_refused_with_what_was_meant(argument, hint):
    with pytest.raises(ConfigError) as caught:
        overrides(["--config.seed=1", argument])
    assert str(caught.value).startswith(f"unknown flag {argument}; {hint}")


@pytest.mark.parametrize("flags", [["--config.help"], ["--config", "smoke", "--config.help"]])
@pytest.mark.parametrize("command", [train, compile_pod])
def test_config_help_lists_every_key(capsys, command, flags):
    with pytest.raises(SystemExit) as ended:
        command.main(flags)
    assert ended.value.code == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert "--config.KEY=VALUE" in first
    assert [line.split("=")[0].strip() for line in lines] == list(keys_of(defaults()))
    assert any("steps=3800" in line for line in lines) == ("smoke" in flags)
    assert next(line for line in lines if "  model.remat=" in line).endswith(
        "[one of none, dots, attention, full; may change on resuming]"
    )


def test_config_help_of_an_absent_config_is_refused(refusal):
    code, line = refusal(train.main, ["--config", "smok", "--config.help"])
    assert code == 78
    assert "no config file smok" in line


def test_empty_workdir_is_refused(refusal):
    for flags in (["--workdir", ""], ["--workdir="], ["--workdir", " "]):
        code, line = refusal(train.main, ["--config", "smoke", *flags])
        assert code == 78
        assert "--workdir: the path is empty" in line


def test_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command_line.local_path("~/runs") == tmp_path / "runs"
    assert command_line.local_path("./~") == Path("~")


def test_run_without_a_data_directory_says_so(refusal, tiny_arguments, tmp_path):
    code, line = refusal(train.main, tiny_arguments(tmp_path / "run", "data.dirs=['']"))
    assert code == 78
    assert "data.dirs is not set; add --config.data.dirs=DIR" in line


@pytest.mark.parametrize(
    "flags",
    [["--config.model.widht", "9"], ["--config.steps=0"], ["--nonsense"], ["--config.seed"]],
)
def test_command_ends_with_78_and_one_line(refusal, tiny_arguments, tmp_path, flags):
    code, line = refusal(train.main, [*tiny_arguments(tmp_path / "run"), *flags])
    assert code == 78
    assert line.startswith("rfxray.train: error: ")
    assert not (tmp_path / "run").exists()


def test_command_passes_flags_to_the_config(refusal, tiny_arguments, tmp_path):
    """Both spellings of a flag work: the error shows the value of one of them."""
    flags = ["--config.data.make", "make it", "--config.objective.t_mean", "-1", "--config.seed=3"]
    arguments = tiny_arguments(tmp_path / "run", f"data.dirs={tmp_path}/none")
    code, line = refusal(train.main, [*arguments, *flags])
    assert code == 65
    assert line.endswith("does not exist; make it with: make it")


def test_process_ends_with_the_exit_code(run_module, tiny_arguments, tmp_path):
    done = run_module("rfxray.train", *tiny_arguments(tmp_path, "model.widht=3"))
    assert done.returncode == 78
    assert done.stderr.strip().splitlines()[-1] == (
        "rfxray.train: error: no config key 'model.widht'; did you mean model.width or "
        "model.mlp_width?"
    )


# ---------------------------------------------------------------------------------------------
# Configs of existing runs


@pytest.fixture
def written(make_config) -> dict:
    """Content of `config.json` of a tiny run."""
    return json.loads(make_config("data.dirs=a,b", "data.weights=1.0,2.5").to_json_best_effort())


def test_config_round_trips_through_json(make_config, written):
    config = make_config("data.dirs=a,b", "data.weights=1.0,2.5")
    again = from_json(written)
    assert again == config
    assert flatten(again) == flatten(config)
    assert hash(again) == hash(config)


def test_several_evaluators_and_parts_round_trip_through_json():
    config = defaults(evaluators={"loss": "validation_loss"}, parts={"critic": "radit"})
    config.parts.critic.model.width = 512
    config = check_config(config)
    assert from_json(json.loads(config.to_json_best_effort())) == config


def test_key_missing_from_config_json_gets_its_default(written):
    del written["stop_seconds"]
    del written["model"]["remat"]
    config = from_json(written)
    assert (config.stop_seconds, config.model.remat) == (25, "none")


@pytest.mark.parametrize("section", ["model", "objective", "evaluators", "parts"])
def test_config_json_of_another_version_is_refused(written, section):
    del written[section]
    with pytest.raises(ConfigError, match="was written by another version") as caught:
        from_json(written)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, [], 3, "x"])
def test_value_of_config_json_in_the_place_of_a_section_is_refused(written, value):
    with pytest.raises(ConfigError, match="a value in the place of a section"):
        from_json({**written, "mesh": value})


def test_kind_of_config_json_that_is_no_text_is_refused(written):
    with pytest.raises(ConfigError, match="was written by another version"):
        from_json({**written, "model": {**written["model"], "kind": 3}})


def test_config_json_with_an_unknown_key_or_kind_is_refused(written):
    with pytest.raises(ConfigError, match=r"no config key 'model\.widht'"):
        from_json({**written, "model": {**written["model"], "widht": 3}})
    with pytest.raises(ConfigError, match="unknown network kind 'radict'"):
        from_json({**written, "model": {**written["model"], "kind": "radict"}})


def test_override_does_not_change_the_original_config(make_config):
    config = make_config()
    other = override(config, {"mesh.fsdp": 4, "model.remat": "full"})
    assert (other.mesh.fsdp, other.model.remat) == (4, "full")
    assert (config.mesh.fsdp, config.model.remat) == (1, "none")
    with pytest.raises(ConfigError, match="must be one of"):
        override(config, {"model.remat": "some"})
    with pytest.raises(AttributeError):
        other.model.width = 64


def test_bool_is_not_accepted_as_a_number(make_config):
    with pytest.raises(ConfigError, match=r"optim\.clip must be of type float \(got True\)"):
        make_config("optim.clip=True")
