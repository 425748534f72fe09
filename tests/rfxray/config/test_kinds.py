"""Code outside the package is imported and used only if the user allows it by name."""

import json
import sys

import jax
import jax.numpy as jnp
import ml_collections
import pytest

from rfxray.config import kinds
from rfxray.config.identity import identity_of
from rfxray.config.load import check_config, from_json, load_config
from rfxray.config.schema import defaults
from rfxray.errors import ConfigError
from rfxray.networks import kinds as networks

MODULE = """
from pathlib import Path

import jax

from rfxray.config.schema import Key
from rfxray.networks.network import Network

Path(__file__).with_suffix(".imported").touch()


def scale(section):
    return Network(
        init=lambda key: {"scale": jax.numpy.full(3, section.factor)},
        apply=lambda params, x: params["scale"] * x,
        shapes={"scale": jax.ShapeDtypeStruct((3,), "float32")},
        axes={"scale": (None,)},
        input_shape=(1, 1, 3),
    )


scale.KEYS = {"factor": Key(2.0, "Factor.", least=0)}


def judge(section, context):
    raise NotImplementedError


judge.KEYS = {"every": Key(5, "Steps."), "limit": Key(1, "Limit.")}


def keyless(section):
    raise NotImplementedError
"""


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """`foreign()`: whether the foreign module was imported; `foreign.name`: its name."""
    name = f"foreign_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / f"broken_{name}.py").write_text("1 //")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(kinds, "_allowed", {})

    def imported() -> bool:
        return (tmp_path / f"{name}.imported").exists()

    imported.name = name
    yield imported
    sys.modules.pop(name, None)


@pytest.fixture
def config_json(foreign) -> dict:
    """Content of `config.json` of a run with a foreign network, for a process that allowed none."""
    tree = json.loads(defaults().to_json_best_effort())
    tree["model"] = {"kind": f"{foreign.name}:scale", "factor": 3.0}
    return tree


def test_foreign_kind_in_config_json_is_refused_and_not_imported(foreign, config_json):
    with pytest.raises(ConfigError) as caught:
        from_json(config_json)
    kind = f"{foreign.name}:scale"
    assert str(caught.value) == (
        f"this run uses {kind}, which is code outside of rfxray; add --allow-kind {kind} if you "
        "trust it"
    )
    assert not foreign()


@pytest.mark.parametrize("section", ["objective", "evaluators", "parts"])
def test_foreign_kind_is_refused_in_any_section(foreign, section):
    tree = json.loads(defaults().to_json_best_effort())
    kind = {"kind": f"{foreign.name}:judge"}
    tree[section] = {
        "objective": kind,
        "evaluators": {"mine": kind},
        "parts": {"critic": {"model": kind}},
    }[section]
    with pytest.raises(ConfigError, match=f"--allow-kind {foreign.name}:judge"):
        from_json(tree)
    assert not foreign()


def test_allowing_one_foreign_kind_allows_no_other(foreign, config_json):
    config_json["evaluators"]["mine"] = {"kind": f"{foreign.name}:judge"}
    with pytest.raises(ConfigError, match=f"--allow-kind {foreign.name}:judge"):
        from_json(config_json, [f"{foreign.name}:scale"])


def test_allowed_foreign_network_is_built_and_used(foreign, config_json):
    config = from_json(config_json, [f"{foreign.name}:scale"])
    assert foreign()
    assert config.model.factor == 3.0
    network = networks.build(config.model)
    params = network.init(jax.random.key(0))
    assert network.parameters == 3
    assert network.apply(params, jnp.ones(3)).tolist() == [3.0, 3.0, 3.0]
    assert identity_of(config, "data")["model.factor"] == 3.0


def test_keys_of_a_foreign_kind_have_defaults_and_bounds(foreign, config_json):
    del config_json["model"]["factor"]
    allow = [f"{foreign.name}:scale"]
    assert from_json(config_json, allow).model.factor == 2.0
    config_json["model"]["factor"] = -1.0
    with pytest.raises(ConfigError, match=r"model\.factor must be at least 0 \(got -1\.0\)"):
        from_json(config_json, allow)


def test_key_of_another_kind_is_refused(foreign, config_json):
    config_json["model"]["patch"] = 8
    with pytest.raises(ConfigError, match=r"no config key 'model\.patch'"):
        from_json(config_json, [f"{foreign.name}:scale"])


def test_config_file_given_by_the_user_may_name_a_foreign_kind(foreign, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from rfxray.config.schema import defaults\n\ndef get_config():\n"
        f"    return defaults(model='{foreign.name}:scale', evaluators=dict(mine='"
        f"{foreign.name}:judge'))\n"
    )
    config = load_config(str(file), ["model.factor=7", "evaluators.mine.limit=4"])
    assert (config.model.factor, config.evaluators.mine.limit) == (7, 4)
    # Evaluators do not change a run, so their keys are never identity, whatever they declare.
    assert not any(key.startswith("evaluators.") for key in identity_of(config, "data"))
    with pytest.raises(ConfigError, match=r"no config key 'model\.width'"):
        load_config(str(file), ["model.width=7"])


def test_foreign_kind_that_was_not_allowed_is_not_built(foreign):
    config = defaults()
    config.model = ml_collections.ConfigDict({"kind": f"{foreign.name}:scale", "factor": 1.0})
    with pytest.raises(ConfigError, match="the config asks for network"):
        check_config(config)
    assert not foreign()


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("no_such_module:name", "cannot be imported"),
        ("MODULE:nothing", "cannot be imported"),
        (".relative:name", "cannot be imported"),
        (":name", "cannot be imported"),
        ("radit", "cannot be imported"),
        ("broken_MODULE:name", "cannot be imported"),
        ("MODULE:keyless", "has no KEYS"),
    ],
)
def test_invalid_foreign_kind_is_refused_in_one_line(foreign, kind, line):
    kind = kind.replace("MODULE", foreign.name)
    with pytest.raises(ConfigError, match=line) as caught:
        kinds.allow(kind)
    assert f"kind {kind} " in str(caught.value)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------
# Flags


def test_flag_cannot_choose_a_kind(make_config):
    assert make_config("model.kind=radit").model.kind == "radit"  # the current kind is accepted
    for key in ("model.kind", "objective.kind", "evaluators.sample_grid.kind"):
        with pytest.raises(ConfigError) as caught:
            make_config(f"{key}=other")
        assert str(caught.value) == (
            f"{key} cannot be set by a flag, because its other keys come with it; write a config "
            "file that starts from rfxray.config.schema.defaults(...)"
        )
