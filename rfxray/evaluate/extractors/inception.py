"""Inception-v3 of the Fréchet Inception distance, trained on photographs.

An image is prepared as clean-fid does (Parmar et al. 2022, arXiv 2104.11222): Pillow's bicubic on
float32 to 299², not rounded. Levels of 0 to 255 are scaled as pytorch-fid scales them,
(x − 127.5) / 127.5, where clean-fid has (x − 128) / 128.
"""

from pathlib import Path

from rfxray.errors import ConfigError, DataError
from rfxray.evaluate.extractors import resident
from rfxray.evaluate.extractors.converted import tensors_of
from rfxray.evaluate.extractors.extractor import Extractor, Preprocessing, weights_hash
from rfxray.networks.convnets import inception


def open_weights(weights: Path | None) -> Extractor:
    """The extractor with the weights that pytorch-fid publishes.

    Args:
      weights: Path of pt_inception-2015-12-05-6726825d.pth, or of its safetensors.

    Raises:
      ConfigError: Without a file.
      DataError: If the weights are damaged or of another network.
    """
    if weights is None:
        raise ConfigError(
            "the extractor inception needs its weights: inception=FILE, "
            "pt_inception-2015-12-05-6726825d.pth of the releases of mseitzer/pytorch-fid"
        )
    try:
        given = tensors_of(weights, "inception")
        tensors = inception.convert(given)
    except DataError as error:
        raise DataError(f"{weights}: {error}") from None
    classes = inception.classes(given)
    return Extractor(
        name="inception",
        hash=weights_hash(tensors | {"classes": classes}),
        width=inception.WIDTH,
        preprocessing=Preprocessing(
            inception.SIZE, "squash", "bicubic", False, 3, (0.5,) * 3, (0.5,) * 3
        ),
        features=resident.of_images(inception.apply, tensors),
        trained_on=("ImageNet",),
        classes=classes,
    )
