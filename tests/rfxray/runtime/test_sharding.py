"""One run on one device and on meshes of eight. This file is also the program that they run.

`python test_sharding.py CONFIG_JSON OUT` runs everything once on the devices of its environment and
writes its results to OUT, which the tests read.
"""

import functools
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from rfxray.checkpoints import store
from rfxray.checkpoints.run import Checkpoints
from rfxray.config.identity import identity_of
from rfxray.config.load import from_json, load_config
from rfxray.data import batches
from rfxray.errors import ConfigError
from rfxray.networks import attention
from rfxray.runtime import distributed, sharding
from rfxray.train import open_data
from rfxray.training import recipe as recipes
from rfxray.training import state, step
from rfxray.training.metrics import fresh

# (data, fsdp, tensor, sequence)
MESHES = {
    "1 device": (1, 1, 1, 1),
    "data 8": (8, 1, 1, 1),
    "fsdp 8": (1, 8, 1, 1),
    "tensor 8": (1, 1, 8, 1),
    "sequence 8": (1, 1, 1, 8),
    "data, fsdp, tensor": (2, 2, 2, 1),
    "fsdp, tensor, sequence": (1, 2, 2, 2),
}
RESTORED = ("fsdp, tensor, sequence", "1 device")  # from a checkpoint of another mesh
STEPS, SAVED = 20, 3


# ---------------------------------------------------------------------------------------------
# The process with eight devices


def mesh_of(name):
    shape = dict(zip(sharding.AXES, MESHES[name], strict=True))
    return sharding.make_mesh(**shape, devices=jax.devices()[: math.prod(shape.values())])


def on_host(tree):
    return jax.tree.map(np.asarray, tree)


def train_on(recipe, mixture, take, mesh, train_state, begin, end):
    """(state, metrics, losses) of steps begin + 1 … end."""
    size = recipe.batch_size
    loader = batches.train_batches(mixture, size, position=begin * size)
    losses = []
    with jax.set_mesh(mesh):
        for _ in range(begin, end):
            metrics = fresh(recipe.metrics, sharding.replicated(mesh))
            batch = sharding.global_batch(mesh, next(loader))
            train_state, metrics = take(train_state, metrics, batch)
            losses.append(float(metrics.compute()["loss"]))
    return train_state, metrics, losses


def eight_devices(config, out: Path) -> None:
    recipe = recipes.build(config)
    mixture = open_data(config, recipe.model.input_shape)
    identity = identity_of(config, mixture.fingerprint)
    found, programs = {}, {}
    for name in MESHES:
        mesh = mesh_of(name)
        train_state = state.init(recipe, mesh)
        first = on_host((train_state["params"], store.fingerprint(train_state)))
        if name == "fsdp 8":
            program = store.fingerprint.lower(train_state).compile().as_text()
        parts = {
            place: (leaf.shape, leaf.addressable_shards[0].data.shape)
            for place, leaf in named(train_state)
        }
        take = programs[name] = jax.jit(step.train_step(recipe), donate_argnums=0)
        train_state, metrics, losses = train_on(recipe, mixture, take, mesh, train_state, 0, SAVED)
        if name == "data, fsdp, tensor":
            writer = Checkpoints(out, config, identity, state.abstract(recipe, mesh), metrics)
            writer.save(SAVED, train_state, metrics, SAVED * config.batch_size)
            writer.close()
            saved = on_host(train_state)
        train_state, _, more = train_on(recipe, mixture, take, mesh, train_state, SAVED, STEPS)
        found[name] = {"first": first, "parts": parts, "losses": losses + more}

    for name in RESTORED:
        mesh = mesh_of(name)
        empty = fresh(recipe.metrics, sharding.replicated(mesh))
        reader = Checkpoints(out, config, identity, state.abstract(recipe, mesh), empty)
        train_state, _, _ = reader.restore(SAVED)
        reader.close()
        place = train_state["params"]["model"]["blocks"]["qkv"].sharding
        found[name]["restored"] = (on_host(train_state), str(place.spec))
        _, _, losses = train_on(recipe, mixture, programs[name], mesh, train_state, SAVED, STEPS)
        found[name]["losses after"] = losses
    found |= {"saved": saved, "fingerprint program": program, "splash": kernel_on_a_mesh()}
    (out / "found.pickle").write_bytes(pickle.dumps(found))


def kernel_on_a_mesh():
    """(kernel, reference): output and gradients, with heads and tokens each split in two."""
    rng = np.random.default_rng(0)
    q, k, v, weight = rng.normal(size=(4, 2, 256, 2, 64)).astype(np.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def run(attend):
        out, back = jax.vjp(attend, q, k, v)
        return out, *back(weight)

    with jax.set_mesh(mesh_of("fsdp, tensor, sequence")):
        on_mesh = run(functools.partial(attention.splash, interpret=True))
    return on_host(on_mesh), on_host(run(attention.attention))


def memory_of_init(config, out: Path) -> None:
    """Writes the bytes of a state on eight devices, of one of its layers, and of the peak."""

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])

    mesh = mesh_of("fsdp 8")
    before = status("VmRSS")
    made = jax.block_until_ready(state.init(recipes.build(config), mesh))
    blocks = jax.tree.leaves(made["params"]["model"]["blocks"])
    found = {
        "state": sum(leaf.nbytes for leaf in jax.tree.leaves(made)),
        "layer": sum(leaf.nbytes for leaf in blocks) // config.model.depth,
        "taken": status("VmHWM") - before,
    }
    (out / "memory.json").write_text(json.dumps(found))


def named(tree):
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


# ---------------------------------------------------------------------------------------------
# Tests


@pytest.fixture(scope="module")
def found(tmp_path_factory, make_config, tiny_data, environment):
    config = make_config(f"data.dirs={tiny_data}", "model.heads=8", f"steps={STEPS}")
    out = tmp_path_factory.mktemp("eight")
    variables = environment(8)
    # Compiles twice as fast; the meshes are only compared with each other.
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


# Sums over a batch, a width or a head run in another order on each mesh: an error of 6e-8 per sum,
# which Adam's division by √v magnifies if a gradient is near 0. A wrong key, a wrong reduction or a
# lost shard would differ by 1e-2.
TOLERANCE = 1e-5


@pytest.mark.parametrize("name", list(MESHES)[1:])
def test_initial_parameters_and_fingerprints_are_the_same_on_every_mesh(
    found, name, assert_bitwise
):
    assert_bitwise(found[name]["first"], found["1 device"]["first"])


@pytest.mark.parametrize("name", list(MESHES)[1:])
def test_losses_on_a_mesh_match_one_device(found, name):
    single = found["1 device"]["losses"]
    assert len(set(single)) == STEPS
    np.testing.assert_allclose(found[name]["losses"], single, rtol=TOLERANCE)


def test_fsdp_8_splits_parameters_moments_and_averages(found):
    parts = found["fsdp 8"]["parts"]
    whole_only = {"query_scale", "key_scale", "step", "count"}
    for place, (whole, part) in parts.items():
        small = place.startswith("guard/") or place.split("/")[-1] in whole_only
        expected = 1 if small else 8
        assert np.prod(whole, dtype=int) == expected * np.prod(part, dtype=int), place
    moments = "optimizer/model/1/0"
    for tree in (
        "params/model",
        f"{moments}/mu",
        f"{moments}/nu",
        "ema/0.050/model",
        "ema/0.100/model",
    ):
        assert parts[f"{tree}/blocks/qkv"] == ((2, 32, 3, 8, 4), (2, 4, 3, 8, 4))


def test_tensor_splits_heads_and_the_width_of_swiglu(found):
    parts = found["data, fsdp, tensor"]["parts"]
    assert parts["params/model/blocks/qkv"][1] == (2, 16, 3, 4, 4)
    assert parts["params/model/blocks/attention_out"][1] == (2, 4, 4, 16)
    assert parts["params/model/blocks/up"][1] == (2, 16, 24)
    assert parts["params/model/blocks/down"][1] == (2, 24, 16)


@pytest.mark.parametrize("name", ["data 8", "sequence 8"])
def test_data_and_sequence_replicate_the_model(found, name):
    assert all(whole == part for whole, part in found[name]["parts"].values())


def test_attention_kernel_on_a_mesh_matches_the_reference(found):
    for on_mesh, reference in zip(*found["splash"], strict=True):
        np.testing.assert_allclose(on_mesh, reference, atol=1e-6)


@pytest.mark.parametrize("name", RESTORED)
def test_checkpoint_is_restored_bitwise_on_another_mesh(found, name, assert_bitwise):
    restored, spec = found[name]["restored"]
    assert_bitwise(restored, found["saved"])
    assert ("fsdp" in spec) == (name != "1 device")


@pytest.mark.parametrize("name", RESTORED)
def test_losses_after_resuming_on_another_mesh_match_the_uninterrupted_run(found, name):
    unbroken = found["data, fsdp, tensor"]["losses"][SAVED:]
    np.testing.assert_allclose(found[name]["losses after"], unbroken, rtol=TOLERANCE)


@pytest.mark.drill
def test_state_is_created_sharded_without_extra_memory(tmp_path, environment):
    # XL's width with 6 of its 24 layers is 7.5 GB; all layers would be 27 GB. Compiling the program
    # may add at most the size of one layer (0.2 GB).
    overrides = ["model.depth=6", "mesh.data=1", "mesh.fsdp=8"]
    config = load_config("radit:size=xl", overrides)
    subprocess.run(
        [sys.executable, __file__, config.to_json_best_effort(), str(tmp_path), "memory"],
        env=environment(8),
        check=True,
        timeout=600,
    )
    found = json.loads((tmp_path / "memory.json").read_text())
    assert found["state"] > 7e9
    assert found["state"] <= found["taken"] <= found["state"] + found["layer"]


def test_fingerprint_gathers_no_array(found):
    text = found["fingerprint program"]
    assert "all-reduce" in text  # it runs on shards
    assert "all-gather" not in text


# ---------------------------------------------------------------------------------------------
# Rules, without the process


@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 3, 1), (-1, 1, 2), (0, 1, 1), (1, -1, -1)])
def test_make_mesh_refuses_a_product_that_is_not_the_number_of_devices(shape):
    with pytest.raises(
        ConfigError, match=r"but there are 1; set|must be at least 1, or −1 for data"
    ):
        sharding.make_mesh(*shape)


def test_data_minus_one_uses_the_remaining_devices():
    assert tuple(sharding.make_mesh(-1, 1, 1).shape.values()) == (1, 1, 1, 1)


@pytest.fixture(scope="module")
def abstract_mesh():
    return jax.sharding.AbstractMesh((2, 4, 2, 1), sharding.AXES)


@pytest.mark.parametrize("batch_size", [4, 12, 1])
def test_check_batch_refuses_a_batch_that_the_mesh_does_not_divide(abstract_mesh, batch_size):
    with pytest.raises(ConfigError, match=rf"data 2 × fsdp 4 .* \(got {batch_size}\)"):
        sharding.check_batch(abstract_mesh, batch_size)
    sharding.check_batch(abstract_mesh, 8 * batch_size)
    with pytest.raises(ConfigError, match="fsdp 4 × accumulate 5"):
        sharding.check_batch(abstract_mesh, 8 * batch_size, parts=5)


def test_a_dimension_that_the_mesh_does_not_divide_is_not_split(abstract_mesh):
    def spec(shape, *names):
        return tuple(sharding.sharding(abstract_mesh, shape, names).spec)

    assert spec((8, 6), "embed", "mlp") == ("fsdp", "tensor")
    assert spec((6, 3), "embed", "mlp") == (None, None)
    assert spec((3, 8), "layers", None) == (None, None)
    assert spec((16,), "batch") == (("data", "fsdp"),)


def test_every_logical_name_of_the_model_has_a_rule(make_config):
    model = recipes.build(make_config()).model
    names = {
        name
        for leaf in jax.tree.leaves(model.axes, is_leaf=lambda x: isinstance(x, tuple))
        for name in leaf
    }
    assert names - {None} <= sharding.RULES.keys()
    assert model.sizes.keys() <= sharding.RULES.keys()


def test_check_axes_refuses_a_mesh_that_does_not_divide_the_network(make_config):
    model = recipes.build(make_config("model.heads=2", "model.mlp_width=48")).model

    def check(**shape):
        shape = {axis: shape.get(axis, 1) for axis in sharding.AXES}
        mesh = jax.sharding.AbstractMesh(tuple(shape.values()), tuple(shape))
        sharding.check_axes(mesh, model.sizes)

    check(data=5, fsdp=3, tensor=2, sequence=8)
    with pytest.raises(ConfigError, match=r"mesh\.tensor must divide the 2 heads .* \(got 4\)"):
        check(tensor=4)
    with pytest.raises(ConfigError, match=r"mesh\.sequence must divide the 16 tokens .* \(got 5\)"):
        check(sequence=5)
    with pytest.raises(ConfigError, match=r"mesh\.tensor must divide the 48 mlp"):
        sharding.check_axes(jax.sharding.AbstractMesh((1, 1, 5, 1), sharding.AXES), {"mlp": 48})


def test_constrain_does_nothing_without_a_mesh():
    x = np.ones((2, 3))
    assert sharding.constrain(x, "batch", None) is x


if __name__ == "__main__":
    distributed.start()
    program = memory_of_init if sys.argv[3:] else eight_devices
    program(from_json(json.loads(sys.argv[1])), Path(sys.argv[2]))
