"""Published weights of autoencoders: both namings, what may stand beside them, what is refused."""

import dataclasses
import re

import ml_dtypes
import numpy as np
import pytest

from rfxray.errors import DataError
from rfxray.networks import torch_weights, vae, vae_weights
from tests.peers import import_peer
from tests.rfxray.networks.parity import draw
from tests.rfxray.networks.vae_layouts import LAYOUTS, config

GROUPS = 2
ATTENTION = {
    "original": {
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "proj_out",
    },
    "old": {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"},
}


def tensors_of(network, seed=0):
    return draw(vae.shapes(network), 0.05, seed)


def original(network, tensors):
    """The tensors under the names of latent-diffusion, or of Black Forest Labs for FLUX.2."""
    last = len(network.widths) - 1
    named = {}
    for name, tensor in tensors.items():
        side, _, rest = name.partition(".")
        part = rest.split(".")
        if part[0] in ("down_blocks", "up_blocks"):
            level = int(part[1]) if side == "encoder" else last - int(part[1])
            inner = (
                f"block.{part[3]}.{'.'.join(part[4:])}"
                if part[2] == "resnets"
                else f"{part[2].removesuffix('rs')}.{'.'.join(part[4:])}"
            )
            rest = f"{part[0].removesuffix('_blocks')}.{level}.{inner}"
        elif part[:2] == ["mid_block", "resnets"]:
            rest = f"mid.block_{int(part[2]) + 1}.{'.'.join(part[3:])}"
        elif part[:2] == ["mid_block", "attentions"]:
            *of, last_part = part[3:]
            rest = f"mid.attn_1.{ATTENTION['original']['.'.join(of)]}.{last_part}"
            if last_part == "weight" and tensor.ndim == 2:
                tensor = tensor[:, :, None, None]
        rest = rest.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        inside = (
            {"quant_conv": "encoder.", "post_quant_conv": "decoder."} if network.patchify else {}
        )
        named[f"{inside.get(side, '')}{side}.{rest}"] = tensor
    return named


def old_attention(tensors):
    pattern = re.compile(r"(.*attentions\.0\.)(to_out\.0|to_[qkv])(\..*)")
    return {
        pattern.sub(lambda m: m[1] + ATTENTION["old"][m[2]] + m[3], name): tensor
        for name, tensor in tensors.items()
    }


def assert_same(found, network, tensors):
    assert dataclasses.replace(found.vae, size=network.size) == network
    expected = torch_weights.convert(tensors, vae.shapes(network), "this one")
    assert found.params.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found.params[name], value, err_msg=name)


@pytest.mark.parametrize("naming", [original, lambda network, tensors: old_attention(tensors)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised_under_every_naming(layout, naming):
    network = LAYOUTS[layout]
    tensors = tensors_of(network)
    assert_same(vae_weights.convert(tensors, GROUPS), network, tensors)
    given = naming(network, tensors)
    assert given.keys() != tensors.keys()
    assert_same(vae_weights.convert(given, GROUPS), network, tensors)


def test_original_names_mean_what_diffusers_takes_them_for():
    network = dataclasses.replace(LAYOUTS["sd"], multipliers=(1, 2, 2, 4))
    given = original(network, tensors_of(network))
    single_file = import_peer("diffusers.loaders.single_file_utils")
    torch = import_peer("torch")
    theirs = single_file.convert_ldm_vae_checkpoint(
        {f"first_stage_model.{name}": torch.tensor(tensor) for name, tensor in given.items()},
        config(network),
    )
    ours = vae_weights.convert(given, GROUPS).params
    as_theirs = torch_weights.convert(
        {name: tensor.numpy() for name, tensor in theirs.items()}, vae.shapes(network), "theirs"
    )
    for name, value in as_theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_companions_are_left_out_and_named():
    network = LAYOUTS["flux2"]
    tensors = tensors_of(network)
    beside = {
        "loss.logvar": np.zeros((), np.float32),
        "loss.discriminator.main.0.weight": np.zeros((8, 3, 4, 4), np.float32),
        "model_ema.decay": np.float32(0.999),
        "model_ema.num_updates": np.int64(7),
        "bn.num_batches_tracked": np.int64(7),
    }
    found = vae_weights.convert(tensors | beside, GROUPS)
    assert_same(found, network, tensors)
    assert sorted(found.left_out) == sorted(beside)


@pytest.mark.parametrize("prefix", ["first_stage_model.", "vae.", "model.first_stage."])
def test_only_what_stands_behind_the_prefix_is_read(prefix):
    network = LAYOUTS["sd"]
    tensors = tensors_of(network)
    others = {"model.diffusion_model.out.2.bias": np.zeros(4), "betas": np.zeros(1000)}
    within = {f"{prefix}loss.logvar": np.zeros(())}
    given = {prefix + name: tensor for name, tensor in original(network, tensors).items()}
    found = vae_weights.convert(given | others | within, GROUPS)
    assert_same(found, network, tensors)
    assert sorted(found.left_out) == sorted([*others, *within])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_read_exactly(dtype):
    network = LAYOUTS["flux1"]
    tensors = {n: t.astype(dtype) for n, t in tensors_of(network).items()}
    assert_same(vae_weights.convert(tensors, GROUPS), network, tensors)


# ---------------------------------------------------------------------------------------------
# What is refused


def without(*names):
    return lambda tensors: {n: t for n, t in tensors.items() if n not in names}


def changed(name, change):
    return lambda tensors: tensors | {name: change(tensors.get(name))}


REFUSED = [
    (without("encoder.conv_in.weight"), "encoder.conv_in.weight is missing"),
    (without("decoder.conv_in.weight"), "decoder.conv_in.weight is missing"),
    (
        without("encoder.down_blocks.1.resnets.0.conv1.weight"),
        "encoder.down_blocks.1.resnets.0.conv1.weight is missing",
    ),
    (
        without("decoder.mid_block.attentions.0.to_k.bias"),
        "tensors are missing (first: decoder.mid_block.attentions.0.to_k.bias)",
    ),
    (without("post_quant_conv.bias"), "tensors are missing (first: post_quant_conv.bias)"),
    (
        changed("quantize.embedding.weight", lambda _: np.zeros((8, 4), np.float32)),
        "1 are unexpected (first: quantize.embedding.weight)",
    ),
    (
        changed("decoder.up_blocks.0.resnets.2.norm1.bias", lambda _: np.zeros(16, np.float32)),
        "1 are unexpected (first: decoder.up_blocks.0.resnets.2.norm1.bias)",
    ),
    (
        changed("encoder.conv_out.bias", lambda t: t[:-1]),
        "1 have another shape (first: encoder.conv_out.bias is [7], not [8])",
    ),
    (
        changed("encoder.conv_in.weight", lambda t: t[:, :, None]),
        "encoder.conv_in.weight has the shape [8, 3, 1, 3, 3], not that of a convolution",
    ),
    (
        changed("decoder.conv_in.weight", lambda _: np.zeros((), np.float32)),
        "decoder.conv_in.weight has the shape [], not that of a convolution",
    ),
    (
        changed("encoder.conv_in.weight", lambda t: t[:0]),
        "encoder.conv_in.weight has the shape [0, 3, 3, 3], not that of a convolution",
    ),
    (  # no network of ten million blocks is laid out to say so
        changed("encoder.down_blocks.0.resnets.9999999.conv1.weight", lambda _: np.zeros(1)),
        "1 are unexpected (first: encoder.down_blocks.0.resnets.9999999.conv1.weight)",
    ),
    (  # as of a quantised network, which is nothing without its scales
        changed("decoder.conv_in.weight", lambda t: (100 * t).astype(np.int8)),
        "1 are not floats (first: decoder.conv_in.weight is int8)",
    ),
    (
        changed("encoder.conv_in.weight", lambda t: np.concatenate([t, t[:, :1]], 1)),
        "model.channels must be 1 or 3 (got 4)",
    ),
    (
        changed("decoder.conv_out.bias", lambda t: t * np.nan),
        "hold values that are not finite (first: decoder.conv_out.bias)",
    ),
    (
        changed("encoder.norm_out.bias", lambda _: np.zeros(16, np.float32)),
        "encoder.norm_out.bias are both encoder.conv_norm_out.bias",
    ),
    (
        changed("ema.encoder.conv_in.weight", lambda _: np.zeros((8, 3, 3, 3), np.float32)),
        "these weights hold 2 autoencoders, at '' and 'ema.'",
    ),
]


@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_wrong_tensors_are_named_in_one_line(change, words):
    with pytest.raises(DataError) as error:
        vae_weights.convert(change(tensors_of(LAYOUTS["sd"])), GROUPS)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_statistics_of_latents_that_cannot_be_are_refused():
    tensors = tensors_of(LAYOUTS["flux2"])
    with pytest.raises(DataError, match=r"are damaged: bn\.running_var is below 0"):
        vae_weights.convert(changed("bn.running_var", np.negative)(tensors), GROUPS)


def test_groups_that_do_not_fit_ask_for_the_config():
    with pytest.raises(DataError, match=r"32 groups .* folder with its config\.json"):
        vae_weights.convert(tensors_of(LAYOUTS["sd"]))


def test_every_single_tensor_is_needed():
    tensors = tensors_of(LAYOUTS["narrow"])
    for name in tensors:
        with pytest.raises(DataError, match=re.escape(name)):
            vae_weights.convert(without(name)(tensors), GROUPS)
