import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfxray.attributes import vocabulary
from rfxray.config.load import load_config
from rfxray.runtime import sharding
from rfxray.training import recipe as recipes
from rfxray.training import skip_guard, state
from rfxray.training.metrics import fresh, scalars
from rfxray.training.step import (
    TRAINING,
    VALIDATION,
    abstract_batch,
    example_keys,
    train_step,
)

STEPS = 4


def batch(recipe, step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    n = recipe.batch_size
    known = rng.random((n, vocabulary.NUM_ATTRIBUTES)) < 0.5
    return {
        "image": rng.uniform(-1, 1, (n, *recipe.model.input_shape)).astype(np.float32),
        "attributes": np.where(known, 1.0, 0.0).astype(np.float32),
        "known": known,
        "content_box": np.tile(np.array([0, 0, *recipe.model.input_shape[:2]], np.int32), (n, 1)),
        "index": np.arange(step * n, (step + 1) * n, dtype=np.uint32),
    }


@pytest.fixture(scope="module")
def train(make_config):
    """`train("accumulate=2")`: metrics and parameters after STEPS steps on one device."""

    def run(*overrides):
        recipe = recipes.build(make_config(*overrides))
        mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
        carry = state.init(recipe, mesh), fresh(recipe.metrics, sharding.replicated(mesh))
        take = jax.jit(train_step(recipe))
        for step in range(STEPS):
            carry = take(*carry, sharding.global_batch(mesh, batch(recipe, step)))
        return scalars(carry[1]), jax.device_get(carry[0]["params"]["model"])

    return run


@pytest.mark.parametrize("parts", [2, 8])
def test_accumulated_gradient_matches_the_whole_batch(train, parts):
    (whole, params), (metrics, accumulated) = train(), train(f"accumulate={parts}")
    assert metrics == pytest.approx(whole, rel=1e-5)
    for a, b in zip(jax.tree.leaves(accumulated), jax.tree.leaves(params), strict=True):
        # AdamW magnifies a rounding error of a gradient near zero to a part of its step of 2e-3.
        np.testing.assert_allclose(a, b, atol=2e-4)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_example_with_the_largest_loss_is_recorded_for_any_accumulation(make_config, parts):
    recipe = recipes.build(make_config(f"accumulate={parts}"))
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    poisoned = batch(recipe, step=1)
    poisoned["image"][3] = np.nan
    carry = state.init(recipe, mesh), fresh(recipe.metrics, sharding.replicated(mesh))
    after, _ = jax.jit(train_step(recipe))(*carry, sharding.global_batch(mesh, poisoned))
    (skip,) = skip_guard.remembered(jax.device_get(after["guard"]))
    assert (skip.first, skip.worst) == (recipe.batch_size, recipe.batch_size + 3)


def test_discriminator_may_have_any_finite_gradient_and_no_other():
    recipe = recipes.build(load_config("tests/seams/config.py"))
    losses = dict(recipe.objective.losses)

    def scaled(params, rows, keys, training):
        outcome = losses["discriminator"](params, rows, keys, training)
        return outcome._replace(losses=rows["attributes"][:, 0] * outcome.losses)

    objective = dataclasses.replace(
        recipe.objective, losses={"model": losses["model"], "discriminator": scaled}
    )
    recipe = dataclasses.replace(recipe, objective=objective)
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    fresh_state = state.init(recipe, mesh)
    guard = {**fresh_state["guard"], "good": jnp.int32(200), "usual": jnp.float32(10)}
    take = jax.jit(train_step(recipe))

    def after(scale: float) -> tuple[int, float]:
        rows = batch(recipe, 0)
        rows["attributes"][:] = scale
        carry = {**fresh_state, "guard": guard}, fresh(recipe.metrics, sharding.replicated(mesh))
        found, _ = take(*carry, sharding.global_batch(mesh, rows))
        return int(found["guard"]["skipped"]), float(found["guard"]["usual"])

    (skipped, usual), (_, plain) = after(1e6), after(1.0)
    assert skipped == 0
    assert usual == plain < 10  # a mean of the norms of the model
    assert after(np.nan)[0] == 1


def test_abstract_batch_matches_shapes_and_shardings_of_a_batch(make_config):
    recipe = recipes.build(make_config())
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    abstract = abstract_batch(recipe, mesh)
    real = sharding.global_batch(mesh, batch(recipe, 0))
    assert abstract.keys() == real.keys()
    for key, array in real.items():
        assert (abstract[key].shape, abstract[key].dtype) == (array.shape, array.dtype)
        assert abstract[key].sharding.is_equivalent_to(array.sharding, array.ndim)


def test_randomness_of_an_example_never_changes():
    """It follows from the seed, the stream and the position of the example."""
    training = example_keys(0, TRAINING, np.arange(2, dtype=np.uint32))
    validation = example_keys(7, VALIDATION, np.array([2**31], np.uint32))
    assert jax.random.key_data(training).tolist() == [
        [4165894930, 804218099],
        [1353695780, 2116000888],
    ]
    assert jax.random.key_data(validation).tolist() == [[4029710509, 3645761145]]
