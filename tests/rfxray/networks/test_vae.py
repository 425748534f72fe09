"""The autoencoder of latent diffusion, beside that of diffusers."""

import dataclasses
import functools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from rfxray.config.schema import defaults
from rfxray.errors import ConfigError
from rfxray.networks import kinds, torch_weights, vae
from rfxray.networks.vae import Vae
from rfxray.runtime import sharding
from tests.rfxray.networks.parity import TOLERANCE, draw, effects, relative
from tests.rfxray.networks.vae_layouts import LAYOUTS, answers, peer, publish

ROOT = Path(__file__).resolve().parents[3]
# One level and no attention, so that it compiles at once.
SHALLOW = dataclasses.replace(LAYOUTS["flux1"], multipliers=(1,), mid_attention=False)
# With weights of N(0, .05²) attention is flat: queries change the output by 1e-6. With N(0, .3²)
# every tensor that can change it does so by many times the tolerance.
FLAT, LIVELY = 0.05, 0.3
# Largest difference from float64, as a share of the largest value, and ten times that: the smallest
# effect of a tensor that counts as read.
CLOSE, MATTERS = 1e-5, 1e-4


@functools.partial(jax.jit, static_argnames="network")
def run(network, params, images, latents):
    posterior = vae.encode(network, params, images)
    return *posterior, vae.decode(network, params, latents)


def drawn(network: Vae, std: float):
    tensors = draw(vae.shapes(network), std)
    return tensors, torch_weights.convert(tensors, vae.shapes(network), "a tiny autoencoder")


def inputs(network: Vae, height: int = 32, width: int = 32, n: int = 2):
    rng = np.random.default_rng(1)
    images = rng.uniform(-1, 1, (n, height, width, network.channels)).astype(np.float32)
    cells = (n, height // network.factor, width // network.factor, network.latent_channels)
    return images, rng.normal(size=cells).astype(np.float32)


def make(**changes):
    """The network of a `model` section."""
    section = defaults(model="vae").model
    tiny = {"size": 32, "width": 8, "multipliers": (1, 2), "groups": 4, "z": 4, "blocks": 1}
    for key, value in (tiny | changes).items():
        section[key] = value
    return kinds.build(ml_collections.FrozenConfigDict(section))


# ---------------------------------------------------------------------------------------------
# Parity


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_diffusers_and_every_tensor_matters(layout, tmp_path):
    network = LAYOUTS[layout]
    given = inputs(network, 32, 48)
    for std in (FLAT, LIVELY):
        tensors, params = drawn(network, std)
        publish(network, tensors, tmp_path)
        ours, theirs = run(network, params, *given), answers(peer(network, tmp_path), *given)
        for one, other in zip(ours, theirs, strict=True):
            assert relative(one, other) < CLOSE
            np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE)
    # Each output in units of its largest value, so that one number compares them all.
    scale = [np.abs(x).max() for x in theirs]

    def outputs(params):
        found = run(network, params, *given)
        return np.concatenate([(x / s).ravel() for x, s in zip(found, scale, strict=True)])

    found = effects(outputs, params)
    # The bias of the keys adds the same number to all logits of a query, and softmax takes it away.
    idle = {name: found.pop(name) for name in params if name.endswith("to_k.bias")}
    assert len(idle) == 2
    assert max(idle.values()) < 1e-5
    assert min(found.values()) > MATTERS, min(found, key=found.get)


@pytest.mark.drill
@pytest.mark.parametrize("layout", ["sd", "flux2"])
def test_four_levels_equal_diffusers(layout, tmp_path):
    shape = {"multipliers": (1, 2, 4, 4), "blocks": 2, "groups": 8, "size": 64}
    network = dataclasses.replace(LAYOUTS[layout], **shape)
    tensors, params = drawn(network, FLAT)
    publish(network, tensors, tmp_path)
    given = inputs(network, 64, 96, n=1)
    ours, theirs = run(network, params, *given), answers(peer(network, tmp_path), *given)
    for one, other in zip(ours, theirs, strict=True):
        assert relative(one, other) < TOLERANCE


# ---------------------------------------------------------------------------------------------
# What the trainer asks of it


def test_fresh_parameters_keep_the_variance():
    network = make(patchify=True)
    fresh = jax.jit(network.init)(jax.random.key(0))
    assert {n: p.shape for n, p in fresh.items()} == {n: s.shape for n, s in network.shapes.items()}
    image = jax.random.uniform(jax.random.key(1), (4, 32, 32, 1), minval=-1)
    there = jax.jit(functools.partial(network.apply, method="encode"))
    back = jax.jit(functools.partial(network.apply, method="decode"))
    found = there(fresh, image)
    made = back(fresh, found.mean)
    assert made.shape == image.shape
    assert found.mean.shape == found.log_variance.shape == (4, 8, 8, 16)
    for x in (*found, made):
        assert 0.2 < float(x.std()) < 2
        assert float(jnp.abs(x).max()) < 8


def test_levels_computed_again_give_the_same_gradients():
    shape = {"multipliers": (1,), "mid_attention": False, "patchify": True, "size": 8}
    images = inputs(dataclasses.replace(SHALLOW, channels=1), 8, 8)[0]

    def gradients(remat):
        network = make(remat=remat, **shape)

        def loss(params):
            found = network.apply(params, images, "encode")
            made = network.apply(params, found.mean, "decode")
            return jnp.square(made - images).mean() + jnp.square(found.log_variance).mean()

        return jax.jit(jax.grad(loss))(jax.jit(network.init)(jax.random.key(0)))

    plain, again = gradients("none"), gradients("level")
    still = {name for name, gradient in plain.items() if not jnp.abs(gradient).max()}
    assert still == {"bn.running_mean", "bn.running_var"}  # measured, not trained
    for name, value in plain.items():
        np.testing.assert_allclose(again[name], value, atol=1e-6, err_msg=name)


def test_a_grey_image_passes_three_channels_as_their_mean():
    network = SHALLOW
    _, params = drawn(network, FLAT)
    grey, latents = inputs(dataclasses.replace(network, channels=1))
    apply = functools.partial(vae.apply, network, "none")
    encode, decode = (jax.jit(functools.partial(apply, method=m)) for m in ("encode", "decode"))
    mean, _, whole = run(network, params, np.repeat(grey, 3, axis=-1), latents)
    np.testing.assert_allclose(encode(params, grey).mean, mean, atol=1e-6)
    assert float(jnp.abs(whole[..., 0] - whole[..., 1]).max()) > 0.01  # not the same channel thrice
    np.testing.assert_allclose(decode(params, latents)[..., 0], whole.mean(-1), atol=1e-6)


def test_bfloat16_stays_near_float32():
    network = SHALLOW
    _, params = drawn(network, FLAT)
    given = inputs(network)
    near = run(dataclasses.replace(network, dtype="bfloat16"), params, *given)
    for half, whole in zip(near, run(network, params, *given), strict=True):
        assert half.dtype == jnp.float32
        assert 1e-5 < relative(half, whole) < 0.1


def test_levels_computed_again_leave_little_for_the_backward_pass():
    """By shapes: XLA for CPUs joins what is computed twice, so a compiled program shows nothing."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)

    def kept(remat):
        network = make(remat=remat, multipliers=(1, 2, 2), blocks=2, size=64)

        def backward(params, images):
            def there_and_back(params):
                mean = network.apply(params, images, "encode").mean
                return network.apply(params, mean, "decode")

            return jax.vjp(there_and_back, params)[1]

        leaves = jax.tree.leaves(jax.eval_shape(backward, network.shapes, images))
        return sum(leaf.size for leaf in leaves) - network.parameters

    assert kept("level") < kept("none") / 8


@pytest.mark.drill
def test_a_mesh_of_eight_devices_computes_the_same(environment):
    done = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import on_a_mesh; on_a_mesh()"],
        cwd=ROOT,
        env=environment(8),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def on_a_mesh() -> None:
    """Compares a mesh that splits images, rows and parameters with one device."""
    network = make(size=32, patchify=True)
    params = jax.jit(network.init)(jax.random.key(0))
    image = jax.random.uniform(jax.random.key(1), (4, 32, 32, 1), minval=-1)

    def there_and_back(params, image):
        posterior = network.apply(params, image, "encode")
        return *posterior, network.apply(params, posterior.mean, "decode")

    single = jax.jit(there_and_back)(params, image)
    mesh = sharding.make_mesh(2, 2, 1, sequence=2)
    sharding.check_axes(mesh, network.sizes)
    placed = {
        name: jax.device_put(value, sharding.sharding(mesh, value.shape, network.axes[name]))
        for name, value in params.items()
    }
    assert not placed["encoder.conv_in.weight"].sharding.is_fully_replicated
    with jax.set_mesh(mesh):
        rows = jax.device_put(image, NamedSharding(mesh, P("data")))
        split = jax.jit(there_and_back)(placed, rows)
    for one, other in zip(single, split, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


# ---------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 33}, "model.size must be a multiple of the factor 2 that 2 levels make (got 33)"),
        (
            {"size": 34, "patchify": True},
            "multiple of the factor 4 that 2 levels and patchify make (got 34)",
        ),
        ({"groups": 3}, "must be multiples of model.groups=3 (got 8)"),
        ({"multipliers": (1, 0.3)}, "must be multiples of model.groups=4 (got 2.4)"),
        ({"decoder_multipliers": (1.0, 0.7)}, "model.decoder_multipliers times model.width=8"),
        ({"decoder_multipliers": (1, 2, 2)}, "must have the 2 entries of model.multipliers"),
        ({"multipliers": ()}, "must have an entry for each level"),
        ({"channels": 2}, "model.channels must be 1 or 3 (got 2)"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(changes, words):
    with pytest.raises(ConfigError) as error:
        make(**changes)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("shape", "method", "words"),
    [
        ((1, 34, 32, 1), "encode", "multiples of the autoencoder's factor 4 (got 34 × 32)"),
        ((1, 32, 30, 1), "encode", "multiples of the autoencoder's factor 4 (got 32 × 30)"),
        ((1, 32, 32, 2), "encode", "1 channel, or the 1 of the autoencoder (got 2)"),
        ((1, 8, 8, 4), "decode", "must have the 16 channels of the autoencoder (got 4)"),
        ((1, 8, 8, 16), "invert", "method must be encode or decode (got 'invert')"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(shape, method, words):
    network = make(patchify=True)
    params = network.init(jax.random.key(0))
    with pytest.raises(ConfigError) as error:
        network.apply(params, np.zeros(shape, np.float32), method)
    assert words in str(error.value)
