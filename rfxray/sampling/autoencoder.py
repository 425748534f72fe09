"""A trained autoencoder, ready to encode images and to decode latents."""

import dataclasses
import functools
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from rfxray.arrays import AnyArray, Params
from rfxray.checkpoints import exported, safetensors, weights
from rfxray.config.load import from_json
from rfxray.data.latents import Latents
from rfxray.errors import ConfigError, DataError
from rfxray.networks import kinds, vae, vae_shape, vae_tiles
from rfxray.networks.vae_shape import Vae
from rfxray.runtime import sharding
from rfxray.sampling.batching import blocks
from rfxray.sampling.network_identity import APPLIED, encoder_identity, identity

# Latents that a device decodes at once, if there is memory for so many.
DECODED = 4
# The largest maps that the compiled network holds at once: 3.5 when it decodes 512² or 1024².
MAPS = 4
# Share of the memory of a device for them: a model and what other programs need are there too.
SHARE = 1 / 4


@dataclasses.dataclass(frozen=True, eq=False)
class Autoencoder:
    """A trained autoencoder.

    Attributes:
      folder: Folder of its export.
      weights: What identifies it by content: the network and its parameters, hex.
      encoder: What identifies its encoder, likewise.
      shape: Shape of the network.
      params: Its parameters, on the devices of `mesh`.
      mesh: Devices of this process, over which a batch is split.
    """

    folder: Path
    weights: str
    encoder: str | None
    shape: Vae
    params: Params
    mesh: jax.sharding.Mesh

    def latent_shape(self, size: int) -> tuple[int, int, int]:
        """Height, width and channels of the latent of an image of size × size pixels.

        Raises:
          ConfigError: If its factor does not divide the size.
        """
        images = jax.ShapeDtypeStruct((1, size, size, 1), np.float32)
        encode = functools.partial(vae.apply, self.shape, "none", method="encode")
        _, height, width, channels = jax.eval_shape(encode, self.params, images).mean.shape
        return height, width, channels

    def encode(
        self, images: Float[np.ndarray, "n size size 1"]
    ) -> tuple[Float[jax.Array, "n rows columns z"], Float[jax.Array, "n rows columns z"]]:
        """Mean and log-variance of the posterior, float32, still on the devices.

        Args:
          images: Images in [-1, 1], float32; as many as the devices divide.
        """
        most = self._at_once(*images.shape[1:3])
        if not most:
            return vae_tiles.encode(self.shape, self.params, images)
        run = _run(self.shape, "encode", self.mesh)
        size = min(len(images), most * self.mesh.size)
        found = [
            run(self.params, self._placed(images[rows])) for rows, _ in blocks(len(images), size)
        ]
        mean, log_variance = (jnp.concatenate(part) for part in zip(*found, strict=True))
        return mean[: len(images)], log_variance[: len(images)]

    def decode(
        self, latents: Float[AnyArray, "n rows columns z"]
    ) -> Float[jax.Array, "n size size 1"]:
        """Images of latents as they are stored, float32, not clipped, still on the devices."""
        factor = self.shape.factor
        most = self._at_once(*(side * factor for side in latents.shape[1:3]))
        if most:
            run = _run(self.shape, "decode", self.mesh)
            images = [
                run(self.params, jnp.take(latents, rows, axis=0))
                for rows, _ in blocks(len(latents), min(DECODED, most) * self.mesh.size)
            ]
        else:
            images = [jnp.asarray(vae_tiles.decode(self.shape, self.params, latents))]
        # A network of three channels shows grey
        return jnp.concatenate(images)[: len(latents)].mean(-1, keepdims=True)

    def _at_once(self, height: int, width: int) -> int:
        """Images that a device encodes or decodes at once; 0 if there is no memory for one."""
        widest = max(*self.shape.widths[:2], *self.shape.decoder_widths[:2])
        positions = height * width // self.shape.fold**2
        one = MAPS * positions * widest * np.dtype(np.float32).itemsize
        return int(SHARE * _memory(self.mesh) / one)

    def _placed(self, values: np.ndarray) -> jax.Array:
        return sharding.global_batch(self.mesh, {"x": np.asarray(values, np.float32)})["x"]


@dataclasses.dataclass(frozen=True, eq=False)
class LatentSpace:
    """What a model of latents is sampled in: an autoencoder, and how its latents are normalised.

    Attributes:
      vae: The autoencoder.
      latents: What the training data say of them.
    """

    vae: Autoencoder
    latents: Latents

    def cells(
        self, images: Float[np.ndarray, "n size size"]
    ) -> Float[np.ndarray, "n rows columns z"]:
        """The latents of images in [-1, 1], as the model sees them, float32."""
        means = [
            np.asarray(self.vae.encode(images[rows][..., None])[0])
            for rows, _ in blocks(len(images), DECODED * self.vae.mesh.size)
        ]
        return self.latents.statistics.normalised(np.concatenate(means)[: len(images)])

    def images(self, x: Float[AnyArray, "n rows columns z"]) -> Float[jax.Array, "n size size 1"]:
        """The images of latents as the model sees them, float32, not clipped, on the devices."""
        about = self.latents.statistics
        mean, std = jnp.asarray(about.mean, jnp.float32), jnp.asarray(about.std, jnp.float32)
        return self.vae.decode(x * std + mean)

    def decoded_per_second(self) -> float:
        """Images a second, measured with one block of latents; compiled before if it was not."""
        n = DECODED * self.vae.mesh.size
        x = jnp.zeros((n, *self.latents.shape), jnp.float32)
        self.images(x).block_until_ready()
        began = time.monotonic()
        self.images(x).block_until_ready()
        return n / (time.monotonic() - began)


def open_space(folder: Path, latents: Latents) -> LatentSpace:
    """The latent space of a run.

    Args:
      folder: Folder of the export of the autoencoder.
      latents: What the run records of its latents.

    Raises:
      ConfigError: If its latents are others.
      DataError: If it is damaged, or makes other latents of such images.
    """
    vae = open_autoencoder(folder, latents)
    if vae.shape.factor * latents.shape[0] != latents.size:
        raise DataError(
            f"these latents have {latents.shape[0]} rows and are said to be of images of "
            f"{latents.size}², which the autoencoder in {folder}, of factor {vae.shape.factor}, "
            "does not make; copy the run again"
        )
    return LatentSpace(vae, latents)


def open_autoencoder(folder: Path, latents: Latents | None = None) -> Autoencoder:
    """Opens the export of an autoencoder.

    Args:
      folder: Folder of `rfxray export`.
      latents: Latents that it has to decode; None for any.

    Raises:
      ConfigError: If it is not an export of an autoencoder, or is neither the one that encoded the
        latents nor another decoder of the same encoder.
      DataError: If it is damaged.
    """
    if not exported.is_export(folder):
        inside = folder / exported.VAE
        make = "make one with rfxray export --checkpoint WORKDIR --out DIR, or of published ones "
        hint = f"give {inside}" if exported.is_export(inside) else f"{make}with --weights FILE"
        raise ConfigError(f"{folder} is not an export of an autoencoder; {hint}")
    tree, _ = exported.read(folder)
    if tree["model"]["kind"] != "vae":
        raise ConfigError(
            f"{folder} is an export of a {tree['model']['kind']} network, not of an autoencoder "
            "(kind vae)"
        )
    config = from_json(tree)
    network = kinds.build(config.model)
    mesh = sharding.make_mesh(-1, 1, 1, jax.local_devices())
    whole = sharding.replicated(mesh)
    shapes = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=whole), network.shapes
    )
    params = safetensors.restore(folder / exported.MODEL, {"model": shapes})["model"]
    found = identity(config, weights.digest_of({"model": params}), APPLIED)
    encoder = encoder_identity(config.model, params)
    if latents is not None and found != latents.vae and encoder != latents.encoder:
        raise ConfigError(
            f"{folder} is another autoencoder ({found[:12]}) than the one of these latents "
            f"({latents.vae[:12]}), and has another encoder; give the one that encoded them, or "
            "one with an adapted decoder"
        )
    return Autoencoder(folder, found, encoder, vae_shape.of_section(config.model), params, mesh)


@functools.lru_cache(maxsize=8)
def _run(shape: Vae, method: str, mesh: jax.sharding.Mesh):
    # Of the shape, not of an opened autoencoder: a run opens its own again at every sample grid
    rows = jax.sharding.NamedSharding(mesh, sharding.BATCH)
    run = functools.partial(vae.apply, shape, "none", method=method)
    return jax.jit(run, out_shardings=rows)


@functools.lru_cache(maxsize=8)
def _memory(mesh: jax.sharding.Mesh) -> int:
    """Memory of a device of this process, bytes."""
    limits = mesh.devices.flat[0].memory_stats() or {}
    if "bytes_limit" in limits:
        return limits["bytes_limit"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // mesh.size
