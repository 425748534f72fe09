"""An autoencoder in tiles: what it computes whole, at the memory of a tile.

A group norm sees a whole map, so tiles that are decoded each for itself differ from the whole,
however much they overlap. Here each map lies in the memory of the host, and a stage (a residual
block, with what changes the resolution before it) goes over the tiles of its map once for each of
its norms, to gather the statistics of that norm, and once more to write the next map. A tile is
read with a border as wide as the convolutions of the stage reach, which is cut off again; outside
of the map it is zero before every convolution, as the border of the whole map is. The middle, where
every cell attends to all, is computed whole: its maps are the smallest.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from rfxray.arrays import AnyArray, Params
from rfxray.data.latents import Moments
from rfxray.errors import ConfigError
from rfxray.networks import vae as whole
from rfxray.networks import vae_blocks
from rfxray.networks.torch_weights import Weights
from rfxray.networks.vae import Posterior
from rfxray.networks.vae_layers import Downsample, GroupNorm, Resnet, SiluNorm, Upsample
from rfxray.networks.vae_shape import Vae

# Side of a tile, positions of the map that is written: 128² of 256 channels in float32 are 17 MB,
# and the widest border (4) makes 1.13 times the work.
TILE = 128

# A stage in a network: its kind, and the layers that it takes.
Part: TypeAlias = tuple[str, tuple[nnx.Module, ...]]


@dataclasses.dataclass(frozen=True)
class Stage:
    """What is computed tile by tile.

    Attributes:
      run: Function of (layers, tile, norm with SiLU).
      norms: How many norms it has.
      border: Positions around a tile that are computed and cut off again.
      scale: Sides of the map that is written, in those of the one that is read.
    """

    run: Callable[[tuple, Array, SiluNorm], Array]
    norms: int
    border: int
    scale: float = 1


def _block(layers: tuple[Resnet], x: Array, norm: SiluNorm) -> Array:
    (block,) = layers
    return block(x, norm)


def _after(layers: tuple[nnx.Conv | Downsample | Upsample, Resnet], x: Array, norm: SiluNorm):
    before, block = layers
    return block(before(x), norm)


def _last(layers: tuple[GroupNorm, nnx.Conv], x: Array, norm: SiluNorm) -> Array:
    group_norm, after = layers
    return after(norm(group_norm, x).astype(jnp.float32))


# A residual block reaches 2 positions. `first` and `down` have one more, for the convolution before
# it, and `up` two, so that its tiles begin at a whole position of the smaller map.
STAGES = {
    "block": Stage(_block, 2, 2),
    "first": Stage(_after, 2, 3),
    "down": Stage(_after, 2, 3, 0.5),
    "up": Stage(_after, 2, 4, 2),
    "last": Stage(_last, 1, 1),
}


def encode(
    vae: Vae, params: Weights, images: Float[AnyArray, "n height width c"], tile: int = TILE
) -> Posterior:
    """`vae.encode`, within 1e-5 of its largest value; see `decode`."""
    encoder = whole.bind(vae, params).encoder

    def one(image: np.ndarray) -> Posterior:
        folded = np.asarray(vae_blocks.fold(image, vae.fold))[0]
        found = _stages(vae, _encoder(encoder), folded, tile)
        return _end(vae, params, found[None], image)

    images = np.asarray(whole.seen(vae, images))
    found = [one(image[None]) for image in images]
    return Posterior(*(jnp.concatenate(part) for part in zip(*found, strict=True)))


def decode(
    vae: Vae, params: Weights, latents: Float[AnyArray, "n rows columns z"], tile: int = TILE
) -> Float[np.ndarray, "n height width c"]:
    """`vae.decode`, within 1e-5 of its largest value in float32; not to be traced.

    Args:
      vae: Shape of the network.
      params: Parameters by name.
      latents: Latents [n, rows, columns, latent_channels] float32, decoded one after the other.
      tile: Side of a tile, positions of each map; even.

    Returns:
      Images [n, rows · factor, columns · factor, channels] float32, about [-1, 1], not clipped.

    Raises:
      ConfigError: If the latents have another number of channels, or `tile` is odd.
    """
    model = whole.bind(vae, params)

    def one(latent: np.ndarray) -> np.ndarray:
        begun, cells = _begin(vae, params, latent)
        found = _stages(vae, _decoder(model.decoder), np.asarray(begun)[0], tile)
        with whole.precision(vae):
            return np.asarray(model.images(found[None], cells))

    return np.concatenate([one(latent[None]) for latent in np.asarray(latents, np.float32)])


@functools.partial(jax.jit, static_argnames="vae")
def _begin(vae: Vae, params: Weights, latents: Array) -> tuple[Array, Array]:
    with whole.precision(vae):
        model = whole.bind(vae, params)
        cells = model.cells(latents)
        return model.decoder.mid_block(model.begin(cells)), cells


@functools.partial(jax.jit, static_argnames="vae")
def _end(vae: Vae, params: Weights, x: Array, pixels: Array) -> Posterior:
    with whole.precision(vae):
        model = whole.bind(vae, params)
        return model.posterior(model.encoder.mid_block(x), pixels)


# ---------------------------------------------------------------------------------------------
# The stages of a network


def _encoder(encoder: whole.Encoder) -> Iterator[Part]:
    kind, before = "first", encoder.conv_in
    for level in encoder.down_blocks:
        first, *rest = level.resnets
        yield kind, (before, first)
        yield from (("block", (block,)) for block in rest)
        for downsample in level.downsamplers:
            kind, before = "down", downsample


def _decoder(decoder: whole.Decoder) -> Iterator[Part]:
    kind, before = "block", ()
    for level in decoder.up_blocks:
        first, *rest = level.resnets
        yield kind, (*before, first)
        yield from (("block", (block,)) for block in rest)
        for upsample in level.upsamplers:
            kind, before = "up", (upsample,)
    yield "last", (decoder.conv_norm_out, decoder.conv_out)


# ---------------------------------------------------------------------------------------------
# Tiles


def _stages(vae: Vae, parts: Iterator[Part], x: np.ndarray, tile: int) -> np.ndarray:
    if tile < 2 or tile % 2:
        raise ConfigError(f"the side of a tile must be even (got {tile})")
    for kind, layers in parts:
        x = _stage(vae, kind, layers, x, tile)
    return x


def _stage(
    vae: Vae, kind: str, layers: tuple[nnx.Module, ...], x: np.ndarray, tile: int
) -> np.ndarray:
    """The map [height, width, channels] that a stage makes of another."""
    stage = STAGES[kind]
    graph, params = _split(layers)
    height, width = (int(side * stage.scale) for side in x.shape[:2])
    known: list[tuple[AnyArray, AnyArray]] = []

    def tiles() -> Iterator[tuple[tuple[slice, slice], tuple[AnyArray, ...]]]:
        for top, own_top, rows in _starts(height, tile):
            for left, own_left, columns in _starts(width, tile):
                window = _window(x, stage, (top, left), (rows, columns))
                place = np.array([top, left, own_top, own_left, height, width], np.int32)
                found = _tile(vae, kind, graph, params, window[None], known, place)
                yield (slice(top, top + rows), slice(left, left + columns)), found

    for _ in range(stage.norms):
        each = (Moments(int(count), *np.asarray(rest, np.float64)) for _, (count, *rest) in tiles())
        total = functools.reduce(Moments.merged, each)
        variance = (total.squares / total.count).astype(np.float32)
        known.append((total.mean.astype(np.float32), variance))
    made = None
    for (rows, columns), (done,) in tiles():
        done = np.asarray(done)[0]
        if made is None:
            made = np.empty((height, width, done.shape[-1]), done.dtype)
        made[rows, columns] = done
    assert made is not None
    return made


def _split(layers: tuple[nnx.Module, ...]) -> tuple[nnx.GraphDef, PyTree]:
    graph, state = nnx.split(layers)  # equal layers are one program
    return graph, nnx.to_pure_dict(state)


def _starts(length: int, tile: int) -> Iterator[tuple[int, int, int]]:
    """Where the tiles of a side begin, where what no earlier one has begins, and their length.

    All have one length, so that one program serves all: the last one begins before the end of the
    one before it, unless they divide the side.
    """
    tile = min(tile, length)
    for own in range(0, length, tile):
        yield min(own, length - tile), own, tile


def _window(x: np.ndarray, stage: Stage, start: Sequence[int], sides: Sequence[int]) -> np.ndarray:
    """What a tile is computed from, with its border; zero outside of the map."""
    first = [int((at - stage.border) / stage.scale) for at in start]
    size = _reach(stage, sides)
    window = np.zeros((*size, x.shape[-1]), x.dtype)
    there = [slice(max(0, f), min(s, f + n)) for f, n, s in zip(first, size, x.shape, strict=False)]
    here = [slice(t.start - f, t.stop - f) for t, f in zip(there, first, strict=True)]
    window[tuple(here)] = x[tuple(there)]
    return window


def _reach(stage: Stage, sides: Sequence[int]) -> list[int]:
    """Sides of what a tile with these sides is computed from."""
    return [int((side + 2 * stage.border) / stage.scale) for side in sides]


@functools.partial(jax.jit, static_argnames=("vae", "kind", "graph"))
def _tile(
    vae: Vae,
    kind: str,
    graph: nnx.GraphDef,
    params: Params,
    window: Float[Array, "1 _ _ _"],
    known: Sequence[tuple[Array, Array]],
    place: Int[Array, "6"],
) -> tuple[Array, ...]:
    """A tile of the next map; or, while a norm is not known, what one tile says of it.

    Args:
      vae: Shape of the network.
      kind: Key of `STAGES`.
      graph: Layers of the stage without values.
      params: Values of their parameters.
      window: Part of the map, with its border.
      known: Mean and variance [groups] of the first norms.
      place: Top and left of the tile, the same of what no earlier tile has, sides of the map.

    Returns:
      Tile [1, tile, tile, channels]; or number of values, and of each group [groups] the mean and
      the sum of squared deviations, of what no earlier tile has.
    """
    stage = STAGES[kind]
    sides = [int(side * stage.scale) for side in window.shape[1:3]]
    rows, columns = (place[k] - stage.border + jnp.arange(side) for k, side in enumerate(sides))

    def between(least: Array, most: Array) -> Array:
        down = (rows >= least[0]) & (rows < most[0])
        across = (columns >= least[1]) & (columns < most[1])
        return (down[:, None] & across[None])[None, :, :, None]

    inside = between(jnp.zeros(2, jnp.int32), place[4:])
    own = between(place[2:4], place[:2] + jnp.array([side - 2 * stage.border for side in sides]))
    asked: list[tuple[Array, ...]] = []
    left = iter(known)

    def norm(layer: GroupNorm, x: Array) -> Array:
        if moments := next(left, None):
            return jnp.where(inside, jax.nn.silu(layer(x, moments)), 0)
        asked.append(_moments(layer.grouped(x), own[..., None]))
        return x  # of no use, so the compiler leaves out what follows

    with whole.precision(vae):
        made = stage.run(nnx.merge(graph, params), window, norm)
    if asked:
        return asked[0]
    cut = slice(stage.border, -stage.border)
    return (made[:, cut, cut],)


def _moments(y: Float[Array, "1 _ _ g c"], own: Array) -> tuple[Array, Array, Array]:
    over = (0, 1, 2, 4)
    count = own.sum() * y.shape[-1]
    mean = jnp.where(own, y, 0).sum(over) / count
    squares = jnp.where(own, jnp.square(y - mean[:, None]), 0).sum(over)
    return count, mean, squares


# ---------------------------------------------------------------------------------------------
# For whoever wants to know what they need


@dataclasses.dataclass(frozen=True)
class Program:
    """One of the programs that an image in tiles takes.

    Attributes:
      name: What it does.
      run: A function under `jax.jit`, of `fixed` and `arrays`.
      fixed: Its static arguments.
      arrays: Its other arguments, parameters first, each array as `jax.ShapeDtypeStruct`.
      host: Bytes of the maps that lie in the memory of the host meanwhile.
    """

    name: str
    run: Any
    fixed: tuple
    arrays: tuple
    host: int = 0


def programs(
    vae: Vae, params: PyTree[jax.ShapeDtypeStruct], method: str, tile: int = TILE
) -> Iterator[Program]:
    """What `encode` or `decode` runs for an image of the size of the network.

    Args:
      vae: Shape of the network.
      params: Shapes of its parameters by name, `jax.ShapeDtypeStruct`.
      method: `encode` or `decode`.
      tile: Side of a tile.
    """
    model = whole.bind(vae, params)
    pixels = _of(1, vae.size, vae.size, vae.channels)
    if method == "decode":
        side = vae.size // vae.factor
        latents = _of(1, side, side, vae.latent_channels)
        begin = Program("middle", _begin, (vae,), (params, latents))
        yield begin
        x, _ = jax.eval_shape(functools.partial(_begin, vae), *begin.arrays)
        parts = _decoder(model.decoder)
    else:
        x = jax.eval_shape(functools.partial(vae_blocks.fold, side=vae.fold), pixels)
        parts = _encoder(model.encoder)
    for kind, layers in parts:
        stage, (graph, values) = STAGES[kind], _split(layers)
        height, width = (int(side * stage.scale) for side in x.shape[1:3])
        sides = _reach(stage, [min(tile, height), min(tile, width)])
        window = jax.ShapeDtypeStruct((1, *sides, x.shape[-1]), x.dtype)
        moments = [(_of(vae.groups), _of(vae.groups))] * stage.norms
        place = jax.ShapeDtypeStruct((6,), jnp.int32)
        fixed = (vae, kind, graph)
        (made,) = jax.eval_shape(functools.partial(_tile, *fixed), values, window, moments, place)
        after = jax.ShapeDtypeStruct((1, height, width, made.shape[-1]), made.dtype)
        host = sum(map.size * map.dtype.itemsize for map in (x, after))
        for known in range(stage.norms + 1):
            name = f"{kind}, {known} of {stage.norms} norms known, {x.shape[-1]} channels"
            arrays = (values, window, moments[:known], place)
            yield Program(name, _tile, fixed, arrays, host)
        x = after
    if method == "encode":
        yield Program("middle", _end, (vae,), (params, x, pixels))


def _of(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
