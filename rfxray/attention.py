"""Joint self-attention behind one function."""

import jax

from rfxray.errors import ConfigError


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, implementation: str = "auto"
) -> jax.Array:
    """Softmax attention over all tokens, logits in float32.

    Args:
      query, key, value: [batch, tokens, heads, head_dim], float32 or bfloat16.
      implementation: `xla` is the reference and runs anywhere; `cudnn` is the fused kernel of
        NVIDIA GPUs (bfloat16, head_dim a multiple of 8 up to 128); `auto` takes cuDNN where it
        can and XLA elsewhere.

    Returns:
      [batch, tokens, heads, head_dim] of the query's dtype.
    """
    if implementation == "auto":
        fits = query.dtype == jax.numpy.bfloat16 and query.shape[-1] % 8 == 0
        implementation = "cudnn" if jax.default_backend() == "gpu" and fits else "xla"
    if implementation not in ("xla", "cudnn"):
        raise ConfigError(f"no attention {implementation!r}, only auto, xla and cudnn")
    return jax.nn.dot_product_attention(query, key, value, implementation=implementation)
