"""Every config key has a description, and the schema lists the kinds that are implemented."""

import dataclasses

import pytest

from rfxray.config import load, models, schema
from rfxray.config.schema import Key, defaults, flatten, keys_of
from rfxray.errors import ConfigError
from rfxray.networks import attention, radit, vae
from rfxray.networks import kinds as networks
from rfxray.objectives import kinds as objectives
from rfxray.sampling import solvers
from rfxray.training.evaluators import kinds as evaluators
from rfxray.training.optimizer import schedule

TABLES = {
    "": {"": schema.COMMON, "optim": schema.OPTIM},
    "model": schema.MODELS,
    "objective": schema.OBJECTIVES,
    "evaluators": schema.EVALUATORS,
}
KEYS = {
    f"{section}.{kind}.{name}".lstrip("."): key
    for section, kinds in TABLES.items()
    for kind, keys in kinds.items()
    for name, key in keys.items()
}


@pytest.mark.parametrize("name", KEYS)
def test_every_key_has_a_meaning_and_a_default_within_its_bounds(name):
    key = KEYS[name]
    assert key.meaning[0].isupper() or key.meaning.startswith("s of")
    assert key.meaning.endswith(".")
    load.check_value(name, key.default, key)


def test_schema_kinds_match_the_registered_kinds():
    assert schema.MODELS.keys() == networks.KINDS.keys()
    assert schema.OBJECTIVES.keys() == objectives.KINDS.keys()
    assert schema.EVALUATORS.keys() == evaluators.KINDS.keys()


def test_schema_choices_match_the_implementations():
    assert tuple(solvers.SOLVERS) == schema.SOLVERS
    assert tuple(radit.REMAT) == models.REMAT
    for kernel in set(models.ATTENTION) - {"auto"}:
        assert attention.resolve(kernel, 1024, 128, "bfloat16") == kernel


def test_schema_keys_of_radit_match_its_builder():
    fields = [*dataclasses.fields(radit.ModelConfig), *dataclasses.fields(radit.Execution)]
    assert list(schema.MODELS["radit"]) == [field.name for field in fields]
    runtime = {name for name, key in schema.MODELS["radit"].items() if key.runtime}
    assert runtime == {field.name for field in dataclasses.fields(radit.Execution)}


def test_schema_keys_of_vae_match_its_builder():
    fields = [field.name for field in dataclasses.fields(vae.Vae)]
    assert list(schema.MODELS["vae"]) == [*fields, "remat"]
    assert {name for name, key in schema.MODELS["vae"].items() if key.runtime} == {"remat"}
    assert schema.MODELS["vae"]["remat"].choices == vae.REMAT


@pytest.mark.parametrize("name", schema.OPTIM["schedule"].choices)
def test_every_learning_rate_schedule_exists(name):
    optim = defaults().optim
    optim.schedule, optim.decay, optim.warmup = name, 4, 2
    rate = schedule(optim, 10)
    assert 0 < float(rate(0)) < float(rate(2)) == pytest.approx(optim.learning_rate)
    assert (float(rate(10)) < 1e-9) == (name != "constant")


# ---------------------------------------------------------------------------------------------
# The tree


def test_defaults_hold_exactly_the_keys_of_the_schema():
    config = defaults()
    assert flatten(config).keys() == keys_of(config).keys()
    for key, about in keys_of(config).items():
        assert flatten(config)[key] == about.default


def test_evaluators_can_be_several_of_one_kind_or_none():
    two = defaults(evaluators={"loss": "validation_loss", "loss_test": "validation_loss"})
    assert two.evaluators.loss_test.split == "validation"
    two.evaluators.loss_test.split = "test"
    load.check_config(two)
    assert "evaluators.sample_grid.every" not in flatten(two)
    assert not any(key.startswith("evaluators.") for key in flatten(defaults(evaluators={})))


def test_additional_part_has_its_own_keys():
    keys = flatten(load.check_config(defaults(parts={"critic": "radit"})))
    assert keys["parts.critic.model.kind"] == "radit"
    for name in schema.MODELS["radit"]:
        assert f"parts.critic.model.{name}" in keys
    for name in schema.OPTIM:
        assert f"parts.critic.optim.{name}" in keys


def test_evaluator_keys_are_always_runtime():
    keys = keys_of(defaults())
    assert all(key.runtime for name, key in keys.items() if name.startswith("evaluators."))
    assert not keys["model.kind"].runtime
    assert not keys["objective.kind"].runtime


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"model": "radict"}, "unknown network kind 'radict'; did you mean radit?"),
        ({"model": "unknown"}, "unknown network kind 'unknown', only radit"),
        ({"objective": "flow"}, "unknown objective kind 'flow'"),
        ({"evaluators": {"mine": "sample_grids"}}, "did you mean sample_grid?"),
        ({"parts": {"critic": "cnn"}}, "unknown network kind 'cnn'"),
    ],
)
def test_unknown_kind_is_refused_in_one_line(arguments, line):
    with pytest.raises(ConfigError) as caught:
        defaults(**arguments)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_value_is_checked_against_its_key():
    key = Key(1.0, "A number.", least=0.5)
    load.check_value("x", 2, key)  # an int is accepted as a float
    with pytest.raises(ConfigError, match=r"x must be at least 0\.5 \(got 0\.25\)"):
        load.check_value("x", 0.25, key)
    with pytest.raises(ConfigError, match="x must be of type float"):
        load.check_value("x", True, key)
