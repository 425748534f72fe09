import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfxray.errors import ConfigError
from rfxray.objectives import flow_matching
from rfxray.objectives.flow_matching import LossByTimestep
from rfxray.training import recipe as recipes
from rfxray.training.step import VALIDATION, example_keys


def test_loss_by_timestep_is_the_mean_over_all_batches():
    rng = np.random.default_rng(0)
    losses, times = rng.random((5, 16)), rng.random((5, 16))
    losses, times = losses.astype(np.float32), times.astype(np.float32)
    times[0, :4] = [
        0.0,
        0.25,
        0.5,
        1.0,
    ]  # edges: each bin includes its lower edge, the last also 1
    metric = LossByTimestep.empty()
    for loss, t in zip(losses, times, strict=True):
        metric = metric.merge(
            LossByTimestep.from_model_output(loss_by_t=(jnp.asarray(loss), jnp.asarray(t)))
        )
    which = np.minimum(np.floor(times * 4).astype(int), 3)
    expected = [losses[which == i].mean() for i in range(4)]
    names = ["loss_t/0.00-0.25", "loss_t/0.25-0.50", "loss_t/0.50-0.75", "loss_t/0.75-1.00"]
    found = metric.compute()
    assert list(found) == names
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-6)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    known = rng.random((8, 19)) < 0.5
    return {
        "image": rng.uniform(-1, 1, (8, 32, 32, 1)).astype(np.float32),
        "attributes": np.where(known, 1.0, 0.0).astype(np.float32),
        "known": known,
        "index": np.arange(8, dtype=np.uint32),
    }


def perfect(batch):
    """A network that knows the images: the velocity at x_t is (x_t − x) / t."""

    def apply(params, x_t, t, attributes):
        t = t[:, None, None, None]
        return (x_t - batch["image"]) / t

    return apply


def test_loss_of_the_true_velocity_is_zero(make_config, batch):
    objective = flow_matching.build(
        make_config("objective.prediction=v").objective, {"model": perfect(batch)}
    )
    keys = example_keys(0, VALIDATION, batch["index"])
    outcome = objective.losses["model"]({"model": {}}, batch, keys, False)
    assert outcome.losses.shape == (8,)
    np.testing.assert_allclose(outcome.losses, 0, atol=1e-6)


def test_attributes_are_dropped_only_in_training(make_config, batch):
    seen = []

    def watching(params, x_t, t, attributes):
        seen.append(np.asarray(attributes.known))
        return jnp.zeros_like(x_t)

    section = make_config("objective.drop_all=1.0", "objective.drop_each=0.0").objective
    loss = flow_matching.build(section, {"model": watching}).losses["model"]
    keys = example_keys(0, VALIDATION, batch["index"])
    for training in (False, True):
        loss({"model": {}}, batch, keys, training)
    np.testing.assert_array_equal(seen[0], batch["known"])
    assert not seen[1].any()


def test_loss_of_an_example_does_not_depend_on_its_batch(make_config, batch, randomise):
    recipe = recipes.build(make_config())
    params = {"model": randomise(recipe.model.init(jax.random.key(0)))}
    loss = recipe.objective.losses["model"]

    def losses(rows):
        picked = {key: value[rows] for key, value in batch.items()}
        return loss(params, picked, example_keys(3, VALIDATION, picked["index"]), True).losses

    np.testing.assert_allclose(
        losses(np.arange(8))[np.array([5, 2])], losses(np.array([5, 2])), rtol=1e-5
    )


def test_build_refuses_drop_shares_above_one_and_other_parts(make_config):
    config = make_config("objective.drop_all=0.6", "objective.drop_each=0.5")
    with pytest.raises(ConfigError, match=r"objective\.drop_all"):
        recipes.build(config)
    with pytest.raises(ConfigError, match="parts model, extra"):
        flow_matching.build(make_config().objective, {"model": perfect, "extra": perfect})
