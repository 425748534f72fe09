"""ODE integration from noise to radiographs.

from rfxray import sampling
model = sampling.load("runs/smoke/train", ema=0.05)
pictures = sampling.generate(model, {"view": "PA", "cardiomegaly": "present"}, n=16)
sampling.save(pictures, "out")
"""

from rfxray.sampling.generate import Model, Pictures, Settings, generate, load, sampler, save

__all__ = ["Model", "Pictures", "Settings", "generate", "load", "sampler", "save"]
