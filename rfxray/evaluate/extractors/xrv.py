"""DenseNet-121 of TorchXRayVision (arXiv 2111.00595): features, and scores of 18 findings.

The weights are `densenet121-res224-all`, which saw the public sets that most models are trained on:
its scores do not judge labels of those sets independently.
"""

from pathlib import Path

import numpy as np

from rfxray.checkpoints import tensor_files
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate.extractors import resident
from rfxray.evaluate.extractors.extractor import Extractor, Preprocessing, weights_hash
from rfxray.networks.convnets import densenet

SIZE = 224  # pixels
_NAME = "densenet121-res224-all"

# Findings in the order of the classifier, and the probability at which `all` was set to operate.
THRESHOLDS = {
    "Atelectasis": 0.07422872,
    "Consolidation": 0.038290843,
    "Infiltration": 0.09814756,
    "Pneumothorax": 0.0098118475,
    "Edema": 0.023601074,
    "Emphysema": 0.0022490358,
    "Fibrosis": 0.010060724,
    "Effusion": 0.103246614,
    "Pneumonia": 0.056810737,
    "Pleural_Thickening": 0.026791653,
    "Cardiomegaly": 0.050318155,
    "Nodule": 0.023985857,
    "Mass": 0.01939503,
    "Hernia": 0.042889766,
    "Lung Lesion": 0.053369623,
    "Fracture": 0.035975814,
    "Lung Opacity": 0.20204692,
    "Enlarged Cardiomediastinum": 0.05015312,
}
_OPERATING = np.asarray(list(THRESHOLDS.values()), np.float32)


def open_weights(weights: Path | None) -> Extractor:
    """The extractor with the weights `densenet121-res224-all`.

    Args:
      weights: Path of its safetensors, made by `rfxray evaluate convert` of the published file.

    Raises:
      ConfigError: Without a file.
      DataError: If the weights are damaged or of another network.
    """
    if weights is None:
        raise ConfigError(
            f"the extractor xrv needs its weights: xrv=FILE.safetensors, made of {_NAME} by "
            "`rfxray evaluate convert nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121-d121-tw-"
            "lr001-rot45-tr15-sc15-seed0-best.pt --out FILE.safetensors`"
        )
    if weights.suffix != ".safetensors":
        raise ConfigError(
            "xrv reads FILE.safetensors; the published file is a pickled module, so turn "
            f"{weights} into one by `rfxray evaluate convert`"
        )
    given, _ = tensor_files.read(weights)
    try:
        tensors = densenet.convert(given)
    except DataError as error:
        raise DataError(f"{weights}: {error}") from None
    thresholds = given.get("op_threshs", _OPERATING)
    if thresholds.shape != _OPERATING.shape or not np.allclose(thresholds, _OPERATING, rtol=1e-5):
        raise DataError(f"{weights} has the thresholds of other weights; xrv reads {_NAME}")
    scored = resident.of_images(
        lambda w, x: densenet.scores(w, densenet.apply(w, x), _OPERATING), tensors
    )

    def scores(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(THRESHOLDS, scored(images).T, strict=True))

    return Extractor(
        name="xrv",
        hash=weights_hash(tensors),
        width=densenet.WIDTH,
        # (2x − 1) · 1024, from x in [0, 1]
        preprocessing=Preprocessing(SIZE, "crop", "bilinear", False, 1, (0.5,), (1 / 2048,)),
        features=resident.of_images(densenet.apply, tensors),
        trained_on=("nih", "padchest", "chexpert", "mimic", "OpenI", "RSNA"),
        scores=scores,
    )
