"""The vision transformer of DINOv2 (arXiv 2304.07193), with its published weights.

RAD-DINO and DINOv2 (S, B, L, G, with and without registers, arXiv 2309.16588) are such networks.
Tensors have the names of their files on Hugging Face; `convert` checks them and turns their layout.
"""

import dataclasses
import functools
from collections.abc import Collection, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float

from rfxray.arrays import AnyArray
from rfxray.errors import ConfigError, DataError
from rfxray.networks import interpolation, torch_weights
from rfxray.networks.attention import attention
from rfxray.networks.torch_weights import Weights


@dataclasses.dataclass(frozen=True)
class Vit:
    """The shape of a network.

    Attributes:
      width: Channels of a token.
      depth: Number of blocks.
      heads: Number of attention heads.
      mlp: Hidden channels of the perceptrons.
      gated: Whether the perceptrons are SwiGLU (as in G) instead of GELU.
      patch: Side of a patch, pixels.
      side: Side of the grid of stored position embeddings, patches.
      registers: Number of register tokens.
      epsilon: Constant of the layer norms.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    gated: bool = False
    patch: int = 14
    side: int = 37
    registers: int = 0
    epsilon: float = 1e-6

    def __post_init__(self):
        if self.width % self.heads:
            raise DataError(f"heads must divide width={self.width} (got {self.heads})")


# Depth of DINOv2 S, B, L and G by width, and whether it is gated; their heads are 64 wide. A file
# without a config.json is measured against it: the blocks in it do not say how many are lost.
_PUBLISHED = {384: (12, False), 768: (12, False), 1024: (24, False), 1536: (40, True)}


# ---------------------------------------------------------------------------------------------
# Which network


def from_config(values: Mapping[str, object]) -> Vit:
    """The network of a `config.json` of Hugging Face (dinov2 or dinov2_with_registers).

    Raises:
      DataError: If it is of another model, or of a variant that no published weights have.
    """
    kind = values.get("model_type")
    if kind not in ("dinov2", "dinov2_with_registers"):
        raise DataError(
            f"config.json must be of a dinov2 or dinov2_with_registers model (got {kind!r})"
        )
    fixed = {"hidden_act": "gelu", "qkv_bias": True, "num_channels": 3}
    for key, only in fixed.items():
        if values.get(key, only) != only:
            raise DataError(f"config.json must have {key}={only} (got {values[key]!r})")

    def whole(key: str, otherwise: int | None = None) -> int:
        value = values.get(key, otherwise)
        if isinstance(value, bool) or not isinstance(value, int):
            raise DataError(f"config.json must have a whole number as {key} (got {value!r})")
        return value

    width, patch = whole("hidden_size"), whole("patch_size")
    gated = bool(values.get("use_swiglu_ffn", False))
    mlp = width * whole("mlp_ratio", 4)
    epsilon = values.get("layer_norm_eps", 1e-6)
    if not isinstance(epsilon, float):
        raise DataError(f"config.json must have a number as layer_norm_eps (got {epsilon!r})")
    return Vit(
        width=width,
        depth=whole("num_hidden_layers"),
        heads=whole("num_attention_heads"),
        # SwiGLU has a third matrix, so it keeps two thirds of the channels, in multiples of 8.
        mlp=(mlp * 2 // 3 + 7) // 8 * 8 if gated else mlp,
        gated=gated,
        patch=patch,
        side=whole("image_size") // patch,
        registers=whole("num_register_tokens", 4) if kind == "dinov2_with_registers" else 0,
        epsilon=epsilon,
    )


def from_shapes(tensors: Mapping[str, np.ndarray]) -> Vit:
    """The published network that tensors seem to be of; `convert` checks each of them against it.

    Raises:
      DataError: If it cannot be seen which one.
    """
    read = ("cls_token", "position_embeddings", "patch_embeddings.projection.weight")
    absent = [name for name in read if f"embeddings.{name}" not in tensors]
    if absent:
        raise DataError(
            f"these are not the weights of a DINOv2 network: embeddings.{absent[0]} is missing "
            f"({len(tensors)} tensors are there)"
        )
    token, positions, projection = (tensors[f"embeddings.{name}"].shape for name in read)
    width = token[-1]
    if width not in _PUBLISHED:
        raise DataError(
            f"no published DINOv2 network is {width} wide ({', '.join(map(str, _PUBLISHED))} are); "
            "keep its config.json in the folder of its weights"
        )
    depth, gated = _PUBLISHED[width]
    extra = tensors.get("embeddings.register_tokens")
    return Vit(
        width=width,
        depth=depth,
        heads=width // 64,
        mlp=(width * 8 // 3 + 7) // 8 * 8 if gated else 4 * width,
        gated=gated,
        patch=projection[-1],
        side=round((positions[1] - 1) ** 0.5),
        registers=0 if extra is None else extra.shape[1],
    )


def shapes(vit: Vit) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that a network reads, in PyTorch's layout."""
    width, mlp = vit.width, vit.mlp
    found: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.position_embeddings": (1, vit.side**2 + 1, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, vit.patch, vit.patch),
        "embeddings.patch_embeddings.projection.bias": (width,),
    }
    if vit.registers:
        found["embeddings.register_tokens"] = (1, vit.registers, width)
    if vit.gated:
        perceptron = {"weights_in": (2 * mlp, width), "weights_out": (width, mlp)}
    else:
        perceptron = {"fc1": (mlp, width), "fc2": (width, mlp)}
    linear = {f"attention.attention.{n}": (width, width) for n in ("query", "key", "value")}
    linear |= {"attention.output.dense": (width, width)}
    linear |= {f"mlp.{name}": shape for name, shape in perceptron.items()}
    for i in range(vit.depth):
        block = f"encoder.layer.{i}"
        for norm in ("norm1", "norm2"):
            found |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
        for name, shape in linear.items():
            found |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
        for scale in ("layer_scale1", "layer_scale2"):
            found[f"{block}.{scale}.lambda1"] = (width,)
    return found | {"layernorm.weight": (width,), "layernorm.bias": (width,)}


def convert(vit: Vit, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a file as the weights that `apply` reads, float32.

    Raises:
      DataError: If they are of another network.
    """
    name = f"a DINOv2 network of width {vit.width} and depth {vit.depth}"
    # The mask token stands for hidden patches in training; no image has any.
    return torch_weights.convert(tensors, shapes(vit), name, unread=["embeddings.mask_token"])


# ---------------------------------------------------------------------------------------------
# The network


def apply(
    vit: Vit,
    weights: Weights,
    images: Float[AnyArray, "n height width 3"],
    outputs: Collection[str] = ("cls",),
    hidden: Bool[AnyArray, "n patches"] | None = None,
    remat: bool = False,
) -> dict[str, Float[Array, "n ..."]]:
    """Runs the network in float32; trace it under jit.

    Args:
      vit: Shape of the network.
      weights: Weights from `convert`.
      images: Images [n, height, width, 3] float32, normalised as the weights expect; sides are
        multiples of the patch. Positions of another grid than the stored one are resampled, with
        antialiasing if the network has registers, as transformers does for each of the two.
      outputs: Names of what to return. `cls` is the class token after the last norm [n, width],
        `patches` are the patch tokens after it [n, rows · columns, width], and `block_K` are all
        tokens after block K, from 1 on and before the norm [n, 1 + registers + patches, width].
        What is not asked for is not kept.
      hidden: Which patches the mask token replaces, row by row; its tensor, which `convert` leaves
        out, is read only then.
      remat: Whether the backward pass computes each block again, from its input.

    Returns:
      The outputs by name.

    Raises:
      ConfigError: If there is no such output, or the images do not divide into patches.
    """
    blocks = [f"block_{i + 1}" for i in range(vit.depth)]
    if unknown := [name for name in outputs if name not in ("cls", "patches", *blocks)]:
        raise ConfigError(f"outputs must be cls, patches or block_1 … {blocks[-1]} (got {unknown})")
    height, width = images.shape[1:3]
    if height % vit.patch or width % vit.patch:
        raise ConfigError(
            f"sides of the images must be multiples of the patch {vit.patch} (got {height}×{width})"
        )
    found = {}
    with jax.default_matmul_precision("highest"):  # or a TPU multiplies bfloat16 and a GPU TF32
        x = _embed(vit, weights, images, hidden)
        for i, name in enumerate(blocks):
            run = functools.partial(block, vit, name=f"encoder.layer.{i}")
            x = (jax.checkpoint(run) if remat else run)(weights, x=x)
            if name in outputs:
                found[name] = x
        if "cls" in outputs or "patches" in outputs:
            x = norm(vit, weights, "layernorm", x)
            found |= {"cls": x[:, 0], "patches": x[:, 1 + vit.registers :]}
    return {name: found[name] for name in outputs}


def _embed(
    vit: Vit,
    weights: Weights,
    images: Float[AnyArray, "n height width 3"],
    hidden: Bool[AnyArray, "n patches"] | None,
) -> Array:
    n, rows, columns = len(images), images.shape[1] // vit.patch, images.shape[2] // vit.patch
    patches = rearrange(
        jnp.asarray(images), "n (y p) (x q) c -> n (y x) (p q c)", p=vit.patch, q=vit.patch
    )
    kernel = weights["embeddings.patch_embeddings.projection.weight"]
    x = patches @ rearrange(kernel, "p q c d -> (p q c) d")
    x = x + weights["embeddings.patch_embeddings.projection.bias"]
    if hidden is not None:
        x = jnp.where(jnp.asarray(hidden)[..., None], weights["embeddings.mask_token"], x)
    places = jnp.asarray(weights["embeddings.position_embeddings"])
    first, grid = places[:, :1], places[:, 1:]
    if (rows, columns) != (vit.side, vit.side):
        grid = rearrange(grid, "o (y x) d -> o y x d", y=vit.side)
        kind = "bicubic_antialias" if vit.registers else "bicubic"
        grid = interpolation.resize(grid, rows, columns, kind)
        grid = rearrange(grid, "o y x d -> o (y x) d")
    spread = functools.partial(jnp.broadcast_to, shape=(n, 1, vit.width))
    tokens = [spread(weights["embeddings.cls_token"] + first)]
    if vit.registers:  # registers have no place
        registers = weights["embeddings.register_tokens"]
        tokens.append(jnp.broadcast_to(registers, (n, vit.registers, vit.width)))
    return jnp.concatenate([*tokens, x + grid], axis=1)


def block(
    vit: Vit, weights: Weights, name: str, x: Float[Array, "n tokens width"]
) -> Float[Array, "n tokens width"]:
    """One block; its tensors begin with the name."""
    linear = functools.partial(_linear, weights)

    def heads(part: str) -> Array:
        y = linear(f"{name}.attention.attention.{part}", h)
        return rearrange(y, "n t (h d) -> n t h d", h=vit.heads)

    h = norm(vit, weights, f"{name}.norm1", x)
    mixed = attention(heads("query"), heads("key"), heads("value"), "xla")
    mixed = rearrange(mixed, "n t h d -> n t (h d)")
    mixed = linear(f"{name}.attention.output.dense", mixed)
    x = x + mixed * weights[f"{name}.layer_scale1.lambda1"]
    h = norm(vit, weights, f"{name}.norm2", x)
    if vit.gated:
        gate, h = jnp.split(linear(f"{name}.mlp.weights_in", h), 2, axis=-1)
        h = linear(f"{name}.mlp.weights_out", jax.nn.silu(gate) * h)
    else:
        h = jax.nn.gelu(linear(f"{name}.mlp.fc1", h), approximate=False)
        h = linear(f"{name}.mlp.fc2", h)
    return x + h * weights[f"{name}.layer_scale2.lambda1"]


def _linear(weights: Weights, name: str, x: Array) -> Array:
    return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]


def norm(
    vit: Vit, weights: Weights, name: str, x: Float[Array, "n tokens width"]
) -> Float[Array, "n tokens width"]:
    """The layer norm of a name."""
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    x = (x - mean) * jax.lax.rsqrt(variance + vit.epsilon)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]
