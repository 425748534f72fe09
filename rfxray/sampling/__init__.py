"""ODE integration from noise to radiographs, and back.

from rfxray import sampling
model = sampling.load("runs/smoke/train", ema=0.05)
pictures = sampling.generate(model, {"view": "PA", "cardiomegaly": "present"}, n=16)
sampling.save(pictures, "out")

These names are imported on first use, so that the mathematics (`solvers`, `guidance`, `adaptive`,
`stochastic`, `likelihood`) loads neither Orbax nor Grain.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rfxray.sampling.editing import EditSettings, abduct, edit, predict
    from rfxray.sampling.pretrained import Model, load
    from rfxray.sampling.sampler import Pictures, Settings, generate, make_sampler
    from rfxray.sampling.samples import save
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
    "load",
    "make_sampler",
    "predict",
    "save",
]


def __getattr__(name: str) -> object:
    """The public name, from the module that defines it (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    from rfxray.sampling import editing, pretrained, sampler, samples, solvers

    modules = (editing, pretrained, sampler, samples, solvers)
    return next(vars(module)[name] for module in modules if name in vars(module))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
