"""A run as a folder that may be given away: one EMA of it, without its path or its data.

A run that adapts an autoencoder becomes one with the adapter merged, or the adapter only.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from rfxray import __version__
from rfxray.checkpoints import exported, safetensors, weights
from rfxray.checkpoints.exported import Facts
from rfxray.command_line import Progress
from rfxray.config.load import LATENTS, check_config, from_json
from rfxray.config.schema import is_frozen
from rfxray.data.manifest import read_manifest
from rfxray.errors import ConfigError, DataError
from rfxray.networks import decoder_lora, vae_shape
from rfxray.networks import kinds as networks
from rfxray.outputs.files import saving
from rfxray.outputs.folders import refuse_content
from rfxray.sampling import adapter, distance
from rfxray.sampling.autoencoder import open_autoencoder
from rfxray.sampling.network_identity import APPLIED, SAMPLED, encoder_identity, identity
from rfxray.sampling.pretrained import EMA, averaged, is_sampled

COMMAND = "rfxray.export"


@dataclasses.dataclass(frozen=True)
class ExportRequest:
    """What is to be exported.

    Attributes:
      checkpoint: Workdir of `rfxray.train`.
      out: Folder that is absent or empty.
      dtype: Dtype of the file, a key of `safetensors.DTYPES`.
      ema: Relative width of the EMA profile, of the run or of `rfxray.posthoc_ema`;
        `pretrained.EMA` when None.
      step: Step of the checkpoint; the newest when None.
      data: Data sets that the run was trained on, where they are now; by default those that its
        config names. Without them the sources are not stated.
      licence: Licence of the weights, to be stated; None for not stated.
      allow_kinds: Kinds outside of rfxray that the run's config may name.
      adapter_only: Whether only the adapter of a decoder is written, as peft keeps it.
    """

    checkpoint: Path
    out: Path
    dtype: str = "float32"
    ema: float | None = None
    step: int | None = None
    data: Sequence[str] = ()
    licence: str | None = None
    allow_kinds: Sequence[str] = ()
    adapter_only: bool = False


def export(request: ExportRequest) -> Facts:
    """Writes an export, whole or not at all; returns what it says of itself.

    Raises:
      ConfigError: If a profile, step or dtype does not exist, the data are not those of the run,
        `out` is not an empty folder or is being written, or there is no adapter to write.
      DataError: If the checkpoint is damaged.
      SaveFailed: If the disk is full.
    """
    if request.dtype not in safetensors.DTYPES:
        raise ConfigError(f"no --dtype {request.dtype!r}, only {', '.join(safetensors.DTYPES)}")
    refuse_content(request.out)
    workdir = request.checkpoint
    if exported.is_export(workdir):
        raise ConfigError(f"{workdir} is an export; give the workdir of its run as --checkpoint")
    tree = weights.read_config(workdir)
    config, latents = from_json(tree, request.allow_kinds), tree.get(LATENTS)
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), averaged(config)
    )
    adapts = networks.build(config.model).base is not None
    if request.adapter_only and not adapts:
        raise ConfigError(
            f"{workdir} trains a {config.model.kind} network, not an adapter; leave --adapter-only "
            "out"
        )
    name = weights.exact_ema_name(EMA if request.ema is None else request.ema)
    found = weights.restore_ema(workdir, shapes, name, request.step)
    own, params, digest, published = config, found.params, found.digest, None
    if adapts:
        config, params, published = _merged(workdir, config, params)
        digest = weights.digest_of(params)
    folders = request.data or _still_there(config.data.dirs, found.data_fingerprint)
    sources, phantoms = _sources(folders, config.data.split, found.data_fingerprint)
    sections = SAMPLED if is_sampled(config) else APPLIED
    facts = Facts(
        step=found.step,
        ema=float(name),
        dtype=request.dtype,
        parameters=sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)),
        weights=identity(config, weights.digest_of(params, request.dtype), sections, latents),
        source_weights=identity(config, digest, sections, latents),
        data_fingerprint=found.data_fingerprint,
        trained_on=sources,
        synthetic_only=phantoms,
        licence=request.licence or exported.UNSTATED,
        flow_loss_limit=distance.limit(workdir, found.step),
        rfxray=__version__,
        published=published,
        encoder=encoder_identity(config.model, params["model"], request.dtype),
        frozen=_frozen(own, found.identity),
    )
    if request.adapter_only:
        with saving(request.out):
            shape, about = decoder_lora.shape(own.model), facts.metadata()
            adapter.write(request.out, found.params["model"], shape, request.dtype, about)
        return facts
    size = facts.parameters * jnp.dtype(request.dtype).itemsize
    print(
        f"{COMMAND}: step {facts.step}, EMA {facts.ema:g}: {facts.parameters:,} parameters in "
        f"{request.dtype}, {size / 1e6:,.1f} MB"
    )
    with saving(request.out), Progress(COMMAND, size, unit="byte") as progress:
        vae = workdir / exported.VAE if latents else None
        exported.write(request.out, config, params, facts, progress.advance, latents, vae)
    return facts


def _merged(
    workdir: Path, config: ml_collections.FrozenConfigDict, params: Mapping[str, Mapping]
) -> tuple[ml_collections.FrozenConfigDict, dict[str, dict], dict[str, object]]:
    """Config and parameters of an autoencoder that a run adapted, and what its base says of itself.

    Everything except for the parameters of the decoder is as in the base: also its precision, which
    its latents depend on.
    """
    folder = workdir / exported.BASE
    base = open_autoencoder(folder)
    tree, facts = exported.read(folder)
    section = from_json(tree).model
    scale = decoder_lora.shape(config.model).scale
    given = adapter.Adapter(params["model"], scale)
    try:
        merged = adapter.merge(vae_shape.of_section(section), base.params, given)
    except DataError as error:
        raise DataError(f"{workdir}: {error}") from None
    whole = ml_collections.ConfigDict(config)
    whole.model = ml_collections.ConfigDict(section)
    published = {**(facts.published or {}), "weights": base.weights, "licence": facts.licence}
    return check_config(whole), {"model": merged}, published


def _frozen(
    config: ml_collections.FrozenConfigDict, run: Mapping[str, object]
) -> dict[str, dict[str, str]]:
    """What a run was trained against and does not hold, as `exported.Facts.frozen` has it."""
    return {
        name: {
            "weights": part.weights.partition("=")[0],
            "sha256": str(run[f"parts.{name}.weights"]),
            "licence": part.licence or exported.UNSTATED,
        }
        for name, part in config.parts.items()
        if is_frozen(part)
    }


def _still_there(folders: Sequence[str], fingerprint: str) -> Sequence[str]:
    """The data sets that a run names, or none if they are not what it was trained on any more."""
    try:
        manifests = [read_manifest(folder) for folder in folders]
    except DataError:
        manifests = [None]
    if "+".join(each["fingerprint"] if each else "" for each in manifests) == fingerprint:
        return folders
    print(
        f"{COMMAND}: the sources of the training data are not stated, because the run's data are "
        f"no longer in {', '.join(folders)}; say where they are with --data",
        file=sys.stderr,
    )
    return ()


def _sources(folders: Sequence[str], split: str, fingerprint: str) -> tuple[tuple[str, ...], bool]:
    """The sources of the split that was trained on, and whether they are phantoms only.

    Raises:
      ConfigError: If the data sets are not those that the run was trained on.
      DataError: If one is missing or damaged.
    """
    if not folders:
        return (), False
    sources, prints, phantoms = set(), [], True
    for folder in folders:
        manifest = read_manifest(folder)
        if manifest is None:
            raise DataError(f"{folder} is not a data set (no manifest.json)")
        prints.append(manifest["fingerprint"])
        if split in manifest["splits"]:  # or the fingerprint is that of another set
            sources |= set(manifest["splits"][split]["counts"]["source"]["values"])
        # Samples of a model may have been requested with the source phantom.
        phantoms &= manifest["name"] in ("phantom", "phantom_latents") and sources == {"phantom"}
    if sorted(prints) != sorted(fingerprint.split("+")):
        raise ConfigError(
            f"--data {' '.join(folders)}: not what the run was trained on (fingerprints "
            f"{'+'.join(prints)[:12]}… there, {fingerprint[:12]}… in the run); give its data sets, "
            "or leave --data out"
        )
    return tuple(sorted(sources)), phantoms
