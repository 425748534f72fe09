"""Blocks of pixels as channels, and the linear path, beside PyTorch and JPEG's transform."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.fft import dctn

from rfxray.errors import ConfigError
from rfxray.networks import torch_weights, vae, vae_blocks, vae_shape
from rfxray.networks.vae import Vae
from tests.rfxray.networks.parity import draw

SHAPE = Vae(
    size=16,
    channels=1,
    width=4,
    multipliers=(1, 2),
    decoder_multipliers=(0,),
    blocks=1,
    z=3,
    groups=2,
    mid_attention=False,
    quant_convs=False,
    patchify=False,
    dtype="float32",
    fold=2,
    linear=True,
)


def images(n=2, side=16):
    return np.random.default_rng(0).uniform(-1, 1, (n, side, side, 1)).astype(np.float32)


def test_fold_is_undone_and_orders_channels_as_torch():
    torch = pytest.importorskip("torch", reason="no torch; extra peers has it")
    x = np.random.default_rng(0).normal(size=(2, 8, 12, 1)).astype(np.float32)
    folded = vae_blocks.fold(x, 4)
    np.testing.assert_array_equal(vae_blocks.unfold(folded, 4), x)
    expected = torch.nn.functional.pixel_unshuffle(torch.tensor(x).permute(0, 3, 1, 2), 4)
    np.testing.assert_array_equal(folded, expected.permute(0, 2, 3, 1).numpy())


def test_linear_path_is_a_convolution_of_torch_with_the_step_of_a_block():
    torch = pytest.importorskip("torch", reason="no torch; extra peers has it")
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(5, 2, 4, 4)).astype(np.float32)  # out, in, height, width
    x = rng.normal(size=(3, 8, 12, 2)).astype(np.float32)
    z = rng.normal(size=(3, 2, 3, 5)).astype(np.float32)
    own = kernel.transpose(2, 3, 1, 0)

    def channels_first(array):
        return torch.tensor(array).permute(0, 3, 1, 2)

    latents = torch.nn.functional.conv2d(channels_first(x), torch.tensor(kernel), stride=4)
    made = torch.nn.functional.conv_transpose2d(channels_first(z), torch.tensor(kernel), stride=4)
    found = vae_blocks.to_latents(own, x)
    np.testing.assert_allclose(found, latents.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        vae_blocks.to_images(own, z), made.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_kernels_are_the_lowest_cosines_of_a_block(channels):
    kernels = vae_blocks.cosines((8, 8, channels, 16))
    flat = kernels.reshape(-1, 16)
    np.testing.assert_allclose(flat.T @ flat, np.eye(16), atol=1e-5)
    block = images(1, 8)
    all_of_it = dctn(block[0, :, :, 0], norm="ortho")
    grey = np.broadcast_to(block, (1, 8, 8, channels)) / np.sqrt(channels)
    found = np.asarray(vae_blocks.to_latents(kernels, grey))[0, 0, 0]
    expected = [all_of_it[place] for place in [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0)]]
    np.testing.assert_allclose(found[:6], expected, atol=1e-5)


@pytest.mark.parametrize("quant_convs", [False, True])
def test_fresh_network_keeps_what_its_cosines_keep(quant_convs):
    shape = dataclasses.replace(SHAPE, quant_convs=quant_convs)
    params = vae.init(shape, jax.random.key(0))
    found = {name: v.shape for name, v in params.items()}
    assert found == torch_weights.laid_out(vae.shapes(shape))
    x = images()
    latents, log_variance = vae.encode(shape, params, x)
    assert latents.shape == (2, 4, 4, 3)
    np.testing.assert_array_equal(log_variance, -6)
    made = np.asarray(vae.decode(shape, params, latents))
    assert made.shape == x.shape
    blocks, kept = (np.asarray(vae_blocks.fold(a, 4)) for a in (x, made))
    kernels = vae_blocks.cosines((4, 4, 1, 3)).reshape(16, 3)
    np.testing.assert_allclose(kept, blocks @ kernels @ kernels.T, atol=1e-5)


@pytest.mark.parametrize("name", ["encoder.linear.weight", "decoder.linear.weight"])
def test_linear_path_adds_to_what_the_network_makes(name):
    tensors = draw(vae.shapes(SHAPE), 0.3)
    params = torch_weights.convert(tensors, vae.shapes(SHAPE), "a tiny autoencoder")
    without = {n: v for n, v in params.items() if ".linear." not in n}
    bare = dataclasses.replace(SHAPE, linear=False)
    x = images()
    latents = np.asarray(vae.encode(bare, without, x).mean)
    if name.startswith("encoder"):
        found, own = vae.encode(SHAPE, params, x).mean, latents
        path = vae_blocks.to_latents(params[name], x)
    else:
        found, own = vae.decode(SHAPE, params, latents), vae.decode(bare, without, latents)
        path = vae_blocks.to_images(params[name], latents)
    assert np.abs(path).max() > 0.1
    np.testing.assert_allclose(found, own + path, atol=1e-5)


def test_shape_that_does_not_fit_is_refused():
    for changes, words in [
        ({"size": 20}, "factor 8 that 3 levels, fold=2 make"),
        ({"z": 17}, "model.z must be at most the 16 pixels of a block"),
    ]:
        levels = (1, 2, 2) if "size" in changes else (1, 2)
        with pytest.raises(ConfigError, match=words):
            vae_shape.check(dataclasses.replace(SHAPE, multipliers=levels, **changes))
