"""A low-rank adapter of the decoder of an autoencoder that others trained; see lora.py and vae.py.

Its parameters are those of the adapter only. The autoencoder is its base: given, and not trained.
The encoder is that of the base, so latents stay valid for everybody who has it.
"""

import functools

import jax
import jax.numpy as jnp
import ml_collections

from rfxray.errors import ConfigError
from rfxray.networks import lora, vae
from rfxray.networks.lora import Lora
from rfxray.networks.network import Network


def shape(section: ml_collections.ConfigDict) -> Lora:
    """The shape of the adapter of a config's `model` section."""
    return Lora(section.rank, section.alpha, tuple(section.targets))


def build(section: ml_collections.ConfigDict) -> Network:
    """The network of a config's `model` section.

    `init`, `shapes` and `axes` are of the adapter, `apply` is that of `vae.build` and takes what
    `merge` makes of the adapter and the parameters of `base`.

    Raises:
      ConfigError: If there is no target, or one that names no layer of the decoder; as in
        `vae.build`.
    """
    base = vae.build(section)  # which does not read the keys of the adapter
    layout = {name: leaf.shape for name, leaf in base.shapes.items()}
    own = shape(section)
    if not own.targets:
        raise ConfigError("model.targets must name a layer of the decoder, such as conv1 (got ())")
    shapes = lora.shapes(own, layout)
    return Network(
        init=functools.partial(lora.init, own, layout),
        apply=base.apply,
        shapes={name: jax.ShapeDtypeStruct(size, jnp.float32) for name, size in shapes.items()},
        # Whole on every device: an adapter is a few percent of its base.
        axes={name: (None,) * len(size) for name, size in shapes.items()},
        input_shape=base.input_shape,
        sizes=base.sizes,
        base=base,
        merge=functools.partial(lora.merge, scale=own.scale),
    )
