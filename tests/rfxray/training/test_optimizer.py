import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate

from rfxray.checkpoints import weights
from rfxray.networks import kinds as networks
from rfxray.training import ema, optimizer


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.1, 0.2, 0.25])
def test_profile_with_ema_gamma_has_relative_width_sigma(sigma):
    gamma = ema.ema_gamma(sigma)
    assert gamma > 0

    def moment(n):
        # With t = e^-y the quadrature does not miss the peak of a steep profile.
        return scipy.integrate.quad(
            lambda y: np.exp(-(gamma + 1 + n) * y), 0, np.inf, epsabs=0, epsrel=1e-12
        )[0]

    mean = moment(1) / moment(0)
    width = np.sqrt(moment(2) / moment(0) - mean**2)
    assert width == pytest.approx(sigma, rel=1e-6)


def test_ema_update_averages_the_history_with_the_profile():
    sigma, steps = 0.1, 40
    rng = np.random.default_rng(0)
    history = rng.normal(size=(steps, 3))
    average = {"w": jnp.asarray(rng.normal(size=3), jnp.float32)}  # forgotten at the first step
    for step, value in enumerate(history, 1):
        params = {"w": jnp.asarray(value, jnp.float32)}
        average = ema.ema_update(average, params, jnp.int32(step), sigma)
    # The weight of step i is the part of ∫ tᵞ dt from (i − 1)/n to i/n.
    edges = (np.arange(steps + 1) / steps) ** (ema.ema_gamma(sigma) + 1)
    np.testing.assert_allclose(average["w"], np.diff(edges) @ history, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step", [1, 10, 12_345, 555_555, 762_939, 16_000_000])
def test_weight_of_the_newest_parameters_is_exact_late_in_a_run(step):
    sigma = 0.05
    beta = (1 - 1 / step) ** (ema.ema_gamma(sigma) + 1)  # float64
    average = ema.ema_update(jnp.float32(0.0), jnp.float32(1.0), jnp.int32(step), sigma)
    np.testing.assert_allclose(average, 1 - beta, rtol=1e-5)


def test_ema_name_is_the_width_with_three_decimals():
    assert weights.ema_name(0.05) == "0.050"


# ---------------------------------------------------------------------------------------------
# Schedules


def rates(config, *steps):
    schedule = optimizer.schedule(config.optim, config.steps)
    return [float(schedule(step)) for step in steps]


def test_warmup_is_linear_and_starts_above_zero(make_config):
    config = make_config("optim.learning_rate=1.0", "optim.warmup=4", "steps=100")
    np.testing.assert_allclose(rates(config, *range(6)), [0.25, 0.4375, 0.625, 0.8125, 1, 1])


def test_constant_schedule_without_warmup_is_constant(make_config):
    config = make_config("optim.learning_rate=0.5", "optim.warmup=0", "steps=100")
    assert rates(config, 0, 1, 99, 1000) == [0.5] * 4


def test_cosine_schedule_ends_at_zero(make_config):
    config = make_config(
        "optim.learning_rate=1.0", "optim.warmup=20", "optim.schedule=cosine", "steps=120"
    )
    found = rates(config, 0, 20, 70, 120, 150)
    np.testing.assert_allclose(found, [0.05, 1.0, 0.5, 0.0, 0.0], atol=1e-6)


def test_wsd_schedule_is_flat_then_falls_along_one_minus_root(make_config):
    config = make_config(
        *("optim.learning_rate=1.0", "optim.warmup=10", "optim.schedule=wsd"),
        *("optim.decay=40", "steps=100"),
    )
    found = rates(config, 10, 59, 60, 70, 100, 200)
    np.testing.assert_allclose(found, [1.0, 1.0, 1.0, 0.5, 0.0, 0.0], atol=1e-6)


def test_wsd_schedule_before_the_decay_does_not_depend_on_steps(make_config):
    keys = ("optim.warmup=10", "optim.schedule=wsd", "optim.decay=40")
    short, long = (make_config(*keys, f"steps={n}") for n in (100, 1000))
    assert rates(short, *range(61)) == rates(long, *range(61))


# ---------------------------------------------------------------------------------------------
# The optimizer

SCALES_AND_BIASES = {
    *("blocks/query_scale", "blocks/key_scale", "blocks/modulation_bias"),
}


@pytest.fixture(scope="module")
def leaves(make_config, randomise):
    network = networks.build(make_config().model)
    ones = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), network.shapes)
    return randomise(ones), network.axes


def names(tree):
    pairs, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in pairs}


def test_weight_decay_skips_scales_and_biases(make_config, leaves):
    params, axes = leaves
    config = make_config(
        "optim.weight_decay=0.1", "optim.learning_rate=0.5", "optim.warmup=0", "steps=10"
    )
    transformation = optimizer.build(config.optim, config.steps, axes)
    nothing = jax.tree.map(np.zeros_like, params)
    update = jax.jit(transformation.update)
    updates, _ = update(nothing, transformation.init(params), params)
    after = names(optax.apply_updates(params, updates))
    kept = {name for name, value in names(params).items() if np.array_equal(after[name], value)}
    assert kept == SCALES_AND_BIASES
    for name in after.keys() - kept:
        np.testing.assert_allclose(after[name], 0.95 * names(params)[name], rtol=1e-6)


def test_gradient_is_clipped_by_its_global_norm(make_config, leaves):
    params, axes = leaves
    config = make_config("optim.clip=1.0", "optim.warmup=0")
    transformation = optimizer.build(config.optim, config.steps, axes)
    gradient = jax.tree.map(np.ones_like, params)
    norm = np.sqrt(sum(leaf.size for leaf in jax.tree.leaves(gradient)))
    assert norm > 1
    update, begin = jax.jit(transformation.update), transformation.init(params)
    _, clipped = update(gradient, begin, params)
    _, plain = update(jax.tree.map(lambda g: g / norm, gradient), begin, params)
    for a, b in zip(jax.tree.leaves(clipped), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
