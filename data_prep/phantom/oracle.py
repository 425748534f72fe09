"""What a picture shows, read back: the judge of pictures made under known attributes.

- `measure` takes lengths from frontal pictures by image analysis; nothing in it is learned
  (phantom/measure.py).
- `train` fits a small convolutional reader of all attributes to phantoms only. Its figures on
  phantoms it has not seen are the ceiling for any generated picture.

It learns from a randomised population (`phantom.draw_trial`): every attribute is assigned
independently of the others, so a finding is read from its own pixels and not from what usually
goes with it. Every class weighs the same, so a reading does not lean to what is common. Side
markers are masked, so a view is read from anatomy. Race changes no pixel: its accuracy belongs at
chance, and says so if anything leaks.

`python -m data_prep.phantom.oracle --out FILE.npz` trains, prints the table of ceiling and chance,
and writes it beside as FILE.json.
"""

import argparse
import dataclasses
import functools
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tqdm import trange

from data_prep import phantom
from data_prep.phantom.measure import measure
from rfxray.attributes.vocabulary import INDEX, all_known
from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.errors import ConfigError
from rfxray.evaluate.classifier import (
    _AGE_SCALE,
    READ,
    Oracle,
    _graph,
    _initial,
    _masked,
    _split,
    chance,
    scores,
)
from rfxray.outputs.files import saving, whole_file, write_whole

COMMAND = "data_prep.phantom.oracle"
_BATCH = 32


# ---------------------------------------------------------------------------------------------
# Training


def train(seed: int = 1, n: int = 8192, size: int = 64, epochs: int = 8) -> Oracle:
    """Fits a reader to `n` phantoms of a randomised population.

    Args:
      seed: Seed of the phantoms, the initial weights and the order; take another than that of the
        pictures to be judged.
      n: Number of phantoms, at least one batch of 64.
      size: Side of the phantoms, pixels.
      epochs: Passes over them, each with fresh blur, grain, contrast and brightness, so that the
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

    value = jnp.nan
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


def ceiling(oracle: Oracle, seed: int, n: int = 2048) -> dict[str, dict[str, float]]:
    """`scores` and `chance` on `n` unseen phantoms of the causal population, and how `measure`
    agrees with the geometry: {"ceiling", "chance", "cardiothoracic_ratio"}."""
    indices = np.arange(n)
    attributes = phantom.draw_attributes(seed, indices)
    images = _draw(attributes, seed, indices, oracle.size)
    frontal = attributes[:, INDEX["view"]] < 2
    true = phantom.truth(attributes, seed, indices)["cardiothoracic_ratio"][frontal]
    measured = measure(images[frontal])["cardiothoracic_ratio"]
    return {
        "ceiling": scores(oracle, images, all_known(attributes)),
        "chance": chance(all_known(attributes)),
        "cardiothoracic_ratio": {
            "correlation": float(np.corrcoef(measured, true)[0, 1]),
            "bias": float((measured - true).mean()),
            "slope": float(np.polyfit(true, measured, 1)[0]),
        },
    }


# ---------------------------------------------------------------------------------------------
# Command line


@dataclasses.dataclass(frozen=True)
class Options:
    """What to train, and where to keep it.

    Attributes:
      out: FILE.npz of the weights; the figures go to FILE.json.
      size: Side of the phantoms, pixels.
      n: Phantoms to learn from.
      seed: Seed of those phantoms; the next one is that of the unseen.
      unseen: Phantoms to be judged by.
      epochs: Passes over the phantoms to learn from.
    """

    out: Path
    size: int
    n: int
    seed: int
    unseen: int
    epochs: int


def main(argv: list[str] | None = None) -> None:
    with exit_on_error(COMMAND):
        train_and_judge(Options(**vars(_parser().parse_args(argv))))


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog=f"python -m {COMMAND}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=local_path, required=True, help="FILE.npz of the weights")
    add("--size", type=int, default=64, help="pixels a side (default: %(default)s)")
    add("--n", type=int, default=8192, help="phantoms to learn from (default: %(default)s)")
    add("--seed", type=int, default=1, help="seed of those phantoms (default: %(default)s)")
    add("--unseen", type=int, default=2048, help="phantoms to be judged by (default: %(default)s)")
    add("--epochs", type=int, default=8, help="passes over them (default: %(default)s)")
    return parser


def train_and_judge(options: Options) -> None:
    """Trains an oracle, saves it with its figures, and prints them.

    Raises:
      ConfigError: If the options cannot work.
      SaveFailed: If the disk is full.
    """
    out = options.out
    if out.suffix != ".npz" or not out.parent.is_dir():
        raise ConfigError(f"--out must end in .npz and lie in a folder that exists (got {out})")
    print(
        f"reading {options.n:,} phantoms of {options.size}², seed {options.seed}", file=sys.stderr
    )
    start = time.monotonic()
    oracle = train(options.seed, options.n, options.size, options.epochs)
    figures = {name: getattr(options, name) for name in ("size", "n", "seed", "epochs")}
    figures |= {"train_seconds": round(time.monotonic() - start, 1)}
    figures |= ceiling(oracle, options.seed + 1, options.unseen)
    beside = out.with_suffix(".json")
    with saving(out):
        with whole_file(out) as temporary:
            oracle.save(temporary)
        write_whole(beside, json.dumps(figures, indent=1))
    print(f"{'attribute':28s} {'ceiling':>8s} {'chance':>8s}")
    for name, value in figures["ceiling"].items():
        unit = " years, mean absolute error" if name == "age" else ""
        print(f"{name:28s} {value:8.3f} {figures['chance'][name]:8.3f}{unit}")
    ratio = ", ".join(f"{k} {v:.3f}" for k, v in figures["cardiothoracic_ratio"].items())
    print(f"cardiothoracic ratio, measured against geometry: {ratio}")
    print(f"{out}: the oracle; {beside}: its figures")


if __name__ == "__main__":
    main()
