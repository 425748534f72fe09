"""ODE integration from noise to radiographs, and back.

from rfxray import sampling
model = sampling.load("runs/smoke/train", ema=0.05)
drawn = sampling.generate(model, [{"view": "PA"}, {"view": "AP", "sex": "F"}], guidance=2, seed=0)
sampling.save(drawn, "out")

Each name is imported on first use, so that the mathematics (`solvers`, `guidance`, `adaptive`,
`stochastic`, `likelihood`) loads neither Orbax nor Grain.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rfxray.sampling.editing import EditSettings, abduct, edit, predict
    from rfxray.sampling.folder import generate_to
    from rfxray.sampling.given import to_pil
    from rfxray.sampling.likelihood import log_likelihood
    from rfxray.sampling.pretrained import Model, load
    from rfxray.sampling.radiographs import read_square
    from rfxray.sampling.sampler import Pictures, generate, make_sampler
    from rfxray.sampling.samples import save
    from rfxray.sampling.settings import Settings
    from rfxray.sampling.solvers import SOLVERS

__all__ = [
    "SOLVERS",
    "EditSettings",
    "Model",
    "Pictures",
    "Settings",
    "abduct",
    "edit",
    "generate",
    "generate_to",
    "load",
    "log_likelihood",
    "make_sampler",
    "predict",
    "read_square",
    "save",
    "to_pil",
]

_HOMES = {
    **dict.fromkeys(("EditSettings", "abduct", "edit", "predict"), "editing"),
    **dict.fromkeys(("Pictures", "generate", "make_sampler"), "sampler"),
    **dict.fromkeys(("Model", "load"), "pretrained"),
    "SOLVERS": "solvers",
    "Settings": "settings",
    "generate_to": "folder",
    "log_likelihood": "likelihood",
    "read_square": "radiographs",
    "save": "samples",
    "to_pil": "given",
}


def __getattr__(name: str) -> object:
    """The public name, from the module that defines it (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
