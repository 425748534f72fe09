"""What a data set of latents says of itself: its VAE, and the statistics that normalise it.

A latent is stored as the encoder gave it: the mean of its posterior, never a sample of it, since
noise that is drawn once and stored is part of the data from then on. A model sees `normalised`
latents, (latent − mean) / std with one mean and deviation a channel. They are those of the training
split, over every cell, also outside of the radiograph: the model sees those cells too.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from rfxray.errors import DataError


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each channel, `[channels]`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalised(
        self, latents: Float[np.ndarray, "*cells channels"]
    ) -> Float[np.ndarray, "*cells channels"]:
        """Latents as a model sees them, float32."""
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        return (latents.astype(np.float32) - mean) / std


@dataclasses.dataclass(frozen=True)
class Latents:
    """What `manifest.json` says of the latents of a data set.

    Attributes:
      shape: Height, width and channels of a latent.
      log_variance: Whether records have the log-variance of the posterior too.
      vae: Identity of the autoencoder, by the content of its weights, hex.
      source: Fingerprint of the data set of images that was encoded.
      size: Side of these images, pixels.
      statistics: Statistics of the training split.
      encoder: Identity of the encoder of the autoencoder, likewise. Another decoder of the same
        encoder decodes the latents too. None if the data set does not say it, as an older one.
    """

    shape: tuple[int, int, int]
    log_variance: bool
    vae: str
    source: str
    size: int
    statistics: Statistics
    encoder: str | None = None

    def entry(self) -> dict[str, Any]:
        """The entry of a manifest."""
        return dataclasses.asdict(self)

    def same_encoder(self, other: "Latents") -> bool:
        """Whether the same encoder made both; their decoders may differ."""
        return self.vae == other.vae or (self.encoder is not None and self.encoder == other.encoder)

    @classmethod
    def of_entry(cls, entry: Mapping[str, Any]) -> "Latents":
        """The inverse of `entry`.

        Raises:
          KeyError, TypeError, ValueError: If it is none.
        """
        height, width, channels = (_count(number) for number in entry["shape"])
        each = {name: _floats(entry["statistics"][name]) for name in ("mean", "std")}
        fits = len(each["mean"]) == len(each["std"]) == channels
        if not fits or not np.isfinite([*each.values()]).all() or min(each["std"]) <= 0:
            raise ValueError(
                f"{entry['statistics']} are not finite statistics of {channels} channels"
            )
        return cls(
            (height, width, channels),
            bool(entry["log_variance"]),
            str(entry["vae"]),
            str(entry["source"]),
            _count(entry["size"]),
            Statistics(**each),
            entry.get("encoder"),
        )


def _count(number: object) -> int:
    if type(number) is not int or number < 1:
        raise ValueError(f"{number!r} is not a whole number above 0")
    return number


def _floats(numbers: Sequence[object]) -> tuple[float, ...]:
    found = []
    for number in numbers:
        if not isinstance(number, int | float) or isinstance(number, bool):
            raise ValueError(f"{number!r} is not a number")
        found.append(float(number) if abs(number) < 1e300 else math.inf)
    return tuple(found)


# ------------------------------------------------------------------------------------------------
# Statistics, shard by shard


@dataclasses.dataclass(frozen=True)
class Moments:
    """Number of cells, and of each channel mean and sum of squared deviations, in float64."""

    count: int
    mean: np.ndarray
    squares: np.ndarray

    def merged(self, other: "Moments") -> "Moments":
        """The moments of both together (Chan, Golub and LeVeque 1983, eq. 2.1)."""
        count = self.count + other.count
        apart = other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * (other.count / count),
            self.squares + other.squares + apart**2 * (self.count * other.count / count),
        )

    def entry(self) -> list:
        """As JSON, to the last bit."""
        return [self.count, self.mean.tolist(), self.squares.tolist()]


def moments(latent: Float[np.ndarray, "height width channels"]) -> Moments:
    """The moments of one latent."""
    cells = np.asarray(latent, np.float64).reshape(-1, latent.shape[-1])
    mean = cells.mean(0)
    return Moments(len(cells), mean, ((cells - mean) ** 2).sum(0))


def statistics(entries: Iterable[Sequence]) -> Statistics:
    """The statistics of shards, from what `Moments.entry` says of each.

    Raises:
      DataError: If a channel has one value only, so that it cannot be normalised.
    """
    total: Moments | None = None
    for count, mean, squares in entries:
        one = Moments(count, np.asarray(mean), np.asarray(squares))
        total = one if total is None else total.merged(one)
    if total is None or not (total.squares > 0).all():
        raise DataError(
            "a channel of the latents has the same value in every training image, or there is no "
            "training image; the autoencoder cannot be used"
        )
    return Statistics(
        tuple(total.mean.tolist()), tuple(np.sqrt(total.squares / total.count).tolist())
    )


def mixed(parts: Sequence[Statistics], weights: Sequence[float]) -> Statistics:
    """The statistics of a mixture of data sets."""
    share = np.asarray(weights, np.float64)[:, None] / np.sum(weights)
    mean, std = np.array([part.mean for part in parts]), np.array([part.std for part in parts])
    centre = (share * mean).sum(0)
    # Of one set exactly its own: the square root of a square is exact, a difference of squares not.
    spread = np.sqrt((share * (std**2 + (mean - centre) ** 2)).sum(0))
    return Statistics(tuple(centre.tolist()), tuple(spread.tolist()))
