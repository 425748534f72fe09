"""Files of named tensors: what we write, the library reads, and what is no such file is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from rfxray.checkpoints import safetensors
from rfxray.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
TREE = {
    "model": {"scale": RNG.normal(size=()), "blocks": {"up": RNG.normal(size=(3, 4, 5))}},
    "critic": {"head": RNG.normal(size=(7,)), "empty": RNG.normal(size=(0, 2))},
}
TREE = jax.tree.map(lambda x: np.asarray(x, np.float32), TREE)
PLACE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
ABSTRACT = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=PLACE), TREE)


def write(file, tree=TREE, dtype="float32", **metadata):
    safetensors.write(file, safetensors.dotted(tree), dtype, metadata)
    return file


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_library_reads_the_tensors_that_were_written(tmp_path, dtype):
    written = []
    file = tmp_path / "a.safetensors"
    tensors = safetensors.dotted(TREE)
    safetensors.write(file, tensors, dtype, {"licence": "none — ✓"}, written.append)
    assert sum(written) == 68 * jnp.dtype(dtype).itemsize
    with safe_open(file, framework="np") as stored:
        assert stored.metadata() == {"licence": "none — ✓"}
        assert set(stored.keys()) == {
            "model.scale",
            "model.blocks.up",
            "critic.head",
            "critic.empty",
        }
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(
                stored.get_tensor(name), np.asarray(jnp.asarray(tensor).astype(dtype))
            )


def test_what_the_library_writes_is_restored(tmp_path, assert_bitwise):
    save_file(dict(safetensors.dotted(TREE)), tmp_path / "a.safetensors")
    assert_bitwise(safetensors.restore(tmp_path / "a.safetensors", ABSTRACT), TREE)


def test_restored_tensors_are_copies_of_the_file(tmp_path, assert_bitwise):
    file = write(tmp_path / "a.safetensors")
    found = safetensors.restore(file, ABSTRACT)
    with file.open("r+b") as out:
        out.seek(-40, 2)
        out.write(b"\xff" * 40)
    assert_bitwise(found, TREE)


def test_bfloat16_is_rounded_once_and_restored_as_float32(tmp_path):
    file = write(tmp_path / "a.safetensors", dtype="bfloat16")
    found = safetensors.restore(file, ABSTRACT)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(TREE), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b.astype(jnp.bfloat16).astype(np.float32))
        np.testing.assert_allclose(a, b, rtol=2**-8)


def test_other_tensors_than_those_of_the_model_are_refused(tmp_path):
    file = write(tmp_path / "a.safetensors")
    more = ABSTRACT | {"other": ABSTRACT["critic"]}
    with pytest.raises(ConfigError, match=r"not hold the tensors .*: other\.empty, other\.head"):
        safetensors.restore(file, more)
    with pytest.raises(ConfigError, match=r"critic\.empty, critic\.head"):
        safetensors.restore(file, {"model": ABSTRACT["model"]})
    turned = jax.ShapeDtypeStruct((5, 4, 3), np.float32, sharding=PLACE)
    with pytest.raises(ConfigError, match=r"blocks\.up in shape \(3, 4, 5\) instead of \(5, 4, 3"):
        safetensors.restore(
            file, ABSTRACT | {"model": ABSTRACT["model"] | {"blocks": {"up": turned}}}
        )


def test_names_that_a_dot_makes_equal_and_other_dtypes_are_refused(tmp_path):
    one = np.zeros(1, np.float32)
    with pytest.raises(ConfigError, match="one name"):
        safetensors.dotted({"a.b": one, "a": {"b": one}})
    with pytest.raises(ConfigError, match="n is int32; only float32"):
        write(tmp_path / "a", {"n": np.zeros(3, np.int32)})


@pytest.mark.parametrize("where", [0, 8, 20])
def test_damaged_header_is_one_line(tmp_path, where):
    content = bytearray(write(tmp_path / "a.safetensors").read_bytes())
    content[where] ^= 0x80
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.safetensors cannot be read"):
        safetensors.restore(tmp_path / "a.safetensors", ABSTRACT)


def test_header_ends_at_a_multiple_of_eight(tmp_path):
    for name in ("a", "ab", "abcdefg"):
        content = write(tmp_path / "f", {name: np.zeros(2, np.float32)}).read_bytes()
        length = int.from_bytes(content[:8], "little")
        assert length % 8 == 0
        assert json.loads(content[8 : 8 + length])[name]["data_offsets"] == [0, 8]
