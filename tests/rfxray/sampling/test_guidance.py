import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import INDEX, Attributes
from rfxray.errors import ConfigError
from rfxray.sampling import guidance as guide

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4)).astype(np.float32)
ASKED = Attributes(RNG.random((3, 19)).astype(np.float32), RNG.random((3, 19)) < 0.7)
KNOWN = ASKED.known
T = 0.3


def network(x, t, attributes):
    """A velocity that depends nonlinearly on every input."""
    values, known = attributes
    assert x.shape[:1] == t.shape == values.shape[:1] == known.shape[:1]
    condition = jnp.where(known, values, -1.0).sum(1)[:, None]
    return jnp.tanh(x * condition) + t[:, None]


def plain(known) -> np.ndarray:
    return np.asarray(network(X, np.full(3, T, np.float32), ASKED._replace(known=known)))


def combined(branches, rule=guide.affine, t=T) -> np.ndarray:
    return np.asarray(jax.jit(guide.guided(network, branches, rule))(X, t))


def test_unguided_is_the_conditional_velocity():
    np.testing.assert_allclose(combined(guide.unguided(ASKED)), plain(KNOWN), rtol=1e-6)


def test_classifier_free_guidance_matches_its_formula():
    full, null = plain(KNOWN), plain(KNOWN & False)
    found = combined(guide.classifier_free(ASKED, 2.5))
    np.testing.assert_allclose(found, null + 2.5 * (full - null), rtol=1e-5)


def test_guidance_away_from_attributes_matches_its_formula():
    away = Attributes(ASKED.values, ~KNOWN)
    full, base = plain(KNOWN), plain(~KNOWN)
    found = combined(guide.classifier_free(ASKED, 2.5, away))
    np.testing.assert_allclose(found, base + 2.5 * (full - base), rtol=1e-5)
    groups = guide.group_masks([["view"]])
    view, rest = (plain(KNOWN & mask) for mask in groups)
    found = combined(guide.factored(ASKED, groups, [2.0, 0.5], away))
    exact = base + 2.0 * (view - base) + 0.5 * (rest - base)
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)


def test_factored_guidance_matches_its_formula():
    groups = guide.group_masks([["view", "sex"], ["edema"]])
    assert groups.shape == (3, 19)
    assert groups.sum(0).tolist() == [1] * 19
    null = plain(KNOWN & False)
    parts = [plain(KNOWN & mask) - null for mask in groups]
    found = combined(guide.factored(ASKED, groups, [2.0, 0.5, 1.0]))
    exact = null + 2.0 * parts[0] + 0.5 * parts[1] + parts[2]
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)


def test_contrast_guides_one_group_given_the_others():
    changed = guide.group_masks([["age"]])[0]
    without, full = plain(KNOWN & ~changed), plain(KNOWN)
    found = combined(guide.contrast(ASKED, changed, 3.0))
    np.testing.assert_allclose(found, without + 3 * (full - without), rtol=1e-4, atol=1e-5)
    # At weight 1, or if nothing is changed, it is the conditional velocity.
    for mask, weight in ((changed, 1.0), (changed & False, 5.0)):
        same = combined(guide.contrast(ASKED, mask, weight))
        np.testing.assert_allclose(same, full, rtol=1e-5, atol=1e-6)


def test_all_branches_run_as_one_batch():
    calls = []

    def counting(x, t, attributes):
        calls.append(len(x))
        return network(x, t, attributes)

    groups = guide.group_masks([["view"], ["sex"]])
    guide.guided(counting, guide.factored(ASKED, groups, [1.0, 1.0, 1.0]))(X, jnp.asarray(T))
    assert calls == [4 * 3]


@pytest.mark.parametrize(("t", "inside"), [(0.05, False), (0.1, True), (0.5, True), (0.95, False)])
def test_weights_are_one_outside_the_interval(t, inside):
    branches = guide.classifier_free(ASKED, 3.0)
    found = combined(branches, guide.within(guide.affine, 0.1, 0.9), t)
    weight = 3.0 if inside else 1.0
    exact = combined(guide.classifier_free(ASKED, weight), t=t)
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("t", [0.05, 0.1, 0.5, 0.9, 0.95])
def test_outside_the_interval_only_the_condition_is_evaluated(t):
    calls = []

    def counting(x, t, attributes):
        calls.append(len(x))
        return network(x, t, attributes)

    branches = guide.classifier_free(ASKED, 3.0)
    with jax.disable_jit():  # a `cond` then runs the one branch that it takes
        found = guide.guided(counting, branches, interval=(0.1, 0.9))(X, jnp.float32(t))
    inside = 0.1 <= np.float32(t) <= np.float32(0.9)
    assert calls == [2 * 3 if inside else 3]
    exact = combined(branches, guide.within(guide.affine, 0.1, 0.9), np.float32(t))
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)


def test_outside_the_interval_autoguidance_is_the_network_itself():
    def scaled(params, x, t, attributes):
        return params["model"] * network(x, t, attributes)

    strong, weak = ({"model": jnp.float32(scale)} for scale in (2.0, 1.0))
    both = guide.autoguided(scaled, strong, weak)
    branches = guide.alike(ASKED, 3.0)
    velocity = guide.guided(
        both, branches, interval=(0.5, 0.9), plain=lambda *given: scaled(strong, *given)
    )
    np.testing.assert_allclose(velocity(X, jnp.float32(T)), 2 * plain(KNOWN), rtol=1e-5)
    np.testing.assert_allclose(
        velocity(X, jnp.float32(0.6)), guide.guided(both, branches)(X, jnp.float32(0.6)), rtol=1e-5
    )


def test_factored_weights_are_one_outside_the_interval():
    branches = guide.factored(ASKED, guide.group_masks([["view"]]), [3.0, 2.0])
    found = guide.guided(network, branches, interval=(0.5, 0.9))(X, jnp.float32(T))
    plain_weights = guide.factored(ASKED, guide.group_masks([["view"]]), [1.0, 1.0])
    np.testing.assert_allclose(found, combined(plain_weights), rtol=1e-5, atol=1e-6)


def test_rescaled_guidance_restores_the_conditional_std():
    branches = guide.classifier_free(ASKED, 4.0)
    full = combined(guide.classifier_free(ASKED, 1.0))
    guided = combined(branches)
    assert not np.allclose(guided.std(1), full.std(1), rtol=0.05)
    np.testing.assert_allclose(
        combined(branches, guide.rescaled(guide.affine, 1.0)).std(1), full.std(1), rtol=1e-4
    )
    np.testing.assert_allclose(combined(branches, guide.rescaled(guide.affine, 0.0)), guided, 1e-5)
    half = combined(branches, guide.rescaled(guide.affine, 0.5))
    np.testing.assert_allclose(half.std(1), (guided.std(1) + full.std(1)) / 2, rtol=1e-4)


def test_optimised_guidance_matches_its_formula():
    branches = guide.classifier_free(ASKED, 3.0)
    full, null = plain(KNOWN), plain(KNOWN & False)
    scale = (full * null).sum(1, keepdims=True) / (null**2).sum(1, keepdims=True)
    found = combined(branches, guide.optimised(guide.affine))
    np.testing.assert_allclose(found, scale * null + 3 * (full - scale * null), rtol=1e-4)


def test_rules_compose():
    rule = guide.within(guide.rescaled(guide.optimised(guide.affine), 0.7), 0.2, 0.8)
    branches = guide.classifier_free(ASKED, 3.0)
    outside = combined(branches, rule, 0.9)
    exact = combined(guide.classifier_free(ASKED, 1.0), t=0.9)
    np.testing.assert_allclose(outside, exact, rtol=1e-4, atol=1e-5)
    assert np.abs(combined(branches, rule, 0.5) - combined(branches, t=0.5)).max() > 1e-3


def test_weight_can_vary_in_space():
    mask = jnp.array([[0.0, 1.0, 0.0, 1.0]])
    found = combined(guide.classifier_free(ASKED, mask * 2.0))
    null, full = plain(KNOWN & False), plain(KNOWN)
    np.testing.assert_allclose(found, np.where(mask > 0, null + 2 * (full - null), null), rtol=1e-4)


def test_autoguidance_extrapolates_from_the_weak_network():
    def scaled(params, x, t, attributes):
        return params["scale"] * network(x, t, attributes)

    both = guide.autoguided(scaled, {"scale": jnp.float32(1.0)}, {"scale": jnp.float32(0.6)})
    branches = guide.alike(ASKED, 2.0)
    found = np.asarray(jax.jit(guide.guided(both, branches))(X, T))
    strong = plain(KNOWN)
    np.testing.assert_allclose(found, 0.6 * strong + 2 * 0.4 * strong, rtol=1e-4, atol=1e-6)


def test_overlapping_or_misspelled_groups_are_rejected():
    with pytest.raises(ConfigError, match="age is in two groups"):
        guide.group_masks([["age"], ["sex", "age"]])
    with pytest.raises(ConfigError, match="'viev'"):
        guide.group_masks([["viev"]])
    masks = guide.group_masks([["Pleural Effusion"]])
    assert masks[0].nonzero()[0].tolist() == [INDEX["pleural_effusion"]]
    assert masks[1].sum() == vocabulary.NUM_ATTRIBUTES - 1
