"""The vision transformer that fills covered parts of an image, beside DINOv2 of transformers."""

import dataclasses
import functools
import json

import jax
import ml_collections
import numpy as np
import pytest
from safetensors.numpy import save_file

from rfxray.errors import ConfigError
from rfxray.networks import kinds, masked_vit
from tests.peers import import_peer
from tests.rfxray.networks import test_vit
from tests.rfxray.networks.parity import MATTERS, TOLERANCE, effects, relative

SECTION = ml_collections.FrozenConfigDict(
    {"kind": "masked_vit", "size": 32, "patch": 8, "width": 32, "depth": 2, "heads": 2}
)
SHAPE = masked_vit.trunk(SECTION)
# Not read from whole images: what stands for a covered patch, and what makes pixels of the code.
OF_COVERED = {
    name
    for name in kinds.build(SECTION).shapes
    if name.startswith(("decoder.", "head.", "embeddings.mask_token"))
}


@pytest.fixture(scope="module")
def params():
    """Weights of N(0, .3²), with which every tensor changes the output."""
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(0, test_vit.LIVELY, leaf.shape).astype(np.float32)
        for name, leaf in kinds.build(SECTION).shapes.items()
    }


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(-1, 1, (3, 32, 32, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def covered():
    """A pattern of patches for each image; no patch of the last one is covered."""
    patches = np.random.default_rng(2).random((3, 4, 4)) < 0.5
    patches[2] = False
    return patches.repeat(8, 1).repeat(8, 2)[..., None]


predict = jax.jit(functools.partial(masked_vit.predict, SHAPE))
hidden = jax.jit(functools.partial(masked_vit.hidden, SHAPE))
features = jax.jit(functools.partial(masked_vit.features, SHAPE))


def published(shape, params, folder):
    """transformers' model of a trunk, from a folder as it is published."""
    turn = {4: (3, 2, 0, 1), 2: (1, 0)}
    tensors = {
        name: np.ascontiguousarray(value.transpose(turn[value.ndim]))
        if name.endswith("weight") and value.ndim in turn
        else value
        for name, value in params.items()
        if not name.startswith(("decoder.", "head."))
    }
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(test_vit.config(shape)))
    return test_vit.peer(shape, folder)


def test_network_equals_its_parts_in_transformers(params, images, covered, tmp_path):
    torch = import_peer("torch")
    model = published(SHAPE, params, tmp_path / "trunk")
    # The decoder's block and norm, as those of a trunk of one block.
    single = {name: v for name, v in params.items() if "layer.1." not in name}
    single |= {
        name.replace("decoder.layer.", "encoder.layer.").removeprefix("decoder."): value
        for name, value in params.items()
        if name.startswith(("decoder.layer.", "decoder.layernorm."))
    }
    decoder = published(dataclasses.replace(SHAPE, depth=1), single, tmp_path / "decoder")
    colour = torch.tensor(images.repeat(3, -1)).permute(0, 3, 1, 2)
    mask = torch.tensor(covered[:, ::8, ::8, 0].reshape(3, 16))
    with torch.no_grad():
        whole = model(colour, output_hidden_states=True)
        seen = model(colour * (1 - torch.tensor(covered).permute(0, 3, 1, 2).float()), mask)
        left = ~mask[..., None]
        code = (seen.last_hidden_state[:, 1:] * left).sum(1) / left.sum(1)
        x = code[:, None] + torch.tensor(params["decoder.position_embeddings"])
        x = decoder.encoder(x).last_hidden_state
        x = decoder.layernorm(x).numpy()
    blocks = np.stack([state[:, 1:] for state in whole.hidden_states[1:]])
    assert relative(hidden(params, images), blocks) < TOLERANCE
    found = features(params, images).reshape(3, 1 + SHAPE.depth, SHAPE.width)
    assert relative(found[:, 0], whole.last_hidden_state[:, 1:].mean(1)) < TOLERANCE
    assert relative(found[:, 1:], blocks.std(2).swapaxes(0, 1)) < TOLERANCE
    pixels = x @ params["head.weight"] + params["head.bias"]
    grid = pixels.reshape(3, 4, 4, 8, 8).transpose(0, 1, 3, 2, 4).reshape(3, 32, 32, 1)
    assert relative(predict(params, images, covered), grid) < TOLERANCE


def test_prediction_knows_only_what_is_not_covered(params, images, covered):
    made = predict(params, images, covered)
    noise = np.random.default_rng(3).normal(size=images.shape).astype(np.float32)
    np.testing.assert_array_equal(predict(params, np.where(covered, noise, images), covered), made)
    for n in range(2):
        y, x = np.argwhere(~covered[n, ..., 0])[0]
        changed = images.copy()
        changed[n, y, x] += 1
        assert relative(predict(params, changed, covered)[n], made[n]) > MATTERS
    token = params | {"embeddings.mask_token": params["embeddings.mask_token"][:, ::-1]}
    other = predict(token, images, covered)
    assert relative(other[0], made[0]) > MATTERS
    np.testing.assert_allclose(other[2], made[2], atol=1e-5)  # nothing of it is covered


def test_pixels_that_are_covered_within_a_patch_are_not_seen_either(params, images):
    covered = np.zeros(images.shape, bool)
    covered[:, 3:13, 5:6] = True
    made = predict(params, images, covered)
    np.testing.assert_array_equal(predict(params, np.where(covered, 9, images), covered), made)


def test_every_tensor_matters(params, images, covered):
    found = effects(lambda w: predict(w, images, covered), params)
    # The bias of the keys adds the same number to all logits of a query.
    idle = {name: found.pop(name) for name in params if name.endswith("attention.key.bias")}
    assert len(idle) == SHAPE.depth + 1
    assert max(idle.values()) < 1e-5
    assert min(found.values()) > MATTERS, min(found, key=found.get)
    found = effects(lambda w: features(w, images), params)
    still = {name for name, effect in found.items() if effect < 1e-5}
    # The class token reaches the patches through attention, so it is read too.
    assert still == {*idle, *OF_COVERED}
    assert min(effect for name, effect in found.items() if name not in still) > MATTERS


def test_network_gives_hidden_states_by_method(params, images):
    network = kinds.build(SECTION)
    states = jax.jit(functools.partial(network.apply, method="hidden"))(params, images)
    assert states.shape == (2, 3, 16, 32)
    np.testing.assert_array_equal(states, hidden(params, images))


def test_apply_refuses_another_method_and_nothing_to_predict(params, images):
    apply = kinds.build(SECTION).apply
    with pytest.raises(ConfigError, match=r"predict or hidden \(got 'decode'\)"):
        apply(params, images, method="decode")
    with pytest.raises(ConfigError, match="which pixels are covered"):
        apply(params, images)


def test_fresh_weights_are_small_and_drawn_from_the_key():
    network = kinds.build(SECTION)
    fresh, again, other = (network.init(jax.random.key(seed)) for seed in (0, 0, 1))
    name = "encoder.layer.0.mlp.fc1.weight"
    assert fresh[name].std() == pytest.approx(0.02, rel=0.05)
    np.testing.assert_array_equal(fresh[name], again[name])
    assert not np.array_equal(fresh[name], other[name])
    np.testing.assert_array_equal(fresh["layernorm.weight"], 1)
    np.testing.assert_array_equal(fresh["head.bias"], 0)
    assert network.parameters == sum(leaf.size for leaf in fresh.values())
    assert {n: leaf.ndim for n, leaf in fresh.items()} == {n: len(network.axes[n]) for n in fresh}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patch": 7}, r"model\.patch must divide model\.size=32 \(got 7\)"),
        ({"heads": 3}, r"model\.heads must divide model\.width=32 \(got 3\)"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        kinds.build(ml_collections.FrozenConfigDict({**SECTION.to_dict(), **change}))
