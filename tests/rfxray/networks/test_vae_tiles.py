"""The autoencoder in tiles, beside the whole."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfxray.errors import ConfigError
from rfxray.networks import vae, vae_layers, vae_tiles
from tests.rfxray.networks.parity import relative
from tests.rfxray.networks.test_vae import CLOSE, LIVELY, drawn, inputs
from tests.rfxray.networks.vae_layouts import LAYOUTS

TILE = 16


@functools.partial(jax.jit, static_argnames="network")
def decoded(network, params, latents):
    return vae.decode(network, params, latents)


@functools.partial(jax.jit, static_argnames="network")
def encoded(network, params, images):
    return vae.encode(network, params, images)


def equal_decoded(network, params, rows, columns, n=1):
    sides = (rows * network.factor, columns * network.factor)
    _, latents = inputs(network, *sides, n=n)
    found = vae_tiles.decode(network, params, latents, TILE)
    assert found.shape == (n, *sides, network.channels)
    assert relative(found, decoded(network, params, latents)) < CLOSE


def equal_encoded(network, params, rows, columns):
    images, _ = inputs(network, rows * network.factor, columns * network.factor, n=1)
    found = vae_tiles.encode(network, params, images, TILE)
    for one, other in zip(found, encoded(network, params, images), strict=True):
        assert one.shape == (1, rows, columns, network.latent_channels)
        assert relative(one, other) < CLOSE


def test_tiles_decode_what_the_whole_does():
    """FLUX.2's form with a narrower decoder: a cell is four, and tiles begin at odd ones too."""
    network = LAYOUTS["narrow"]
    _, params = drawn(network, LIVELY)
    equal_decoded(network, params, 17, 40)


def test_tiles_encode_what_the_whole_does():
    network = LAYOUTS["sd"]
    _, params = drawn(network, LIVELY)
    equal_encoded(network, params, 17, 23)


def test_blocks_of_pixels_and_the_linear_path_are_in_tiles_too():
    network = dataclasses.replace(LAYOUTS["sd"], fold=2, linear=True)
    _, params = drawn(network, LIVELY)
    equal_decoded(network, params, 9, 20)
    equal_encoded(network, params, 9, 20)


@pytest.mark.drill
@pytest.mark.parametrize("rows", range(17, 41))
def test_every_remainder_is_decoded(rows):
    """Sides of 17 to 40 cells, each beside another one."""
    network = LAYOUTS["flux1"]
    _, params = drawn(network, LIVELY)
    equal_decoded(network, params, rows, 57 - rows)


@pytest.mark.drill
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_whole(layout):
    network = LAYOUTS[layout]
    _, params = drawn(network, LIVELY)
    equal_decoded(network, params, 19, 33)
    equal_encoded(network, params, 19, 33)


@pytest.mark.parametrize("length", range(1, 50))
def test_each_position_is_counted_once(length):
    owned, covered = np.zeros(length, int), np.zeros(length, bool)
    for start, own, side in vae_tiles._starts(length, TILE):
        assert side == min(TILE, length)
        owned[own : start + side] += 1
        covered[start : start + side] = True
    assert (owned == 1).all()
    assert covered.all()


def test_statistics_are_those_of_the_map_not_of_a_tile():
    """What overlapping tiles that know nothing of each other get wrong."""
    network = LAYOUTS["narrow"]
    _, params = drawn(network, LIVELY)
    _, latents = inputs(network, 17 * network.factor, 40 * network.factor, n=1)
    latents[:, :, 20:] *= 3
    whole = np.asarray(decoded(network, params, latents))
    apart = np.asarray(vae_tiles.decode(network, params, latents[:, :, :20], TILE))
    inner = np.s_[:, :, : 8 * network.factor]  # out of reach of the convolutions at the cut
    assert relative(apart[inner], whole[inner]) > 0.01
    assert relative(vae_tiles.decode(network, params, latents, TILE), whole) < CLOSE


def test_attention_in_blocks_of_queries_is_attention(monkeypatch):
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.normal(size=(2, 35, 1, 8))) for _ in range(3))
    plain = jax.jit(vae_layers.in_blocks)(query, key, value)
    monkeypatch.setattr(
        vae_layers, "LOGITS", 35 * 4
    )  # 4 queries at a time, the last block not full

    def loss(query):
        found = vae_layers.in_blocks(query, key, value)
        return jnp.square(found).sum(), found

    (_, found), gradient = jax.value_and_grad(loss, has_aux=True)(query)
    np.testing.assert_allclose(found, plain, atol=1e-6)
    monkeypatch.undo()
    expected = jax.grad(lambda q: loss(q)[0])(query)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_an_odd_tile_is_refused():
    network = LAYOUTS["narrow"]
    _, params = drawn(network, LIVELY)
    with pytest.raises(ConfigError, match=r"side of a tile must be even \(got 15\)"):
        vae_tiles.decode(network, params, inputs(network)[1], 15)


@pytest.mark.parametrize("method", ["encode", "decode"])
def test_programs_are_those_that_run(method, monkeypatch):
    network = dataclasses.replace(LAYOUTS["narrow"], size=96)
    _, params = drawn(network, LIVELY)
    images, latents = inputs(network, 96, 96, n=1)
    ran, maps = set(), set()

    def spied(vae, kind, graph, values, window, known, place):
        ran.add((kind, graph, window.shape, len(known)))
        return tile(vae, kind, graph, values, window, known, place)

    def kept(vae, kind, layers, x, side):
        made = stage(vae, kind, layers, x, side)
        maps.add(x.nbytes + made.nbytes)
        return made

    tile, stage = vae_tiles._tile, vae_tiles._stage
    with monkeypatch.context() as patched:
        patched.setattr(vae_tiles, "_tile", spied)
        patched.setattr(vae_tiles, "_stage", kept)
        given = images if method == "encode" else latents
        getattr(vae_tiles, method)(network, params, given, TILE)
    shapes = {n: jax.ShapeDtypeStruct(v.shape, jnp.float32) for n, v in params.items()}
    found = list(vae_tiles.programs(network, shapes, method, TILE))
    tiles = [program for program in found if program.run is tile]
    assert {(*p.fixed[1:], p.arrays[1].shape, len(p.arrays[2])) for p in tiles} == ran
    assert {program.host for program in tiles} == maps
    assert len(found) - len(tiles) == 1  # the middle
