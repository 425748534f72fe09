import json
import re
from pathlib import Path

import hypothesis.strategies as st
import ml_collections
import pytest
from hypothesis import given

from rfxray import train
from rfxray.config import identity, schema
from rfxray.config import load as configuration
from rfxray.config.identity import identity_of
from rfxray.config.load import overrides, with_tuples
from rfxray.config.schema import flatten
from rfxray.errors import ConfigError

BASE = flatten(schema.defaults())
FOLDER = Path(__file__).resolve().parents[3] / "configs"


def commented_keys() -> dict[str, bool]:
    """Every key that the schema sets, and whether its comment says (runtime…)."""
    source = Path(schema.__file__).read_text()
    groups, keys = {}, {}
    # One key a statement; a value in parentheses runs over several lines and ends with its comment.
    for statement in re.split(r"\n(?=    c\.|    \w\.|    return)", source):
        if made := re.match(r" *c\.(\w+) = (\w) = ", statement):
            groups[made[2]] = made[1]
        elif found := re.match(r" *(\w)\.(\w+) = ", statement):
            prefix = groups[found[1]] + "." if found[1] in groups else ""
            comment = statement.partition("#")[2]
            keys[prefix + found[2]] = "(runtime" in comment
    return keys


def is_runtime(key: str) -> bool:
    return any(key == r or key.startswith(r + ".") for r in schema.RUNTIME)


def test_every_key_of_base_is_written_with_its_comment():
    assert commented_keys().keys() == BASE.keys()


def test_runtime_keys_are_those_marked_so():
    assert {key for key, marked in commented_keys().items() if marked} == {
        key for key in BASE if is_runtime(key)
    }
    for key in schema.RUNTIME:
        assert any(is_runtime(k) and (k == key or k.startswith(key + ".")) for k in BASE)


@pytest.mark.parametrize("file", sorted(f.name for f in FOLDER.glob("[!_]*.py")))
def test_every_config_that_comes_with_the_project_passes(file):
    config = configuration.load_config(str(FOLDER / file))
    assert flatten(config).keys() == BASE.keys()


def test_every_key_can_be_set_to_its_own_default(make_config):
    config = make_config()
    texts = [f"{key}={value}" for key, value in flatten(config).items()]
    assert flatten(make_config(*texts)) == flatten(config)


def test_values_are_read_as_the_type_of_their_default(make_config):
    config = make_config(
        *("seed=7", "optim.learning_rate=1e-4", "flow.prediction=v", "data.weights=2,3"),
        *("data.closed_vocabulary_negatives=false", "data.dirs=a,b", "ema_sigmas=0.2"),
    )
    assert (config.seed, config.optim.learning_rate) == (7, 1e-4)
    assert config.flow.prediction == "v"
    assert config.data.closed_vocabulary_negatives is False
    assert (config.data.dirs, config.data.weights) == (("a", "b"), (2, 3))
    assert config.ema_sigmas == (0.2,)


def test_a_checked_config_is_frozen(make_config):
    with pytest.raises(AttributeError):
        make_config().model.width = 64


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("model.widht=64", ["model.widht", "did you mean model.width"]),
        ("qwxz=1", ["qwxz", "rfxray/config/schema.py"]),
        ("model=3", ["'model'"]),
        ("model.width", ["no value", "--config.model.width=VALUE"]),
        # wrong types
        ("steps=many", ["steps='many'", "int"]),
        ("steps=1.5", ["steps=1.5", "int"]),
        ("steps=True", ["steps=True", "int"]),
        ("optim.clip=x", ["optim.clip='x'", "float"]),
        ("data.closed_vocabulary_negatives=1", ["closed_vocabulary_negatives=1", "bool"]),
        ("data.weights=a,b", ["data.weights"]),
        ("data.weights=None", ["data.weights"]),
        ("ema_sigmas=None", ["ema_sigmas"]),
        ("data.dirs=1,2", ["data.dirs"]),
        # none of the choices, braces included
        ("flow.prediction=eps", ["flow.prediction=eps", "v, x"]),
        ("optim.schedule=linear", ["optim.schedule=linear", "wsd"]),
        ("attention=flash", ["attention=flash", "cudnn"]),
        ("attention={x}", ["attention={x}", "cudnn"]),
        ("remat=some", ["remat=some", "dots"]),
        ("model.dtype=float16", ["float16", "bfloat16"]),
        ("samples.solver=ddim", ["ddim", "heun"]),
        # impossible numbers and combinations
        ("steps=0", ["steps"]),
        ("batch_size=-8", ["batch_size"]),
        ("model.depth=0", ["model.depth"]),
        ("model.adaln_rank=0", ["model.adaln_rank"]),
        ("eval.batches=0", ["eval.batches"]),
        ("eval.every=-1", ["eval.every"]),
        ("samples.every=-1", ["samples.every"]),
        ("samples.guidance=-1.0", ["samples.guidance"]),
        ("data.workers=-1", ["data.workers"]),
        ("seed=-1", ["seed"]),
        ("seed=4294967296", ["seed"]),
        ("model.patch=7", ["model.patch=7", "model.size=32"]),
        ("model.heads=3", ["model.heads=3", "model.width=32"]),
        ("model.heads=16", ["model.heads=16", "multiple of 4"]),
        ("mesh.tensor=4", ["mesh.tensor=4", "model.heads=2"]),
        ("mesh.tensor=0", ["mesh.tensor=0"]),
        ("mesh.fsdp=0", ["mesh.fsdp"]),
        ("optim.clip=0", ["optim.clip"]),
        ("optim.learning_rate=-1.0", ["optim.learning_rate"]),
        ("optim.learning_rate=1e400", ["optim.learning_rate=inf", "not finite"]),
        ("data.weights=(1e400,)", ["data.weights", "not finite"]),
        ("optim.b1=1.5", ["optim.b1=1.5"]),
        ("optim.eps=0.0", ["optim.eps"]),
        ("optim.weight_decay=-0.1", ["optim.weight_decay"]),
        ("model.rope_theta=0.0", ["model.rope_theta"]),
        ("mesh.data=-7", ["mesh.data=-7"]),
        ("profile.first=13", ["profile.first=13", "steps=12"]),
        ("batch_size=1000000000", ["2³² examples"]),
        ("optim.warmup=-1", ["optim.warmup"]),
        ("flow.t_std=0.0", ["flow.t_std"]),
        ("flow.shift=0", ["flow.shift"]),
        ("dropout.all_null=0.9", ["dropout.all_null=0.9", "dropout.each=0.2"]),
        ("dropout.each=-0.1", ["dropout.each=-0.1"]),
        ("data.weights=1,2", ["data.weights", "data.dirs"]),
        ("data.weights=0.0", ["data.weights"]),
        ("ema_sigmas=()", ["ema_sigmas"]),
        ("ema_sigmas=0.3", ["ema_sigmas=(0.3,)", "0.25"]),
        ("ema_sigmas=0.05,0.0501", ["ema_sigmas"]),
    ],
)
def test_what_cannot_be_is_one_line(make_config, override, parts):
    with pytest.raises(ConfigError) as caught:
        make_config(override)
    line = str(caught.value)
    assert "\n" not in line
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    "both",
    [
        ("optim.schedule=wsd", "optim.decay=0"),
        ("optim.schedule=wsd", "optim.decay=11"),
        ("optim.schedule=cosine", "optim.warmup=12"),
        ("data.dirs=()", "data.weights=()"),
    ],
)
def test_what_cannot_be_together_is_one_line(make_config, both):
    with pytest.raises(ConfigError, match=both[1].partition("=")[0]):
        make_config(*both)


def test_a_wrong_type_in_a_config_file_is_refused(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from rfxray.config.schema import defaults\n\ndef get_config(which='steps'):\n"
        "    c = defaults()\n    c.unlock()\n"
        "    c[which] = 'x'\n    return c\n"
    )
    with pytest.raises(ConfigError, match="no config key 'stepz'; did you mean steps"):
        configuration.load_config(f"{file}:stepz")
    file.write_text("def get_config():\n    return 1 // 0\n")
    with pytest.raises(ConfigError, match=r"mine.py fails: ZeroDivisionError"):
        configuration.load_config(str(file))


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no config file"):
        configuration.load_config(str(tmp_path / "absent.py"))
    text = tmp_path / "config.yaml"
    text.write_text("steps: 3\n")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        configuration.load_config(str(text))


# ---------------------------------------------------------------------------------------------
# The command line


def test_a_flag_is_written_either_way():
    both = ["--config.a.b=1", "--config.c", "2", "--config.d", "-3", "--config.e="]
    assert overrides(both) == ["a.b=1", "c=2", "d=-3", "e="]
    assert overrides(["--config.a", "--config.b=1"]) == ["a", "b=1"]  # the missing value is said


@pytest.mark.parametrize("argument", ["--steps=3", "steps=3", "-x"])
def test_any_other_flag_is_refused(argument):
    with pytest.raises(ConfigError, match=argument):
        overrides(["--config.seed=1", argument])


@pytest.mark.parametrize(
    "flags",
    [["--config.model.widht", "9"], ["--config.steps=0"], ["--nonsense"], ["--config.seed"]],
)
def test_the_command_stops_with_78_and_one_line(refusal, tiny_arguments, tmp_path, flags):
    code, line = refusal(train.main, [*tiny_arguments(tmp_path / "run"), *flags])
    assert code == 78
    assert line.startswith("rfxray.train: error: ")
    assert not (tmp_path / "run").exists()


def test_flags_reach_the_config_through_the_command(refusal, tiny_arguments, tmp_path):
    """Values in both spellings arrive: the data set that one of them names is missed."""
    flags = ["--config.data.make", "make it", "--config.flow.t_mean", "-1", "--config.seed=3"]
    arguments = tiny_arguments(tmp_path / "run", f"data.dirs={tmp_path}/none")
    code, line = refusal(train.main, [*arguments, *flags])
    assert code == 65
    assert line.endswith("does not exist; make it with: make it")


def test_a_process_ends_with_the_code(run_module, tiny_arguments, tmp_path):
    done = run_module("rfxray.train", *tiny_arguments(tmp_path, "model.widht=3"))
    assert done.returncode == 78
    assert done.stderr.strip().splitlines()[-1] == (
        "rfxray.train: error: no config key 'model.widht'; did you mean model.width or "
        "model.mlp_width?"
    )


# ---------------------------------------------------------------------------------------------
# JSON and identity


def test_a_config_survives_its_json(make_config):
    config = make_config("data.dirs=a,b", "data.weights=1.0,2.5")
    read = ml_collections.ConfigDict(json.loads(config.to_json_best_effort()), convert_dict=True)
    again = configuration.check_config(with_tuples(read))
    assert again == config
    assert flatten(again) == flatten(config)
    assert hash(again) == hash(config)


changed = st.sampled_from(
    [
        *("seed=1", "batch_size=16", "data.split=validation", "data.weights=2.0"),
        *("data.closed_vocabulary_negatives=false", "model.width=64", "model.depth=3"),
        *("flow.prediction=v", "flow.shift=2.0", "dropout.each=0.1", "optim.learning_rate=1.0"),
        *("optim.schedule=cosine", "optim.warmup=3", "ema_sigmas=0.1", "model.dtype=bfloat16"),
    ]
)
free = st.sampled_from(
    [
        *("steps=50", "data.dirs=elsewhere", "data.make=x", "data.threads=9", "data.workers=1"),
        *("data.prefetch=9", "mesh.fsdp=4", "mesh.tensor=2", "attention=xla", "remat=full"),
        *(
            "unroll=2",
            "accumulate=2",
            "log_every=9",
            "checkpoint_every=9",
            "checkpoint_keep=9",
            "eval.every=3",
        ),
        *("eval.every=3", "eval.batches=3", "samples.n=3", "samples.solver=euler"),
    ]
)


@given(st.lists(free, max_size=5), st.none() | changed)
def test_only_what_is_no_runtime_key_is_identity(make_config, runtime, other):
    before = identity_of(make_config(), "data")
    after = identity_of(make_config(*runtime, *([other] if other else [])), "data")
    differ = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    allowed = {other.partition("=")[0]} if other else set()
    if other == "optim.schedule=cosine":
        allowed.add("steps")  # the cosine's shape depends on its end
    assert differ == allowed
    assert json.loads(json.dumps(after)) == after


def test_a_stable_rate_may_be_lengthened_until_it_decays(make_config):
    def other(steps, step, *keys):
        wsd = ("optim.schedule=wsd", "optim.decay=20", "steps=100")
        return identity.decays_otherwise(make_config(*wsd, *keys), steps, step)

    # The rate of the 81st step is the last at the peak, that of the 82nd the first below it.
    assert not other(100, 100)
    assert not other(200, 81)
    assert other(200, 82)
    assert not other(50, 31)
    assert other(50, 32)
    assert not other(200, 100, "optim.schedule=constant")


def test_the_data_counts_by_content(make_config):
    assert identity_of(make_config(), "one") != identity_of(make_config(), "two")
