"""The extractors in the PyTorch projects that published their weights, for comparison only.

They open the same files as ours do and read the same prepared images. Nothing else imports torch.
"""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from rfxray.errors import ConfigError
from rfxray.evaluate.extractors.converted import tensors_of

# Images [n, size, size, channels] float32, prepared, to features [n, width].
Twin = Callable[[np.ndarray], np.ndarray]

_PACKAGES = {
    "rad_dino": "transformers",
    "dinov2": "transformers",
    "inception": "pytorch-fid",
    "xrv": "torchxrayvision",
}
NAMES = tuple(_PACKAGES)


def open_twin(name: str, weights: Path) -> Twin:
    """The network of a name in PyTorch, with the weights that our extractor of that name opened.

    Raises:
      ConfigError: If its project is not installed.
    """
    return {"inception": _inception, "xrv": _xrv}.get(name, _vit)(name, weights)


def _vit(name: str, weights: Path) -> Twin:
    transformers, torch = _module(name, "transformers"), _module(name, "torch")
    folder = weights if weights.is_dir() else weights.parent
    return _on_host(torch, transformers.AutoModel.from_pretrained(folder), "pooler_output")


def _inception(name: str, weights: Path) -> Twin:
    fid, torch = _module(name, "pytorch_fid.inception"), _module(name, "torch")
    tensors = _tensors(torch, tensors_of(weights, "inception"))
    # pytorch-fid knows no other way to its network than a download.
    with mock.patch.object(fid, "load_state_dict_from_url", return_value=tensors):
        network = fid.InceptionV3([3], resize_input=False, normalize_input=False)
    return _on_host(torch, network, 0)


def _xrv(name: str, weights: Path) -> Twin:
    xrv, torch = _module(name, "torchxrayvision"), _module(name, "torch")
    tensors = _tensors(torch, tensors_of(weights, "xrv"))
    tensors.pop("op_threshs", None)
    network = xrv.models.DenseNet()
    network.load_state_dict(tensors)
    network.forward = network.features2
    return _on_host(torch, network, None)


def _tensors(torch: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Tensors of a file, with the counters of BatchNorm that PyTorch loads strictly and some files
    lack."""
    found = {name: torch.tensor(array) for name, array in arrays.items()}
    means = [name for name in found if name.endswith(".running_mean")]
    counters = {n.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for n in means}
    return counters | found


def _on_host(torch: Any, network: Any, output: str | int | None) -> Twin:
    network.eval()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found = network(torch.tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2))))
        found = found if output is None else found[output]
        return found.reshape(len(images), -1).numpy()

    return run


def _module(name: str, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:  # a build of torchvision for another torch
        raise ConfigError(
            f"{name} cannot be compared with its PyTorch original ({error}); "
            f"pip install torch {_PACKAGES[name]}"
        ) from None
