"""A data set of images to one of latents, on the devices of one or several hosts.

The shards are those of any data set (`data.shards`): a shard is written whole, then its fragment,
and a killed run continues with the rest. A batch never holds images of two shards, so a shard has
the same bytes whatever was written before it. Host h of n encodes every n-th shard; the first one
begins the folder and publishes it, with the statistics of the training split, which follow from the
fragments, and a copy of the autoencoder, which decodes what is made of the latents.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfxray.checkpoints import exported
from rfxray.data import record
from rfxray.data.dataset import Dataset, Records, open_dataset
from rfxray.data.latents import Latents, statistics
from rfxray.data.manifest import fragments, publish, read_manifest
from rfxray.data.pixels import to_float
from rfxray.data.plan import Plan, make_plan
from rfxray.data.shards import is_written, write_shard
from rfxray.data.writing import begin_writing, claimed
from rfxray.errors import ConfigError
from rfxray.outputs.files import saving
from rfxray.runtime import distributed
from rfxray.sampling import autoencoder
from rfxray.sampling.autoencoder import Autoencoder
from rfxray.sampling.stream import PATIENCE

TRAIN = "train"  # split of the statistics
READERS = 8  # threads that decode PNGs, 28 ms each at 512²


@dataclasses.dataclass(frozen=True)
class EncodeRequest:
    """What is to be encoded.

    Attributes:
      data: Data set of images.
      vae: Export of an autoencoder.
      out: Folder of the data set of latents; new, empty, or begun by the same request.
      log_variance: Whether the log-variance of the posterior is stored too.
      batch_size: Images that are encoded at once, over all devices of a host.
      shard_examples: Latents of a file.
    """

    data: Path
    vae: Path
    out: Path
    log_variance: bool = False
    batch_size: int = 16
    shard_examples: int = 1024


def encode(
    request: EncodeRequest, began: Callable[[int, int], Callable[[], None]]
) -> dict[str, object]:
    """Writes the data set of latents, or continues what a run began.

    Args:
      request: What is to be encoded.
      began: Function of the number of images of this host and of those that an earlier run did; it
        returns a function that is called after each image.

    Returns:
      The manifest.

    Raises:
      ConfigError: If the autoencoder cannot encode such images, or `out` holds something else.
      DataError: If the data set or the autoencoder is damaged.
      SaveFailed: If the disk is full.
    """
    source = open_dataset(request.data)
    about = read_manifest(source.path) or {}
    vae = autoencoder.open_autoencoder(request.vae)
    plan = _plan(request, source, about, vae)
    host, hosts = distributed.place()
    claim = claimed(request.out) if host == 0 else contextlib.nullcontext()
    with saving(request.out), claim:
        if host == 0:
            begin_writing(plan, request.out)
        _agree(plan)
        if (manifest := read_manifest(request.out)) is None:
            longest = max(len(shard.items) for shard in plan.shards)
            own = plan.shards[host::hosts]
            pending = [shard for shard in own if not is_written(request.out, shard)]
            total = sum(len(shard.items) for shard in own)
            advance = began(total, total - sum(len(shard.items) for shard in pending))
            for shard in pending:
                made = _records(Records(source, shard.split), shard.items, vae, request, longest)
                write_shard(shard, request.out, plan.size, made, advance, plan.latent)
            distributed.barrier("the shards of latents", PATIENCE)
            if host == 0:
                manifest = _publish(plan, request, source, about, vae)
        distributed.barrier("the end of the latents", PATIENCE)
    return manifest or read_manifest(request.out) or {}


def _plan(
    request: EncodeRequest, source: Dataset, about: Mapping[str, Any], vae: Autoencoder
) -> Plan:
    if not source.examples.get(TRAIN):
        raise ConfigError(
            f"data set {source.path} has no split {TRAIN!r}, and latents are normalised by the "
            "statistics of that split; encode a data set that has one"
        )
    latent = vae.latent_shape(source.size)
    plan = make_plan(
        {split: range(count) for split, count in source.examples.items()},
        name=f"{about['name']}_latents",
        size=source.size,
        shard_examples=request.shard_examples,
        description=f"{about['description']} Latents of an autoencoder.",
        options={
            "vae": vae.weights,
            "source_fingerprint": source.fingerprint,
            "latent": list(latent),
            "log_variance": request.log_variance,
            "batch_size": request.batch_size,
        },
        preprocessing=about["preprocessing"],
        versions={"jax": jax.__version__},
        notes=about["notes"],
    )
    shown = ("latent", "log_variance") if request.log_variance else ("latent",)
    return dataclasses.replace(plan, latent=latent, shown=shown)


def _agree(plan: Plan) -> None:
    """Raises a ConfigError on a host that was asked for something else than the first one."""
    if not distributed.joined():
        return
    own = json.dumps(plan.identity, sort_keys=True)
    first = own if distributed.place()[0] == 0 else None
    if own != distributed.of_first("the plan of the latents", first):
        raise ConfigError("this host was asked to encode something else than the first one")


def _records(
    source: Records, numbers: Sequence[int], vae: Autoencoder, request: EncodeRequest, longest: int
) -> Iterator[dict]:
    """The records of latents, in order; a batch is read while the one before it is encoded.

    No batch is larger than the longest shard.
    """
    size = min(request.batch_size, longest)
    size += -size % vae.mesh.size
    starts = range(numbers[0], numbers[-1] + 1, size)

    def begin(start: int):
        rows = list(pool.map(source.__getitem__, range(start, min(start + size, numbers[-1] + 1))))
        images = np.stack([to_float(row["image"])[..., None] for row in rows])
        # The last batch is filled up, so that one program encodes all
        return rows, vae.encode(images[np.arange(size) % len(images)])

    with ThreadPoolExecutor(READERS) as pool:
        ahead = begin(starts[0])
        for following in [*starts[1:], None]:
            rows, (mean, log_variance) = ahead
            if following is not None:
                ahead = begin(following)
            with np.errstate(over="ignore"):  # what is not finite is refused as a record
                mean = np.asarray(mean).astype(np.float16)
                wide = np.asarray(log_variance).astype(np.float16) if request.log_variance else mean
            for k, row in enumerate(rows):
                found = {name: row[name] for name in record.FIELDS} | {"latent": mean[k]}
                yield found | ({"log_variance": wide[k]} if request.log_variance else {})


def _publish(
    plan: Plan, request: EncodeRequest, source: Dataset, made: Mapping[str, Any], vae: Autoencoder
) -> dict:
    exported.copy(request.vae, request.out / exported.VAE)
    moments = [each["moments"] for each in fragments(plan, request.out, TRAIN) if each["examples"]]
    assert plan.latent
    about = Latents(
        plan.latent,
        request.log_variance,
        vae.weights,
        source.fingerprint,
        source.size,
        statistics(moments),
        vae.encoder,
    )
    more = {"latents": about.entry()}
    if "synthetic" in made:
        more["synthetic"] = made["synthetic"]
    return publish(plan, request.out, more)
