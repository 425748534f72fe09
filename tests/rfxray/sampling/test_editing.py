import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import INDEX, Attributes
from rfxray.errors import ConfigError, NonFiniteError
from rfxray.runtime import sharding
from rfxray.sampling import editing, solvers
from rfxray.sampling.editing import EditSettings
from rfxray.sampling.pretrained import Model

SIZE = 32
WIDTH = 0.5  # standard deviation of the images around their mean
HALF = np.zeros((SIZE, SIZE), bool)
HALF[:, : SIZE // 2] = True


def level(attributes):
    """Mean grey level under a condition, [n, 1, 1, 1]: two findings and the view add to it."""
    total = 0.0
    for name, amount in (("edema", 0.4), ("fracture", -0.3), ("view", 0.2)):
        i = INDEX[name]
        value = amount * attributes.values[:, i]
        total = total + jnp.where(attributes.known[:, i], value, 0.0)
    return total[:, None, None, None]


def velocity(params, x, t, attributes):
    """The exact flow of images with independent pixels N(level, WIDTH²)."""
    t = t[:, None, None, None]
    mean = level(attributes)
    slope = (t - (1 - t) * WIDTH**2) / ((1 - t) ** 2 * WIDTH**2 + t**2)
    return -mean + slope * (x - (1 - t) * mean)


@pytest.fixture(scope="module")
def exact():
    """A model with known counterfactuals: pixels move by the difference of the levels."""
    source = {"checkpoint": "none", "step": 0, "ema": 0.05}
    return Model({}, velocity, (SIZE, SIZE, 1), sharding.make_mesh(1, 1, 1), source)


def condition(n=3, **values) -> Attributes:
    return vocabulary.stack([vocabulary.encode(values)] * n)


IMAGES = np.random.default_rng(0).normal(0, 0.2, (3, SIZE, SIZE)).clip(-0.5, 0.5).astype(np.float32)
BEFORE = condition(edema="absent", fracture="absent", view="PA")
AFTER = condition(edema="present", fracture="absent", view="PA")
FAST = EditSettings(steps=16, guidance=1.0)
MOVED = 0.4  # change of every pixel from BEFORE to AFTER


@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_edit_equals_the_exact_counterfactual(exact, floor):
    how = dataclasses.replace(FAST, floor=floor, corrections=4)
    edited = editing.edit(exact, IMAGES, BEFORE, AFTER, how)
    np.testing.assert_allclose(edited, np.clip(IMAGES + MOVED, -1, 1), atol=2e-3)


@pytest.mark.parametrize("guide", editing.GUIDES)
def test_edit_without_a_change_returns_the_image(exact, guide):
    how = dataclasses.replace(FAST, guide=guide, corrections=4)
    same = editing.edit(exact, IMAGES, BEFORE, BEFORE, how)
    np.testing.assert_allclose(same, IMAGES, atol=1e-4)


def test_abducted_noise_has_unit_std_and_reproduces_the_image(exact):
    rng = np.random.default_rng(1)
    drawn = (rng.normal(size=(3, SIZE, SIZE)) * WIDTH).astype(np.float32)  # std of model samples
    how = dataclasses.replace(FAST, floor=0.0, steps=50, corrections=4)
    path = editing.abduct(exact, drawn, BEFORE, how)
    assert path.states.shape == (3, 51, SIZE, SIZE, 1)
    np.testing.assert_array_equal(path.states[:, -1, ..., 0], drawn)
    np.testing.assert_array_equal(path.images, drawn)
    assert path.states[:, 0].std() == pytest.approx(1.0, abs=0.03)
    back = editing.predict(exact, path, BEFORE, BEFORE, how)
    np.testing.assert_allclose(back, np.clip(drawn, -1, 1), atol=1e-4)


def test_reversed_edit_restores_the_image(exact):
    how = dataclasses.replace(FAST, corrections=4)
    there = editing.edit(exact, IMAGES, BEFORE, AFTER, how)
    back = editing.edit(exact, there, AFTER, BEFORE, how)
    np.testing.assert_allclose(back, IMAGES, atol=2e-3)


@pytest.mark.parametrize("guide", editing.GUIDES)
def test_guidance_amplifies_the_change(exact, guide):
    shifts = [
        float((editing.edit(exact, IMAGES, BEFORE, AFTER, how) - IMAGES).mean())
        for how in (dataclasses.replace(FAST, guide=guide, guidance=w) for w in (1.0, 2.0))
    ]
    assert shifts[1] > shifts[0] + 0.1


def test_only_plain_guidance_also_amplifies_unchanged_attributes(exact):
    before = condition(edema="absent", fracture="present", view="PA")
    after = condition(edema="present", fracture="present", view="PA")
    by = {}
    for guide in editing.GUIDES:
        how = dataclasses.replace(FAST, guide=guide, guidance=2.0)
        by[guide] = float((editing.edit(exact, IMAGES, before, after, how) - IMAGES).mean())
    # Guidance 2 doubles the 0.4 of edema; plain guidance also doubles the −0.3 of fracture.
    assert by["contrast"] == pytest.approx(0.8, abs=0.02)
    assert by["factored"] == pytest.approx(0.8, abs=0.02)
    assert by["plain"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("method", editing.METHODS)
def test_kept_pixels_are_bitwise_unchanged(exact, method):
    how = dataclasses.replace(FAST, method=method)
    edited = editing.edit(exact, IMAGES, BEFORE, AFTER, how, keep=HALF)
    np.testing.assert_array_equal(edited[:, HALF], IMAGES[:, HALF])
    assert np.abs(edited - IMAGES)[:, ~HALF].mean() > 0.1


@pytest.mark.parametrize("method", ["invert", "flow"])
def test_edit_stays_inside_its_mask(exact, method):
    how = dataclasses.replace(FAST, method=method, corrections=4)
    edited = editing.edit(exact, IMAGES, BEFORE, AFTER, how, mask=HALF)
    np.testing.assert_allclose(edited[:, ~HALF], IMAGES[:, ~HALF], atol=1e-3)
    np.testing.assert_allclose(
        (edited - IMAGES)[:, HALF].mean(), MOVED, atol=0.01 if method == "invert" else 0.1
    )


def test_noise_with_an_edit_mask_requires_a_keep_mask(exact):
    how = dataclasses.replace(FAST, method="noise")
    with pytest.raises(ConfigError, match=r"outside of an edit mask.*--keep.*--inpaint"):
        editing.edit(exact, IMAGES, BEFORE, AFTER, how, mask=HALF)
    both = editing.edit(exact, IMAGES, BEFORE, AFTER, how, mask=HALF, keep=~HALF)
    np.testing.assert_array_equal(both[:, ~HALF], IMAGES[:, ~HALF])


@pytest.mark.parametrize("method", editing.METHODS)
def test_nonfinite_edit_raises(exact, method):
    def broken(params, x, t, attributes):
        i = INDEX["edema"]
        lost = (attributes.known[:, i] & (attributes.values[:, i] > 0))[:, None, None, None]
        return jnp.where(lost, jnp.nan, velocity(params, x, t, attributes))

    model = dataclasses.replace(exact, velocity=broken)
    with pytest.raises(NonFiniteError, match="3 of 3 images are not finite"):
        editing.edit(model, IMAGES, BEFORE, AFTER, dataclasses.replace(FAST, method=method))


def test_kept_pixels_have_the_noise_level_of_the_time_arrived_at(exact, monkeypatch):
    """The previous time would leave the kept region noisier than the rest at every step."""
    times, arrived = [], []
    integrate = solvers.integrate

    def watching(velocity, x, grid, solver, arrive=None):
        for k in range(1, len(grid)):
            times.append(float(grid[k]))
            arrived.append(np.asarray(arrive(x, k))[:, HALF, 0].std())
        return integrate(velocity, x, grid, solver, arrive)

    monkeypatch.setattr(editing.solvers, "integrate", watching)
    editing._descent.cache_clear()
    editing._ascent.cache_clear()
    import jax

    how = dataclasses.replace(FAST, method="noise", steps=8)
    with jax.disable_jit():
        editing.edit(exact, IMAGES, BEFORE, AFTER, how, keep=HALF)
    editing._descent.cache_clear()
    editing._ascent.cache_clear()
    exact_spread = np.sqrt((1 - np.array(times)) ** 2 * 0.2**2 + np.array(times) ** 2)
    np.testing.assert_allclose(arrived, exact_spread, rtol=0.06)


def test_lower_strength_changes_the_image_less(exact):
    far, near = (
        editing.edit(exact, IMAGES, BEFORE, AFTER, dataclasses.replace(FAST, strength=s, floor=0.1))
        for s in (1.0, 0.3)
    )
    assert 0 < np.abs(near - IMAGES).mean() < 0.8 * np.abs(far - IMAGES).mean()


def test_guidance_sweep_compiles_once(exact):
    editing._descent.cache_clear()
    path = editing.abduct(exact, IMAGES, BEFORE, FAST)
    for guidance in (1.0, 2.0, 3.0):
        how = dataclasses.replace(FAST, guidance=guidance)
        editing.predict(exact, path, BEFORE, AFTER, how)
    assert editing._descent.cache_info().misses == 1
    run = editing._descent(exact.velocity, FAST.program(), False, False)
    assert run._cache_size() == 1


def test_edit_does_not_depend_on_the_batch_size(exact):
    last = slice(2, None)
    single = editing.edit(exact, IMAGES[last], BEFORE.rows(last), AFTER.rows(last), FAST)
    small = dataclasses.replace(FAST, batch_size=2)
    seen = []
    pair = editing.edit(exact, IMAGES, BEFORE, AFTER, small, progress=seen.append)
    assert seen == [2, 1]
    np.testing.assert_allclose(pair[2] - IMAGES[2], single[0] - IMAGES[2], atol=5e-3)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"method": "magic"}, "'magic'.*invert"),
        ({"guide": "none"}, "'none'.*contrast"),
        ({"guidance": -1.0}, "guidance=-1"),
        ({"unchanged": float("nan")}, "unchanged=nan"),
        ({"strength": 0.0}, "strength=0"),
        ({"strength": 0.1, "floor": 0.2}, "strength=0.1"),
        ({"steps": 0}, "steps"),
        ({"seed": -1}, "seed=-1"),
        ({"solver": "ddim"}, "'ddim'"),
        ({"solver": "ab2"}, "ab2.*inverted"),
    ],
)
def test_invalid_settings_are_rejected(change, part):
    with pytest.raises(ConfigError, match=part):
        EditSettings(**change)


def test_wrong_sizes_and_abduction_by_flow_are_rejected(exact):
    with pytest.raises(ConfigError, match=r"16 × 16.*32 × 32"):
        editing.edit(exact, IMAGES[:, :16, :16], BEFORE, AFTER, FAST)
    with pytest.raises(ConfigError, match="an edit mask of 8 × 8"):
        editing.edit(exact, IMAGES, BEFORE, AFTER, FAST, mask=np.ones((8, 8)))
    with pytest.raises(ConfigError, match="a keep mask of 8 × 8"):
        editing.edit(exact, IMAGES, BEFORE, AFTER, FAST, keep=np.ones((8, 8), bool))
    with pytest.raises(ConfigError, match="FlowEdit"):
        editing.abduct(exact, IMAGES, BEFORE, dataclasses.replace(FAST, method="flow"))
