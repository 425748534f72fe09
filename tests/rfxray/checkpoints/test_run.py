import json
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfxray.checkpoints import store, weights
from rfxray.checkpoints.run import Checkpoints
from rfxray.config.identity import identity_of
from rfxray.data import batches
from rfxray.errors import ConfigError, DataError, SaveFailed
from rfxray.networks import radit
from rfxray.runtime import sharding
from rfxray.training import state
from rfxray.training.metrics import TrainMetrics, fresh_metrics


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(1, 1, 1)


@pytest.fixture(scope="module")
def config(make_config, tiny_data):
    return make_config(f"data.dirs={tiny_data}")


@pytest.fixture(scope="module")
def checkpoints_of(mesh):
    """`checkpoints_of(workdir, config)`: a run's checkpoints, with its data's fingerprint."""

    def of(workdir, config, data=None, allow=()):
        data = data or batches.fingerprint(batches.open_datasets(config))
        empty = fresh_metrics(sharding.replicated(mesh))
        identity = identity_of(config, data)
        return Checkpoints(workdir, config, identity, state.abstract(config, mesh), empty, allow)

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
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            return jnp.asarray(rng.integers(1000, size=leaf.shape), leaf.dtype)
        return jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)

    saved = jax.tree.map(anything, abstract)
    accumulated = jax.tree.map(
        lambda x: (x + 3.5).astype(x.dtype), fresh_metrics(sharding.replicated(mesh))
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
    assert type(metrics) is TrainMetrics
    assert position == 56


def test_the_two_profiles_differ_and_each_is_read_alone(copy, config):
    # Without the item `state` there are no parameters and moments to be read.
    shutil.rmtree(copy / "checkpoints" / "12" / "state")
    shapes = radit.abstract(radit.model_config(config))[1]
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes)
    found = {}
    for name in ("0.050", "0.100"):
        found[name], step = weights.restore_ema(copy, shapes, name)
        assert step == 12
        assert jax.tree.structure(found[name]) == jax.tree.structure(shapes)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(*(jax.tree.leaves(tree) for tree in found.values()), strict=True)
    )
    _, step = weights.restore_ema(copy, shapes, "0.050", step=6)
    assert step == 6
    with pytest.raises(ConfigError, match=r"no EMA profile 0\.070, only 0\.050, 0\.100"):
        weights.restore_ema(copy, shapes, "0.070")
    with pytest.raises(ConfigError, match=r"no checkpoint of step 9, only \[6, 12\]"):
        weights.restore_ema(copy, shapes, "0.050", step=9)


def test_a_folder_without_checkpoints_says_so(tmp_path, config):
    with pytest.raises(DataError, match=r"is no workdir of rfxray\.train"):
        weights.read_config(tmp_path)
    with pytest.raises(DataError, match="holds no complete checkpoint"):
        weights.restore_ema(tmp_path, {}, "0.050")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(DataError, match="no complete checkpoint"):
        weights.restore_ema(tmp_path, {}, "0.050")
    (tmp_path / "config.json").write_text('{"torn": ')
    with pytest.raises(DataError, match="does not parse"):
        weights.read_config(tmp_path)


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
    store.seal(copy / "checkpoints" / "12")
    with pytest.raises(ConfigError, match="stores state/params/head as bfloat16"):
        reader.restore(12)
    written["dtypes"]["state/params/neck"] = written["dtypes"].pop("state/params/head")
    meta.write_text(json.dumps(written))
    store.seal(copy / "checkpoints" / "12")
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


# ---------------------------------------------------------------------------------------------
# Going on


def test_a_damaged_step_is_set_aside_and_the_one_before_is_gone_on_from(
    copy, config, checkpoints_of
):
    flip(copy / "checkpoints" / "12", 0.5)
    damaged = arrays_of(copy / "checkpoints" / "12").read_bytes()
    reader = checkpoints_of(copy, config)
    step, (_, _, position), (line,) = reader.resume()
    assert (step, position) == (6, 48)
    assert line.startswith(f"set aside: the checkpoint {copy}/checkpoints/12 is damaged")
    assert str(copy / "set_aside" / "12") in line
    assert arrays_of(copy / "set_aside" / "12").read_bytes() == damaged
    assert reader.latest() == 6
    reader.close()


def test_nothing_that_was_set_aside_is_overwritten(copy, config, checkpoints_of):
    (copy / "set_aside" / "12").mkdir(parents=True)
    flip(copy / "checkpoints" / "12", 0.5)
    reader = checkpoints_of(copy, config)
    reader.resume()
    reader.close()
    assert sorted(p.name for p in (copy / "set_aside").iterdir()) == ["12", "12-1"]


def test_where_no_step_is_whole_nothing_is_moved_and_nothing_begins_afresh(
    copy, config, checkpoints_of
):
    for step in ("6", "12"):
        truncate(copy / "checkpoints" / step)
    for _ in range(2):
        reader = checkpoints_of(copy, config)
        with pytest.raises(DataError, match=r"none of the 2 checkpoints of .* is whole") as caught:
            reader.resume()
        reader.close()
        assert "checkpoints/6 is damaged" in str(caught.value)
        assert "checkpoints/12 is damaged" in str(caught.value)
    assert not (copy / "set_aside").exists()


def test_a_run_whose_every_step_was_set_aside_does_not_begin_afresh(copy, config, checkpoints_of):
    (copy / "checkpoints").rename(copy / "set_aside")
    reader = checkpoints_of(copy, config)
    with pytest.raises(DataError, match="no checkpoint but those in set_aside/"):
        reader.resume()
    reader.close()


def test_a_fresh_run_has_nothing_to_go_on_from(tmp_path, config, checkpoints_of):
    reader = checkpoints_of(tmp_path, config)
    assert reader.resume() is None
    reader.close()


def test_a_killed_save_is_as_if_it_had_not_begun(copy, config, checkpoints_of):
    shutil.copytree(copy / "checkpoints" / "12", copy / "checkpoints" / "18.orbax-checkpoint-tmp")
    reader = checkpoints_of(copy, config)
    assert reader.resume()[0] == 12
    reader.close()
    assert not list((copy / "checkpoints").glob("*tmp*"))


def test_a_change_that_is_allowed_is_gone_on_with_and_written_down(
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


def test_a_run_is_not_lengthened_once_its_rate_has_begun_to_fall(
    copy, make_config, tiny_data, checkpoints_of
):
    wsd = ("optim.schedule=wsd", "optim.decay=4")
    config = make_config(f"data.dirs={tiny_data}", *wsd, "steps=20")
    reader = checkpoints_of(copy, config, allow=("optim.schedule", "optim.decay"))
    reader.restore(6)  # of 12 steps, whose last 4 fall
    with pytest.raises(ConfigError, match="steps: 12 there, 20 here"):
        reader.restore(12)
    reader.close()
    reader = checkpoints_of(copy, config, allow=("optim.schedule", "optim.decay", "steps"))
    reader.restore(12)
    assert "from step 12 on, steps: 12 there, 20 here" in reader.changes
    reader.close()


def test_a_position_that_is_not_the_step_is_refused(copy, config, checkpoints_of):
    meta = copy / "checkpoints" / "12" / "meta" / "metadata"
    meta.write_text(meta.read_text().replace('"position": 96', '"position": 95'))
    store.seal(copy / "checkpoints" / "12")
    reader = checkpoints_of(copy, config)
    with pytest.raises(DataError, match="stands at example 95"):
        reader.restore(12)
    reader.close()


# ---------------------------------------------------------------------------------------------
# Saving


def test_the_newest_are_kept_and_multiples_for_ever(copy, make_config, tiny_data, checkpoints_of):
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
    # A snapshot holds the averages alone, and samplers find it.
    names = {p.name for p in (copy / "ema" / "15").iterdir() if p.is_dir()}
    assert names == {"ema_0.050", "ema_0.100", "meta"}
    shapes = jax.tree.map(abstract_of, found["params"])
    assert weights.restore_ema(copy, shapes, "0.050", step=15)[1] == 15
    assert weights.restore_ema(copy, shapes, "0.050")[1] == 35


def test_a_seal_that_was_altered_seals_nothing(copy, config, checkpoints_of):
    file = copy / "checkpoints" / "12" / "seal.json"
    file.write_text(file.read_text().replace("ema_0.050/", "gma_0.050/", 1))  # of no item
    again = checkpoints_of(copy, config)
    step, _, (line,) = again.resume()
    again.close()
    assert step == 6
    assert "seal.json is not what was written" in line


def steps_in(folder) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir())


def test_snapshots_of_steps_that_will_be_taken_again_are_set_aside(
    copy, make_config, tiny_data, checkpoints_of
):
    config = make_config(f"data.dirs={tiny_data}", "ema_every=3")
    writer = checkpoints_of(copy, config)
    found = writer.restore(12)[0]
    for step in (9, 12, 15):
        writer.snapshot(step, found, position=8 * step)
    writer.close()
    shutil.rmtree(copy / "checkpoints" / "12")  # as who goes back to an older one does
    again = checkpoints_of(copy, config)
    step, _, lines = again.resume()
    assert step == 6
    assert [line.split(";")[0] for line in lines] == [
        f"set aside: the snapshot of step {step}" for step in (9, 12, 15)
    ]
    again.snapshot(9, found, position=72)
    again.close()
    assert steps_in(copy / "ema") == [9]
    assert steps_in(copy / "set_aside" / "ema") == [9, 12, 15]
    # They are no checkpoints: a run that has none left begins afresh.
    shutil.rmtree(copy / "checkpoints" / "6")
    fresh = checkpoints_of(copy, config)
    assert fresh.resume() is None
    fresh.close()


def abstract_of(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def test_a_step_carries_what_made_it(copy):
    meta = json.loads((copy / "checkpoints" / "12" / "meta" / "metadata").read_text())
    assert meta["config"]["model"]["width"] == 32
    assert meta["versions"]["jax"] == jax.__version__
    assert len(meta["identity"]["data.fingerprint"]) == 64
    sealed = json.loads((copy / "checkpoints" / "12" / "seal.json").read_text())["files"]
    there = {
        str(p.relative_to(copy / "checkpoints" / "12"))
        for p in (copy / "checkpoints" / "12").rglob("*")
        if p.is_file()
    }
    # What Orbax writes when it publishes a step, after the seal.
    assert there - sealed.keys() == {"seal.json", "_CHECKPOINT_METADATA", "commit_success.txt"}


def save_and_watch(writer, found, metrics):
    writer.save(18, found, metrics, position=144)
    for _ in range(400):
        writer.check()
        time.sleep(0.01)


@pytest.mark.parametrize("moment", ["at once", "in the background"])
def test_a_save_that_fails_is_said_at_once(copy, config, checkpoints_of, monkeypatch, moment):
    writer = checkpoints_of(copy, config)
    found, metrics, _ = writer.restore(12)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    if moment == "at once":
        monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    else:
        monkeypatch.setattr(store, "seal", full)
    with pytest.raises(
        SaveFailed, match=r"checkpoints/18 could not be saved \(OSError: .*No space"
    ):
        save_and_watch(writer, found, metrics)
    again = checkpoints_of(copy, config)
    assert again.resume()[0] == 12
    again.close()


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
    a, b = (int(store.fingerprint({"x": x})["x"]) for x in (array, changed))
    assert a != b


def test_swapped_elements_and_shapes_change_it():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    prints = [int(store.fingerprint(x)) for x in (array, array[::-1], array[:, ::-1], array.T)]
    assert len(set(prints)) == 4


def test_it_is_the_sum_it_says():
    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    bits = array.ravel().view(np.uint32).astype(object)
    expected = sum(b * (2 * i + 1) for i, b in enumerate(bits)) % 2**32
    assert int(store.fingerprint(array)) == expected


def test_no_sharded_array_is_gathered_for_it(environment):
    """The only thing that travels is one number an array."""
    code = """
import re, jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from rfxray.checkpoints.store import fingerprint
mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("fsdp", "tensor"))
places = {(4, 64, 96): P(None, "fsdp", "tensor"), (128, 32): P("tensor", "fsdp"), (64,): P("fsdp")}
tree = [
    jax.ShapeDtypeStruct(shape, np.float32, sharding=NamedSharding(mesh, place))
    for shape, place in places.items()
]
text = fingerprint.lower(tree).compile().as_text()
kinds = r" (all-[a-z]+|collective-permute|reduce-scatter)(?:-start)?\\("
print(sorted(set(re.findall(kinds, text))))
reduced = re.findall(r"u32\\[([0-9,]*)\\][^ ]* all-reduce", text)
print(max(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in reduced))
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(8),
        capture_output=True,
        text=True,
        timeout=120,
    )
    collectives, elements = run.stdout.splitlines()
    assert collectives == "['all-reduce']"
    assert int(elements) == 1
