"""Saved steps of arbitrary trees: round trip, detected damage, reported failures."""

import asyncio
import contextlib
import json
import os
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

from rfxray.checkpoints import store
from rfxray.checkpoints.store import Store
from rfxray.errors import ConfigError, DataError, SaveFailed
from tests.rfxray.checkpoints.damage import arrays_of, flip, truncate


def items_of(step: int) -> dict:
    rng = np.random.default_rng(step)
    weights = rng.normal(size=(64, 96)).astype(np.float32)
    return {
        "state": {"weights": jnp.asarray(weights), "count": jnp.int32(step)},
        "average": {"weights": jnp.asarray(weights[:8], jnp.bfloat16)},
    }


def abstract_of(items: dict) -> dict:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), items)


@contextlib.contextmanager
def opened(folder, items=("state", "average"), **options):
    steps = Store(folder, items, **options)
    yield steps
    steps.close()


def read(folder, step: int, items=("state", "average")) -> dict:
    with opened(folder, items) as steps:
        abstract = abstract_of({name: items_of(step)[name] for name in items})
        return steps.restore(step, abstract, steps.meta(step))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with steps 6 and 12, shared by tests: do not write to it."""
    folder = tmp_path_factory.mktemp("store") / "steps"
    with opened(folder, create=True) as steps:
        for step in (6, 12):
            steps.save(step, items_of(step), {"step": step})
        steps.wait()
    return folder


@pytest.fixture
def copy(written, tmp_path):
    """A copy of these steps that a test may damage."""
    return shutil.copytree(written, tmp_path / "steps")


def test_restored_steps_are_bitwise_identical(written, assert_bitwise):
    for step in (6, 12):
        assert_bitwise(read(written, step), items_of(step))
    with opened(written) as steps:
        assert steps.steps() == [6, 12]
        assert steps.meta(12)["step"] == 12


def test_one_item_is_restored_without_the_others(copy, assert_bitwise):
    shutil.rmtree(copy / "12" / "state")
    found = read(copy, 12, items=("average",))
    assert_bitwise(found, {"average": items_of(12)["average"]})


def test_restore_refuses_other_arrays_and_dtypes(written):
    def refused(change) -> str:
        abstract = abstract_of(items_of(12))
        change(abstract["state"])
        with (
            opened(written) as steps,
            pytest.raises(ConfigError) as caught,
        ):
            steps.restore(12, abstract, steps.meta(12))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def recast(state):
        state["weights"] = state["weights"].update(dtype=jnp.bfloat16)

    assert "stores state/weights as float32 instead of bfloat16" in refused(recast)
    renamed = refused(lambda state: state.update(bias=state.pop("weights")))
    assert "does not hold the arrays of this version" in renamed
    assert "state/bias, state/weights" in renamed


# ---------------------------------------------------------------------------------------------
# Damage


def take_another(step):
    """Replaces the arrays by those of step 6: readable and of the right shapes."""
    shutil.rmtree(step / "state")
    shutil.copytree(step.parent / "6" / "state", step / "state")


def alter_seal(step):
    file = step / "seal.json"
    file.write_text(file.read_text().replace("average/", "overage/", 1))


DAMAGE = {
    "byte flipped at 0.3": lambda step: flip(step, 0.3),
    "byte flipped at 0.6": lambda step: flip(step, 0.6),
    "byte flipped at 0.9": lambda step: flip(step, 0.9),
    "file truncated": truncate,
    "no state": lambda step: shutil.rmtree(step / "state"),
    "array file deleted": lambda step: arrays_of(step).unlink(),
    "no meta": lambda step: shutil.rmtree(step / "meta"),
    "meta torn": lambda step: (step / "meta" / "metadata").write_text('{"step": 12, "id'),
    "meta empty": lambda step: (step / "meta" / "metadata").write_text("{}"),
    "arrays of another step": take_another,
    "no seal": lambda step: (step / "seal.json").unlink(),
    "seal altered": alter_seal,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_detected(copy, damage):
    DAMAGE[damage](copy / "12")
    with pytest.raises(DataError) as caught:
        read(copy, 12)
    assert f"{copy}/12 is damaged" in str(caught.value)
    assert "\n" not in str(caught.value)
    read(copy, 6)


def test_fingerprints_detect_what_a_seal_does_not(copy):
    """As if the arrays had changed in memory before the files were sealed."""
    take_another(copy / "12")
    store.seal(copy / "12")
    with pytest.raises(DataError, match=r"damaged \(state/(weights|count) is not what was saved"):
        read(copy, 12)


def test_seal_covers_every_file_except_those_orbax_writes_when_publishing(written):
    step = written / "12"
    sealed = json.loads((step / "seal.json").read_text())["files"]
    there = {str(path.relative_to(step)) for path in step.rglob("*") if path.is_file()}
    # Orbax writes these when it publishes a step, after the seal.
    assert there - sealed.keys() == {"seal.json", "_CHECKPOINT_METADATA", "commit_success.txt"}


def test_set_aside_never_overwrites_another_step(copy):
    target = copy.parent / "aside"
    (target / "12").mkdir(parents=True)
    with opened(copy) as steps:
        assert steps.set_aside(12, target) == target / "12-1"
        assert steps.steps() == [6]
    assert not any((target / "12").iterdir())
    assert (target / "12-1" / "seal.json").is_file()


# ---------------------------------------------------------------------------------------------
# Saves that fail


@pytest.mark.parametrize("moment", ["at once", "in the background"])
def test_failed_save_raises_save_failed(copy, monkeypatch, moment):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    if moment == "at once":
        monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    else:
        monkeypatch.setattr(store, "seal", full)

    def save_and_watch(steps):
        steps.save(18, items_of(18), {"step": 18})
        for _ in range(400):
            steps.check()
            time.sleep(0.01)

    with (
        opened(copy, create=True) as steps,
        pytest.raises(SaveFailed, match=r"steps/18 could not be saved \(OSError: .*No space"),
    ):
        save_and_watch(steps)
    with opened(copy, create=True) as steps:
        assert steps.steps() == [6, 12]


@pytest.mark.parametrize("file", ["orbax/writes.py", "ours.py"])
def test_write_that_fails_while_a_failed_save_is_closed_shows_no_traceback(copy, caplog, file):
    """Orbax raises the first; the event loop logs what else fails while it is closed."""
    scope = {"asyncio": asyncio}
    code = "async def second():\n  try: await asyncio.sleep(60)\n  finally: raise OSError('second')"
    exec(compile(code, file, "exec"), scope)

    async def save():
        task = asyncio.create_task(scope["second"]())
        await asyncio.sleep(0)
        assert not task.done()
        raise OSError("first")

    with opened(copy), pytest.raises(OSError, match="first"):
        asyncio.run(save())
    assert ("second" in caplog.text) == (file == "ours.py")


def test_a_killed_save_leaves_no_step(copy):
    shutil.copytree(copy / "12", copy / "18.orbax-checkpoint-tmp")
    with opened(copy, create=True) as steps:
        assert steps.steps() == [6, 12]
        steps.save(18, items_of(18), {"step": 18})
        steps.wait()
    assert not list(copy.glob("*tmp*"))
    read(copy, 18)


def test_folder_beside_a_step_does_not_keep_the_step_from_being_saved(copy):
    (copy / "18.bak").mkdir()
    (copy / "18.bak" / "note").write_text("a copy that somebody made")
    shutil.copytree(copy / "12", copy / "12 (copy)")
    with opened(copy, create=True) as steps:
        assert steps.others() == ["12 (copy)", "18.bak"]
        steps.save(18, items_of(18), {"step": 18})
        steps.wait()
        assert (steps.steps(), steps.saved) == ([6, 12, 18], 18)
    read(copy, 18)
    assert (copy / "18.bak" / "note").is_file()


@pytest.mark.parametrize("name", ["0018", "00", "١٨"])
def test_name_that_is_almost_a_step_is_refused(copy, name):
    (copy / "12").rename(copy / name)
    with pytest.raises(ConfigError, match=rf"{name} is not the name of a step; rename it to \d+"):
        Store(copy, ("state",))


@pytest.mark.parametrize(
    ("number", "kind"), [(28, SaveFailed), (27, SaveFailed), (30, ConfigError), (13, ConfigError)]
)
def test_reason_of_a_failed_save_decides_the_exit_code(copy, monkeypatch, number, kind):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(store, "seal", refuse)
    with opened(copy, create=True) as steps:
        steps.save(18, items_of(18), {"step": 18})
        with pytest.raises(kind, match="steps/18 could not be saved"):
            steps.wait()


# ---------------------------------------------------------------------------------------------
# The fingerprint

DTYPES = (np.float32, np.int32, np.uint32, jnp.bfloat16, np.float16, np.int8)


@given(st.sampled_from(DTYPES), st.integers(0, 29), st.integers(0, 7), st.integers(0, 2**32 - 1))
def test_any_flipped_bit_changes_the_fingerprint(dtype, place, bit, seed):
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 256, 30 * np.dtype(dtype).itemsize, np.uint8).view(dtype)
    array = array.reshape(5, 3, 2)
    changed = array.copy()
    size = changed.itemsize
    changed.view(np.uint8).reshape(-1)[place * size + place % size] ^= 1 << bit
    a, b = (int(store.fingerprint({"x": x})["x"]) for x in (array, changed))
    assert a != b


def test_swapped_elements_and_shapes_change_the_fingerprint():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    prints = [int(store.fingerprint(x)) for x in (array, array[::-1], array[:, ::-1], array.T)]
    assert len(set(prints)) == 4


def test_fingerprint_is_the_documented_sum():
    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    bits = array.ravel().view(np.uint32).astype(object)
    expected = sum(b * (2 * i + 1) for i, b in enumerate(bits)) % 2**32
    assert int(store.fingerprint(array)) == expected


def test_fingerprint_gathers_no_sharded_array(environment):
    """Only one number per array is communicated."""
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
