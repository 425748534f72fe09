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

from rfxray import attention, conditioning
from rfxray.partition import constrain
from rfxray.rotary import axial_angles, norm_rotate, norm_rotate_kernel, rms_norm


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
_attention = _policies.save_only_these_names("qkv", attention.RESIDUALS)
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


@jax.custom_vjp
def gradients_once(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The arrays, whose gradients the compiler may not compute again where they are used.

    XLA for TPUs moves element-wise work into the products that read its result, where it is done
    anew for every tile: compiled for v5p, the product behind SwiGLU's gradient took 114 ms of a
    step of XL by XLA's own estimate, and 81 with the gradient written once and read.
    """
    return arrays


gradients_once.defvjp(
    lambda *arrays: (arrays, None), lambda _, gradients: jax.lax.optimization_barrier(gradients)
)


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

        h = self.attend(rms_norm(x) * (1 + scale_a) + shift_a, angles, how)
        x = constrain(x + gate_a * h, "batch", "tokens", None)

        h = rms_norm(x) * (1 + scale_m) + shift_m
        gate = constrain(h @ self.weight("gate"), "batch", "tokens", "mlp")
        up = constrain(h @ self.weight("up"), "batch", "tokens", "mlp")
        gate, up = gradients_once(gate, up)
        h = (jax.nn.silu(gate) * up) @ self.weight("down")
        return constrain(x + gate_m * h, "batch", "tokens", None)

    def weight(self, name: str) -> jax.Array:
        """A matrix in the dtype of the products."""
        return getattr(self, name)[...].astype(self.dtype)

    def attend(self, h, angles, how: Execution):
        """Attention from projection to projection: [batch, tokens, width] → the same."""
        head_dim = self.qkv.shape[-1]
        kernel = attention.resolve(how.attention, h.shape[1], head_dim, self.dtype)
        query_scale, logit_scale = self.query_scale[...], head_dim**-0.5
        if kernel == "splash":  # whose operands should neither be copied out nor scaled by a pass
            query_scale, logit_scale = query_scale * logit_scale, 1.0
            weights, turn = jnp.unstack(self.weight("qkv"), axis=1), norm_rotate_kernel
            projections = (jnp.einsum("bnd,dhk->bnhk", h, w) for w in weights)
        else:
            turn = norm_rotate
            projections = jnp.einsum("bnd,dshk->bnshk", h, self.weight("qkv"))
            projections = jnp.unstack(projections, axis=2)
        query, key, value = (
            checkpoint_name(constrain(x, "batch", "tokens", "heads", None), "qkv")
            for x in projections
        )
        query = turn(query, query_scale, angles)
        key = turn(key, self.key_scale[...], angles)
        h = attention.attention(query, key, value, kernel, logit_scale)
        return jnp.einsum("bnhk,hkd->bnd", h, self.weight("attention_out"))


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
        h = constrain(h, "batch", "tokens", None)

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
