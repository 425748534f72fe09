"""The patch discriminator beside a twin in PyTorch."""

import jax
import ml_collections
import numpy as np
import pytest

from rfxray.config.schema import defaults
from rfxray.errors import ConfigError
from rfxray.networks import kinds
from rfxray.networks.network import Network
from tests.rfxray.networks.torch_discriminator import twin


def network(width: int, layers: int) -> Network:
    section = defaults(parts={"discriminator": "patch_discriminator"}).parts.discriminator.model
    section.width, section.layers = width, layers
    return kinds.build(ml_collections.FrozenConfigDict(section))


def images(side: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (2, side, side, 1)).astype(np.float32)


# 24 and 48 channels are groups of 3 in 16 groups, and the side is odd on the way.
WIDTH, LAYERS, SIDE = 24, 2, 22


@pytest.fixture(scope="module")
def judge(randomise):
    """`judge(images)`, compiled, and its parameters."""
    made = network(WIDTH, LAYERS)
    params = randomise(jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), made.shapes))
    apply = jax.jit(made.apply)
    return lambda x: np.asarray(apply(params, x)), params


def test_logits_match_a_twin_in_torch(judge):
    torch = pytest.importorskip("torch", reason="no torch; it comes with the extra peers")
    apply, params = judge
    with torch.no_grad():
        x = torch.from_numpy(images(SIDE).transpose(0, 3, 1, 2))
        theirs = twin(params, LAYERS)(x).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(apply(images(SIDE)), theirs, atol=2e-5)


def test_judgement_of_an_image_depends_on_no_other_image(judge):
    apply, _ = judge
    x = images(SIDE)
    other = x.copy()
    other[1] *= -0.5
    np.testing.assert_allclose(apply(x)[0], apply(other)[0], rtol=1e-5, atol=1e-6)


def test_fresh_parameters_have_the_shapes_that_are_stated():
    made = network(64, 3)
    found = jax.eval_shape(made.init, jax.random.key(0))
    assert {n: p.shape for n, p in found.items()} == {n: s.shape for n, s in made.shapes.items()}
    assert made.parameters == pytest.approx(2.76e6, rel=0.01)  # as pix2pix and latent diffusion


def test_image_without_a_logit_is_refused():
    made = network(4, 3)
    assert made.input_shape == (24, 24, 1)
    assert jax.eval_shape(made.apply, made.shapes, images(24)).shape == (2, 1, 1, 1)
    with pytest.raises(ConfigError, match=r"24 × 24 pixels and above \(got 16 × 16\)"):
        jax.eval_shape(made.apply, made.shapes, images(16))
