import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfxray import checkpoint, input, model, partition, state, telemetry
from rfxray import config as configuration
from rfxray.checkpoint import Checkpoints
from rfxray.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def mesh():
    return partition.make_mesh(1, 1, 1)


@pytest.fixture(scope="module")
def config(make_config, tiny_data):
    return make_config(f"data.dirs={tiny_data}")


@pytest.fixture(scope="module")
def checkpoints_of(mesh):
    """`checkpoints_of(workdir, config)`: a run's checkpoints, with its data's fingerprint."""

    def of(workdir, config, data=None):
        data = data or input.fingerprint(input.open_datasets(config))
        empty = telemetry.fresh_metrics(partition.replicated(mesh))
        identity = configuration.identity(config, data)
        return Checkpoints(workdir, config, identity, state.abstract(config, mesh), empty)

    return of


@pytest.fixture
def copy(trained, tmp_path):
    """A workdir of one's own, with checkpoints 6 and 12, to be damaged."""
    return shutil.copytree(trained, tmp_path / "copy")


# ---------------------------------------------------------------------------------------------
# Round trip


def test_what_is_saved_comes_back_bit_by_bit(
    tmp_path, config, mesh, checkpoints_of, assert_bitwise
):
    abstract = state.abstract(config, mesh)
    rng = np.random.default_rng(0)

    def anything(leaf):
        if leaf.dtype == jnp.int32:
            return jnp.int32(rng.integers(1000))
        return jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)

    saved = jax.tree.map(anything, abstract)
    accumulated = jax.tree.map(
        lambda x: (x + 3.5).astype(x.dtype), telemetry.fresh_metrics(partition.replicated(mesh))
    )
    writer = checkpoints_of(tmp_path, config)
    assert writer.latest() is None
    writer.save(7, saved, accumulated, position=56)
    writer.close()

    reader = checkpoints_of(tmp_path, config)
    assert reader.latest() == 7
    found, metrics, position = reader.restore(7)
    reader.close()
    assert_bitwise(found, saved)
    assert_bitwise(metrics, accumulated)
    assert type(metrics) is telemetry.TrainMetrics
    assert position == 56


def test_the_two_profiles_differ_and_each_is_read_alone(copy, config):
    # Without the item `state` there are no parameters and moments to be read.
    shutil.rmtree(copy / "checkpoints" / "12" / "state")
    shapes = model.abstract(model.model_config(config))[1]
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes)
    found = {}
    for name in ("0.050", "0.100"):
        found[name], step = checkpoint.restore_ema(copy, shapes, name)
        assert step == 12
        assert jax.tree.structure(found[name]) == jax.tree.structure(shapes)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(*(jax.tree.leaves(tree) for tree in found.values()), strict=True)
    )
    _, step = checkpoint.restore_ema(copy, shapes, "0.050", step=6)
    assert step == 6
    with pytest.raises(ConfigError, match=r"no EMA profile 0\.070, only 0\.050, 0\.100"):
        checkpoint.restore_ema(copy, shapes, "0.070")
    with pytest.raises(ConfigError, match=r"no checkpoint of step 9, only \[6, 12\]"):
        checkpoint.restore_ema(copy, shapes, "0.050", step=9)


def test_a_folder_without_checkpoints_says_so(tmp_path, config):
    with pytest.raises(DataError, match=r"is no workdir of rfxray\.train"):
        checkpoint.read_config(tmp_path)
    with pytest.raises(DataError, match="holds no checkpoint"):
        checkpoint.restore_ema(tmp_path, {}, "0.050")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(DataError, match="no complete checkpoint"):
        checkpoint.restore_ema(tmp_path, {}, "0.050")
    (tmp_path / "config.json").write_text('{"torn": ')
    with pytest.raises(DataError, match="does not parse"):
        checkpoint.read_config(tmp_path)


# ---------------------------------------------------------------------------------------------
# Strictness


@pytest.mark.parametrize(
    ("overrides", "data", "parts"),
    [
        (["model.width=64"], None, ["model.width: 32 there, 64 here"]),
        (["batch_size=16", "seed=3"], None, ["batch_size: 8 there, 16 here", "seed: 0 there"]),
        (["ema_sigmas=0.05"], None, ["ema_sigmas: [0.05, 0.1] there, [0.05] here"]),
        ([], "other pictures", ["data.fingerprint", "other pictures here"]),
        (["optim.schedule=cosine"], None, ["optim.schedule", "steps: None there, 12 here"]),
    ],
)
def test_another_run_is_refused_with_the_keys_that_differ(
    trained, make_config, tiny_data, checkpoints_of, overrides, data, parts
):
    other = checkpoints_of(trained, make_config(f"data.dirs={tiny_data}", *overrides), data)
    with pytest.raises(ConfigError, match="belongs to another run") as caught:
        other.restore(12)
    other.close()
    for part in (*parts, str(trained), "step 12"):
        assert part in str(caught.value)


def test_runtime_keys_do_not_matter(trained, make_config, tiny_data, checkpoints_of):
    config = make_config(f"data.dirs={tiny_data}", "steps=99", "remat=full", "log_every=1")
    reader = checkpoints_of(trained, config)
    assert reader.restore(12)[2] == 96
    reader.close()


def test_another_tree_or_dtype_under_the_same_identity_is_refused(
    copy, config, mesh, checkpoints_of
):
    """As after a change of the code that no config key tells."""
    reader = checkpoints_of(copy, config)
    meta = copy / "checkpoints" / "12" / "meta" / "metadata"
    written = json.loads(meta.read_text())
    written["dtypes"]["state/params/head"] = "bfloat16"
    meta.write_text(json.dumps(written))
    with pytest.raises(ConfigError, match="stores state/params/head as bfloat16"):
        reader.restore(12)
    written["dtypes"]["state/params/neck"] = written["dtypes"].pop("state/params/head")
    meta.write_text(json.dumps(written))
    with pytest.raises(ConfigError, match="state/params/head, state/params/neck"):
        reader.restore(12)
    reader.close()


# ---------------------------------------------------------------------------------------------
# Damage


def arrays_of(step):
    return max(
        (f for f in (step / "state").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size
    )


def flip(step, share):
    file = arrays_of(step)
    data = bytearray(file.read_bytes())
    data[int(share * len(data))] ^= 0x40
    file.write_bytes(data)


def truncate(step):
    file = arrays_of(step)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGE = {
    **{
        f"a byte flipped at {share}": (lambda step, s=share: flip(step, s))
        for share in (0.3, 0.6, 0.9)
    },
    "a file truncated": truncate,
    "no state": lambda step: shutil.rmtree(step / "state"),
    "an array file deleted": lambda step: arrays_of(step).unlink(),
    "no meta": lambda step: shutil.rmtree(step / "meta"),
    "meta torn": lambda step: (step / "meta" / "metadata").write_text('{"step": 12, "id'),
    "meta of nothing": lambda step: (step / "meta" / "metadata").write_text("{}"),
    # Readable, of the right shapes, and not what was saved under this step.
    "the arrays of another step": lambda step: (
        shutil.rmtree(step / "state"),
        shutil.copytree(step.parent / "6" / "state", step / "state"),
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_said(copy, config, checkpoints_of, damage):
    DAMAGE[damage](copy / "checkpoints" / "12")
    reader = checkpoints_of(copy, config)
    with pytest.raises(DataError) as caught:
        reader.restore(12)
    reader.close()
    line = str(caught.value)
    assert "\n" not in line
    assert f"{copy}/checkpoints/12 is damaged" in line


def test_moving_a_damaged_step_away_goes_on_from_the_one_before(copy, config, checkpoints_of):
    flip(copy / "checkpoints" / "12", 0.5)
    (copy / "checkpoints" / "12").rename(copy / "damaged")
    reader = checkpoints_of(copy, config)
    assert reader.latest() == 6
    assert reader.restore(6)[2] == 48
    reader.close()


# ---------------------------------------------------------------------------------------------
# The fingerprint

DTYPES = (np.float32, np.int32, np.uint32, jnp.bfloat16, np.float16, np.int8)


@given(st.sampled_from(DTYPES), st.integers(0, 29), st.integers(0, 7), st.integers(0, 2**32 - 1))
def test_any_flipped_bit_of_any_element_changes_it(dtype, place, bit, seed):
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 256, 30 * np.dtype(dtype).itemsize, np.uint8).view(dtype)
    array = array.reshape(5, 3, 2)
    changed = array.copy()
    size = changed.itemsize
    changed.view(np.uint8).reshape(-1)[place * size + place % size] ^= 1 << bit
    a, b = (int(checkpoint.fingerprint({"x": x})["x"]) for x in (array, changed))
    assert a != b


def test_swapped_elements_and_shapes_change_it():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    prints = [int(checkpoint.fingerprint(x)) for x in (array, array[::-1], array[:, ::-1], array.T)]
    assert len(set(prints)) == 4


def test_it_is_the_sum_it_says():
    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    bits = array.ravel().view(np.uint32).astype(object)
    expected = sum(b * (2 * i + 1) for i, b in enumerate(bits)) % 2**32
    assert int(checkpoint.fingerprint(array)) == expected
