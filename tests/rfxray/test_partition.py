"""One run on one device and on meshes of eight: this file is also the program that eight run.

`python test_partition.py CONFIG_JSON OUT` sees the devices of its environment, does everything once
and leaves what it found in OUT; the tests look at that.
"""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import ml_collections
import numpy as np
import pytest

from rfxray import checkpoint, devices, input, model, partition, state, step, telemetry
from rfxray import config as configuration
from rfxray.checkpoint import Checkpoints
from rfxray.errors import ConfigError

MESHES = {
    "1 device": (1, 1, 1),
    "data 8": (8, 1, 1),
    "fsdp 8": (1, 8, 1),
    "2 × 2 × 2": (2, 2, 2),
    "fsdp 4 × tensor 2": (1, 4, 2),
}
STEPS, SAVED = 5, 3


# ---------------------------------------------------------------------------------------------
# What the process of eight devices does


def mesh_of(name):
    shape = MESHES[name]
    return partition.make_mesh(*shape, devices=jax.devices()[: int(np.prod(shape))])


def on_host(tree):
    return jax.tree.map(np.asarray, tree)


def go_on(config, datasets, take, mesh, train_state, begin, end):
    """(state, metrics, losses) of steps begin + 1 … end."""
    loader = input.batches(config, datasets, begin)
    losses = []
    with jax.set_mesh(mesh):
        for _ in range(begin, end):
            metrics = telemetry.fresh_metrics(partition.replicated(mesh))
            batch = partition.global_batch(mesh, next(loader))
            train_state, metrics = take(train_state, metrics, batch)
            losses.append(float(metrics.compute()["loss"]))
    return train_state, metrics, losses


def eight_devices(config, out: Path) -> None:
    datasets = input.open_datasets(config)
    identity = configuration.identity(config, input.fingerprint(datasets))
    found, programs = {}, {}
    for name in MESHES:
        mesh = mesh_of(name)
        train_state = state.init(config, mesh)
        first = on_host((train_state["params"], checkpoint.fingerprint(train_state)))
        if name == "fsdp 8":
            program = checkpoint.fingerprint.lower(train_state).compile().as_text()
        parts = {
            place: (leaf.shape, leaf.addressable_shards[0].data.shape)
            for place, leaf in named(train_state)
        }
        take = programs[name] = jax.jit(step.train_step(config), donate_argnums=0)
        train_state, metrics, losses = go_on(config, datasets, take, mesh, train_state, 0, SAVED)
        if name == "2 × 2 × 2":
            writer = Checkpoints(out, config, identity, state.abstract(config, mesh), metrics)
            writer.save(SAVED, train_state, metrics, SAVED * config.batch_size)
            writer.close()
            saved = on_host(train_state)
        train_state, _, more = go_on(config, datasets, take, mesh, train_state, SAVED, STEPS)
        found[name] = {"first": first, "parts": parts, "losses": losses + more}

    for name in ("fsdp 4 × tensor 2", "1 device"):
        mesh = mesh_of(name)
        empty = telemetry.fresh_metrics(partition.replicated(mesh))
        reader = Checkpoints(out, config, identity, state.abstract(config, mesh), empty)
        train_state, _, _ = reader.restore(SAVED)
        reader.close()
        place = train_state["params"]["blocks"]["qkv"].sharding
        found[name]["restored"] = (on_host(train_state), str(place.spec))
        _, _, losses = go_on(config, datasets, programs[name], mesh, train_state, SAVED, STEPS)
        found[name]["losses after"] = losses
    found |= {"saved": saved, "fingerprint program": program}
    (out / "found.pickle").write_bytes(pickle.dumps(found))


def named(tree):
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


# ---------------------------------------------------------------------------------------------
# What must be found


@pytest.fixture(scope="module")
def found(tmp_path_factory, make_config, tiny_data, environment):
    config = make_config(f"data.dirs={tiny_data}")
    out = tmp_path_factory.mktemp("eight")
    variables = environment(8)
    # Twice as fast to compile; the arithmetic of the meshes is compared with each other only.
    variables["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, __file__, config.to_json_best_effort(), str(out)],
        env=variables,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return pickle.loads((out / "found.pickle").read_bytes())


# Sums over a batch, a width or a head run in another order on each mesh: an error of 6e-8 a sum,
# which Adam's division by √v magnifies where a gradient is near 0. A wrong key, a wrong reduction
# or a lost shard shows at 1e-2.
TOLERANCE = 1e-5


@pytest.mark.parametrize("name", list(MESHES)[1:])
def test_initial_parameters_and_fingerprints_are_the_same_on_every_mesh(
    found, name, assert_bitwise
):
    assert_bitwise(found[name]["first"], found["1 device"]["first"])


@pytest.mark.parametrize("name", list(MESHES)[1:])
def test_losses_are_those_of_one_device(found, name):
    alone = found["1 device"]["losses"]
    assert len(set(alone)) == STEPS
    np.testing.assert_allclose(found[name]["losses"], alone, rtol=TOLERANCE)


def test_fsdp_splits_parameters_moments_and_averages_by_eight(found):
    parts = found["fsdp 8"]["parts"]
    whole_only = {"query_scale", "key_scale", "step", "count"}
    for place, (whole, part) in parts.items():
        expected = 1 if place.split("/")[-1] in whole_only else 8
        assert np.prod(whole, dtype=int) == expected * np.prod(part, dtype=int), place
    for tree in ("params", "optimizer/1/0/mu", "optimizer/1/0/nu", "ema/0.050", "ema/0.100"):
        assert parts[f"{tree}/blocks/qkv"] == ((2, 32, 3, 2, 16), (2, 4, 3, 2, 16))


def test_tensor_splits_heads_and_the_width_of_swiglu(found):
    parts = found["fsdp 4 × tensor 2"]["parts"]
    assert parts["params/blocks/qkv"][1] == (2, 8, 3, 1, 16)
    assert parts["params/blocks/attention_out"][1] == (2, 1, 16, 8)
    assert parts["params/blocks/up"][1] == (2, 8, 24)
    assert parts["params/blocks/down"][1] == (2, 24, 8)


def test_data_repeats_the_model(found):
    assert all(whole == part for whole, part in found["data 8"]["parts"].values())


@pytest.mark.parametrize("name", ["fsdp 4 × tensor 2", "1 device"])
def test_a_checkpoint_is_restored_bit_by_bit_onto_another_mesh(found, name, assert_bitwise):
    restored, spec = found[name]["restored"]
    assert_bitwise(restored, found["saved"])
    assert ("fsdp" in spec) == (name != "1 device")


@pytest.mark.parametrize("name", ["fsdp 4 × tensor 2", "1 device"])
def test_a_run_goes_on_with_the_same_losses_on_another_mesh(found, name):
    unbroken = found["2 × 2 × 2"]["losses"][SAVED:]
    np.testing.assert_allclose(found[name]["losses after"], unbroken, rtol=TOLERANCE)


def test_a_fingerprint_gathers_no_array(found):
    text = found["fingerprint program"]
    assert "all-reduce" in text  # it does run on shards
    assert "all-gather" not in text


# ---------------------------------------------------------------------------------------------
# Rules, without devices


@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 3, 1), (-1, 1, 2), (0, 1, 1), (1, -1, -1)])
def test_a_mesh_that_is_not_the_devices_is_refused(shape):
    with pytest.raises(ConfigError, match="1 device"):
        partition.make_mesh(*shape)


def test_data_takes_what_is_left():
    assert dict(partition.make_mesh(-1, 1, 1).shape) == {"data": 1, "fsdp": 1, "tensor": 1}


@pytest.fixture(scope="module")
def abstract_mesh():
    return jax.sharding.AbstractMesh((2, 4, 2), partition.AXES)


@pytest.mark.parametrize("batch_size", [4, 12, 1])
def test_a_batch_that_the_mesh_does_not_divide_is_refused(abstract_mesh, batch_size):
    with pytest.raises(ConfigError, match=rf"batch_size={batch_size} .* data 2 × fsdp 4"):
        partition.check_batch(abstract_mesh, batch_size)
    partition.check_batch(abstract_mesh, 8 * batch_size)
    with pytest.raises(ConfigError, match="in 5 parts"):
        partition.check_batch(abstract_mesh, 8 * batch_size, parts=5)


def test_a_dimension_that_does_not_divide_stays_whole(abstract_mesh):
    def spec(shape, *names):
        return tuple(partition.sharding(abstract_mesh, shape, names).spec)

    assert spec((8, 6), "embed", "mlp") == ("fsdp", "tensor")
    assert spec((6, 3), "embed", "mlp") == (None, None)
    assert spec((3, 8), "layers", None) == (None, None)
    assert spec((16,), "batch") == (("data", "fsdp"),)


def test_every_logical_name_of_the_model_has_a_rule(make_config):
    _, _, axes = model.abstract(model.model_config(make_config()))
    names = {
        name
        for leaf in jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple))
        for name in leaf
    }
    assert names - {None} <= partition.RULES.keys()


def test_outside_of_a_mesh_nothing_is_pinned():
    x = np.ones((2, 3))
    assert partition.constrain(x, "batch", None) is x


if __name__ == "__main__":
    devices.start()
    tree = ml_collections.ConfigDict(json.loads(sys.argv[1]), convert_dict=True)
    eight_devices(configuration.check(configuration.with_tuples(tree)), Path(sys.argv[2]))
