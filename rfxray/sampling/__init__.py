"""ODE integration from noise to radiographs, and back.

from rfxray import sampling
model = sampling.load("runs/smoke/train", ema=0.05)
pictures = sampling.generate(model, {"view": "PA", "cardiomegaly": "present"}, n=16)
sampling.save(pictures, "out")
"""

from rfxray.sampling.pretrained import Model, load
from rfxray.sampling.sampler import Pictures, Settings, generate, make_sampler
from rfxray.sampling.samples import save
from rfxray.sampling.solvers import SOLVERS

__all__ = ["SOLVERS", "Model", "Pictures", "Settings", "generate", "load", "make_sampler", "save"]
