"""How far samples are from held-out images while a run trains, by features that know nothing of it.

It compares the steps of one run, and the averages of one step: the same noise, requests and
held-out images each time. Models are compared by `rfxray evaluate fidelity`, with intervals,
floors and more images.
"""

import sys
import time
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
from jaxtyping import Float

from rfxray.attributes.vocabulary import Attributes, settle
from rfxray.checkpoints.weights import ema_name
from rfxray.errors import ConfigError
from rfxray.evaluate import basis, feature_pair, fidelity, frechet, kernel, strata
from rfxray.evaluate.extractors import circularity
from rfxray.evaluate.extractors.extractor import Extractor
from rfxray.evaluate.extractors.kinds import open_extractor
from rfxray.evaluate.features import on_devices
from rfxray.objectives.objective import Parts
from rfxray.runtime import sharding
from rfxray.sampling.sampler import make_sampler
from rfxray.sampling.settings import Settings
from rfxray.training.evaluators.evaluator import Context, Evaluator, Findings
from rfxray.training.state import State

# (weights of the network, seed of the noise) → distances by name; on other hosts than 0, none.
Judge = Callable[[Parts, int], dict[str, float]]


def build(section: ml_collections.ConfigDict, context: Context) -> Evaluator:
    """Builds the evaluator of `fidelity/KID` and, from 320 images on, `fidelity/FD64`, of the first
    EMA profile; `fidelity/seconds` is its price.

    Raises:
      ConfigError: If the objective has no velocity, or the extractor does not exist.
      DataError: If its weights are damaged.
    """
    recipe = context.recipe
    profile, distances = ema_name(recipe.sigmas[0]), judge(section, context)

    def evaluate(state: State) -> Findings:
        began = time.perf_counter()
        found = distances(state["ema"][profile], recipe.seed)
        if not found:
            return Findings()
        found["seconds"] = time.perf_counter() - began
        return Findings({f"fidelity/{name}": value for name, value in found.items()})

    return evaluate


def judge(section: ml_collections.ConfigDict, context: Context) -> Judge:
    """The function that draws samples with some weights, and measures how far they are.

    Samples have the attributes of the first `n` examples of a split, which are the reals. All hosts
    draw; host 0 extracts features and measures, with the KID of all pairs and the FD64 of the
    basis of the package, else of the reals.

    Raises:
      ConfigError: If the objective has no velocity, or the extractor does not exist.
      DataError: If its weights are damaged.
    """
    recipe, velocity = context.recipe, context.recipe.objective.velocity
    if velocity is None:
        raise ConfigError(
            "the objective draws no samples, so evaluators.fidelity cannot judge them; set "
            "evaluators.fidelity.every=0"
        )
    examples = context.first_examples(section.split, section.n)
    requests = settle(Attributes(examples["attributes"], examples["known"]))
    settings = Settings(recipe.seed, section.steps, section.solver, section.guidance)
    sampler = make_sampler(velocity, recipe.model.input_shape, settings)
    draw = jax.jit(sampler, out_shardings=sharding.replicated(context.mesh))
    size = -(-min(section.n, recipe.batch_size) // context.batch_multiple) * context.batch_multiple
    weight = np.float32(section.guidance)

    def drawn(params: Parts, seed: int) -> Float[np.ndarray, "n h w"]:
        """Samples in [-1, 1]; a short last batch is filled with those of the first requests."""
        rows = []
        for start in range(0, section.n, size):
            numbers = np.arange(start, start + size) % section.n
            asked = Attributes(requests.values[numbers], requests.known[numbers])
            indices = numbers.astype(np.uint32)
            made = np.asarray(draw(params, np.uint32(seed), weight, indices, asked))
            rows.append(context.images(made))
        return np.concatenate(rows)[: section.n, ..., 0]

    if context.host:

        def elsewhere(params: Parts, seed: int) -> dict[str, float]:
            drawn(params, seed)
            return {}

        return elsewhere

    extractor = open_extractor(section.extractor)
    for line in circularity.reasons(extractor, "this run", strata.sources(requests)):
        print(f"rfxray.train: WARNING: evaluators.fidelity is circular: {line}", file=sys.stderr)
    # A small split is repeated for the requests, but a real image counts once.
    distinct = np.stack(list({image.tobytes(): image for image in examples["image"]}.values()))
    real = _features(extractor, context.images(distinct)[..., 0])
    own = fidelity.basis_of(extractor, real, f"the first examples of {section.split}")
    reals = frechet.moments(real, "real")

    def measured(params: Parts, seed: int) -> dict[str, float]:
        made = _features(extractor, drawn(params, seed))
        patients = feature_pair.patients(len(real), len(made))
        found = {kernel.NAME: kernel.distance(real, made, patients).value}
        if own is not None and min(len(real), len(made)) >= basis.LEAST:
            found[own.name] = frechet.principal(reals, frechet.moments(made, "synthetic"), own)
        return {name: value for name, value in found.items() if value is not None}

    return measured


def _features(
    extractor: Extractor, images: Float[np.ndarray, "n h w"]
) -> Float[np.ndarray, "n width"]:
    """Features of images in [-1, 1]."""
    unit = (np.clip(images, -1, 1) + 1) / 2
    return on_devices(extractor, np.stack([extractor.preprocessing.prepare(x) for x in unit]))
