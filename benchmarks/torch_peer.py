"""The peer: a SiT in plain PyTorch, with the width, depth and token count of one of our configs.

Written only to compare speed, from the description of DiT (arXiv 2212.09748) and SiT (arXiv
2401.08740): LayerNorm, multi-head attention through `scaled_dot_product_attention`, a GELU
perceptron of ratio 4, adaLN-Zero with full per-block modulation, velocity loss, AdamW.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_a = nn.LayerNorm(width, elementwise_affine=False)
        self.norm_m = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)
        )
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x, c):
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(c)[:, None].chunk(
            6, dim=-1
        )
        h = self.norm_a(x) * (1 + scale_a) + shift_a
        batch, tokens, width = h.shape
        qkv = self.qkv(h).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(query, key, value)
        x = x + gate_a * self.out(h.transpose(1, 2).reshape(batch, tokens, width))
        h = self.norm_m(x) * (1 + scale_m) + shift_m
        return x + gate_m * self.mlp(h)


class SiT(nn.Module):
    def __init__(self, size, channels, patch, width, depth, heads, attributes):
        super().__init__()
        tokens, pixels = (size // patch) ** 2, patch**2 * channels
        self.patch, self.channels, self.side = patch, channels, size // patch
        self.embed = nn.Linear(pixels, width)
        self.place = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.attributes = nn.Linear(2 * attributes, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, pixels)

    def forward(self, x, t, attributes, known):
        p, s = self.patch, self.side
        batch = len(x)
        h = x.view(batch, s, p, s, p, self.channels).permute(0, 1, 3, 2, 4, 5)
        h = self.embed(h.reshape(batch, s * s, -1)) + self.place
        frequencies = torch.exp(
            -torch.arange(128, device=x.device, dtype=torch.float32) * (9.21 / 128)
        )
        angles = 1000 * t[:, None] * frequencies
        c = self.time(torch.cat([angles.cos(), angles.sin()], -1).to(h.dtype))
        c = F.silu(c + self.attributes(torch.cat([attributes, known], -1).to(h.dtype)))
        for block in self.blocks:
            h = block(h, c)
        shift, scale = self.modulation(c)[:, None].chunk(2, dim=-1)
        h = self.head(self.norm(h) * (1 + scale) + shift)
        h = h.view(batch, s, s, p, p, self.channels).permute(0, 1, 3, 2, 4, 5)
        return h.reshape(x.shape)


def train_step(model: SiT, learning_rate: float, forward=None, half: bool = False):
    """A function `(image, attributes, known) → loss tensor` that takes one optimizer step.

    It also keeps one exponential average of the parameters.

    Args:
      model: Network that is trained.
      learning_rate: Learning rate of AdamW.
      forward: Function that is called for `model`, such as its compiled form; None: `model`.
      half: Whether matrix products are in bfloat16 (autocast); parameters stay float32.
    """
    forward = forward or model
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, fused=True)
    parameters = list(model.parameters())
    average = [p.detach().clone() for p in parameters]

    def step(image, attributes, known):
        t = torch.sigmoid(torch.randn(len(image), device=image.device))
        noise = torch.randn_like(image)
        wide = t[:, None, None, None]
        with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
            predicted = forward((1 - wide) * image + wide * noise, t, attributes, known)
        loss = ((predicted - (noise - image)) ** 2).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1e-3)
        return loss.detach()

    return step
