"""The patch discriminator in PyTorch, with the parameters of ours."""

import math

import numpy as np


def twin(params, layers: int):
    """A module of these parameters; images and logits are [n, 1, height, width]."""
    import torch

    modules = []
    for i in range(layers + 1):
        kernel = np.asarray(params[f"layers.{i}.kernel"])
        stride = 2 if i < layers else 1
        convolution = torch.nn.Conv2d(*kernel.shape[2:], 4, stride, 1, bias=not i)
        _fill(convolution.weight, kernel.transpose(3, 2, 0, 1))
        modules.append(convolution)
        if i:
            norm = torch.nn.GroupNorm(math.gcd(16, kernel.shape[3]), kernel.shape[3], eps=1e-6)
            _fill(norm.weight, params[f"norms.{i}.scale"])
            _fill(norm.bias, params[f"norms.{i}.bias"])
            modules.append(norm)
        else:
            _fill(convolution.bias, params["layers.0.bias"])
        modules.append(torch.nn.LeakyReLU(0.2))
    kernel = np.asarray(params["logit.kernel"])
    last = torch.nn.Conv2d(kernel.shape[2], 1, 4, 1, 1)
    _fill(last.weight, kernel.transpose(3, 2, 0, 1))
    _fill(last.bias, params["logit.bias"])
    return torch.nn.Sequential(*modules, last)


def _fill(parameter, value) -> None:
    import torch

    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.array(value)))
