import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rfxray import sample, sampling
from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import Attributes
from rfxray.data.dataset import open_dataset
from rfxray.data.pixels import to_float
from rfxray.errors import ConfigError, DataError, NonFiniteError
from rfxray.evaluate.memorisation import nearest
from rfxray.objectives import flow
from rfxray.runtime import sharding
from rfxray.sampling import pretrained
from rfxray.sampling.pretrained import Model
from rfxray.sampling.sampler import Batches, _programs

FAST = sampling.Settings(steps=3, solver="euler", guidance=1.0, batch_size=2)
ASKED = {"view": "lateral", "age": 40, "cardiomegaly": "present"}


@pytest.fixture(scope="module")
def network(make_config, randomise):
    """A random, untrained network; its velocity depends on every input."""
    config = make_config("objective.prediction=v")
    shapes = pretrained.averaged(config)
    params = randomise(jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes))
    source = {"checkpoint": "none", "step": 0, "ema": 0.05}
    how = (pretrained.velocity(config), pretrained.shape(config))
    return Model(params, *how, sharding.make_mesh(1, 1, 1), source)


def test_index_gives_the_same_image_in_any_batch(network):
    six = sampling.generate(network, ASKED, n=6, settings=FAST)
    assert six.images.shape == (6, 32, 32)
    assert six.images.dtype == np.float32
    assert np.abs(six.images).max() <= 1
    some = sampling.generate(network, ASKED, indices=[4, 1, 5], settings=FAST)
    single = sampling.generate(
        network, ASKED, indices=[3], settings=dataclasses.replace(FAST, batch_size=1)
    )
    # Even in one program the position of a row may change the order of a sum: a few float32
    # roundings of 6e-8, over three steps.
    np.testing.assert_allclose(some.images, six.images[[4, 1, 5]], atol=2e-6)
    np.testing.assert_allclose(single.images[0], six.images[3], atol=2e-6)
    for i in range(5):
        assert np.abs(six.images[i] - six.images[i + 1]).max() > 0.1


def test_seed_determines_the_images(network):
    first = sampling.generate(network, ASKED, n=2, settings=FAST)
    again = sampling.generate(network, ASKED, n=2, settings=FAST)
    other = sampling.generate(network, ASKED, n=2, settings=dataclasses.replace(FAST, seed=1))
    np.testing.assert_array_equal(first.images, again.images)
    assert np.abs(first.images - other.images).max((1, 2)).min() > 0.1


def test_each_row_follows_its_own_attributes(network):
    rows = [{"view": "PA"}, {}, ASKED]
    table = vocabulary.stack([vocabulary.encode(row) for row in rows])
    mixed = sampling.generate(network, table, indices=[7, 7, 7], settings=FAST)
    for image, row in zip(mixed.images, rows, strict=True):
        single = sampling.generate(network, row, indices=[7, 7], settings=FAST)
        np.testing.assert_allclose(image, single.images[0], atol=2e-6)
    assert np.abs(mixed.images[0] - mixed.images[1]).max() > 1e-3
    assert np.abs(mixed.images[1] - mixed.images[2]).max() > 1e-3


def test_arrays_are_checked_and_say_what_words_say(network):
    said = vocabulary.stack([vocabulary.encode({"no_finding": "present"})])
    last = vocabulary.INDEX["no_finding"]
    only = Attributes(np.zeros((1, 19), np.float32), np.arange(19)[None] == last)
    only.values[0, last] = 1
    by_arrays, by_words = (sampling.generate(network, rows, settings=FAST) for rows in (only, said))
    np.testing.assert_array_equal(by_arrays.images, by_words.images)
    np.testing.assert_array_equal(by_arrays.attributes.known, said.known)
    only.values[0, 0], only.known[0, 0] = 7, True  # which would be the row of another attribute
    with pytest.raises(ConfigError, match="view is 7"):
        sampling.generate(network, only, settings=FAST)


def test_guidance_approaching_one_equals_no_guidance(network):
    plain = sampling.generate(network, ASKED, n=2, settings=FAST)
    near, far = (
        sampling.generate(network, ASKED, n=2, settings=dataclasses.replace(FAST, guidance=w))
        for w in (1 + 1e-6, 3.0)
    )
    np.testing.assert_allclose(near.images, plain.images, atol=1e-5)
    assert np.abs(far.images - plain.images).max() > 1e-2


def test_progress_counts_every_image(network):
    seen = []
    sampling.generate(network, ASKED, n=5, settings=FAST, progress=seen.append)
    assert seen == [2, 2, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"solver": "ddim"},
        {"guidance": -0.5},
        {"guidance": float("nan")},
        {"steps": 0},
        {"batch_size": 0},
        {"shift": 0.0},
        {"shift": float("inf")},
        {"shift": 1e9},
        {"seed": -1},
        {"seed": 2**32},
        {"rescale": 1.5},
        {"interval": (0.9, 0.1)},
        {"churn": -1.0},
        {"churn": 1.0, "solver": "heun"},
        {"tolerance": 0.0},
        {"optimised": True, "steps": 1},
        {"last": "mean"},
        {"last": "data", "solver": "adaptive"},
        {"negative": {"view": "oblique"}},
        {"negative": {"no_finding": "present", "edema": "present"}},
    ],
)
def test_invalid_settings_are_rejected(change):
    key, value = next(iter(change.items()))
    with pytest.raises(ConfigError, match=next(iter(value)) if key == "negative" else key):
        sampling.Settings(**change)


def test_invalid_grids_and_groups_are_rejected():
    with pytest.raises(ConfigError, match="'cubic'"):
        sampling.Settings(spacing="cubic")
    with pytest.raises(ConfigError, match="from 1 to 0"):
        sampling.Settings(times=(0.0, 1.0))
    with pytest.raises(ConfigError, match="from 1 to 0"):
        sampling.Settings(times=(1.0, float("nan"), 0.0))
    with pytest.raises(ConfigError, match="sex is in two groups"):
        sampling.Settings(weights=((("sex", "view"), 2.0), (("sex",), 1.0)))
    with pytest.raises(ConfigError, match="guidance=-1"):
        sampling.Settings(weights=((("sex",), -1.0),))


@pytest.mark.parametrize(
    "how",
    [
        {"solver": "adaptive", "tolerance": 1e-2},
        {"solver": "euler", "churn": 1.0},
        {"solver": "exponential", "spacing": "quadratic"},
        {"solver": "ab2", "times": (1.0, 0.7, 0.2, 0.0)},
        {"guidance": 2.0, "weights": ((("view", "age"), 4.0),)},
        {"guidance": 3.0, "interval": (0.2, 0.6)},
        {"guidance": 3.0, "rescale": 0.7},
        {"guidance": 3.0, "optimised": True},
        {"guidance": 3.0, "negative": {"view": "AP"}},
    ],
)
def test_every_option_changes_the_images_reproducibly(network, how):
    settings = dataclasses.replace(FAST, guidance=3.0 if "weights" in how else 1.0)
    settings = dataclasses.replace(settings, **how)
    one, two = (sampling.generate(network, ASKED, n=2, settings=settings).images for _ in range(2))
    np.testing.assert_array_equal(one, two)
    usual = dataclasses.replace(FAST, guidance=settings.guidance)
    assert np.abs(one - sampling.generate(network, ASKED, n=2, settings=usual).images).max() > 1e-4


@pytest.mark.parametrize(
    ("solver", "guidance"),
    [(name, 3.0) for name in (*sampling.SOLVERS, "adaptive", "churn")],
)
def test_skipped_first_step_does_not_evaluate_the_network(solver, guidance):
    """Multistep solvers store nothing from it either."""

    def late(params, x, t, attributes):
        return jnp.where((t < 1)[:, None, None, None], 1.5 * x - 0.2, jnp.nan)

    churn = {"solver": "euler", "churn": 1.0} if solver == "churn" else {"solver": solver}
    settings = sampling.Settings(steps=4, guidance=guidance, optimised=True, **churn)
    model = Model({}, late, (32, 32, 1), sharding.make_mesh(1, 1, 1), {})
    drawn = sampling.generate(model, ASKED, n=1, settings=settings)
    assert np.isfinite(drawn.images).all()
    moving = dataclasses.replace(settings, optimised=False)
    with pytest.raises(NonFiniteError, match="1 of 1 images"):
        sampling.generate(model, ASKED, n=1, settings=moving)


def test_without_weight_the_negative_attributes_are_what_is_drawn(network):
    away = {"view": "AP", "no_finding": "present"}
    settings = dataclasses.replace(FAST, guidance=0.0, negative=away)
    found = sampling.generate(network, ASKED, n=2, settings=settings).images
    wanted = sampling.generate(network, away, n=2, settings=FAST).images
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert settings.negative == tuple(away.items())


@pytest.mark.parametrize(
    "idle",
    [
        {"rescale": 0.5},
        {"interval": (0.1, 0.9)},
        {"optimised": True},
        {"negative": {"view": "AP"}},
    ],
)
def test_settings_of_guidance_are_refused_without_guidance(network, idle):
    (name,) = idle
    settings = dataclasses.replace(FAST, **idle)
    with pytest.raises(ConfigError, match=f"{name} changes guidance.*leave {name} out"):
        sampling.generate(network, ASKED, settings=settings)
    for guided in ({"guidance": 2.0}, {"weights": ((("view",), 2.0),)}):
        dataclasses.replace(settings, **guided).refuse_idle()


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_adaptive_sample_is_accurate_and_does_not_depend_on_its_batch(network, guidance):
    rows = vocabulary.stack([vocabulary.encode(row) for row in ({"view": "PA"}, {}, ASKED)])
    exact = sampling.Settings(steps=100, solver="rk4", guidance=guidance)
    settings = dataclasses.replace(exact, solver="adaptive")
    three = sampling.generate(network, rows, settings=settings).images
    wanted = sampling.generate(network, rows, settings=exact).images

    def distance(a, b):
        """The largest root mean square of an image, the norm of the tolerance."""
        return np.sqrt(((a - b) ** 2).mean((1, 2))).max()

    assert distance(three, wanted) < 2 / 255
    for i in (0, 2):
        only = sampling.generate(
            network, rows.rows(slice(i, i + 1)), indices=[i], settings=settings
        )
        # A rounding may end a step elsewhere, within the tolerance.
        assert distance(only.images, three[i : i + 1]) < 2 / 255


def noisy_end(params, x, t, attributes):
    """The velocity of an x-prediction that knows the image, 0.3 everywhere, and no guidance."""
    return flow.velocity(jnp.full_like(x, 0.3), x, t, "x")


@pytest.mark.parametrize("how", [{}, {"solver": "heun"}, {"solver": "euler", "churn": 1.0}])
@pytest.mark.parametrize("steps", [1, 20, 50, 90])
def test_last_step_to_the_data_estimate_leaves_no_noise(how, steps):
    model = Model({}, noisy_end, (32, 32, 1), sharding.make_mesh(1, 1, 1), {})
    settings = sampling.Settings(steps=steps, last="data", **how)
    np.testing.assert_allclose(
        sampling.generate(model, {}, settings=settings).images, 0.3, atol=1e-5
    )
    if steps >= 50:  # steps along the clamped velocity keep a part of it
        kept = sampling.generate(model, {}, settings=dataclasses.replace(settings, last="velocity"))
        assert kept.images.std() > 1e-3


def test_guidance_and_seed_sweep_compiles_once(network):
    _programs.cache_clear()
    for guidance, seed in ((2.0, 0), (3.0, 0), (2.5, 9)):
        settings = dataclasses.replace(FAST, guidance=guidance, seed=seed)
        sampling.generate(network, ASKED, n=2, settings=settings)
    assert _programs.cache_info().misses == 1
    (start, integrate) = _programs(
        network.velocity, network.shape, settings.program(), network.mesh
    )
    assert (start._cache_size(), integrate._cache_size()) == (1, 1)


def test_integration_donates_the_noise(network):
    draw = Batches(network, FAST, 2)
    attributes = Attributes(np.zeros((2, 19), np.float32), np.zeros((2, 19), bool))
    x = draw._start(jnp.uint32(0), jnp.arange(2, dtype=jnp.uint32))
    draw._integrate(
        *(network.params, None, x, jnp.uint32(0), jnp.float32(1)),
        *(jnp.arange(2, dtype=jnp.uint32), attributes),
    )
    assert x.is_deleted()


@pytest.mark.parametrize(
    "wrong",
    [
        {"attributes": {"veiw": "PA"}, "n": 1},
        {"attributes": {}, "n": 0},
        {"attributes": {}, "n": 2, "indices": [1]},
        {"attributes": {}, "indices": [-1]},
        {"attributes": {}, "indices": [2**32]},
        {"attributes": Attributes(np.zeros((2, 19)), np.zeros((2, 19), bool)), "n": 3},
    ],
)
def test_invalid_requests_are_rejected(network, wrong):
    with pytest.raises(ConfigError):
        sampling.generate(network, **wrong, settings=FAST)


# ---------------------------------------------------------------------------------------------
# From a run


def test_python_api_loads_generates_and_saves(trained, tmp_path):
    model = sampling.load(trained, ema=0.1)
    pictures = sampling.generate(model, {"view": "PA"}, n=2, settings=FAST)
    paths = sampling.save(pictures, tmp_path / "out")

    assert {**model.source, "weights": ""} == {
        "checkpoint": str(trained),
        "step": 12,
        "ema": 0.1,
        "weights": "",
    }
    assert [p.name for p in paths] == ["sample_00000.png", "sample_00001.png"]
    for path, image in zip(paths, pictures.images, strict=True):
        with Image.open(path) as picture:
            assert picture.mode == "I;16"
            # Half a level of 16 bits over the range [-1, 1] is 1.5e-5.
            np.testing.assert_allclose(to_float(np.asarray(picture)), image, atol=1.6e-5)


def test_load_takes_the_requested_step_and_ema(trained):
    params = {
        key: np.concatenate([np.ravel(x) for x in jax.tree.leaves(sampling.load(*key).params)])
        for key in ((trained, 0.05), (trained, 0.1), (trained, 0.05, 6))
    }
    a, b, c = params.values()
    assert not np.array_equal(a, b)
    assert not np.array_equal(a, c)
    with pytest.raises(ConfigError, match=r"only 0\.050, 0\.100"):
        sampling.load(trained, ema=0.07)
    with pytest.raises(ConfigError, match=r"only \[6, 12\]"):
        sampling.load(trained, step=7)
    with pytest.raises(DataError, match="not a workdir"):
        sampling.load(trained / "none")


def test_weak_network_is_of_the_same_step_or_an_earlier_one(trained):
    weak = [
        sampling.load(trained, 0.05, step, weak).source["weak"]["step"]
        for step, weak in ((6, (0.1, None)), (None, (0.1, None)), (12, (0.05, 6)))
    ]
    assert weak == [6, 12, 6]
    with pytest.raises(ConfigError, match="step 6 by step 12"):
        sampling.load(trained, 0.05, 6, (0.1, 12))


def test_run_trained_with_another_attention_kernel_can_be_sampled(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["model"]["attention"] = "splash"
    (run / "config.json").write_text(json.dumps(config))
    drawn = [sampling.generate(sampling.load(w), ASKED, settings=FAST) for w in (run, trained)]
    np.testing.assert_array_equal(drawn[0].images, drawn[1].images)


def test_code_named_only_by_the_run_is_not_executed(trained, tmp_path, refusal):
    run = shutil.copytree(trained, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["objective"]["kind"] = "nowhere.of_mine:build"
    (run / "config.json").write_text(json.dumps(config))
    argv = ["--checkpoint", run, "--out", tmp_path / "out"]
    code, line = refusal(sample.main, argv)
    assert code == 78
    assert "--allow-kind nowhere.of_mine:build" in line
    code, line = refusal(sample.main, [*argv, "--allow-kind", "nowhere.of_mine:build"])
    assert code == 78
    assert "nowhere" in line
    assert "--allow-kind" not in line


def test_two_loads_of_a_run_share_one_velocity_function(trained):
    """Compiled programs are cached by the velocity function, so the second load reuses them."""
    first, second = sampling.load(trained), sampling.load(trained, 0.1)
    assert first.velocity is second.velocity
    assert first.shape == (32, 32, 1)
    assert first.size == 32


def test_nearest_training_image_is_found(tiny_data, tiny_records):
    dataset = open_dataset(tiny_data)
    rng = np.random.default_rng(0)
    real = np.stack([to_float(record["image"]) for record in tiny_records(range(50))])
    samples = real[[3, 41, 7]] + 0.01 * rng.normal(size=(3, 32, 32)).astype(np.float32)
    found = nearest(samples, dataset)
    assert found.keys == [f"phantom/p{i}/s/i" for i in (3, 41, 7)]
    np.testing.assert_array_equal(found.images, real[[3, 41, 7]])
    distances = np.sqrt(np.mean((samples[:, None] - real[None]) ** 2, axis=(2, 3))).min(1)
    # A difference of sums of 1024 squares: 6e-8 of about 0.5, against a distance² of 1e-4.
    np.testing.assert_allclose(found.distances, distances, rtol=1e-2)
    with pytest.raises(ConfigError, match="no split 'test'"):
        nearest(samples, dataset, "test")
    with pytest.raises(ConfigError, match="16²"):
        nearest(samples[:, :16, :16], dataset)
