"""Classification: what counts, what does not, and how images are changed."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from scipy import special

from rfxray.attributes.vocabulary import ATTRIBUTES, FINDING_NAMES, INDEX
from rfxray.errors import ConfigError
from rfxray.objectives import classification
from rfxray.training.step import TRAINING, example_keys

WIDTHS = [len(attribute.values) or 1 for attribute in ATTRIBUTES]
OUTPUTS = np.random.default_rng(2).normal(0, 2, (6, sum(WIDTHS))).astype(np.float32)


def built(network=None, attributes=("findings",), shift=0.1, contrast=0.2):
    section = {"attributes": attributes, "shift": shift, "contrast": contrast}
    network = network or (lambda params, image: jnp.asarray(OUTPUTS[: len(image)]))
    return classification.build(ml_collections.FrozenConfigDict(section), {"model": network})


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    high = [120.0 if a.continuous else len(a.values) - 1 for a in ATTRIBUTES]
    return {
        "image": rng.uniform(-1, 1, (6, 32, 32, 1)).astype(np.float32),
        "attributes": np.round(rng.uniform(0, high, (6, 19))).astype(np.float32),
        "known": rng.random((6, 19)) < 0.6,
        "index": np.arange(6, dtype=np.uint32),
    }


def losses(objective, batch, training=False):
    keys = example_keys(0, TRAINING, batch["index"])
    return np.asarray(objective.losses["model"]({"model": {}}, batch, keys, training).losses)


def expected(batch, names):
    """The same loss, an attribute and an example at a time."""
    parts = np.split(OUTPUTS.astype(np.float64), np.cumsum(WIDTHS)[:-1], 1)
    found = []
    for row in range(6):
        each = []
        for name in names:
            i = INDEX[name]
            value, said = batch["attributes"][row, i], parts[i][row]
            if not batch["known"][row, i]:
                continue
            if name == "age":
                each.append(abs(said[0] * 25 + 50 - value) / 25)
            else:
                each.append(-np.log(special.softmax(said)[int(value)]))
        found.append(np.mean(each) if each else 0.0)
    return found


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (("findings",), FINDING_NAMES),
        (("view", "age"), ("view", "age")),
        (("edema", "findings", "sex"), ("sex", *FINDING_NAMES)),
    ],
)
def test_loss_is_the_mean_over_what_is_known(batch, chosen, names):
    assert set(classification.names_of(chosen)) == set(names)
    batch["known"][4] = False
    found = losses(built(attributes=chosen), batch)
    np.testing.assert_allclose(found, expected(batch, names), rtol=1e-4)
    assert found[4] == 0


def test_unknown_values_and_their_outputs_have_no_gradient(batch):
    """An uncertain finding keeps the value that was read, and must not train."""
    objective = built(lambda params, image: params)
    keys = example_keys(0, TRAINING, batch["index"])

    def mean(outputs):
        return objective.losses["model"]({"model": outputs}, batch, keys, False).losses.mean()

    gradient = np.asarray(jax.grad(mean)(jnp.asarray(OUTPUTS)))
    for i, part in enumerate(np.split(gradient, np.cumsum(WIDTHS)[:-1], 1)):
        counted = batch["known"][:, i] & (ATTRIBUTES[i].name in FINDING_NAMES)
        np.testing.assert_array_equal((part != 0).any(1), counted)


def test_images_are_changed_in_training_only_each_by_its_key(batch):
    seen = []

    def network(params, image):
        seen.append(image)
        return jnp.zeros((len(image), sum(WIDTHS)))

    objective = built(network)
    losses(objective, batch)
    np.testing.assert_array_equal(seen[-1], batch["image"])
    losses(objective, batch, training=True)
    changed = np.asarray(seen[-1])
    assert not np.isclose(changed, batch["image"]).all((1, 2, 3)).any()
    rows = np.array([4, 1])
    losses(objective, {name: value[rows] for name, value in batch.items()}, training=True)
    np.testing.assert_allclose(seen[-1], changed[rows], rtol=1e-6)


def test_images_are_moved_by_whole_pixels_up_to_the_shift():
    keys = jax.random.split(jax.random.key(1), 200)
    image = np.full((200, 32, 32, 1), -1, np.float32)
    image[:, 16, 16] = 1
    moved = np.asarray(classification.changed(keys, jnp.asarray(image), 0.1, 0.0))[..., 0]
    found = np.array([np.argwhere(each == 1)[0] - 16 for each in moved])
    assert (moved == 1).sum((1, 2)).tolist() == [1] * 200
    assert {-3, 3} <= set(found[:, 0]) & set(found[:, 1])
    assert abs(found).max() == 3  # a tenth of 32 pixels


def test_grey_changes_by_at_most_the_contrast():
    keys = jax.random.split(jax.random.key(1), 200)
    image = jnp.where(jnp.arange(16) % 2, 0.5, -0.5).reshape(4, 4, 1)
    image = jnp.broadcast_to(image, (200, 4, 4, 1))
    found = np.asarray(classification.changed(keys, image, 0.0, 0.2))
    high, low = found.max((1, 2, 3)), found.min((1, 2, 3))
    factors, offsets = high - low, high + low
    assert 0.8 <= factors.min() < 0.83
    assert 1.17 < factors.max() <= 1.2
    assert 0.17 < offsets.max() <= 0.2
    plain = classification.changed(keys, image, 0.0, 0.0)
    np.testing.assert_array_equal(plain, image)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"attributes": ("hernia",)}, "has no 'hernia', only findings and view"),
        ({"shift": 0.5}, r"objective\.shift must be below 0\.5"),
        ({"contrast": 1.0}, r"objective\.contrast must be below 1"),
    ],
)
def test_wrong_keys_are_refused(keys, match):
    with pytest.raises(ConfigError, match=match):
        built(**keys)


def test_another_part_is_refused():
    section = ml_collections.FrozenConfigDict(
        {"attributes": ("findings",), "shift": 0.1, "contrast": 0.1}
    )
    parts = {"model": lambda *_: None, "extra": lambda *_: None}
    with pytest.raises(ConfigError, match="parts model, extra"):
        classification.build(section, parts)
