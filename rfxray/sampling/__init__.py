"""ODE integration from noise to radiographs, and back.

from rfxray import sampling
model = sampling.load("runs/smoke/train", ema=0.05)
pictures = sampling.generate(model, {"view": "PA", "cardiomegaly": "present"}, n=16)
sampling.save(pictures, "out")
"""

from rfxray.sampling.generate import Pictures, Settings, generate, sampler
from rfxray.sampling.outputs import save
from rfxray.sampling.solvers import SOLVERS
from rfxray.sampling.trained import Model, load

__all__ = ["SOLVERS", "Model", "Pictures", "Settings", "generate", "load", "sampler", "save"]
