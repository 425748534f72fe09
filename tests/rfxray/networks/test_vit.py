"""The vision transformer of DINOv2, beside that of transformers."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from rfxray.errors import ConfigError, DataError
from rfxray.networks import vit
from rfxray.networks.vit import Vit
from tests.peers import import_peer
from tests.rfxray.networks.parity import MATTERS, TOLERANCE, draw, effects, relative

PLAIN = Vit(width=32, depth=2, heads=2, mlp=128, side=5)
SMALL = {
    "plain": PLAIN,
    "registers": dataclasses.replace(PLAIN, registers=3),
    "gated": dataclasses.replace(PLAIN, mlp=88, gated=True),
}
OUTPUTS = ("cls", "patches", "block_1", "block_2")
# With weights of N(0, .05²) attention is flat: queries change the output by 1e-6. With N(0, .3²)
# every tensor that can change it does so by several times the tolerance.
FLAT, LIVELY = 0.05, 0.3


def config(network):
    return {
        "model_type": "dinov2_with_registers" if network.registers else "dinov2",
        "hidden_size": network.width,
        "num_hidden_layers": network.depth,
        "num_attention_heads": network.heads,
        "mlp_ratio": 4,
        "patch_size": network.patch,
        "image_size": network.side * network.patch,
        "use_swiglu_ffn": network.gated,
        "hidden_act": "gelu",
        "layer_norm_eps": network.epsilon,
        "qkv_bias": True,
    } | ({"num_register_tokens": network.registers} if network.registers else {})


def published(network, tensors, folder):
    """Writes a folder as it is published; its mask token is there and is not read."""
    mask = np.zeros((1, network.width), np.float32)
    tensors = tensors | {"embeddings.mask_token": mask}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config(network)))
    return tensors


def peer(network, folder):
    import_peer("torchvision")  # transformers imports it
    transformers = import_peer("transformers")
    registers = "WithRegisters" if network.registers else ""
    opened = getattr(transformers, f"Dinov2{registers}Model")
    model, loading = opened.from_pretrained(folder, output_loading_info=True)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def answers(model, network, images):
    torch = import_peer("torch")
    with torch.no_grad():
        out = model(torch.tensor(images).permute(0, 3, 1, 2), output_hidden_states=True)
    blocks = {f"block_{i}": out.hidden_states[i] for i in range(1, network.depth + 1)}
    patches = out.last_hidden_state[:, 1 + network.registers :]
    return {"cls": out.pooler_output, "patches": patches} | blocks


@functools.partial(jax.jit, static_argnames=("network", "outputs"))
def run(network, weights, images, outputs=OUTPUTS):
    return vit.apply(network, weights, images, outputs)


def pictures(height, width, n=2):
    return np.random.default_rng(1).normal(size=(n, height, width, 3)).astype(np.float32)


# ---------------------------------------------------------------------------------------------
# Parity


@pytest.mark.parametrize("std", [FLAT, LIVELY])
@pytest.mark.parametrize("kind", SMALL)
def test_equals_transformers_on_every_grid(kind, std, tmp_path):
    network = SMALL[kind]
    tensors = published(network, draw(vit.shapes(network), std), tmp_path)
    weights, model = vit.convert(network, tensors), peer(network, tmp_path)
    for size in ((70, 70), (84, 42)):  # the stored grid, and one with more rows and fewer columns
        images = pictures(*size)
        ours, theirs = run(network, weights, images), answers(model, network, images)
        for name in OUTPUTS:
            assert relative(ours[name], theirs[name]) < TOLERANCE, (size, name)


@pytest.mark.parametrize("kind", SMALL)
def test_every_tensor_matters_beyond_the_tolerance(kind):
    network = SMALL[kind]
    weights = vit.convert(network, draw(vit.shapes(network), LIVELY))
    images = pictures(42, 42)
    found = effects(lambda w: run(network, w, images, ("cls",))["cls"], weights)
    # The bias of the keys adds the same number to all logits of a query, and softmax takes it away.
    idle = {name: found.pop(name) for name in weights if name.endswith("attention.key.bias")}
    assert len(idle) == network.depth
    assert max(idle.values()) < 1e-5
    assert min(found.values()) > MATTERS, min(found, key=found.get)


@pytest.mark.drill
def test_a_base_network_equals_transformers(tmp_path):
    network = Vit(width=768, depth=12, heads=12, mlp=3072)
    tensors = published(network, draw(vit.shapes(network), FLAT), tmp_path)
    assert vit.from_shapes(tensors) == network
    weights, model = vit.convert(network, tensors), peer(network, tmp_path)
    images = pictures(224, 224, n=1)
    ours = run(network, weights, images, ("cls", "patches", "block_6"))
    theirs = answers(model, network, images)
    for name, value in ours.items():
        assert relative(value, theirs[name]) < TOLERANCE, name


# ---------------------------------------------------------------------------------------------
# Which network a folder holds


@pytest.mark.parametrize("kind", SMALL)
def test_config_says_the_network(kind):
    assert vit.from_config(config(SMALL[kind])) == SMALL[kind]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "vit"}, "must be of a dinov2 or dinov2_with_registers model (got 'vit')"),
        ({"hidden_act": "relu"}, "must have hidden_act=gelu (got 'relu')"),
        ({"qkv_bias": False}, "must have qkv_bias=True (got False)"),
        ({"num_channels": 1}, "must have num_channels=3 (got 1)"),
        ({"image_size": [518, 518]}, "must have a whole number as image_size (got [518, 518])"),
        ({"hidden_size": None}, "must have a whole number as hidden_size (got None)"),
        ({"layer_norm_eps": "1e-6"}, "must have a number as layer_norm_eps (got '1e-6')"),
        ({"num_attention_heads": 5}, "heads must divide width=32 (got 5)"),
    ],
)
def test_config_of_another_model_is_refused(change, words):
    with pytest.raises(DataError) as error:
        vit.from_config(config(PLAIN) | change)
    assert words in str(error.value)


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize(
    ("width", "depth", "mlp"),
    [(384, 12, 1536), (768, 12, 3072), (1024, 24, 4096), (1536, 40, 4096)],
)
def test_published_sizes_are_known_by_their_shapes(width, depth, mlp, registers):
    gated = width == 1536
    network = Vit(width, depth, width // 64, mlp, gated=gated, registers=registers)
    tensors = {name: np.broadcast_to(np.float32(0), s) for name, s in vit.shapes(network).items()}
    assert vit.from_shapes(tensors) == network


def test_another_width_needs_its_config():
    tensors = draw(vit.shapes(PLAIN), FLAT)
    with pytest.raises(DataError, match=r"no published DINOv2 network is 32 wide .* config\.json"):
        vit.from_shapes(tensors)


def test_a_file_without_a_class_token_is_refused():
    with pytest.raises(
        DataError, match=r"embeddings\.cls_token is missing \(1 tensors are there\)"
    ):
        vit.from_shapes({"conv1.weight": np.zeros(3, np.float32)})


def test_a_lost_block_is_noticed():
    tensors = {n: t for n, t in draw(vit.shapes(PLAIN), FLAT).items() if "layer.1." not in n}
    with pytest.raises(DataError, match=r"18 of 42 tensors are missing \(first: encoder\.layer\.1"):
        vit.convert(PLAIN, tensors)


# ---------------------------------------------------------------------------------------------
# Outputs


def test_only_what_is_asked_for_is_returned():
    weights = vit.convert(PLAIN, draw(vit.shapes(PLAIN), FLAT))
    out = run(PLAIN, weights, pictures(42, 28), ("block_2", "cls"))
    assert {name: value.shape for name, value in out.items()} == {
        "block_2": (2, 7, 32),
        "cls": (2, 32),
    }


@pytest.mark.parametrize("name", ["block_0", "block_3", "pooled"])
def test_an_output_that_does_not_exist_is_refused(name):
    weights = vit.convert(PLAIN, draw(vit.shapes(PLAIN), FLAT))
    with pytest.raises(ConfigError, match=r"block_1 … block_2"):
        vit.apply(PLAIN, weights, pictures(42, 42), (name,))


def test_sides_that_are_no_multiple_of_the_patch_are_refused():
    weights = vit.convert(PLAIN, draw(vit.shapes(PLAIN), FLAT))
    with pytest.raises(ConfigError, match=r"multiples of the patch 14 \(got 42×45\)"):
        vit.apply(PLAIN, weights, pictures(42, 45))
