"""RadiT: a transformer over the patches of a noised radiograph, told the time and 19 attributes.

patchify → blocks (RMSNorm, joint self-attention with QK-RMSNorm and axial rotary embedding, SwiGLU,
each modulated by time and attributes, gates zero at the start) → unpatchify. The layout follows DiT
(Peebles and Xie 2023, arXiv 2212.09748) with the parts that later work found to train better.

The modules are Flax NNX. Every parameter names its dimensions (`axes`, see partition.py); the
blocks are one module whose parameters carry a leading `layers` dimension, and are run by a scan.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from rfxray import conditioning
from rfxray.attention import RESIDUALS, attention
from rfxray.partition import constrain


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The shape of the network; configs/base.py says what each field means."""

    size: int
    channels: int
    patch: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    adaln_rank: int
    rope_theta: float
    dtype: str

    @property
    def tokens(self) -> int:
        return (self.size // self.patch) ** 2

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the network is run, which changes no parameter: attention, remat, layer-scan unroll."""

    attention: str = "auto"
    remat: str = "none"
    unroll: int = 1


# What the backward pass finds saved; the rest it computes again. `dots` repeats no matrix product
# and no attention kernel, `attention` the SwiGLU's half of them, `full` all.
_policies = jax.checkpoint_policies
_attention = _policies.save_only_these_names("qkv", RESIDUALS)
REMAT = {
    "none": None,
    "dots": _policies.save_from_both_policies(
        _policies.checkpoint_dots_with_no_batch_dims, _attention
    ),
    "attention": _attention,
    "full": _policies.nothing_saveable,
}


def _param(rngs, shape, axes, fan_in=None, std=None):
    """A float32 parameter: normal of the given std, or of 1/√fan_in, or zeros."""
    scale = std if std is not None else (fan_in**-0.5 if fan_in else 0.0)
    value = scale * jax.random.normal(rngs.params(), shape) if scale else jnp.zeros(shape)
    return nnx.Param(value, axes=axes)


def rms_norm(x: jax.Array, scale: jax.Array | None = None) -> jax.Array:
    """x / rms(x) over the last dimension, in float32, back in the dtype of x (arXiv 1910.07467)."""
    h = x.astype(jnp.float32)
    h *= jax.lax.rsqrt(jnp.mean(jnp.square(h), axis=-1, keepdims=True) + 1e-6)
    if scale is not None:
        h *= scale
    return h.astype(x.dtype)


def axial_angles(rows: int, columns: int, head_dim: int, theta: float) -> np.ndarray:
    """Rotation angles of each token for 2-D rotary embedding, [rows · columns, head_dim / 2].

    The first half of the frequency pairs turns with the row, the second with the column
    (RoFormer, arXiv 2104.09864, applied per axis).
    """
    frequencies = theta ** -(np.arange(head_dim // 4) / (head_dim // 4))
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    angles = np.concatenate([p.reshape(-1, 1) * frequencies for p in (row, column)], axis=-1)
    return angles.astype(np.float32)


def rotate(x: jax.Array, angles: np.ndarray) -> jax.Array:
    """Turns pairs (i, i + head_dim / 2) of x [batch, tokens, heads, head_dim] by `angles`."""
    cos, sin = (f(angles)[:, None, :].astype(x.dtype) for f in (np.cos, np.sin))
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def sinusoid(x: jax.Array, width: int, longest: float) -> jax.Array:
    """[batch] numbers as [batch, width] sines and cosines with periods from 2π to 2π·longest."""
    frequencies = longest ** -(np.arange(width // 2, dtype=np.float32) / (width // 2))
    angles = x[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def places(side: int, width: int) -> np.ndarray:
    """A fixed embedding of each token's place in the picture, [side², width] float32.

    Rotary embedding tells tokens only where they lie to each other, and at t = 1 all of them hold
    noise alike; a chest has its parts in their places. Coordinates are fractions of the picture, so
    a place keeps its embedding at another resolution. Periods run from 4 pictures to 1/16 of one.
    """
    frequencies = 2 * np.pi * 2.0 ** np.linspace(-2, 4, -(-width // 4))
    at = (np.arange(side) + 0.5) / side
    row, column = np.meshgrid(at, at, indexing="ij")
    angles = [p.reshape(-1, 1) * frequencies for p in (row, column)]
    waves = np.concatenate([f(a) for a in angles for f in (np.cos, np.sin)], axis=-1)
    return waves[:, :width].astype(np.float32)


class Embedder(nnx.Module):
    """A number as a vector: sinusoids through a two-layer perceptron."""

    FREQUENCIES = 256

    def __init__(self, width: int, longest: float, rngs: nnx.Rngs):
        self.longest = longest
        self.inner = _param(rngs, (self.FREQUENCIES, width), (None, "embed"), fan_in=128)
        self.outer = _param(rngs, (width, width), ("embed", None), fan_in=width)

    def __call__(self, x: jax.Array) -> jax.Array:
        h = sinusoid(x, self.FREQUENCIES, self.longest) @ self.inner[...]
        return jax.nn.silu(h) @ self.outer[...]


class Condition(nnx.Module):
    """Time and attributes as one vector per example: one embedding per attribute, summed."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        # t enters as 1000·t, so that the fastest sinusoid tells steps of 1/1000 apart; age as
        # age/5, whose sinusoids have periods from 31 years: nothing changes faster with age.
        self.time = Embedder(width, 1e4, rngs)
        self.age = Embedder(width, 30.0, rngs)
        std = conditioning.NUM_ATTRIBUTES**-0.5
        self.table = _param(rngs, (conditioning.NUM_ROWS, width), (None, "embed"), std=std)

    def __call__(self, t: jax.Array, attributes: jax.Array, known: jax.Array) -> jax.Array:
        rows = conditioning.embedding_rows(attributes, known)
        age = conditioning.INDEX["age"]
        told = known[:, age, None]
        c = self.time(1000.0 * t) + self.table[...][rows].sum(1)
        return c + jnp.where(told, self.age(attributes[:, age] / 5.0), 0.0)


class Block(nnx.Module):
    """Attention and SwiGLU, each under adaptive normalisation with a gate that starts at zero."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        d, heads, k, f = config.width, config.heads, config.head_dim, config.mlp_width
        self.dtype = jnp.dtype(config.dtype)
        self.qkv = _param(rngs, (d, 3, heads, k), ("embed", None, "heads", None), fan_in=d)
        self.query_scale = nnx.Param(jnp.ones(k), axes=(None,))
        self.key_scale = nnx.Param(jnp.ones(k), axes=(None,))
        self.attention_out = _param(rngs, (heads, k, d), ("heads", None, "embed"), fan_in=d)
        self.gate = _param(rngs, (d, f), ("embed", "mlp"), fan_in=d)
        self.up = _param(rngs, (d, f), ("embed", "mlp"), fan_in=d)
        self.down = _param(rngs, (f, d), ("mlp", "embed"), fan_in=f)
        # The low-rank part of the modulation that is this block's own (rank r instead of 6·d²).
        r = config.adaln_rank
        self.modulation_in = _param(rngs, (d, r), ("embed", None), fan_in=d)
        self.modulation_out = _param(rngs, (r, 6, d), (None, None, "embed"))
        self.modulation_bias = _param(rngs, (6, d), (None, "embed"))

    def __call__(self, x, c, shared, angles, how: Execution):
        """x [batch, tokens, width], c [batch, width], shared [batch, 6, width] → x."""
        own = jnp.einsum("br,rsd->bsd", c @ self.modulation_in[...], self.modulation_out[...])
        modulation = (shared + own + self.modulation_bias[...]).astype(self.dtype)[:, :, None]
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = jnp.unstack(modulation, axis=1)

        def weight(parameter):
            return parameter[...].astype(self.dtype)

        h = rms_norm(x) * (1 + scale_a) + shift_a
        h = jnp.einsum("bnd,dshk->bnshk", h, weight(self.qkv))
        h = checkpoint_name(constrain(h, "batch", None, None, "heads", None), "qkv")
        query, key, value = jnp.unstack(h, axis=2)
        query = rotate(rms_norm(query, self.query_scale[...]), angles)
        key = rotate(rms_norm(key, self.key_scale[...]), angles)
        h = attention(query, key, value, how.attention)
        h = jnp.einsum("bnhk,hkd->bnd", h, weight(self.attention_out))
        x = constrain(x + gate_a * h, "batch", None, None)

        h = rms_norm(x) * (1 + scale_m) + shift_m
        gate = constrain(h @ weight(self.gate), "batch", None, "mlp")
        up = constrain(h @ weight(self.up), "batch", None, "mlp")
        h = (jax.nn.silu(gate) * up) @ weight(self.down)
        return constrain(x + gate_m * h, "batch", None, None)


class RadiT(nnx.Module):
    """The network: (x_t, t, attributes, known) → a prediction shaped like x_t."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        d, pixels = config.width, config.patch**2 * config.channels
        self.config = config
        self.embed = _param(rngs, (pixels, d), (None, "embed"), fan_in=pixels)
        self.condition = Condition(d, rngs)
        self.modulation = _param(rngs, (d, 6, d), ("embed", None, None))
        layers = nnx.vmap(lambda rngs: Block(config, rngs))
        self.blocks = nnx.split_rngs(splits=config.depth)(layers)(rngs)
        self.final_modulation = _param(rngs, (d, 2, d), ("embed", None, None))
        self.head = _param(rngs, (d, pixels), ("embed", None))

    def __call__(
        self,
        x: jax.Array,
        t: jax.Array,
        attributes: jax.Array,
        known: jax.Array,
        how: Execution = Execution(),
    ) -> jax.Array:
        """One evaluation.

        Args:
          x: [batch, size, size, channels] float32, noised.
          t: [batch] float32 in [0, 1].
          attributes: [batch, 19] float32 as conditioning.py encodes them.
          known: [batch, 19] bool.
          how: attention, remat and unroll.

        Returns:
          [batch, size, size, channels] float32.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        side = config.size // config.patch
        angles = axial_angles(side, side, config.head_dim, config.rope_theta)

        c = jax.nn.silu(self.condition(t, attributes, known))
        shared = jnp.einsum("bd,dse->bse", c, self.modulation[...])
        h = rearrange(x, "b (r p) (s q) c -> b (r s) (p q c)", p=config.patch, q=config.patch)
        h = h.astype(dtype) @ self.embed[...].astype(dtype)
        h += places(side, config.width).astype(dtype)
        h = constrain(h, "batch", None, None)

        block, parameters = nnx.split(self.blocks)

        def layer(h, parameters):
            return nnx.merge(block, parameters)(h, c, shared, angles, how), None

        if REMAT[how.remat] is not None:
            layer = jax.checkpoint(layer, policy=REMAT[how.remat], prevent_cse=False)
        h, _ = jax.lax.scan(layer, h, parameters, unroll=min(how.unroll, config.depth))

        final = jnp.einsum("bd,dse->bse", c, self.final_modulation[...])[:, :, None]
        shift, scale = jnp.unstack(final, axis=1)
        h = rms_norm(h.astype(jnp.float32)) * (1 + scale) + shift
        h = h @ self.head[...]
        return rearrange(
            h, "b (r s) (p q c) -> b (r p) (s q) c", r=side, p=config.patch, q=config.patch
        )


def model_config(config) -> ModelConfig:
    """The `model` part of a run's config."""
    return ModelConfig(**config.model)


def execution(config) -> Execution:
    """The runtime keys of a run's config that the network reads."""
    return Execution(config.attention, config.remat, config.unroll)


def init(config: ModelConfig, key: jax.Array) -> dict:
    """Fresh parameters, a nested dict of float32 arrays. Trace it under jit to place them."""
    return nnx.to_pure_dict(nnx.state(RadiT(config, nnx.Rngs(params=key))))


def abstract(config: ModelConfig) -> tuple[nnx.GraphDef, dict, dict]:
    """The network without its numbers.

    Returns:
      graph definition, the parameters as a nested dict of `jax.ShapeDtypeStruct`, and a dict of
      the same tree with the logical names of each dimension.
    """
    model = nnx.eval_shape(lambda: RadiT(config, nnx.Rngs(params=0)))
    graph, state = nnx.split(model)
    shapes = nnx.to_pure_dict(state)
    named = {path: variable.get_metadata()["axes"] for path, variable in nnx.to_flat_state(state)}

    def axes(path, shape):
        names = named[tuple(entry.key for entry in path)]
        return ("layers",) * (len(shape.shape) - len(names)) + names

    return graph, shapes, jax.tree_util.tree_map_with_path(axes, shapes)


def apply(config: ModelConfig, how: Execution):
    """The network as a pure function `(params, x, t, attributes, known) → prediction`."""
    graph, _, _ = abstract(config)

    def network(params, x, t, attributes, known):
        return nnx.merge(graph, params)(x, t, attributes, known, how)

    return network
