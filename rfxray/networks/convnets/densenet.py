"""DenseNet-121 of TorchXRayVision (arXiv 1608.06993, 2111.00595): one channel, 18 findings."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfxray.arrays import AnyArray
from rfxray.networks import torch_weights
from rfxray.networks.convnets import layers
from rfxray.networks.convnets.layers import Maps
from rfxray.networks.torch_weights import Weights

# DenseNet-121: layers of each block, maps that a layer adds, and maps before the first block.
BLOCKS = (6, 12, 24, 16)
GROWTH = 32
STEM = 64
CLASSES = 18
WIDTH = 1024
_BOTTLENECK = 4  # times the growth: maps between the two convolutions of a layer
_EPSILON = 1e-5


def shapes(
    blocks: Sequence[int] = BLOCKS, growth: int = GROWTH, stem: int = STEM, classes: int = CLASSES
) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that a network reads, in PyTorch's layout."""
    found: dict[str, tuple[int, ...]] = {"features.conv0.weight": (stem, 1, 7, 7)}
    found |= layers.norm_shapes("features.norm0", stem)
    width, inner = stem, _BOTTLENECK * growth
    for b, count in enumerate(blocks, 1):
        for i in range(1, count + 1):
            layer = f"features.denseblock{b}.denselayer{i}"
            found |= layers.norm_shapes(f"{layer}.norm1", width)
            found[f"{layer}.conv1.weight"] = (inner, width, 1, 1)
            found |= layers.norm_shapes(f"{layer}.norm2", inner)
            found[f"{layer}.conv2.weight"] = (growth, inner, 3, 3)
            width += growth
        if b < len(blocks):
            found |= layers.norm_shapes(f"features.transition{b}.norm", width)
            found[f"features.transition{b}.conv.weight"] = (width // 2, width, 1, 1)
            width //= 2
    found |= layers.norm_shapes("features.norm5", width)
    return found | {"classifier.weight": (classes, width), "classifier.bias": (classes,)}


def convert(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a file as the weights that `apply` reads, float32.

    Raises:
      DataError: If they are of another network.
    """
    name = "the DenseNet-121 of TorchXRayVision"
    # Thresholds of the findings belong to the scores, and a file may have them or not.
    return torch_weights.convert(tensors, shapes(), name, unread=["op_threshs"])


def apply(
    weights: Weights, images: Float[AnyArray, "n height width 1"]
) -> Float[Array, "n features"]:
    """Runs the network in float32 up to the mean of its last maps; trace it under jit.

    Args:
      weights: Weights from `convert`; their names say how many blocks and layers there are.
      images: Images [n, height, width, 1] float32 in [−1024, 1024]; 224² as in training, at least
        32².

    Returns:
      Features [n, width] float32, 1,024 wide for DenseNet-121.
    """
    with jax.default_matmul_precision("highest"):  # or a TPU multiplies bfloat16 and a GPU TF32
        x = layers.convolution(weights, "features.conv0", jnp.asarray(images), 2, (3, 3))
        x = layers.max_pool(_norm_relu(weights, "features.norm0", x), 3, 2, 1)
        b = 1
        while f"features.denseblock{b}.denselayer1.conv1.weight" in weights:
            if b > 1:
                x = _transition(weights, f"features.transition{b - 1}", x)
            x = _dense(weights, f"features.denseblock{b}", x)
            b += 1
        return _norm_relu(weights, "features.norm5", x).mean((1, 2))


def scores(
    weights: Weights,
    features: Float[AnyArray, "n width"],
    thresholds: Float[AnyArray, " classes"],
) -> Float[Array, "n classes"]:
    """Scores in [0, 1] of each finding, from features: 0.5 is at the threshold.

    A probability below the threshold is scaled to [0, .5), one above to [.5, 1]. NaN as a threshold
    says that the finding was not trained; it scores 0.5.

    Args:
      weights: Weights from `convert`.
      features: Features from `apply`.
      thresholds: Probability of each finding at which the network was set to operate.
    """
    with jax.default_matmul_precision("highest"):
        logits = features @ weights["classifier.weight"] + weights["classifier.bias"]
    p = jax.nn.sigmoid(logits)
    scaled = jnp.where(p < thresholds, p / (2 * thresholds), 1 - (1 - p) / (2 * (1 - thresholds)))
    return jnp.where(jnp.isnan(thresholds), 0.5, scaled)


def _dense(weights: Weights, block: str, x: Maps) -> Maps:
    i = 1
    while f"{block}.denselayer{i}.conv1.weight" in weights:
        layer = f"{block}.denselayer{i}"
        h = layers.convolution(weights, f"{layer}.conv1", _norm_relu(weights, f"{layer}.norm1", x))
        h = _norm_relu(weights, f"{layer}.norm2", h)
        h = layers.convolution(weights, f"{layer}.conv2", h, padding=(1, 1))
        x = jnp.concatenate([x, h], axis=-1)
        i += 1
    return x


def _transition(weights: Weights, name: str, x: Maps) -> Maps:
    x = layers.convolution(weights, f"{name}.conv", _norm_relu(weights, f"{name}.norm", x))
    return layers.mean_pool(x, 2, 2)


def _norm_relu(weights: Weights, name: str, x: Maps) -> Maps:
    return jax.nn.relu(layers.batch_norm(weights, name, x, _EPSILON))
