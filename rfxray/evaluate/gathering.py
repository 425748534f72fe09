"""All features that a comparison needs, extracted before any of them is compared.

All hosts extract; only the first one compares. So what is extracted depends on the sets only.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rfxray.evaluate import features, overlap
from rfxray.evaluate.extractors.extractor import Extractor
from rfxray.evaluate.features import Features
from rfxray.evaluate.model_size import through
from rfxray.evaluate.pictures import Pictures


@dataclasses.dataclass(frozen=True)
class Sets:
    """The sets that are compared.

    Attributes:
      real: Real pictures, the reference.
      synthetic: Synthetic sets by their label.
      train: Pictures that the models were trained on, None if not given.
    """

    real: Pictures
    synthetic: Mapping[str, Pictures]
    train: Pictures | None

    def named(self) -> dict[str, Pictures]:
        """Every set by its label; the others are `real` and `train`."""
        train = {} if self.train is None else {"train": self.train}
        return {"real": self.real, **train, **self.synthetic}


@dataclasses.dataclass(frozen=True)
class Gathered:
    """The features of one extractor.

    Attributes:
      extractor: The extractor.
      features: Features of each set, by its label.
      resized: Features of the reals through the size of each synthetic set that is smaller, by
        label.
      sides: Side of each synthetic set, by its label, pixels: the median of the longer sides.
    """

    extractor: Extractor
    features: Mapping[str, Features]
    resized: Mapping[str, Features]
    sides: Mapping[str, int]


def gather(
    sets: Sets,
    extractors: Sequence[Extractor],
    cache: Path,
    say: Callable[[str], None],
    floors: bool = True,
) -> list[Gathered]:
    """Extracts or finds all features; all hosts must call it.

    Args:
      sets: Sets that are compared.
      extractors: Extractors.
      cache: Folder of all cached features.
      say: Function that is called with a line about each set that was extracted.
      floors: Whether the reals are extracted through the sizes of the synthetic sets too.

    Raises:
      DataError: If a picture cannot be read, or the sets overlap.
    """
    return [_one(sets, extractor, cache, say, floors) for extractor in extractors]


def _one(
    sets: Sets, extractor: Extractor, cache: Path, say: Callable[[str], None], floors: bool
) -> Gathered:
    def extracted(pictures: Pictures) -> Features:
        found = features.extracted(pictures, extractor, cache)
        how = "from the cache"
        if found.seconds:
            rate = len(pictures) / found.seconds
            how = f"in {found.seconds:.1f} s ({rate:.1f} images/s on this host)"
        say(f"{extractor.name}: {len(pictures):,} images of {pictures.name} {how}")
        return found

    found = {label: extracted(pictures) for label, pictures in sets.named().items()}
    _refuse_overlaps(sets, found)
    sides = {label: side(found[label].pictures) for label in sets.synthetic}
    own = side(found["real"].pictures)
    sizes = {size for size in sides.values() if floors and size < own}
    at = {size: extracted(through(sets.real, size)) for size in sorted(sizes)}
    resized = {label: at[size] for label, size in sides.items() if size in at}
    return Gathered(extractor, found, resized, sides)


def side(pictures: np.ndarray) -> int:
    """Median of the longer sides of pictures, [n] of `features.PICTURE`, pixels."""
    return int(np.median(np.maximum(pictures["height"], pictures["width"])))


def in_training_set(sets: Sets, label: str, found: Mapping[str, Features]) -> int | None:
    """Number of pictures of a set that are in the training set, by key or pixels; None without."""
    if sets.train is None or label == "train":
        return None
    pixels = [found[each].pictures["pixels"] for each in ("train", label)]
    return overlap.shared(sets.train, pixels[0], sets.named()[label], pixels[1])


def _refuse_overlaps(sets: Sets, found: Mapping[str, Features]) -> None:
    """Refuses synthetic sets that share pictures with the reals, or with each other."""
    labels = list(sets.synthetic)
    for number, label in enumerate(labels):
        for other in ["real", *labels[:number]]:
            named = sets.named()
            overlap.refuse(
                named[other],
                found[other].pictures["pixels"],
                named[label],
                found[label].pictures["pixels"],
            )
