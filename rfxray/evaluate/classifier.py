"""Reads attributes back from images: the reader of an oracle, and scores of its answers."""

import dataclasses
import functools
import os
import zipfile
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, reduce
from flax import nnx
from numpy.typing import DTypeLike
from scipy import special

from rfxray.attributes.vocabulary import ATTRIBUTES, INDEX, Attribute, Attributes
from rfxray.data.markers import mask_markers
from rfxray.errors import ConfigError, DataError

# Source is not in the image. Continuous attributes are read as a number, the others as a class.
READ = tuple(attribute for attribute in ATTRIBUTES if attribute.name != "source")
_AGE_SCALE = 25.0  # years: about the spread of ages, so that the reader's output is of order 1
_LEAST = 8  # pixels: convolutions halve the image until its side is at most this
_CHANNELS = (16, 32, 64, 64, 64, 64, 64)
_HIDDEN = 192
UNREADABLE = ("race",)  # by design: it changes no pixel of a phantom
_ABOVE_CHANCE = 0.3  # of chance: a ceiling nearer to it leaves nothing to reach
# Images that are read at once, fewer if there are fewer. A batch is padded to a power of two, so
# that at most ten programs are compiled.
_BATCH = 512

# The oracle of phantoms of 64² that comes with the package, from `python -m benchmarks.packaged`.
PACKAGED = Path(__file__).with_name("packaged") / "oracle.npz"


# ---------------------------------------------------------------------------------------------
# The reader


class Reader(nnx.Module):
    """Halving convolutions, then a dense layer that keeps the place of what it sees, beside the
    strongest response anywhere, for what has no place of its own (a nodule, a callus)."""

    def __init__(self, size: int, rngs: nnx.Rngs):
        layers, side, width = [], size, 1
        for channels in _CHANNELS:
            if side <= _LEAST:
                break
            layers.append(nnx.Conv(width, channels, (3, 3), strides=2, rngs=rngs))
            side, width = -(-side // 2), channels
        self.halvings = nnx.List(layers)
        self.norms = nnx.List([nnx.LayerNorm(layer.out_features, rngs=rngs) for layer in layers])
        self.mix = nnx.Conv(width, width, (3, 3), rngs=rngs)
        self.place = nnx.Linear(side * side * width, _HIDDEN, rngs=rngs)
        self.heads = nnx.Linear(_HIDDEN + width, sum(_width(a) for a in READ), rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """[n, size, size] in [-1, 1] to the outputs of all heads, [n, outputs]."""
        return self.heads(self.features(images))

    def features(self, images: jax.Array) -> jax.Array:
        """[n, size, size] in [-1, 1] to what the heads read, [n, features]."""
        x = images[..., None]
        for halve, norm in zip(self.halvings, self.norms, strict=True):
            x = nnx.relu(norm(halve(x)))
        x = nnx.relu(self.mix(x)) + x
        placed = nnx.relu(self.place(rearrange(x, "n h w c -> n (h w c)")))
        anywhere = reduce(x, "n h w c -> n c", "max")
        return jnp.concatenate([placed, anywhere], -1)


def _years(attribute: Attribute, outputs: np.ndarray) -> np.ndarray:
    return np.clip(outputs * _AGE_SCALE + 50, attribute.low, attribute.high)


def _width(attribute: Attribute) -> int:
    return 1 if attribute.continuous else len(attribute.values)


def _split(outputs: jax.Array) -> dict[str, jax.Array]:
    ends = np.cumsum([_width(a) for a in READ])[:-1]
    return dict(zip([a.name for a in READ], jnp.split(outputs, ends, axis=-1), strict=True))


@functools.cache
def _graph(size: int):
    return nnx.split(nnx.eval_shape(lambda: Reader(size, nnx.Rngs(0))))[0]


@functools.partial(jax.jit, static_argnames="size")
def _read(weights, images, size):
    return _split(nnx.merge(_graph(size), weights)(images))


@functools.partial(jax.jit, static_argnames="size")
def _features(weights, images, size):
    return nnx.merge(_graph(size), weights).features(images)


@dataclasses.dataclass(frozen=True)
class Oracle:
    """A trained reader.

    Attributes:
      size: Side of the images it reads, pixels.
      weights: Parameters, a nested dict of arrays.
    """

    size: int
    weights: Mapping[str, object]

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The network's answers to images [n, size, size] in [-1, 1].

        Returns:
          Logits of each attribute, float32 [n, classes]; of age [n, 1], in units of its own.

        Raises:
          ConfigError: For images of another size.
        """
        return self._applied(_read, images)

    def features(self, images: np.ndarray) -> np.ndarray:
        """What the heads of the network read in images [n, size, size] in [-1, 1].

        Returns:
          Features, float32 [n, features].

        Raises:
          ConfigError: For images of another size.
        """
        return self._applied(_features, images)

    def _applied(self, function: Callable, images: np.ndarray) -> Any:
        _check(images, self.size)
        images = _masked(images)
        parts = []
        batch = min(_BATCH, 1 << (len(images) - 1).bit_length())
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            padded = np.pad(part, ((0, batch - len(part)), (0, 0), (0, 0)))
            parts.append(jax.device_get(function(self.weights, padded, self.size)))
        return jax.tree.map(lambda *values: np.concatenate(values)[: len(images)], *parts)

    def predict(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Reads images [n, size, size] in [-1, 1].

        Returns:
          Values of each attribute except source, float32 [n], encoded as in `Attributes` (the index
          of the class, or years).

        Raises:
          ConfigError: For images of another size.
        """
        said = self.outputs(images)
        read = {}
        for attribute in READ:
            outputs = said[attribute.name]
            if attribute.continuous:
                read[attribute.name] = _years(attribute, outputs)[:, 0]
            else:
                read[attribute.name] = outputs.argmax(-1).astype(np.float32)
        return read

    def answers(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The probabilities behind `predict`, of images [n, size, size] in [-1, 1].

        Returns:
          Probability of each class of an attribute, float32 [n, classes]; years of age [n, 1].

        Raises:
          ConfigError: For images of another size.
        """
        said = self.outputs(images)
        return {
            attribute.name: _years(attribute, said[attribute.name])
            if attribute.continuous
            else special.softmax(said[attribute.name], -1)
            for attribute in READ
        }

    def save(self, path: str | os.PathLike, dtype: DTypeLike = np.float32) -> None:
        """Writes the weights as an npz file, in that dtype."""
        leaves = jax.tree_util.tree_leaves_with_path(self.weights)
        arrays = {jax.tree_util.keystr(path): np.asarray(leaf, dtype) for path, leaf in leaves}
        with open(path, "wb") as file:
            np.savez(file, allow_pickle=False, size=np.asarray(self.size), **arrays)


def load(path: str | os.PathLike = PACKAGED) -> Oracle:
    """The inverse of `Oracle.save`; the weights are float32 again.

    Args:
      path: File of the oracle; that of the package by default, which reads phantoms of 64².

    Raises:
      DataError: If there is no such oracle, or it is of another shape.
    """
    try:
        with np.load(path) as file:
            arrays = dict(file)
            size = int(arrays.pop("size"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        # NumPy's own words for another file advise to load it as a pickle.
        why = error.strerror if isinstance(error, OSError) else "it is not an oracle"
        raise DataError(
            f"no oracle in {path} ({why}); make it with "
            f"python -m data_prep.phantom.oracle --out {path}"
        ) from None
    like = _initial(size, 0)
    expected = {jax.tree_util.keystr(p): v for p, v in jax.tree_util.tree_leaves_with_path(like)}
    if {k: v.shape for k, v in arrays.items()} != {k: v.shape for k, v in expected.items()}:
        raise DataError(
            f"{path} holds an oracle of another version; make it again with "
            f"python -m data_prep.phantom.oracle --out {path}"
        )
    tree = jax.tree_util.tree_structure(like)
    leaves = [arrays[key].astype(np.float32) for key in expected]
    return Oracle(size, jax.tree_util.tree_unflatten(tree, leaves))


def _initial(size: int, seed: int) -> dict:
    return nnx.to_pure_dict(nnx.state(Reader(size, nnx.Rngs(seed))))


def _check(images: np.ndarray, size: int) -> None:
    if images.ndim != 3 or images.shape[1:] != (size, size):
        raise ConfigError(f"this oracle reads [n, {size}, {size}], not {list(images.shape)}")


def _masked(images: np.ndarray) -> np.ndarray:
    return mask_markers(np.asarray(images, np.float32))


# ---------------------------------------------------------------------------------------------
# Scores


def scores(oracle: Oracle, images: np.ndarray, attributes: Attributes) -> dict[str, float]:
    """How well the oracle reads from images what was requested.

    Args:
      oracle: Trained reader.
      images: Images, [n, size, size] in [-1, 1].
      attributes: Requested attributes, [n, 19].

    Returns:
      Balanced accuracy of each attribute (the mean over the classes that occur of the share read
      right), or for age the mean absolute error in years; what is never known is left out.
    """
    return read_scores(oracle.predict(images), attributes)


def read_scores(read: Mapping[str, np.ndarray], attributes: Attributes) -> dict[str, float]:
    """`scores` of what was read already, or by another classifier.

    Args:
      read: Values [n] of the attributes that were read, as `Oracle.predict` returns them; what is
        not among them has no score.
      attributes: Requested attributes, [n, 19].
    """
    return _figures(attributes, lambda name, rows: read[name][rows], read)


def chance(attributes: Attributes) -> dict[str, float]:
    """The same figures for a reader that sees nothing: 1 / the number of classes that occur, and
    for age the mean distance to the median age."""

    def blind(name, rows):
        # The lower median is a class that occurs; the mean of the two middle ones may not be.
        requested = attributes.values[rows, INDEX[name]]
        return np.full(rows.sum(), np.quantile(requested, 0.5, method="lower"))

    return _figures(attributes, blind)


def reached(score: float, ceiling: float, chance: float) -> float:
    """The share of the ceiling's distance above chance: 1 as good as on phantoms, 0 blind. For an
    error (age) the distance is how far it lies below that of chance; the formula is the same."""
    return (score - chance) / (ceiling - chance)


def control(
    ceiling: Mapping[str, float], samples: Mapping[str, float], blind: Mapping[str, float]
) -> dict[str, dict[str, float | None]]:
    """What samples reach of each attribute: the one table that every report of an oracle shows.

    Args:
      ceiling: `scores` of phantoms, or of radiographs.
      samples: `scores` of samples.
      blind: `chance` of what was requested.

    Returns:
      For each attribute of `samples` its `chance`, `ceiling` and `samples`, and `reached`, which is
      None if the ceiling is at chance: nothing can be reached then.
    """
    return {
        name: {
            "chance": blind[name],
            "ceiling": ceiling[name],
            "samples": samples[name],
            "reached": reached(samples[name], ceiling[name], blind[name])
            if abs(ceiling[name] - blind[name]) > _ABOVE_CHANCE * blind[name]
            else None,
        }
        for name in samples
        if name in ceiling
    }


def counted(table: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """The attributes of `control` that a model can be asked to reach: all except race.

    Race changes no pixel of a phantom, so it can only be at chance. It has a row and is never in a
    denominator.
    """
    return [name for name in table if name not in UNREADABLE]


def _figures(
    attributes: Attributes,
    answer: Callable[[str, np.ndarray], np.ndarray],
    among: Container[str] = tuple(a.name for a in READ),
) -> dict[str, float]:
    figures = {}
    for attribute in READ:
        if attribute.name not in among:
            continue
        rows = np.asarray(attributes.known[:, INDEX[attribute.name]])
        if not rows.any():
            continue
        requested = np.asarray(attributes.values[rows, INDEX[attribute.name]])
        read = answer(attribute.name, rows)
        if attribute.continuous:
            figures[attribute.name] = float(np.abs(read - requested).mean())
        else:
            right = [(read[requested == value] == value).mean() for value in np.unique(requested)]
            figures[attribute.name] = float(np.mean(right))
    return figures
