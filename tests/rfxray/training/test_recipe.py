"""Recipes built from configs, and refusals of keys that contradict each other."""

import jax
import pytest

from rfxray.config.load import check_config
from rfxray.config.schema import defaults
from rfxray.errors import ConfigError
from rfxray.networks import kinds as networks
from rfxray.training import recipe


def test_recipe_holds_what_the_config_says(make_config):
    config = make_config("ema_sigmas=0.1,0.2", "accumulate=2", "seed=3", "skip.factor=9.0")
    built = recipe.build(config)
    assert list(built.networks) == list(built.optimizers) == list(built.objective.losses)
    assert built.model is built.networks["model"]
    assert built.parameters == built.model.parameters
    assert built.parameters == sum(leaf.size for leaf in jax.tree.leaves(built.model.shapes))
    assert (built.sigmas, built.accumulate, built.seed) == ((0.1, 0.2), 2, 3)
    assert (built.batch_size, built.skip_factor) == (8, 9.0)
    assert float(built.learning_rate(2)) == pytest.approx(2e-3)


def test_equal_sections_share_one_network(make_config):
    first, second = make_config("seed=1").model, make_config("seed=2").model
    assert networks.build(first) is networks.build(second)
    assert networks.build(make_config("model.depth=3").model) is not networks.build(first)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["model.patch=7"], "model.patch must divide model.size=32 (got 7)"),
        (["model.heads=3"], "model.width must be model.heads=3 times a multiple of 4"),
        (["model.heads=16"], "model.width must be model.heads=16 times a multiple of 4"),
        (["objective.drop_all=0.9"], "at most 1 together (got 0.9 and 0.2)"),
        (["optim.b1=1.5"], "optim.b1 and optim.b2 must be below 1 (got 1.5 and 0.95)"),
        (["optim.b2=1.0"], "optim.b1 and optim.b2 must be below 1 (got 0.9 and 1.0)"),
        (["optim.schedule=wsd"], "optim.decay from 1 to steps=12 minus optim.warmup=2 (got 0)"),
        (["optim.schedule=wsd", "optim.decay=11"], "minus optim.warmup=2 (got 11)"),
        (["optim.schedule=cosine", "optim.warmup=12"], "optim.warmup must be below steps=12"),
    ],
)
def test_build_refuses_keys_that_contradict_each_other(make_config, overrides, line):
    config = make_config(*overrides)  # each key on its own is valid
    with pytest.raises(ConfigError) as caught:
        recipe.build(config)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_build_refuses_a_part_that_the_objective_does_not_train():
    config = check_config(defaults(parts={"critic": "radit"}))
    with pytest.raises(ConfigError, match=r"trains only the model \(got parts model, critic\)"):
        recipe.build(config)
