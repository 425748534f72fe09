"""Kinds from outside rfxray: two networks, an adversarial objective, an evaluator.

They stand for third-party code: nothing in `rfxray` imports them. A convolutional autoencoder is
trained to reconstruct images against a discriminator that has its own optimizer.
"""

import functools
from collections.abc import Callable, Mapping

import clu.metrics
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from rfxray.config.schema import Key
from rfxray.networks.network import Network
from rfxray.objectives.objective import Batch, Objective, Outcome, Parts
from rfxray.training.evaluators.evaluator import Context, Evaluator, Findings
from rfxray.training.state import State


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _network(shapes: Mapping[str, tuple[int, ...]], apply: Callable, size: int) -> Network:
    def init(key: jax.Array) -> dict[str, jax.Array]:
        keys = jax.random.split(key, len(shapes))
        return {
            name: 0.2 * jax.random.normal(each, shape)
            for each, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    axes = {name: (None,) * (len(shape) - 1) + ("embed",) for name, shape in shapes.items()}
    shapes_tree = jax.eval_shape(init, jax.random.key(0))
    return Network(init, apply, shapes_tree, axes, (size, size, 1))


def autoencoder(section: ml_collections.ConfigDict) -> Network:
    """Image → features at a quarter of its side → image."""
    width = section.width

    def apply(params: Mapping[str, jax.Array], image: jax.Array) -> jax.Array:
        h = jax.nn.silu(convolve(image, params["down"], 4))
        h = jnp.repeat(jnp.repeat(h, 4, 1), 4, 2)
        return convolve(jax.nn.silu(convolve(h, params["mix"])), params["out"])

    shapes = {"down": (4, 4, 1, width), "mix": (3, 3, width, width), "out": (3, 3, width, 1)}
    return _network(shapes, apply, section.size)


autoencoder.KEYS = {
    "size": Key(32, "Side of the image, pixels.", least=4),
    "width": Key(8, "Channels.", least=1),
}


def discriminator(section: ml_collections.ConfigDict) -> Network:
    """Image → one logit for each patch."""

    def apply(params: Mapping[str, jax.Array], image: jax.Array) -> jax.Array:
        return convolve(jax.nn.silu(convolve(image, params["first"], 4)), params["last"], 2)

    shapes = {"first": (4, 4, 1, section.width), "last": (3, 3, section.width, 1)}
    return _network(shapes, apply, section.size)


discriminator.KEYS = {
    "size": Key(32, "Side of the image, pixels.", least=4),
    "width": Key(8, "Channels.", least=1),
}


def adversarial(
    section: ml_collections.ConfigDict, networks: Mapping[str, Callable[..., jax.Array]]
) -> Objective:
    """L1 plus an adversarial loss for `model`, a hinge loss for `discriminator`."""
    encode_decode, judge = networks["model"], networks["discriminator"]

    def mean(x: jax.Array) -> jax.Array:
        return x.reshape(len(x), -1).mean(-1)

    def noisy(batch: Batch, keys: jax.Array, training: bool) -> jax.Array:
        noise = jax.vmap(lambda key: jax.random.normal(key, batch["image"].shape[1:]))(keys)
        return batch["image"] + (section.noise if training else 0.0) * noise

    def of_model(params: Parts, batch: Batch, keys: jax.Array, training: bool) -> Outcome:
        made = encode_decode(params["model"], noisy(batch, keys, training))
        apart = mean(jnp.abs(made - batch["image"]))
        fooled = -mean(judge(params["discriminator"], made))
        return Outcome(apart + section.weight * fooled, {"apart": apart})

    def of_discriminator(params: Parts, batch: Batch, keys: jax.Array, training: bool) -> Outcome:
        made = encode_decode(params["model"], noisy(batch, keys, training))
        real, fake = (judge(params["discriminator"], x) for x in (batch["image"], made))
        return Outcome(mean(jax.nn.relu(1 - real)) + mean(jax.nn.relu(1 + fake)), {})

    def show(params: Parts, batch: Batch, keys: jax.Array) -> jax.Array:
        made = encode_decode(params["model"], batch["image"])
        rows = [batch["image"], made, made - batch["image"]]
        return jnp.clip(jnp.stack(rows, 1)[..., 0], -1, 1)

    return Objective(
        losses={"model": of_model, "discriminator": of_discriminator},
        metrics={"apart": clu.metrics.Average.from_output("apart")},
        show=show,
    )


adversarial.KEYS = {
    "weight": Key(0.1, "Weight of the hinge loss.", least=0),
    "noise": Key(0.05, "Standard deviation of the noise on the input.", least=0),
}


def brightness(section: ml_collections.ConfigDict, context: Context) -> Evaluator:
    """The mean of the reconstructions, and the first of them as an image."""
    apply = jax.jit(functools.partial(context.recipe.model.apply))
    examples = context.first_examples(section.split, section.n)

    def evaluate(state: State) -> Findings:
        made = np.asarray(apply(state["params"]["model"], examples["image"]))
        levels = np.round(np.clip(made[0, ..., 0] + 1, 0, 2) * 127.5).astype(np.uint8)
        return Findings({"brightness": float(made.mean())}, {"brightness": levels})

    return evaluate


brightness.KEYS = {
    "every": Key(4, "Steps between two evaluations; 0: never.", least=0),
    "split": Key("validation", "Split to look at, by its first examples."),
    "n": Key(8, "Examples.", least=1),
}
