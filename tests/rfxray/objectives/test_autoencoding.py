"""The loss of an autoencoder, term by term, and one step of it beside PyTorch."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from rfxray.config.schema import defaults
from rfxray.errors import ConfigError
from rfxray.networks import kinds as networks
from rfxray.objectives import autoencoding
from rfxray.objectives.objective import Objective
from tests.rfxray.networks.torch_discriminator import twin

SIDE, BATCH = 16, 4


def section(**values) -> ml_collections.ConfigDict:
    found = defaults(objective="autoencoding").objective
    found.update(values)
    return found


def images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (BATCH, SIDE, SIDE, 1)).astype(np.float32)


def batch(first: int = 0) -> dict[str, np.ndarray]:
    boxes = np.tile(np.array([0, 0, SIDE, SIDE], np.int32), (BATCH, 1))
    index = np.arange(first, first + BATCH, dtype=np.uint32)
    return {"image": images(), "content_box": boxes, "index": index}


KEYS = jax.random.split(jax.random.key(0), BATCH)


def identity(params, x, method):
    """An autoencoder that keeps everything, with a posterior of deviation e^{`spread`}."""
    if method == "encode":
        return x, jnp.full(x.shape, 2 * params["spread"])
    return x + params["offset"]


PARAMS = {"model": {"spread": jnp.float32(-15), "offset": jnp.float32(0.25)}}


def built(network=identity, **values) -> Objective:
    return autoencoding.build(section(**values), {"model": network})


def of_model(objective: Objective):
    """The loss of the model, compiled; whether it trains is the last argument."""
    return jax.jit(objective.losses["model"], static_argnums=3)


@pytest.mark.parametrize(("kind", "expected"), [("l1", 0.25), ("l2", 0.0625)])
def test_distance_and_psnr_are_those_of_a_known_error(kind, expected):
    loss = of_model(built(distance=kind, kl_weight=0.0))
    for training in (True, False):
        outcome = loss(PARAMS, batch(), KEYS, training)
        np.testing.assert_allclose(outcome.losses, expected, rtol=1e-4)
        np.testing.assert_allclose(outcome.observed["psnr"], 10 * np.log10(4 / 0.0625), rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_psnr_is_that_of_the_radiograph_without_its_margins(share):
    """The margins are kept without an error, and the radiograph is not."""
    top, left, height, width = 4, 2, 8, 12
    box = np.tile(np.array([[top, left, height, width]], np.int32), (BATCH, 1))
    film = np.zeros((SIDE, SIDE, 1), bool)
    film[top : top + height, left : left + width] = True
    image = np.where(film, images(), -1).astype(np.float32)
    given = batch() | {"image": image, "content_box": box}

    def network(params, x, method):
        if method == "encode":  # what is at the place of a pixel: the error that it gets
            error = jnp.broadcast_to(jnp.where(film, 0.25, 0.0), x.shape)
            return jnp.concatenate([x, error], -1), jnp.full((*x.shape[:3], 2), -30.0)
        return x[..., :1] + x[..., 1:]

    loss = of_model(built(network, equivariance=share, kl_weight=0.0))
    seen = loss(PARAMS, given, KEYS, True).observed
    # Shrunk, a pixel at the border of the box is interpolated with one beyond it.
    expected, tolerance = 10 * np.log10(4 / 0.0625), 0.01 + 1.5 * share
    np.testing.assert_allclose(seen["psnr"], expected, atol=tolerance)
    assert (np.asarray(seen["distance"]) < 0.25 * 0.55).all()  # margins count here


def test_divergence_is_the_mean_over_latent_values():
    rng = np.random.default_rng(0)
    mean, log_variance = rng.normal(size=(2, BATCH, 2, 2, 3)).astype(np.float32)
    torch = pytest.importorskip("torch", reason="no torch; it comes with the extra peers")
    posterior = torch.distributions.Normal(
        torch.from_numpy(mean), torch.from_numpy(np.exp(log_variance / 2))
    )
    peer = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    np.testing.assert_allclose(
        autoencoding.divergence(mean, log_variance), peer.mean((1, 2, 3)), rtol=1e-5
    )


def test_weight_of_the_divergence_multiplies_it():
    wide = {"model": {"spread": jnp.float32(0.5), "offset": jnp.float32(0)}}
    losses = [
        of_model(built(kl_weight=weight))(wide, batch(), KEYS, False) for weight in (0.0, 2.0)
    ]
    np.testing.assert_allclose(
        losses[1].losses - losses[0].losses, 2 * losses[1].observed["kl"], rtol=1e-5
    )


def test_training_samples_the_posterior_and_evaluation_takes_its_mean():
    wide = {"model": {"spread": jnp.log(jnp.float32(0.1)), "offset": jnp.float32(0)}}
    loss = of_model(built(distance="l2", kl_weight=0.0))
    np.testing.assert_allclose(loss(wide, batch(), KEYS, False).losses, 0, atol=1e-12)
    drawn = loss(wide, batch(), KEYS, True).losses
    np.testing.assert_allclose(drawn, 0.01, rtol=0.3)
    assert len(np.unique(drawn)) == BATCH


def test_noise_on_latents_has_a_deviation_of_its_own_for_each_example():
    keys = jax.random.split(jax.random.key(1), 400)
    many = {name: np.repeat(value[:1], 400, 0) for name, value in batch().items()}
    many |= {"image": np.zeros((400, SIDE, SIDE, 1), np.float32), "index": np.arange(400)}
    still = {"model": {"spread": jnp.float32(-15), "offset": jnp.float32(0)}}
    loss = of_model(built(distance="l2", kl_weight=0.0, latent_noise=0.5))
    sigma = np.sqrt(loss(still, many, keys, True).losses)
    # Half-normal of scale 0.5: mean 0.5 √(2/π), median 0.5 · 0.674.
    assert sigma.mean() == pytest.approx(0.5 * np.sqrt(2 / np.pi), rel=0.1)
    assert np.median(sigma) == pytest.approx(0.337, rel=0.15)
    np.testing.assert_allclose(loss(still, many, keys, False).losses, 0, atol=1e-12)


def test_an_equivariant_autoencoder_loses_nothing_when_latents_shrink():
    still = {"model": {"spread": jnp.float32(-15), "offset": jnp.float32(0)}}
    loss = of_model(built(equivariance=1.0, kl_weight=0.0))
    np.testing.assert_allclose(loss(still, batch(), KEYS, True).losses, 0, atol=1e-5)
    ramp = jnp.linspace(-1, 1, SIDE)[:, None]

    def coded(params, x, method):
        """Latents that hold the place as well, which shrink in another way than the image."""
        if method == "encode":
            return x + ramp, jnp.full(x.shape, -30.0)
        return x - ramp

    loss = of_model(built(coded, equivariance=1.0, kl_weight=0.0))
    assert (np.asarray(loss(still, batch(), KEYS, True).losses) > 0.05).all()
    np.testing.assert_allclose(loss(still, batch(), KEYS, False).losses, 0, atol=1e-6)


def test_loss_of_an_example_depends_on_no_other_and_on_its_own_key():
    wide = {"model": {"spread": jnp.float32(-1), "offset": jnp.float32(0)}}
    loss = of_model(built(equivariance=0.5, latent_noise=0.2))
    whole = loss(wide, batch(), KEYS, True).losses
    order = np.array([2, 0, 3, 1])
    moved = {name: value[order] for name, value in batch().items()}
    np.testing.assert_allclose(loss(wide, moved, KEYS[order], True).losses, whole[order], rtol=1e-6)


def test_grid_shows_image_reconstruction_and_difference():
    columns = built().show(PARAMS, batch(), KEYS)
    assert columns.shape == (BATCH, 3, SIDE, SIDE)
    image = images()[..., 0]
    np.testing.assert_array_equal(columns[:, 0], image)
    np.testing.assert_allclose(columns[:, 1], np.clip(image + 0.25, -1, 1), atol=1e-6)
    np.testing.assert_allclose(columns[:, 2], 0.25, atol=1e-6)


# ---------------------------------------------------------------------------------------------
# The networks that a loss reads


def tokens(params, image, method):
    """States of one block: the rows of an image."""
    assert method == "hidden"
    return image[None, ..., 0] * params["scale"]


def test_perceptual_term_is_weighted_and_trains_only_the_model():
    networks_ = {"model": identity, "perceptual": tokens}
    values = section(perceptual_weight=3.0, kl_weight=0.0)
    loss = of_model(autoencoding.build(values, networks_))
    params = {**PARAMS, "perceptual": {"scale": jnp.float32(2)}}
    outcome = loss(params, batch(), KEYS, False)
    seen = outcome.observed
    np.testing.assert_allclose(outcome.losses, seen["distance"] + 3 * seen["perceptual"], rtol=1e-6)
    assert (np.asarray(seen["perceptual"]) > 1e-4).all()


def test_term_without_a_network_and_network_without_a_term_are_refused():
    cases = [
        ({"perceptual_weight": 250.0}, [], "=250 needs a network parts.perceptual"),
        ({"adversarial_weight": 0.5}, [], "=0.5 needs a network parts.discriminator"),
        ({}, ["perceptual"], "perceptual_weight=0 leaves parts.perceptual without a use"),
        ({}, ["discriminator"], "adversarial_weight=0 leaves parts.discriminator without a use"),
        ({}, ["critic"], "knows the parts discriminator and perceptual (got parts.critic)"),
        ({"adversarial_start": 2**32}, [], "below the 2³² examples"),
    ]
    for values, parts, line in cases:
        with pytest.raises(ConfigError) as caught:
            autoencoding.build(section(**values), dict.fromkeys(["model", *parts], identity))
        assert line in str(caught.value)
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------
# The adversarial term beside PyTorch


def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def small(params, x, method):
    """Two convolutions with the name of the last one of the autoencoders that are trained."""
    if method == "encode":
        z = convolve(x, params["encoder"])
        return z, jnp.full(z.shape, -30.0)
    return convolve(jnp.tanh(x), params[autoencoding.LAST])


@pytest.fixture(scope="module")
def adversarial():
    """Objective and parameters of an autoencoder with a discriminator of two layers."""
    values = section(adversarial_weight=0.5, kl_weight=0.0, adversarial_start=8)
    part = defaults(parts={"discriminator": "patch_discriminator"}).parts.discriminator.model
    part.width, part.layers = 4, 2
    judge = networks.build(ml_collections.FrozenConfigDict(part))
    objective = autoencoding.build(values, {"model": small, "discriminator": judge.apply})
    rng = np.random.default_rng(0)
    drawn = judge.init(jax.random.key(1))
    params = {
        "model": {
            "encoder": rng.normal(0, 0.5, (3, 3, 1, 3)).astype(np.float32),
            autoencoding.LAST: rng.normal(0, 0.3, (3, 3, 3, 1)).astype(np.float32),
        },
        "discriminator": {
            name: np.asarray(p) + rng.normal(0, 0.1, p.shape).astype(np.float32)
            for name, p in drawn.items()
        },
    }
    return objective, params


def test_discriminator_and_adaptive_weight_match_a_step_in_torch(adversarial):
    torch = pytest.importorskip("torch", reason="no torch; it comes with the extra peers")
    objective, params = adversarial
    gradients, seen = {}, {}
    for part, loss in objective.losses.items():

        def mean(own, part=part, loss=loss):
            outcome = loss({**params, part: own}, batch(8), KEYS, True)
            return outcome.losses.mean(), outcome

        gradients[part], seen[part] = jax.jit(jax.grad(mean, has_aux=True))(params[part])

    # The twin, by autograd.
    kernels = {
        name: torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()).requires_grad_()
        for name, kernel in params["model"].items()
    }
    judge = twin(params["discriminator"], 2)
    x = torch.from_numpy(images().transpose(0, 3, 1, 2))
    z = torch.nn.functional.conv2d(x, kernels["encoder"], padding=1)
    last = kernels[autoencoding.LAST]
    made = torch.nn.functional.conv2d(torch.tanh(z), last, padding=1)
    apart, fooled = (made - x).abs().mean(), -judge(made).mean()
    (of_distance,) = torch.autograd.grad(apart, last, retain_graph=True)
    (of_judge,) = torch.autograd.grad(fooled, last, retain_graph=True)
    weight = of_distance.norm() / (of_judge.norm() + 1e-4)
    (apart + 0.5 * weight.detach() * fooled).backward()
    for name, kernel in kernels.items():
        theirs = kernel.grad.numpy().transpose(2, 3, 1, 0)
        np.testing.assert_allclose(gradients["model"][name], theirs, rtol=1e-3, atol=1e-6)
    observed = seen["model"].observed
    np.testing.assert_allclose(observed["adaptive_weight"], float(weight), rtol=1e-4)
    np.testing.assert_allclose(observed["adversarial"].mean(), fooled.item(), rtol=1e-4)

    judge.zero_grad()
    relu = torch.nn.functional.relu
    hinge = 0.5 * (relu(1 - judge(x)).mean() + relu(1 + judge(made.detach())).mean())
    hinge.backward()
    np.testing.assert_allclose(seen["discriminator"].losses.mean(), hinge.item(), rtol=1e-5)
    ours = gradients["discriminator"]
    np.testing.assert_allclose(
        ours["layers.1.kernel"], judge[2].weight.grad.numpy().transpose(2, 3, 1, 0), atol=1e-5
    )
    np.testing.assert_allclose(ours["norms.1.scale"], judge[3].weight.grad.numpy(), atol=1e-5)
    np.testing.assert_allclose(ours["logit.bias"], judge[-1].bias.grad.numpy(), atol=1e-6)


def test_adversarial_term_and_its_discriminator_begin_at_the_start(adversarial):
    objective, params = adversarial

    def gradient(part: str, first: int):
        def mean(own):
            outcome = objective.losses[part]({**params, part: own}, batch(first), KEYS, True)
            return outcome.losses.mean()

        return jax.jit(jax.grad(mean))(params[part])

    assert all((np.asarray(g) == 0).all() for g in gradient("discriminator", 4).values())
    assert (np.asarray(gradient("discriminator", 8)["layers.0.kernel"]) != 0).all()
    bare, whole = of_model(built(small, kl_weight=0.0)), of_model(objective)
    alike = bare(params, batch(4), KEYS, True).losses
    before = whole(params, batch(4), KEYS, True)
    np.testing.assert_allclose(before.losses, alike, rtol=1e-6)
    # Each example by its own place in the order of the data.
    between = whole(params, batch(6), KEYS, True).losses
    np.testing.assert_allclose(between[:2], alike[:2], rtol=1e-6)
    assert (np.abs(between[2:] - alike[2:]) > 1e-4).all()
    evaluated = whole(params, batch(8), KEYS, False)
    np.testing.assert_allclose(evaluated.losses, evaluated.observed["distance"], rtol=1e-6)


def test_adaptive_weight_is_at_most_ten_thousand(adversarial):
    objective, params = adversarial
    blind = {name: 0 * p for name, p in params["discriminator"].items()}
    found = of_model(objective)({**params, "discriminator": blind}, batch(8), KEYS, True)
    weight = np.asarray(found.observed["adaptive_weight"])
    assert (weight > 0).all()
    assert (weight <= 1e4).all()
    np.testing.assert_allclose(found.losses, found.observed["distance"], rtol=1e-6)


def test_spectrum_begins_with_the_example_that_is_asked_for():
    bare = of_model(built(kl_weight=0.0))
    loss = of_model(built(kl_weight=0.0, spectrum_weight=2.0, spectrum_start=12))
    for training, first, begun in [(True, 10, [0, 0, 1, 1]), (False, 0, [1, 1, 1, 1])]:
        without, outcome = (f(PARAMS, batch(first), KEYS, training) for f in (bare, loss))
        term = outcome.observed["spectrum"]
        assert (term > 0.01).all()  # a constant offset changes the lowest amplitudes
        expected = without.losses + 2 * np.array(begun) * term
        np.testing.assert_allclose(outcome.losses, expected, rtol=1e-5)
    with pytest.raises(ConfigError, match=r"objective\.spectrum_start must be below"):
        built(spectrum_start=2**32)
