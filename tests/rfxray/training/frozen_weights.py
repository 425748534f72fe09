"""Small networks as their authors publish them."""

import json
from pathlib import Path

import ml_collections
import numpy as np
from safetensors.numpy import save_file

from rfxray.networks import grey_vit, vit


def published(folder: Path, section: ml_collections.ConfigDict, seed: int) -> Path:
    """A folder like those of DINOv2 on Hugging Face, of a network of the kind grey_vit."""
    rng = np.random.default_rng(seed)
    tensors = {
        name: rng.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in vit.shapes(grey_vit.trunk(section)).items()
    }
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    about = {
        "model_type": "dinov2",
        "hidden_size": section.width,
        "num_hidden_layers": section.depth,
        "num_attention_heads": section.heads,
        "patch_size": section.patch,
        "image_size": section.side * section.patch,
    }
    (folder / "config.json").write_text(json.dumps(about))
    return folder
