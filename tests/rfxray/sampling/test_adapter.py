"""An adapter that peft wrote, merged into a decoder, beside peft's own output."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from rfxray.errors import DataError
from rfxray.networks import lora, torch_weights, vae
from rfxray.networks.lora import Lora
from rfxray.sampling import adapter
from tests.peers import import_peer
from tests.rfxray.networks.parity import draw, relative
from tests.rfxray.networks.vae_layouts import LAYOUTS, answers, peer, publish

NETWORK = dataclasses.replace(LAYOUTS["sd"], multipliers=(1, 2))
LAYOUT = torch_weights.laid_out(vae.shapes(NETWORK))
# One of each kind: 3 × 3 and 1 × 1 convolutions, linear layers, a layer named in full.
SHAPE = Lora(4, 6.0, ("conv1", "to_q", "to_out.0", "conv_shortcut", "decoder.conv_out"))
decode = jax.jit(functools.partial(vae.decode, NETWORK))


@pytest.fixture(scope="module")
def tensors():
    return draw(vae.shapes(NETWORK), 0.3)


@pytest.fixture(scope="module")
def params(tensors):
    return torch_weights.convert(tensors, vae.shapes(NETWORK), "a tiny autoencoder")


def latents():
    return np.random.default_rng(1).normal(size=(1, 8, 8, 4)).astype(np.float32)


def test_an_adapter_of_peft_decodes_the_same_when_merged(tensors, params, tmp_path):
    import_peer("torchvision")  # peft imports transformers, which imports it
    peft, torch = import_peer("peft"), import_peer("torch")
    publish(NETWORK, tensors, tmp_path)
    for rslora in (False, True):
        torch.manual_seed(0)
        # The name of a module of the decoder is the end of no module of the encoder.
        config = peft.LoraConfig(
            r=SHAPE.rank,
            lora_alpha=SHAPE.alpha,
            target_modules=lora.modules(SHAPE, LAYOUT),
            use_rslora=rslora,
        )
        model = peft.get_peft_model(peer(NETWORK, str(tmp_path)), config)
        for name, value in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(value, std=0.2)
        model.save_pretrained(tmp_path / "adapter")
        images = np.zeros((1, 8, 8, 3), np.float32)
        theirs = answers(model.base_model.model, images, latents())[2]
        merged = adapter.merge(NETWORK, params, adapter.read(tmp_path / "adapter"))
        assert relative(decode(merged, latents()), theirs) < 1e-5
        assert relative(decode(params, latents()), theirs) > 0.01  # the adapter does something


# ---------------------------------------------------------------------------------------------
# What is refused


def drawn(std=0.2):
    rng = np.random.default_rng(2)
    shapes = lora.shapes(SHAPE, LAYOUT)
    return {n: rng.normal(0, std, s).astype(np.float32) for n, s in shapes.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {}, "has no tensors, so it changes nothing"),
        (
            lambda t: {f"unet.{n}": v for n, v in t.items()},
            "(first: unet.decoder.conv_out)",
        ),
        (
            lambda t: t | {"decoder.conv_out.lora_magnitude_vector": np.ones(3)},
            "(first: decoder.conv_out.lora_magnitude_vector)",
        ),
        (
            lambda t: {n.replace("decoder.conv_out", "encoder.conv_out"): v for n, v in t.items()},
            "changes encoder.conv_out, which is not of the decoder",
        ),
        (
            lambda t: {n: v for n, v in t.items() if n != "decoder.conv_out.lora_B.weight"},
            "decoder.conv_out.lora_B.weight is missing, not [1, 1, 4, 3]",
        ),
        (
            lambda t: t | {"decoder.conv_out.lora_A.weight": np.zeros((3, 3, 9, 4), np.float32)},
            "decoder.conv_out.lora_A.weight is [3, 3, 9, 4], not [3, 3, 8, 4]",
        ),
        (
            lambda t: {n: v * (0 if n.endswith(lora.B) else 1) for n, v in t.items()},
            "changes no parameter",
        ),
        (
            lambda t: {n: v * 1e-12 for n, v in t.items()},
            "changes no parameter",
        ),
        (
            lambda t: {n: v * 1e30 for n, v in t.items()},
            "the adapter makes values that are not finite (first: decoder.",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_or_does_nothing_is_refused(change, words, params):
    with pytest.raises(DataError) as error:
        adapter.merge(NETWORK, params, adapter.Adapter(change(drawn()), SHAPE.scale))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"r": 8}, "has the rank 4, and adapter_config.json says r=8"),
        ({"r": -1}, "must have a finite number above 0 as r (got -1)"),
        ({"r": True}, "must have a finite number above 0 as r (got True)"),
        ({"lora_alpha": float("inf")}, "a finite number above 0 as lora_alpha (got inf)"),
        ({"lora_alpha": 10**400}, "a finite number above 0 as lora_alpha"),
        ({"use_dora": True}, "must have use_dora=False (got True)"),
        ({"rank_pattern": {"conv1": 2}}, "must have rank_pattern={} (got {'conv1': 2})"),
        ({"peft_type": "IA3"}, "must have peft_type='LORA' (got 'IA3')"),
    ],
)
def test_config_that_the_tensors_contradict_or_that_is_no_lora_is_refused(about, words, tmp_path):
    """With another rank, the narrow path would get another weight than it was trained with."""
    adapter.write(tmp_path / "adapter", drawn(), SHAPE, "float32", {})
    assert adapter.read(tmp_path / "adapter").scale == SHAPE.scale
    file = tmp_path / "adapter" / adapter.CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | about))
    with pytest.raises(DataError) as error:
        adapter.read(tmp_path / "adapter")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_one_changed_tensor_is_enough(params):
    one = {n: v for n, v in drawn().items() if n.startswith("decoder.conv_out.")}
    merged = adapter.merge(NETWORK, params, adapter.Adapter(one, SHAPE.scale))
    assert [n for n in params if not np.array_equal(merged[n], params[n])] == [
        "decoder.conv_out.weight"
    ]
