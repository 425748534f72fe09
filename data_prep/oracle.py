"""What a picture shows, read back: the judge of pictures made under known attributes.

- `measure` takes lengths from frontal pictures by image analysis; nothing in it is learned
  (phantom/measure.py).
- `train` fits a small convolutional reader of all attributes to phantoms alone. Its figures on
  phantoms it has not seen are the ceiling for any generated picture.

It learns from a randomised population (`phantom.draw_trial`): every attribute is assigned
independently of the others, so a finding is read from its own pixels and not from what usually
goes with it. Every class weighs the same, so a reading does not lean to what is common. Side
markers are masked, so a view is read from anatomy. Race changes no pixel: its accuracy belongs at
chance, and says so if anything leaks.

`python -m data_prep.oracle --out FILE.npz` trains, prints the table of ceiling and chance, and
writes it beside as FILE.json.
"""

import argparse
import dataclasses
import functools
import json
import os
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange, reduce
from flax import nnx
from tqdm import trange

from data_prep import phantom
from data_prep.phantom.measure import measure
from rfxray.conditioning import ATTRIBUTES, INDEX
from rfxray.errors import ArgumentParser, ConfigError, DataError, exit_on_error, local_path

# Source is not in the picture. Continuous attributes are read as a number, the others as a class.
READ = tuple(attribute for attribute in ATTRIBUTES if attribute.name != "source")

_AGE_SCALE = 25.0  # years: about the spread of ages, so that the reader's output is of order 1
_LEAST = 8  # pixels: convolutions halve the picture until its side is at most this
_CHANNELS = (16, 32, 64, 64, 64, 64, 64)
_HIDDEN = 192
_BATCH = 32


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
        x = images[..., None]
        for halve, norm in zip(self.halvings, self.norms, strict=True):
            x = nnx.relu(norm(halve(x)))
        x = nnx.relu(self.mix(x)) + x
        placed = nnx.relu(self.place(rearrange(x, "n h w c -> n (h w c)")))
        anywhere = reduce(x, "n h w c -> n c", "max")
        return self.heads(jnp.concatenate([placed, anywhere], -1))


def _width(attribute) -> int:
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


@dataclasses.dataclass(frozen=True)
class Oracle:
    """A trained reader.

    Attributes:
      size: side of the pictures it reads, pixels.
      weights: its parameters, a pure dict.
    """

    size: int
    weights: dict

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """What the network says of pictures [n, size, size] in [-1, 1].

        Returns:
          attribute to float32 [n, classes], logits; of age [n, 1], in units of its own.

        Raises:
          ConfigError: for pictures of another size.
        """
        _check(images, self.size)
        images = _masked(images)
        parts = []
        for start in range(0, len(images), 512):
            part = images[start : start + 512]
            padded = np.pad(part, ((0, 512 - len(part)), (0, 0), (0, 0)))
            outputs = jax.device_get(_read(self.weights, padded, self.size))
            parts.append({name: value[: len(part)] for name, value in outputs.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def predict(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Reads pictures [n, size, size] in [-1, 1].

        Returns:
          attribute to float32 [n], encoded as in `rfxray.conditioning` (the index of the class, or
          years); everything but source.

        Raises:
          ConfigError: for pictures of another size.
        """
        said = self.outputs(images)
        read = {}
        for attribute in READ:
            outputs = said[attribute.name]
            if attribute.continuous:
                years = outputs[:, 0] * _AGE_SCALE + 50
                read[attribute.name] = np.clip(years, attribute.low, attribute.high)
            else:
                read[attribute.name] = outputs.argmax(-1).astype(np.float32)
        return read

    def save(self, path: str | os.PathLike) -> None:
        """Writes the weights as an npz file."""
        leaves = jax.tree_util.tree_leaves_with_path(self.weights)
        arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
        with open(path, "wb") as file:
            np.savez(file, size=self.size, **arrays)


def load(path: str | os.PathLike) -> Oracle:
    """The inverse of `Oracle.save`.

    Raises:
      DataError: where there is no such oracle, or one of another shape.
    """
    try:
        with np.load(path) as file:
            arrays = dict(file)
            size = int(arrays.pop("size"))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"no oracle in {path} ({error}); make it with python -m data_prep.oracle --out {path}"
        ) from None
    like = _initial(size, 0)
    expected = {jax.tree_util.keystr(p): v for p, v in jax.tree_util.tree_leaves_with_path(like)}
    if {k: v.shape for k, v in arrays.items()} != {k: v.shape for k, v in expected.items()}:
        raise DataError(f"{path} holds an oracle of another version; train it again")
    tree = jax.tree_util.tree_structure(like)
    return Oracle(size, jax.tree_util.tree_unflatten(tree, [arrays[key] for key in expected]))


def _initial(size: int, seed: int) -> dict:
    return nnx.to_pure_dict(nnx.state(Reader(size, nnx.Rngs(seed))))


def _check(images: np.ndarray, size: int) -> None:
    if images.ndim != 3 or images.shape[1:] != (size, size):
        raise ConfigError(f"this oracle reads [n, {size}, {size}], not {list(images.shape)}")


def _masked(images: np.ndarray) -> np.ndarray:
    return phantom.mask_markers(np.asarray(images, np.float32))


# ---------------------------------------------------------------------------------------------
# Training


def train(seed: int = 1, n: int = 8192, size: int = 64, epochs: int = 8) -> Oracle:
    """Fits a reader to `n` phantoms of a randomised population.

    Args:
      seed: of the phantoms, the initial weights and the order; take another than that of the
        pictures to be judged.
      n: phantoms, at least one batch of 64.
      size: their side, pixels.
      epochs: passes over them, each with fresh blur, grain, contrast and brightness, so that the
        slightly soft pictures of a generator are read as well as phantoms.
    """
    if n < _BATCH:
        raise ConfigError(f"an oracle needs at least {_BATCH} phantoms, not {n}")
    indices = np.arange(n)
    attributes = phantom.draw_trial(seed, indices)
    images = jnp.asarray(_masked(_draw(attributes, seed, indices, size)))
    targets, weights = _targets(attributes)
    steps = n // _BATCH
    schedule = optax.warmup_cosine_decay_schedule(0, 2e-3, steps // 2, steps * epochs, 1e-5)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.05)
    )
    parameters = _initial(size, seed)
    state = parameters, optimizer.init(parameters)
    key = jax.random.key(seed)

    def loss(parameters, images, targets, weights):
        outputs = _split(nnx.merge(_graph(size), parameters)(images))
        total = 0.0
        for attribute in READ:
            output, target = outputs[attribute.name], targets[attribute.name]
            if attribute.continuous:
                # Weighted as four findings: a number asks more of the reader than a yes or no.
                total += 4 * jnp.abs(output[:, 0] - target).mean()
            else:
                cross = optax.softmax_cross_entropy_with_integer_labels(output, target)
                total += (cross * weights[attribute.name]).mean()
        return total / len(READ)

    # A step is dispatched by itself: XLA runs a convolution within a scan on one slow thread of a
    # CPU (measured 42 ms an image against 2).
    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, rows, key):
        parameters, moments = state
        pick = functools.partial(jax.tree.map, lambda x: x[rows])
        value, gradient = jax.value_and_grad(loss)(
            parameters, _augment(images[rows], key), pick(targets), pick(weights)
        )
        updates, moments = optimizer.update(gradient, moments, parameters)
        return (optax.apply_updates(parameters, updates), moments), value

    shuffler = np.random.default_rng(seed)
    for epoch in (bar := trange(epochs, desc="oracle", unit="epoch", disable=None)):
        order = shuffler.permutation(n)[: steps * _BATCH].reshape(steps, _BATCH)
        for number, rows in enumerate(order):
            state, value = step(state, rows, jax.random.fold_in(key, epoch * steps + number))
        bar.set_postfix(loss=f"{value:.3f}")
    return Oracle(size, jax.device_get(state[0]))


def _draw(attributes, seed, indices, size) -> np.ndarray:
    drawn = phantom.draw_images(attributes, seed, indices, size)
    return drawn.astype(np.float32) * np.float32(2 / 65535) - 1


def _targets(attributes: np.ndarray) -> tuple[dict, dict]:
    targets, weights = {}, {}
    for attribute in READ:
        values = attributes[:, INDEX[attribute.name]]
        if attribute.continuous:
            targets[attribute.name] = jnp.asarray((values - 50) / _AGE_SCALE)
            continue
        values = values.astype(np.int32)
        counts = np.bincount(values, minlength=len(attribute.values))
        balance = len(values) / (len(counts) * np.maximum(counts, 1))
        targets[attribute.name] = jnp.asarray(values)
        weights[attribute.name] = jnp.asarray(balance[values], jnp.float32)
    return targets, weights


def _augment(images: jax.Array, key: jax.Array) -> jax.Array:
    keys = jax.random.split(key, 5)
    shape = (len(images), 1, 1)
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
    soft = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    soft = (soft[:, :, :-2] + 2 * soft[:, :, 1:-1] + soft[:, :, 2:]) / 4
    images += jax.random.uniform(keys[0], shape, minval=-0.25, maxval=1.0) * (soft - images)
    images *= jax.random.uniform(keys[1], shape, minval=0.9, maxval=1.1)
    images += jax.random.uniform(keys[2], shape, minval=-0.08, maxval=0.08)
    strength = jax.random.uniform(keys[3], shape, maxval=0.06)
    return images + strength * jax.random.normal(keys[4], images.shape)


# ---------------------------------------------------------------------------------------------
# Scores


def scores(
    oracle: Oracle, images: np.ndarray, attributes: np.ndarray, known: np.ndarray
) -> dict[str, float]:
    """How well the oracle reads from pictures what they were asked to show.

    Args:
      images: [n, size, size] in [-1, 1].
      attributes, known: [n, 19], what was asked for.

    Returns:
      attribute to balanced accuracy (the mean over the classes that occur of the share read right),
      or for age to the mean absolute error in years; what is never known is left out.
    """
    read = oracle.predict(images)
    return _figures(attributes, known, lambda name, rows: read[name][rows])


def chance(attributes: np.ndarray, known: np.ndarray) -> dict[str, float]:
    """The same figures for a reader that sees nothing: 1 / the number of classes that occur, and
    for age the mean distance to the median age."""

    def blind(name, rows):
        # The lower median is a class that occurs; the mean of two middle ones is none.
        told = attributes[rows, INDEX[name]]
        return np.full(rows.sum(), np.quantile(told, 0.5, method="lower"))

    return _figures(attributes, known, blind)


def reached(score: float, ceiling: float, chance: float) -> float:
    """The share of the ceiling's distance above chance: 1 as good as on phantoms, 0 blind. For an
    error (age) the distance is how far it lies below that of chance; the formula is the same."""
    return (score - chance) / (ceiling - chance)


def _figures(attributes, known, answer) -> dict[str, float]:
    figures = {}
    for attribute in READ:
        rows = known[:, INDEX[attribute.name]]
        if not rows.any():
            continue
        told = attributes[rows, INDEX[attribute.name]]
        read = answer(attribute.name, rows)
        if attribute.continuous:
            figures[attribute.name] = float(np.abs(read - told).mean())
        else:
            right = [(read[told == value] == value).mean() for value in np.unique(told)]
            figures[attribute.name] = float(np.mean(right))
    return figures


def ceiling(oracle: Oracle, seed: int, n: int = 2048) -> dict[str, dict[str, float]]:
    """`scores` and `chance` on `n` unseen phantoms of the causal population, and how `measure`
    agrees with the geometry: {"ceiling", "chance", "cardiothoracic_ratio"}."""
    indices = np.arange(n)
    attributes = phantom.draw_attributes(seed, indices)
    images = _draw(attributes, seed, indices, oracle.size)
    known = np.ones(attributes.shape, bool)
    frontal = attributes[:, INDEX["view"]] < 2
    true = phantom.truth(attributes, seed, indices)["cardiothoracic_ratio"][frontal]
    measured = measure(images[frontal])["cardiothoracic_ratio"]
    return {
        "ceiling": scores(oracle, images, attributes, known),
        "chance": chance(attributes, known),
        "cardiothoracic_ratio": {
            "correlation": float(np.corrcoef(measured, true)[0, 1]),
            "bias": float((measured - true).mean()),
            "slope": float(np.polyfit(true, measured, 1)[0]),
        },
    }


# ---------------------------------------------------------------------------------------------
# Command line


def main(argv: list[str] | None = None) -> None:
    with exit_on_error("data_prep.oracle"):
        _train_and_judge(_parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m data_prep.oracle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=local_path, required=True, help="FILE.npz of the weights")
    parser.add_argument("--size", type=int, default=64, help="pixels a side (64)")
    parser.add_argument("--n", type=int, default=8192, help="phantoms to learn from (8192)")
    parser.add_argument("--seed", type=int, default=1, help="of those phantoms (1)")
    parser.add_argument("--unseen", type=int, default=2048, help="phantoms to be judged by (2048)")
    parser.add_argument("--epochs", type=int, default=8, help="passes over them (8)")
    return parser


def _train_and_judge(flags: argparse.Namespace) -> None:
    if flags.out.suffix != ".npz" or not flags.out.parent.is_dir():
        raise ConfigError(f"--out {flags.out} is not FILE.npz in a directory that exists")
    print(f"reading {flags.n:,} phantoms of {flags.size}², seed {flags.seed}", file=sys.stderr)
    start = time.monotonic()
    oracle = train(flags.seed, flags.n, flags.size, flags.epochs)
    oracle.save(flags.out)
    figures = {"size": flags.size, "n": flags.n, "seed": flags.seed, "epochs": flags.epochs}
    figures |= {"train_seconds": round(time.monotonic() - start, 1)}
    figures |= ceiling(oracle, flags.seed + 1, flags.unseen)
    beside = flags.out.with_suffix(".json")
    beside.write_text(json.dumps(figures, indent=1))
    print(f"{'attribute':28s} {'ceiling':>8s} {'chance':>8s}")
    for name, value in figures["ceiling"].items():
        unit = " years, mean absolute error" if name == "age" else ""
        print(f"{name:28s} {value:8.3f} {figures['chance'][name]:8.3f}{unit}")
    ratio = ", ".join(f"{k} {v:.3f}" for k, v in figures["cardiothoracic_ratio"].items())
    print(f"cardiothoracic ratio, measured against geometry: {ratio}")
    print(f"{flags.out}: the oracle; {beside}: its figures")


if __name__ == "__main__":
    main()
