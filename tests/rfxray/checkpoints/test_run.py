"""The checkpoints of a run: strict restore, resumption, and what is kept."""

import json
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from rfxray.checkpoints import store, weights
from rfxray.checkpoints.run import Checkpoints
from rfxray.config.identity import identity_of
from rfxray.config.load import load_config
from rfxray.errors import ConfigError, DataError, SaveFailed
from rfxray.runtime import sharding
from rfxray.train import open_data
from rfxray.training import recipe, state
from rfxray.training.metrics import fresh
from tests.conftest import ROOT
from tests.rfxray.checkpoints.damage import arrays_of, flip, truncate


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(1, 1, 1)


@pytest.fixture(scope="module")
def config(make_config, tiny_data):
    return make_config(f"data.dirs={tiny_data}")


@pytest.fixture(scope="module")
def checkpoints_of(mesh):
    """`checkpoints_of(workdir, config)`: checkpoints of a run, with the fingerprint of its data."""

    def of(workdir, config, data=None, allow=()):
        built = recipe.build(config)
        data = data or open_data(config, built.model.input_shape).fingerprint
        empty = fresh(built.metrics, sharding.replicated(mesh))
        identity, abstract = identity_of(config, data), state.abstract(built, mesh)
        return Checkpoints(workdir, config, identity, abstract, empty, allow)

    return of


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the trained run, with checkpoints 6 and 12, that a test may damage."""
    return shutil.copytree(trained, tmp_path / "copy")


# ---------------------------------------------------------------------------------------------
# Round trip


def test_save_and_restore_are_bitwise_identical(
    tmp_path, config, mesh, checkpoints_of, assert_bitwise
):
    built = recipe.build(config)
    abstract = state.abstract(built, mesh)
    rng = np.random.default_rng(0)

    def anything(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            return jnp.asarray(rng.integers(1000, size=leaf.shape), leaf.dtype)
        return jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)

    saved = jax.tree.map(anything, abstract)
    empty = fresh(built.metrics, sharding.replicated(mesh))
    accumulated = jax.tree.map(lambda x: (x + 3.5).astype(x.dtype), empty)
    writer = checkpoints_of(tmp_path, config)
    assert writer.latest() is None
    writer.save(7, saved, accumulated, position=56)
    writer.close()

    reader = checkpoints_of(tmp_path, config)
    assert reader.latest() == 7
    found, metrics, position = reader.restore(7)
    reader.close()
    assert_bitwise(found, saved)
    # Every recipe has its own class of accumulators.
    assert_bitwise(*(serialization.to_state_dict(tree) for tree in (metrics, accumulated)))
    assert metrics.compute().keys() == empty.compute().keys()
    assert position == 56


@pytest.fixture(scope="module")
def with_weights(mesh):
    """`with_weights(workdir, not_saved)`: checkpoints of an autoencoder trained with given weights,
    and a state of it."""
    config = load_config(str(ROOT / "tests/rfxray/autoencoder.py"))
    built = recipe.build(config)
    abstract = state.abstract(built, mesh)
    empty = fresh(built.metrics, sharding.replicated(mesh))
    full = jax.device_put(
        jax.tree.map(lambda s: np.arange(s.size, dtype=s.dtype).reshape(s.shape), abstract)
    )

    def of(workdir, not_saved=()):
        identity = identity_of(config, "data", {"parts.perceptual.weights": "a"})
        made = Checkpoints(workdir, config, identity, abstract, empty, not_saved=not_saved)
        return made, full, empty

    return of


@pytest.mark.parametrize("earlier", [False, True])
def test_given_weights_are_not_saved_and_those_of_an_earlier_version_not_read(
    earlier, with_weights, assert_bitwise, tmp_path
):
    writer, full, empty = with_weights(tmp_path, () if earlier else ["perceptual"])
    writer.save(7, full, empty, position=56)
    writer.close()
    names = store.Store(tmp_path / "checkpoints", ("state",)).meta(7)["dtypes"]
    assert any(name.startswith("state/params/perceptual/") for name in names) == earlier
    reader, _, _ = with_weights(tmp_path, ["perceptual"])
    found, _, _ = reader.restore(7)
    reader.close()
    assert found["params"].keys() == {"model", "discriminator"}
    assert_bitwise({**found["params"], "perceptual": full["params"]["perceptual"]}, full["params"])
    assert_bitwise(found["optimizer"], full["optimizer"])
    assert_bitwise(found["ema"], full["ema"])


# ---------------------------------------------------------------------------------------------
# Strictness


@pytest.mark.parametrize(
    ("overrides", "data", "parts"),
    [
        (["model.width=64"], None, ["model.width: 32 there, 64 here"]),
        (["batch_size=16", "seed=3"], None, ["batch_size: 8 there, 16 here", "seed: 0 there"]),
        (["ema_sigmas=0.05"], None, ["ema_sigmas: [0.05, 0.1] there, [0.05] here"]),
        ([], "other images", ["data.fingerprint", "other images here"]),
        (["optim.schedule=cosine"], None, ["optim.schedule", "steps: None there, 12 here"]),
    ],
)
def test_restore_refuses_another_run_and_names_the_keys_that_differ(
    trained, make_config, tiny_data, checkpoints_of, overrides, data, parts
):
    other = checkpoints_of(trained, make_config(f"data.dirs={tiny_data}", *overrides), data)
    with pytest.raises(ConfigError, match="belongs to another run") as caught:
        other.restore(12)
    other.close()
    for part in (*parts, str(trained), "step 12"):
        assert part in str(caught.value)


def test_runtime_keys_may_differ(trained, make_config, tiny_data, checkpoints_of):
    config = make_config(f"data.dirs={tiny_data}", "steps=99", "model.remat=full", "log_every=1")
    reader = checkpoints_of(trained, config)
    assert reader.restore(12)[2] == 96
    reader.close()


# ---------------------------------------------------------------------------------------------
# Resuming


def test_resume_moves_a_damaged_step_and_uses_the_step_before_it(copy, config, checkpoints_of):
    flip(copy / "checkpoints" / "12", 0.5)
    damaged = arrays_of(copy / "checkpoints" / "12").read_bytes()
    reader = checkpoints_of(copy, config)
    step, (_, _, position), (line,) = reader.resume()
    assert (step, position) == (6, 48)
    assert line.startswith(
        f"moved the damaged checkpoint to {copy}/set_aside/12: "
        f"the checkpoint {copy}/checkpoints/12 is damaged"
    )
    assert arrays_of(copy / "set_aside" / "12").read_bytes() == damaged
    assert reader.latest() == 6
    reader.close()


def test_resume_fails_and_moves_nothing_if_every_step_is_damaged(copy, config, checkpoints_of):
    for step in ("6", "12"):
        truncate(copy / "checkpoints" / step)
    for _ in range(2):
        reader = checkpoints_of(copy, config)
        with pytest.raises(DataError, match=r"all 2 checkpoints in .* are damaged") as caught:
            reader.resume()
        reader.close()
        assert "checkpoints/6 is damaged" in str(caught.value)
        assert "checkpoints/12 is damaged" in str(caught.value)
    assert not (copy / "set_aside").exists()


def test_resume_fails_if_every_step_was_moved_aside(copy, config, checkpoints_of):
    (copy / "checkpoints").rename(copy / "set_aside")
    reader = checkpoints_of(copy, config)
    with pytest.raises(DataError, match=r"all checkpoints of .* are in set_aside/; move one back"):
        reader.resume()
    reader.close()


def test_resume_of_a_new_run_returns_none(tmp_path, config, checkpoints_of):
    reader = checkpoints_of(tmp_path, config)
    assert reader.resume() is None
    reader.close()


def test_an_allowed_change_is_accepted_and_recorded_in_later_checkpoints(
    copy, make_config, tiny_data, checkpoints_of
):
    config = make_config(f"data.dirs={tiny_data}", "optim.learning_rate=1e-3", "batch_size=16")
    refusing = checkpoints_of(copy, config, allow=("batch_size",))
    with pytest.raises(
        ConfigError, match=r"optim\.learning_rate: 0\.002 there, 0\.001 here"
    ) as caught:
        refusing.resume()
    refusing.close()
    assert "batch_size" not in str(caught.value)
    changing = checkpoints_of(copy, config, allow=("batch_size", "optim.learning_rate"))
    step, (found, metrics, position), _ = changing.resume()
    assert (step, position) == (12, 96)
    changing.save(13, found, metrics, position=112)
    changing.close()
    after = checkpoints_of(copy, config)
    assert after.resume()[1][2] == 112
    assert after.changes == [
        "from step 12 on, batch_size: 8 there, 16 here",
        "from step 12 on, optim.learning_rate: 0.002 there, 0.001 here",
    ]
    after.close()


def test_steps_cannot_change_after_learning_rate_decay_began(
    copy, make_config, tiny_data, checkpoints_of
):
    wsd = ("optim.schedule=wsd", "optim.decay=4")
    config = make_config(f"data.dirs={tiny_data}", *wsd, "steps=20")
    reader = checkpoints_of(copy, config, allow=("optim.schedule", "optim.decay"))
    reader.restore(6)  # the rate falls in the last 4 of 12 steps
    with pytest.raises(ConfigError, match="steps: 12 there, 20 here"):
        reader.restore(12)
    reader.close()
    reader = checkpoints_of(copy, config, allow=("optim.schedule", "optim.decay", "steps"))
    reader.restore(12)
    assert "from step 12 on, steps: 12 there, 20 here" in reader.changes
    reader.close()


def test_restore_refuses_a_data_position_that_contradicts_the_step(copy, config, checkpoints_of):
    meta = copy / "checkpoints" / "12" / "meta" / "metadata"
    meta.write_text(meta.read_text().replace('"position": 96', '"position": 95'))
    store.seal(copy / "checkpoints" / "12")
    reader = checkpoints_of(copy, config)
    with pytest.raises(DataError, match="has data position 95 instead of 96"):
        reader.restore(12)
    reader.close()


# ---------------------------------------------------------------------------------------------
# Saving


def test_newest_checkpoints_and_multiples_of_keep_every_are_kept(
    copy, make_config, tiny_data, checkpoints_of
):
    keys = ("checkpoint_keep=2", "checkpoint_keep_every=10", "ema_every=5")
    config = make_config(f"data.dirs={tiny_data}", *keys)
    writer = checkpoints_of(copy, config)
    found, metrics, _ = writer.restore(12)
    for step in range(15, 40, 5):
        writer.save(step, found, metrics, position=8 * step)
        writer.snapshot(step, found, position=8 * step)
    writer.close()
    assert steps_in(copy / "checkpoints") == [20, 30, 35]
    assert steps_in(copy / "ema") == [15, 20, 25, 30, 35]
    # A snapshot holds only the averages, and a sampler can restore it.
    names = {p.name for p in (copy / "ema" / "15").iterdir() if p.is_dir()}
    assert names == {"ema_0.050", "ema_0.100", "meta"}
    shapes = jax.tree.map(abstract_of, found["ema"]["0.050"])
    assert weights.restore_ema(copy, shapes, "0.050", step=15)[1] == 15
    assert weights.restore_ema(copy, shapes, "0.050")[1] == 35


def steps_in(folder) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir())


def test_resume_moves_snapshots_of_steps_that_will_be_taken_again(
    copy, make_config, tiny_data, checkpoints_of
):
    config = make_config(f"data.dirs={tiny_data}", "ema_every=3")
    writer = checkpoints_of(copy, config)
    found = writer.restore(12)[0]
    for step in (9, 12, 15):
        writer.snapshot(step, found, position=8 * step)
    writer.close()
    shutil.rmtree(copy / "checkpoints" / "12")  # as a user who returns to an older checkpoint does
    again = checkpoints_of(copy, config)
    step, _, lines = again.resume()
    assert step == 6
    assert [line.split(" to ")[0] for line in lines] == [
        f"moved the snapshot of step {step}" for step in (9, 12, 15)
    ]
    again.snapshot(9, found, position=72)
    again.close()
    assert steps_in(copy / "ema") == [9]
    assert steps_in(copy / "set_aside" / "ema") == [9, 12, 15]


# ---------------------------------------------------------------------------------------------
# A workdir without its checkpoints, and what another run left


def test_run_that_finished_a_save_and_has_no_checkpoint_is_refused(copy, config, checkpoints_of):
    for step in ("6", "12"):
        shutil.rmtree(copy / "checkpoints" / step)
    reader = checkpoints_of(copy, config)
    with pytest.raises(ConfigError, match=r"no checkpoint, but .* first save at step 6; move its"):
        reader.resume()
    reader.close()


def test_run_killed_before_its_first_save_begins_again_and_says_so(
    tmp_path, copy, config, checkpoints_of
):
    source = checkpoints_of(copy, config)
    found, metrics, _ = source.restore(6)
    source.close()
    for starts in range(2):  # the second as if the first was killed
        begun = checkpoints_of(tmp_path / "run", config)
        assert begun.resume() is None
        again = ["an earlier start ended before its first checkpoint: begins again"]
        assert begun.notes == again * starts
        begun.close()
    writer = checkpoints_of(tmp_path / "run", config)
    writer.save(3, found, metrics, position=24)
    writer.close()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["first_save"] == 3


def test_snapshots_of_another_run_are_refused_on_a_fresh_start_and_on_a_resume(
    copy, make_config, tiny_data, checkpoints_of, tmp_path
):
    keys = (f"data.dirs={tiny_data}", "ema_every=3")
    writer = checkpoints_of(copy, make_config(*keys))
    found = writer.restore(12)[0]
    writer.snapshot(3, found, position=24)
    writer.close()
    other = make_config(*keys, "optim.learning_rate=1e-3")
    # A fresh run in a folder that holds only the snapshots of another one.
    fresh = checkpoints_of(shutil.copytree(copy / "ema", tmp_path / "fresh/ema").parent, other)
    with pytest.raises(ConfigError, match=r"ema/3\).*another run \(optim.learning_rate") as caught:
        fresh.resume()
    fresh.close()
    assert "move ema/ to another folder" in str(caught.value)
    # A run that is resumed, and into which somebody copied them.
    (tmp_path / "resumed").mkdir()
    shutil.copytree(copy / "ema", tmp_path / "resumed" / "ema")
    shutil.copytree(copy / "checkpoints", tmp_path / "resumed" / "checkpoints")
    meta = tmp_path / "resumed" / "ema" / "3" / "meta" / "metadata"
    meta.write_text(meta.read_text().replace('"seed": 0', '"seed": 7'))
    resumed = checkpoints_of(tmp_path / "resumed", make_config(*keys))
    with pytest.raises(ConfigError, match=r"ema/3\).*another run \(seed: 7 there, 0 here"):
        resumed.resume()
    resumed.close()


def test_snapshots_from_before_an_allowed_change_stay(copy, make_config, tiny_data, checkpoints_of):
    keys = (f"data.dirs={tiny_data}", "ema_every=3")
    writer = checkpoints_of(copy, make_config(*keys))
    writer.snapshot(3, writer.restore(12)[0], position=24)
    writer.close()
    changed = make_config(*keys, "optim.learning_rate=1e-3")
    writer = checkpoints_of(copy, changed, allow=("optim.learning_rate",))
    _, (found, metrics, _), _ = writer.resume()
    writer.save(13, found, metrics, position=104)
    writer.close()
    again = checkpoints_of(copy, changed)  # the change is recorded now, and needs no flag
    assert again.resume()[0] == 13
    again.close()
    assert steps_in(copy / "ema") == [3]


def test_snapshots_of_an_earlier_start_are_taken_again(
    copy, make_config, tiny_data, checkpoints_of, tmp_path
):
    config = make_config(f"data.dirs={tiny_data}", "ema_every=3")
    writer = checkpoints_of(copy, config)
    writer.snapshot(3, writer.restore(12)[0], position=24)
    writer.close()
    fresh = checkpoints_of(shutil.copytree(copy / "ema", tmp_path / "fresh/ema").parent, config)
    assert fresh.resume() is None
    fresh.close()
    (line,) = fresh.notes
    assert line.startswith("moved the snapshot of step 3 to")
    assert steps_in(tmp_path / "fresh" / "set_aside" / "ema") == [3]


def test_trained_seconds_are_saved_with_a_step(copy, config, checkpoints_of):
    writer = checkpoints_of(copy, config)
    found, metrics, _ = writer.restore(12)
    writer.save(18, found, metrics, position=144, trained=12.5)
    writer.close()
    reader = checkpoints_of(copy, config)
    reader.resume()
    reader.close()
    assert reader.trained == 12.5


def abstract_of(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def test_meta_holds_config_versions_and_data_fingerprint(copy):
    meta = json.loads((copy / "checkpoints" / "12" / "meta" / "metadata").read_text())
    assert meta["config"]["model"]["width"] == 32
    assert meta["versions"]["jax"] == jax.__version__
    assert len(meta["identity"]["data.fingerprint"]) == 64


def test_failed_background_save_raises_save_failed(copy, config, checkpoints_of, monkeypatch):
    writer = checkpoints_of(copy, config)
    found, metrics, _ = writer.restore(12)

    def full(*_):
        raise OSError(28, "No space left on device")

    def save_and_watch():
        writer.save(18, found, metrics, position=144)
        for _ in range(400):
            writer.check()
            time.sleep(0.01)

    monkeypatch.setattr(store, "seal", full)
    with pytest.raises(SaveFailed, match=r"checkpoints/18 could not be saved"):
        save_and_watch()
    again = checkpoints_of(copy, config)
    assert again.resume()[0] == 12
    again.close()
