"""RAD-DINO (Pérez-García et al. 2025, arXiv 2401.10815): DINOv2 B/14 trained on chest radiographs.

An image is prepared as the processor of its folder does: 8 bits, bicubic to 518 pixels of the
shorter side, the centre of that.
"""

from pathlib import Path

import jax

from rfxray.errors import ConfigError, DataError
from rfxray.evaluate.extractors import published_vit, resident
from rfxray.evaluate.extractors.extractor import Extractor, Preprocessing, weights_hash
from rfxray.networks import vit
from rfxray.networks.vit import Vit

SIZE = 518  # pixels
NETWORK = Vit(width=768, depth=12, heads=12, mlp=3072)
_PROCESSOR = {
    "do_resize": True,
    "size": {"shortest_edge": SIZE},
    "resample": 3,  # bicubic
    "do_center_crop": True,
    "crop_size": {"height": SIZE, "width": SIZE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
}
# Images with their attention in memory at once: logits of 1,370 tokens in 12 heads are 90 MB each.
_AT_ONCE = 4


def open_weights(weights: Path | None) -> Extractor:
    """The extractor with the weights that Microsoft publishes.

    Args:
      weights: Path of the folder `microsoft/rad-dino` from Hugging Face: model.safetensors,
        config.json and preprocessor_config.json.

    Raises:
      ConfigError: Without a folder, or if a file of it is missing.
      DataError: If the weights are damaged or of another network.
    """
    if weights is None:
        raise ConfigError(
            "the extractor rad_dino needs its weights: rad_dino=FOLDER, the folder "
            "microsoft/rad-dino of Hugging Face (hf download microsoft/rad-dino --local-dir FOLDER)"
        )
    folder = weights if weights.is_dir() else weights.parent
    network, tensors = published_vit.read(weights)
    if network != NETWORK:
        raise DataError(f"{weights} holds {network}, and RAD-DINO is {NETWORK}")
    mean, std = published_vit.processor(folder, _PROCESSOR)

    def features(weights, images):
        def one(image):
            return vit.apply(network, weights, image[None])["cls"][0]

        return jax.lax.map(one, images, batch_size=_AT_ONCE)

    return Extractor(
        name="rad_dino",
        hash=weights_hash(tensors),
        width=network.width,
        preprocessing=Preprocessing(SIZE, "cover", "bicubic", True, 3, tuple(mean), tuple(std)),
        features=resident.of_images(features, tensors),
        # The five sets of its card: 882,775 images.
        trained_on=("brax", "chexpert", "mimic", "nih", "padchest"),
    )
