"""DINOv2 (arXiv 2304.07193), trained on photographs: S, B, L or G, with or without registers.

With L/14 this is the extractor of FD-DINOv2 (Stein et al. 2023, arXiv 2306.04675): 224² bicubic in
float32, ImageNet's mean and deviation, the class token. Positions are resampled to the 16² patches
of an image as transformers does it; the code of torch.hub resamples as if there were 16.1, so its
features differ a little.
"""

from pathlib import Path

from rfxray.errors import ConfigError, DataError
from rfxray.evaluate.extractors import published_vit, resident
from rfxray.evaluate.extractors.extractor import Extractor, Preprocessing, weights_hash
from rfxray.networks import vit

SIZE = 224  # pixels
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


def open_weights(weights: Path | None) -> Extractor:
    """The extractor with the weights that Meta publishes.

    Args:
      weights: Path of a folder such as `facebook/dinov2-large` from Hugging Face, or of its
        model.safetensors.

    Raises:
      ConfigError: Without a path, or if there are no weights in it.
      DataError: If the weights are damaged or of another network.
    """
    if weights is None:
        raise ConfigError(
            "the extractor dinov2 needs its weights: dinov2=FOLDER, such as facebook/dinov2-large "
            "of Hugging Face (hf download facebook/dinov2-large --local-dir FOLDER)"
        )
    network, tensors = published_vit.read(weights)
    if SIZE % network.patch:
        raise DataError(
            f"{weights} has patches of {network.patch} pixels, which do not fill {SIZE}"
        )
    return Extractor(
        name="dinov2",
        hash=weights_hash(tensors),
        width=network.width,
        preprocessing=Preprocessing(SIZE, "squash", "bicubic", False, 3, _MEAN, _STD),
        features=resident.of_images(lambda w, x: vit.apply(network, w, x)["cls"], tensors),
        trained_on=("LVD-142M",),
    )
