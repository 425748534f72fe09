"""Joint self-attention behind one function: splash on TPU, cuDNN on GPU, XLA as the reference."""

import functools

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import PartitionSpec as P

from rfxray.errors import ConfigError
from rfxray.partition import RULES

IMPLEMENTATIONS = ("auto", "xla", "cudnn", "splash")

# The name of what the splash kernel keeps for its backward pass (output and log-sum-exp), by which
# a remat policy saves it instead of running the kernel twice.
RESIDUALS = "attention"

# Below this many tokens the logits are small and XLA's plain attention needs no more memory than
# the kernel does (compiled for v5p and v6e: at 1,024 tokens and four pictures 288 against 50 MiB).
SPLASH_LEAST_TOKENS = 512


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, implementation: str = "auto"
) -> jax.Array:
    """Softmax attention over all tokens, logits in float32.

    Args:
      query, key, value: [batch, tokens, heads, head_dim], float32 or bfloat16.
      implementation: `xla` is the reference and runs anywhere; `cudnn` is the fused kernel of
        NVIDIA GPUs (bfloat16, head_dim a multiple of 8 up to 128); `splash` is the fused kernel of
        TPUs; `auto` takes the kernel of the backend where it fits and XLA elsewhere.

    Returns:
      [batch, tokens, heads, head_dim] of the query's dtype.

    Raises:
      ConfigError: for an unknown implementation.
    """
    if implementation == "auto":
        implementation = choose(jax.default_backend(), query)
    if implementation == "splash":
        return splash(query, key, value)
    if implementation not in IMPLEMENTATIONS:
        raise ConfigError(f"no attention {implementation!r}, only {', '.join(IMPLEMENTATIONS)}")
    return jax.nn.dot_product_attention(query, key, value, implementation=implementation)


def choose(backend: str, query: jax.Array) -> str:
    """What `auto` stands for on a backend (`cpu`, `gpu` or `tpu`)."""
    _, tokens, _, head_dim = query.shape
    if backend == "gpu" and query.dtype == jnp.bfloat16 and head_dim % 8 == 0 and head_dim <= 128:
        return "cudnn"
    if backend == "tpu" and tokens >= SPLASH_LEAST_TOKENS:
        return "splash"
    return "xla"


def splash(
    query: jax.Array, key: jax.Array, value: jax.Array, interpret: bool = False
) -> jax.Array:
    """Attention by the splash kernel under a full mask, on each device's own batch and heads.

    Tokens are padded to a multiple of 128; the padding is a segment of its own, which nothing else
    attends to.

    Args:
      query, key, value: as in `attention`.
      interpret: runs the kernel's logic on any backend, slowly: for tests.
    """
    one = functools.partial(_splash, interpret=interpret)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return one(query, key, value)
    place = P(RULES["batch"], None, RULES["heads"], None)
    # The kernel's outputs do not say over which axes they vary, so the check of it is off.
    return jax.shard_map(one, in_specs=(place,) * 3, out_specs=place, check_vma=False)(
        query, key, value
    )


def _splash(query, key, value, interpret):
    _, tokens, heads, head_dim = query.shape
    padding = -tokens % 128
    padded = tokens + padding
    block = next(b for b in (512, 384, 256, 128) if padded % b == 0)
    blocks = kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    mask = masks.MultiHeadMask([masks.FullMask((padded, padded))] * heads)
    attend = kernel.make_splash_mha(
        mask,
        block_sizes=blocks,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=RESIDUALS,
        interpret=interpret,
    )
    segments = None
    if padding:
        ids = (jnp.arange(padded) >= tokens).astype(jnp.int32)
        segments = kernel.SegmentIds(ids, ids)

    def prepare(x):
        x = jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0)))
        return rearrange(x, "b n h k -> b h n k")

    query = query * head_dim**-0.5  # the kernel does not scale
    out = jax.vmap(lambda q, k, v: attend(q, k, v, segment_ids=segments))(
        prepare(query), prepare(key), prepare(value)
    )
    return rearrange(out, "b h n k -> b n h k")[:, :tokens]
