"""Low-rank adapters of a decoder: where they are, how they begin."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfxray.errors import ConfigError
from rfxray.networks import lora, torch_weights, vae
from rfxray.networks.lora import Lora
from tests.rfxray.networks.parity import draw
from tests.rfxray.networks.vae_layouts import LAYOUTS

NETWORK = dataclasses.replace(LAYOUTS["sd"], multipliers=(1, 2))
LAYOUT = torch_weights.laid_out(vae.shapes(NETWORK))
# One of each kind: 3 × 3 and 1 × 1 convolutions, linear layers, a layer named in full.
SHAPE = Lora(4, 6.0, ("conv1", "to_q", "to_out.0", "conv_shortcut", "decoder.conv_out"))
decode = jax.jit(functools.partial(vae.decode, NETWORK))


@pytest.fixture(scope="module")
def params():
    tensors = draw(vae.shapes(NETWORK), 0.3)
    return torch_weights.convert(tensors, vae.shapes(NETWORK), "a tiny autoencoder")


def latents():
    return np.random.default_rng(1).normal(size=(1, 8, 8, 4)).astype(np.float32)


def test_targets_are_layers_of_the_decoder_by_name_or_end():
    found = lora.modules(SHAPE, LAYOUT)
    assert all(name.startswith("decoder.") for name in found)
    assert "decoder.conv_out" in found
    assert "decoder.mid_block.attentions.0.to_out.0" in found
    assert not [name for name in found if name.endswith(("conv2", "to_k"))]
    assert len(lora.modules(Lora(1, 1.0, ("post_quant_conv",)), LAYOUT)) == 1


@pytest.mark.parametrize("target", ["conv3", "onv1", "encoder.conv_in", "norm1", ""])
def test_a_target_that_names_no_layer_is_refused(target):
    with pytest.raises(ConfigError, match=f"no layer of the decoder is named '{target}'"):
        lora.modules(Lora(4, 4.0, ("conv1", target)), LAYOUT)


def test_a_fresh_adapter_changes_no_bit(params):
    fresh = jax.jit(functools.partial(lora.init, SHAPE, LAYOUT))(jax.random.key(0))
    merged = jax.jit(functools.partial(lora.merge, scale=SHAPE.scale))(params, fresh)
    for name, value in params.items():
        np.testing.assert_array_equal(merged[name], value)
    np.testing.assert_array_equal(decode(merged, latents()), decode(params, latents()))


def test_fresh_adapters_are_drawn_as_peft_draws_them():
    fresh = jax.jit(functools.partial(lora.init, SHAPE, LAYOUT))(jax.random.key(0))
    assert {n: v.shape for n, v in fresh.items()} == lora.shapes(SHAPE, LAYOUT)
    for name, value in fresh.items():
        if name.endswith(lora.B):
            assert not value.any()
            continue
        fan_in = np.prod(value.shape[:-1])
        assert float(jnp.abs(value).max()) <= fan_in**-0.5
        # A uniform draw within a bound has a deviation of bound / √3.
        assert float(value.std()) == pytest.approx((3 * fan_in) ** -0.5, rel=0.25)
