"""Masked image modelling: which pixels count, and how they are drawn."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from rfxray.errors import ConfigError
from rfxray.objectives import masked_image
from rfxray.training.step import VALIDATION, example_keys

SECTION = ml_collections.FrozenConfigDict({"share": 0.5, "cell": 8})


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.uniform(-1, 1, (6, 32, 32, 1)).astype(np.float32),
        "index": np.arange(6, dtype=np.uint32),
    }


def built(network):
    return masked_image.build(SECTION, {"model": network})


def keys_of(batch):
    return example_keys(0, VALIDATION, batch["index"])


def losses(network, batch, training=True):
    return built(network).losses["model"]({"model": {}}, batch, keys_of(batch), training).losses


def test_loss_is_the_mean_error_over_what_is_covered(batch):
    found = losses(lambda params, image, covered: image + 0.25, batch)
    np.testing.assert_allclose(found, 0.25, rtol=1e-5)
    covered = np.asarray(masked_image.cover(keys_of(batch), 32, 8, 0.5))
    grey = losses(lambda params, image, covered: jnp.zeros_like(image), batch)
    expected = [np.abs(x[c]).mean() for x, c in zip(batch["image"], covered, strict=True)]
    np.testing.assert_allclose(grey, expected, rtol=1e-5)


def test_only_covered_pixels_count(batch):
    def good_where_covered(params, image, covered):
        return jnp.where(covered, image, 5)

    def good_where_seen(params, image, covered):
        return jnp.where(covered, image + 1, image)

    np.testing.assert_array_equal(losses(good_where_covered, batch), 0)
    np.testing.assert_allclose(losses(good_where_seen, batch), 1, rtol=1e-5)


def test_loss_of_an_example_does_not_depend_on_its_batch(batch):
    def network(params, image, covered):
        return jnp.where(covered, 0, image).mean((1, 2, 3), keepdims=True) + 0 * image

    rows = np.array([4, 1])
    picked = {key: value[rows] for key, value in batch.items()}
    np.testing.assert_allclose(losses(network, picked), losses(network, batch)[rows], rtol=1e-6)


def test_validation_covers_as_training_does(batch):
    def network(params, image, covered):
        return 0.1 * covered + 0 * image

    np.testing.assert_array_equal(losses(network, batch), losses(network, batch, training=False))


@pytest.mark.parametrize(
    ("side", "cell", "share", "count"), [(4, 8, 0.6, 10), (8, 4, 0.75, 48), (2, 1, 0.13, 1)]
)
def test_every_image_has_the_same_number_of_whole_cells_covered(side, cell, share, count):
    keys = jax.random.split(jax.random.key(0), 16)
    covered = np.asarray(masked_image.cover(keys, side * cell, cell, share))
    cells = covered[:, ::cell, ::cell, 0]
    np.testing.assert_array_equal(covered[..., 0], cells.repeat(cell, 1).repeat(cell, 2))
    np.testing.assert_array_equal(cells.sum((1, 2)), count)
    assert len({each.tobytes() for each in cells}) > 1


@pytest.mark.parametrize(("share", "count"), [(0.1, 0), (0.9, 4)])
def test_shares_that_cover_nothing_or_everything_are_refused(share, count):
    keys = jax.random.split(jax.random.key(0), 1)
    with pytest.raises(ConfigError, match=rf"covers {count} of 4 cells"):
        masked_image.cover(keys, 16, 8, share)


def test_each_cell_is_covered_as_often_as_any_other():
    keys = jax.random.split(jax.random.key(0), 4000)
    cells = np.asarray(masked_image.cover(keys, 32, 8, 0.5))[:, ::8, ::8, 0]
    # Binomial of 4,000 draws at a half: deviation .008.
    np.testing.assert_allclose(cells.mean(0), 0.5, atol=4 * 0.008)


def test_grid_shows_the_image_what_is_seen_and_what_is_made(batch):
    show = built(lambda params, image, covered: jnp.full_like(image, 0.5)).show
    shown = np.asarray(show({"model": {}}, batch, keys_of(batch)))
    covered = np.asarray(masked_image.cover(keys_of(batch), 32, 8, 0.5))[..., 0]
    image = batch["image"][..., 0]
    np.testing.assert_array_equal(shown[:, 0], image)
    np.testing.assert_array_equal(shown[:, 1], np.where(covered, 0, image))
    np.testing.assert_array_equal(shown[:, 2], np.where(covered, np.float32(0.5), image))


@pytest.mark.parametrize("share", [1.0, 1.5])
def test_a_share_that_leaves_nothing_is_refused(share):
    section = ml_collections.FrozenConfigDict({"share": share, "cell": 8})
    with pytest.raises(ConfigError, match=rf"objective\.share must be .* \(got {share}\)"):
        masked_image.build(section, {"model": lambda *_: None})


def test_cells_that_do_not_tile_and_other_parts_are_refused(batch):
    keys = keys_of(batch)
    with pytest.raises(ConfigError, match=r"objective\.cell must divide .* 32 \(got 5\)"):
        masked_image.cover(keys, 32, 5, 0.5)
    with pytest.raises(ConfigError, match="parts model, extra"):
        masked_image.build(SECTION, {"model": lambda *_: None, "extra": lambda *_: None})
