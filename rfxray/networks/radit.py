"""RadiT: a transformer over patches of a noised image, conditioned on time and 19 attributes.

patchify → blocks (RMSNorm, joint self-attention with QK-RMSNorm and axial rotary embedding, SwiGLU,
each modulated by time and attributes, gates zero at the start) → unpatchify. The layout follows DiT
(Peebles and Xie 2023, arXiv 2212.09748) with parts that later work found to train better.

The modules are Flax NNX. Every parameter names its dimensions (`axes`, see runtime/sharding.py).
The blocks are one module with a leading `layers` dimension in its parameters, run by a scan.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from einops import rearrange
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Key, PyTree

from rfxray.arrays import AnyArray, Params
from rfxray.attributes.vocabulary import Attributes
from rfxray.errors import ConfigError
from rfxray.networks import attention
from rfxray.networks.layers import Condition, exact, gradients_once, parameter, places
from rfxray.networks.network import Apply, Network
from rfxray.networks.rotary import axial_angles, norm_rotate, norm_rotate_kernel, rms_norm
from rfxray.runtime.sharding import constrain


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The shape of the network; see rfxray/config/models.py for the meaning of each field."""

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
    """How to run the network, without an effect on parameters: attention, remat, scan unroll."""

    attention: str = "auto"
    remat: str = "none"
    unroll: int = 1


# What is saved for the backward pass; the rest is computed again: with `dots` no matrix product and
# no attention kernel, with `attention` the products of SwiGLU, with `full` everything.
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


class Block(nnx.Module):
    """Attention and SwiGLU, each under adaptive normalisation with a gate that starts at zero."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        d, heads, k, f = config.width, config.heads, config.head_dim, config.mlp_width
        self.dtype = jnp.dtype(config.dtype)
        self.qkv = parameter(rngs, (d, 3, heads, k), ("embed", None, "heads", None), fan_in=d)
        self.query_scale = nnx.Param(jnp.ones(k), axes=(None,))
        self.key_scale = nnx.Param(jnp.ones(k), axes=(None,))
        self.attention_out = parameter(rngs, (heads, k, d), ("heads", None, "embed"), fan_in=d)
        self.gate = parameter(rngs, (d, f), ("embed", "mlp"), fan_in=d)
        self.up = parameter(rngs, (d, f), ("embed", "mlp"), fan_in=d)
        self.down = parameter(rngs, (f, d), ("mlp", "embed"), fan_in=f)
        # The part of the modulation specific to this block has low rank (r instead of 6·d²).
        r = config.adaln_rank
        self.modulation_in = parameter(rngs, (d, r), ("embed", None), fan_in=d)
        self.modulation_out = parameter(rngs, (r, 6, d), (None, None, "embed"))
        self.modulation_bias = parameter(rngs, (6, d), (None, "embed"))

    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        c: Float[Array, "batch width"],
        shared: Float[Array, "batch 6 width"],
        angles: Float[np.ndarray, "tokens half"],
        how: Execution,
    ) -> Float[Array, "batch tokens width"]:
        """Maps x [batch, tokens, width], c [batch, width], shared [batch, 6, width] to x."""
        own = exact("bd,dr->br", c, self.modulation_in[...])
        own = exact("br,rsd->bsd", own, self.modulation_out[...])
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

    def weight(self, name: str) -> Float[Array, "..."]:
        """The matrix with this name, in the dtype of the products."""
        return getattr(self, name)[...].astype(self.dtype)

    def attend(
        self,
        h: Float[Array, "batch tokens width"],
        angles: Float[np.ndarray, "tokens half"],
        how: Execution,
    ) -> Float[Array, "batch tokens width"]:
        """Attention with its input and output projections, [batch, tokens, width]."""
        head_dim = self.qkv.shape[-1]
        kernel = attention.resolve(how.attention, h.shape[1], head_dim, self.dtype)
        query_scale, logit_scale = self.query_scale[...], head_dim**-0.5
        if kernel == "splash":  # avoids passes that copy or scale the operands of the kernel
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
    """The network: (x_t, t, attributes) → a prediction with the shape of x_t."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        d, pixels = config.width, config.patch**2 * config.channels
        self.config = config
        self.embed = parameter(rngs, (pixels, d), (None, "embed"), fan_in=pixels)
        self.condition = Condition(d, rngs)
        self.modulation = parameter(rngs, (d, 6, d), ("embed", None, None))
        layers = nnx.vmap(lambda rngs: Block(config, rngs))
        self.blocks = nnx.split_rngs(splits=config.depth)(layers)(rngs)
        self.final_modulation = parameter(rngs, (d, 2, d), ("embed", None, None))
        self.head = parameter(rngs, (d, pixels), ("embed", None))

    def __call__(
        self,
        x: Float[AnyArray, "batch size size channels"],
        t: Float[AnyArray, " batch"],
        attributes: Attributes,
        how: Execution = Execution(),
    ) -> Float[Array, "batch size size channels"]:
        """Evaluates the network.

        Args:
          x: Noised images [batch, size, size, channels] float32.
          t: Timesteps [batch] float32 in [0, 1].
          attributes: Attributes [batch, 19].
          how: Attention, remat and unroll.

        Returns:
          Prediction [batch, size, size, channels] float32.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        side = config.size // config.patch
        angles = axial_angles(side, side, config.head_dim, config.rope_theta)

        c = jax.nn.silu(self.condition(t, attributes))
        shared = exact("bd,dse->bse", c, self.modulation[...])
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

        final = exact("bd,dse->bse", c, self.final_modulation[...])[:, :, None]
        shift, scale = jnp.unstack(final, axis=1)
        h = rms_norm(h.astype(jnp.float32)) * (1 + scale) + shift
        h = exact("bnd,dp->bnp", h, self.head[...])
        return rearrange(
            h, "b (r s) (p q c) -> b (r p) (s q) c", r=side, p=config.patch, q=config.patch
        )


def init(config: ModelConfig, key: Key[Array, ""]) -> Params:
    """Fresh parameters, a nested dict of float32 arrays. Trace it under jit to place them."""
    return nnx.to_pure_dict(nnx.state(RadiT(config, nnx.Rngs(params=key))))


def abstract(
    config: ModelConfig,
) -> tuple[nnx.GraphDef, PyTree[jax.ShapeDtypeStruct], PyTree[str]]:
    """The network without values of parameters.

    Returns:
      Graph definition, parameters as a nested dict of `jax.ShapeDtypeStruct`, and a dict with the
      same structure and the logical names of their dimensions.
    """
    model = nnx.eval_shape(lambda: RadiT(config, nnx.Rngs(params=0)))
    graph, state = nnx.split(model)
    shapes = nnx.to_pure_dict(state)
    named = {path: variable.get_metadata()["axes"] for path, variable in nnx.to_flat_state(state)}

    def axes(path, shape):
        names = named[tuple(entry.key for entry in path)]
        return ("layers",) * (len(shape.shape) - len(names)) + names

    return graph, shapes, jax.tree_util.tree_map_with_path(axes, shapes)


def apply(config: ModelConfig, how: Execution) -> Apply:
    """The network as a pure function `(params, x, t, attributes) → prediction`."""
    graph, _, _ = abstract(config)

    def network(
        params: Params,
        x: Float[AnyArray, "batch size size channels"],
        t: Float[AnyArray, " batch"],
        attributes: Attributes,
    ) -> Float[Array, "batch size size channels"]:
        return nnx.merge(graph, params)(x, t, attributes, how)

    return network


def build(section: ml_collections.ConfigDict) -> Network:
    """The network of a config's `model` section.

    Raises:
      ConfigError: If the patch does not divide the size, or the heads the width.
    """
    keys = dict(section)
    keys.pop("kind")
    how = Execution(**{field.name: keys.pop(field.name) for field in dataclasses.fields(Execution)})
    shape = ModelConfig(**keys)
    if shape.size % shape.patch:
        raise ConfigError(f"model.patch must divide model.size={shape.size} (got {shape.patch})")
    if shape.width % (4 * shape.heads):
        raise ConfigError(
            f"model.width must be model.heads={shape.heads} times a multiple of 4, as axial rotary "
            f"embedding needs (got {shape.width})"
        )
    _, shapes, axes = abstract(shape)

    def refuse(backend: str) -> None:
        attention.refuse_elsewhere(how.attention, backend, shape.head_dim, shape.dtype)

    return Network(
        init=functools.partial(init, shape),
        apply=apply(shape, how),
        shapes=shapes,
        axes=axes,
        input_shape=(shape.size, shape.size, shape.channels),
        tokens=shape.tokens,
        sizes={"heads": shape.heads, "mlp": shape.mlp_width, "tokens": shape.tokens},
        refuse=refuse,
    )


def kernel_for(section: ml_collections.ConfigDict, backend: str) -> str:
    """The attention implementation of a `model` section on a backend, with `auto` resolved."""
    if section.attention != "auto":
        return section.attention
    tokens, head_dim = (section.size // section.patch) ** 2, section.width // section.heads
    return attention.choose(backend, tokens, head_dim, section.dtype)
