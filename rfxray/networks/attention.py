"""Joint self-attention behind one function: splash on TPU, cuDNN on GPU, XLA as the reference."""

import functools

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rfxray.config.models import ATTENTION
from rfxray.errors import ConfigError
from rfxray.runtime.sharding import RULES, constrain

# The name of what the splash kernel keeps for its backward pass (output and log-sum-exp). A remat
# policy saves it by this name instead of running the kernel twice.
RESIDUALS = "attention"


# With fewer tokens the logits are small, and XLA's plain attention needs no more memory than the
# kernel (compiled for v5p and v6e: at 1,024 tokens and four images 288 against 50 MiB).
SPLASH_LEAST_TOKENS = 512


def attention(
    query: Float[Array, "batch tokens heads head_dim"],
    key: Float[Array, "batch keys heads head_dim"],
    value: Float[Array, "batch keys heads head_dim"],
    implementation: str = "auto",
    scale: float | None = None,
) -> Float[Array, "batch tokens heads head_dim"]:
    """Softmax attention over all tokens, logits in float32.

    Args:
      query, key, value: Arrays [batch, tokens, heads, head_dim], float32 or bfloat16.
      implementation: Name: `xla` is the reference and runs anywhere; `cudnn` is the fused kernel
        for NVIDIA GPUs (bfloat16, head_dim a multiple of 8 up to 128); `splash` is the fused kernel
        for TPUs; `auto` uses the kernel of the backend if it supports the inputs, else XLA.
      scale: Scale of the logits; None for 1 / √head_dim.

    Returns:
      Output [batch, tokens, heads, head_dim], in the dtype of the query.

    Raises:
      ConfigError: If the implementation does not exist or does not support the heads.
    """
    implementation = resolve(implementation, query.shape[1], query.shape[3], query.dtype)
    if implementation == "splash":
        return splash(query, key, value, scale)
    key, value = (constrain(x, "batch", None, "heads", None) for x in (key, value))
    fused = "cudnn" if implementation == "cudnn" else "xla"
    return jax.nn.dot_product_attention(query, key, value, scale=scale, implementation=fused)


def resolve(implementation: str, tokens: int, head_dim: int, dtype: DTypeLike) -> str:
    """The implementation with this name; for `auto` the one that this backend uses.

    Raises:
      ConfigError: If there is no such name, or the splash kernel does not support the heads.
    """
    if implementation not in ATTENTION:
        raise ConfigError(
            f"attention must be one of {', '.join(ATTENTION)} (got {implementation!r})"
        )
    if implementation == "splash" and head_dim % 128:
        raise ConfigError(
            f"attention=splash needs heads of a multiple of 128 (got {head_dim}); use xla"
        )
    if implementation != "auto":
        return implementation
    return choose(jax.default_backend(), tokens, head_dim, dtype)


def refuse_elsewhere(implementation: str, backend: str, head_dim: int, dtype: DTypeLike) -> None:
    """Raises a ConfigError if a backend cannot run an implementation."""
    if implementation == "cudnn" and not (backend == "gpu" and _fits_cudnn(head_dim, dtype)):
        raise ConfigError(
            "attention=cudnn needs an NVIDIA GPU, bfloat16 and a head_dim that is a multiple of 8 "
            f"up to 128 (got {backend}, {dtype} and {head_dim}); use auto"
        )
    if implementation == "splash" and backend != "tpu":
        raise ConfigError(f"attention=splash needs a TPU (got {backend}); use auto")
    resolve(implementation, 0, head_dim, dtype)


def _fits_cudnn(head_dim: int, dtype: DTypeLike) -> bool:
    return jnp.dtype(dtype) == jnp.bfloat16 and head_dim % 8 == 0 and head_dim <= 128


def choose(backend: str, tokens: int, head_dim: int, dtype: DTypeLike) -> str:
    """The implementation that `auto` uses on a backend (`cpu`, `gpu` or `tpu`)."""
    if backend == "gpu" and _fits_cudnn(head_dim, dtype):
        return "cudnn"
    if backend == "tpu" and tokens >= SPLASH_LEAST_TOKENS and head_dim % 128 == 0:
        return "splash"
    return "xla"


def splash(
    query: Float[Array, "batch tokens heads head_dim"],
    key: Float[Array, "batch keys heads head_dim"],
    value: Float[Array, "batch keys heads head_dim"],
    scale: float | None = None,
    interpret: bool = False,
) -> Float[Array, "batch tokens heads head_dim"]:
    """Attention by the splash kernel with a full mask; each device computes its batch and heads.

    With a sequence axis, a device has its part of the queries and all keys and values. Tokens are
    padded to a multiple of 128; the padding is a separate segment, so no token attends to it.

    Args:
      query, key, value, scale: Those of `attention`.
      interpret: Whether to run the kernel's logic on any backend, slowly, for tests.
    """
    one = functools.partial(_splash, interpret=interpret)
    query = query * (
        query.shape[-1] ** -0.5 if scale is None else scale
    )  # the kernel does not scale
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return one(query, key, value)
    part = P(RULES["batch"], RULES["tokens"], RULES["heads"], None)
    whole = P(RULES["batch"], None, RULES["heads"], None)
    # The kernel's outputs do not declare the axes over which they vary, so the check is off.
    return jax.shard_map(one, in_specs=(part, whole, whole), out_specs=part, check_vma=False)(
        query, key, value
    )


def _splash(
    query: Float[Array, "batch tokens heads head_dim"],
    key: Float[Array, "batch keys heads head_dim"],
    value: Float[Array, "batch keys heads head_dim"],
    interpret: bool,
) -> Float[Array, "batch tokens heads head_dim"]:
    asked, held, heads = query.shape[1], key.shape[1], query.shape[2]
    query, key, value = map(_to_kernel, (query, key, value))
    rows, columns = query.shape[2], key.shape[2]
    of_rows, of_columns = tile(rows, 512), tile(columns, 1024)
    # The fused backward kernel computes the logits once for all three gradients: 5 products, where
    # separate kernels need 7. With one block of columns it needs no sum of query gradients.
    blocks = kernel.BlockSizes(
        block_q=of_rows,
        block_kv=of_columns,
        block_kv_compute=tile(of_columns, 512),
        block_q_dkv=of_rows,
        block_kv_dkv=of_columns,
        block_kv_dkv_compute=tile(of_columns, 512),
        use_fused_bwd_kernel=True,
    )
    attend = kernel.make_splash_mha(
        masks.MultiHeadMask([masks.FullMask((rows, columns))] * heads),
        block_sizes=blocks,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=RESIDUALS,
        interpret=interpret,
    )
    segments = None
    if (rows, columns) != (asked, held):
        padding = [jnp.arange(n) >= m for n, m in ((rows, asked), (columns, held))]
        segments = kernel.SegmentIds(*(x.astype(jnp.int32) for x in padding))
    # Without residuals the kernel returns only the output, which its type cannot say.
    out: jax.Array = jax.vmap(  # pyright: ignore[reportAssignmentType]
        lambda q, k, v: attend(q, k, v, segment_ids=segments)
    )(query, key, value)
    return rearrange(out, "b h n k -> b n h k")[:, :asked]


def _to_kernel(
    x: Float[Array, "batch tokens heads head_dim"],
) -> Float[Array, "batch heads padded head_dim"]:
    """[batch, tokens, heads, head_dim] as [batch, heads, tokens padded to 128s, head_dim]."""
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % 128), (0, 0), (0, 0)))
    return rearrange(x, "b n h k -> b h n k")


def tile(tokens: int, most: int) -> int:
    """The largest multiple of 128 up to `most` that divides `tokens`, else `tokens`."""
    return next((n for n in range(most, 0, -128) if tokens % n == 0), tokens)
