"""Joint self-attention behind one function: splash on TPU, cuDNN on GPU, XLA as the reference."""

import functools

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import PartitionSpec as P

from rfxray.config.schema import ATTENTION
from rfxray.errors import ConfigError
from rfxray.runtime.sharding import RULES, constrain

# The name of what the splash kernel keeps for its backward pass (output and log-sum-exp), by which
# a remat policy saves it instead of running the kernel twice.
RESIDUALS = "attention"


# Below this many tokens the logits are small and XLA's plain attention needs no more memory than
# the kernel does (compiled for v5p and v6e: at 1,024 tokens and four pictures 288 against 50 MiB).
SPLASH_LEAST_TOKENS = 512


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    implementation: str = "auto",
    scale: float | None = None,
) -> jax.Array:
    """Softmax attention over all tokens, logits in float32.

    Args:
      query, key, value: [batch, tokens, heads, head_dim], float32 or bfloat16.
      implementation: `xla` is the reference and runs anywhere; `cudnn` is the fused kernel of
        NVIDIA GPUs (bfloat16, head_dim a multiple of 8 up to 128); `splash` is the fused kernel of
        TPUs; `auto` takes the kernel of the backend where it fits and XLA elsewhere.
      scale: of the logits; 1 / √head_dim when None.

    Returns:
      [batch, tokens, heads, head_dim] of the query's dtype.

    Raises:
      ConfigError: for an unknown implementation.
    """
    implementation = resolve(implementation, query.shape[1], query.shape[3], query.dtype)
    if implementation == "splash":
        return splash(query, key, value, scale)
    key, value = (constrain(x, "batch", None, "heads", None) for x in (key, value))
    return jax.nn.dot_product_attention(
        query, key, value, scale=scale, implementation=implementation
    )


def resolve(implementation: str, tokens: int, head_dim: int, dtype) -> str:
    """The implementation of that name; for `auto` the one that this backend takes.

    Raises:
      ConfigError: for an unknown name, or heads that the kernel of TPUs does not take.
    """
    if implementation not in ATTENTION:
        raise ConfigError(f"no attention {implementation!r}, only {', '.join(ATTENTION)}")
    if implementation == "splash" and head_dim % 128:
        raise ConfigError(f"attention=splash takes heads of 128, not of {head_dim}; use xla")
    if implementation != "auto":
        return implementation
    return choose(jax.default_backend(), tokens, head_dim, dtype)


def refuse_elsewhere(implementation: str, backend: str, head_dim: int, dtype) -> None:
    """Raises a ConfigError where a kernel that was named does not run on a backend."""
    if implementation == "cudnn" and not (backend == "gpu" and _fits_cudnn(head_dim, dtype)):
        raise ConfigError(
            "attention=cudnn takes an NVIDIA GPU, bfloat16 and a head_dim that is a multiple of 8 "
            f"up to 128, not {backend}, {dtype} and {head_dim}; auto takes what fits"
        )
    if implementation == "splash" and backend != "tpu":
        raise ConfigError(f"attention=splash takes a TPU, not {backend}; auto takes what fits")
    resolve(implementation, 0, head_dim, dtype)


def _fits_cudnn(head_dim: int, dtype) -> bool:
    return jnp.dtype(dtype) == jnp.bfloat16 and head_dim % 8 == 0 and head_dim <= 128


def choose(backend: str, tokens: int, head_dim: int, dtype) -> str:
    """What `auto` stands for on a backend (`cpu`, `gpu` or `tpu`)."""
    if backend == "gpu" and _fits_cudnn(head_dim, dtype):
        return "cudnn"
    if backend == "tpu" and tokens >= SPLASH_LEAST_TOKENS and head_dim % 128 == 0:
        return "splash"
    return "xla"


def splash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    scale: float | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Attention by the splash kernel under a full mask, on each device's own batch and heads.

    Under a sequence axis a device takes its part of the queries, and all keys and values. Tokens
    are padded to a multiple of 128; the padding is a segment of its own, which nothing else
    attends to.

    Args:
      query, key, value, scale: as in `attention`.
      interpret: runs the kernel's logic on any backend, slowly: for tests.
    """
    one = functools.partial(_splash, interpret=interpret)
    query = query * (query.shape[-1] ** -0.5 if scale is None else scale)  # the kernel does not
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return one(query, key, value)
    part = P(RULES["batch"], RULES["tokens"], RULES["heads"], None)
    whole = P(RULES["batch"], None, RULES["heads"], None)
    # The kernel's outputs do not say over which axes they vary, so the check of it is off.
    return jax.shard_map(one, in_specs=(part, whole, whole), out_specs=part, check_vma=False)(
        query, key, value
    )


def _splash(query, key, value, interpret):
    asked, held, heads = query.shape[1], key.shape[1], query.shape[2]
    query, key, value = map(_to_kernel, (query, key, value))
    rows, columns = query.shape[2], key.shape[2]
    of_rows, of_columns = tile(rows, 512), tile(columns, 1024)
    # The fused backward kernel computes the logits once for all three gradients: 5 products where
    # separate kernels need 7. With one block of columns its part of the query's gradient is whole.
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
    out = jax.vmap(lambda q, k, v: attend(q, k, v, segment_ids=segments))(query, key, value)
    return rearrange(out, "b h n k -> b n h k")[:, :asked]


def _to_kernel(x: jax.Array) -> jax.Array:
    """[batch, tokens, heads, head_dim] as [batch, heads, tokens padded to 128s, head_dim]."""
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % 128), (0, 0), (0, 0)))
    return rearrange(x, "b n h k -> b h n k")


def tile(tokens: int, most: int) -> int:
    """The largest multiple of 128 up to `most` that divides `tokens`, or all where none does."""
    return next((n for n in range(most, 0, -128) if tokens % n == 0), tokens)
