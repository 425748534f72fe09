"""Cohorts that a causal model gives: what each image of a population is requested with.

Of an intervention (`--do sex=M`) every image gets attributes of its own, drawn by the model in
causal order with the intervention made. The noise of image i is keyed by its index and the seed, so
two interventions of one seed show the same people, and no image depends on another.

Of the counterfactual of a data set, every radiograph gets a twin: its attributes are abducted,
the intervention made, and the findings follow, by the key of the record. The image of a twin is
drawn under them, from the noise of its index; `rfxray sample --like` of the same seed draws the
observed attributes from the same noise. The radiograph itself is not read: twins of the very
pictures are edits, and `rfxray causes stress` makes those.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from rfxray.attributes import vocabulary
from rfxray.attributes.states import known_from_states
from rfxray.attributes.vocabulary import INDEX, NUM_ATTRIBUTES, Attributes
from rfxray.causes import effects, folder, tables
from rfxray.causes.abduction import abduct, counterfactual, predict
from rfxray.causes.mechanisms import StructuralModel
from rfxray.causes.worlds import nothing
from rfxray.command_line import refuse_unread
from rfxray.data.dataset import Records, open_dataset
from rfxray.errors import ConfigError
from rfxray.sampling.plan import refuse_range
from rfxray.sampling.requests import Requests
from rfxray.sampling.sample_request import SampleRequest

OTHERS = ("grid", "csv", "like", "balance", "complete")  # other ways to request a population


def population(
    model: StructuralModel, do: Mapping[str, float], indices: np.ndarray, seed: int
) -> Attributes:
    """The attributes [n, 19] of some people under an intervention.

    What the model does not have is unknown; No Finding follows if the model has all pathologies.

    Args:
      model: Model.
      do: Interventions, attribute to encoded value; none for the population as it is.
      indices: Index of each person, [n].
      seed: Seed of the population.
    """
    start = abduct(model, *nothing(model, len(indices)), np.asarray(indices, np.uint64), seed)
    values = predict(model, start, do)[:, :NUM_ATTRIBUTES].astype(np.float32)
    known = np.zeros(values.shape, bool)
    known[:, [INDEX[name] for name in (*model.mechanisms, *do) if name in INDEX]] = True
    return vocabulary.settle(Attributes(np.where(known, values, 0).astype(np.float32), known))


def twins(
    model: StructuralModel,
    observed: Attributes,
    keys: Sequence[str],
    do: Mapping[str, float],
    seed: int,
) -> tuple[Attributes, list[str]]:
    """The attributes [n, 19] of a twin of each record, and what follows in each, by commas.

    Args:
      model: Model.
      observed: What is known of each record, [n, 19].
      keys: Key of each record, which its noise is drawn by.
      do: Interventions, attribute to encoded value.
      seed: Seed of the noise that a record leaves open.
    """
    named = np.array([tables.named(key) for key in keys], np.uint64)
    target, _ = counterfactual(model, observed, do, seed, named)
    moved = (target.known != observed.known) | (
        target.known & (np.asarray(target.values) != np.asarray(observed.values))
    )
    moved[:, [INDEX[name] for name in do]] = False
    follows = [",".join(vocabulary.NAMES[i] for i in np.flatnonzero(row)) for row in moved]
    return Attributes(np.where(target.known, target.values, 0), target.known), follows


def asked_for(arguments: argparse.Namespace, request: SampleRequest) -> SampleRequest:
    """The request with the cohort of --do, if one is asked for.

    Raises:
      ConfigError, DataError: For flags that do not go together, a model or data set that cannot be
        read, or an intervention that the model cannot answer.
    """
    if not arguments.do:
        refuse_unread(arguments, ("causes", "counterfactual_of"), "a command without --do")
        return request
    if not arguments.causes:
        raise ConfigError("--do needs --causes with a folder of rfxray causes fit")
    refuse_unread(arguments, OTHERS, "--do")
    model, _ = folder.load(arguments.causes)
    do = _interventions(model, arguments.do)
    if arguments.counterfactual_of is None:
        if wrong := sorted(set(request.asked) & {*model.mechanisms, "no_finding"}):
            raise ConfigError(
                f"the model draws {wrong[0]}; set {wrong[0]} by --do, and leave --set out"
            )
        indices = np.arange(request.first, request.first + request.n)
        rows = population(model, do, indices, request.settings.seed)
        return _with(request, rows, (), request.n)
    if request.asked:
        raise ConfigError("--counterfactual-of takes its attributes from the data; leave --set out")
    path, _, split = arguments.counterfactual_of.partition(":")
    dataset = open_dataset(path, latents=True)
    split = split or "train"
    if not dataset.examples.get(split):
        raise ConfigError(f"data set {dataset.path} has no split {split!r}")
    records = Records(dataset, split)
    n = len(records) - request.first if arguments.n is None else request.n
    if n < 1 or request.first + n > len(records):
        raise ConfigError(
            f"{arguments.counterfactual_of} has {len(records)} records, not those from "
            f"{request.first} to {request.first + n - 1}; lower --n or --first-index"
        )
    labels = [records.labels(k) for k in range(request.first, request.first + n)]
    known = np.stack([known_from_states(each["states"]) for each in labels])
    values = np.where(known, np.stack([each["attributes"] for each in labels]), 0)
    keys = [str(each["key"]) for each in labels]
    observed = Attributes(values.astype(np.float32), known)
    rows, follows = twins(model, observed, keys, do, request.settings.seed)
    return _with(request, rows, tuple({"follows": names} for names in follows), n)


def _with(
    request: SampleRequest, rows: Attributes, notes: tuple[Mapping[str, str], ...], n: int
) -> SampleRequest:
    """The request with a row for each of its images."""
    refuse_range(n, request.first)
    asked = vocabulary.encode(request.asked)
    values = np.where(asked.known, asked.values, rows.values).astype(np.float32)
    rows = Attributes(values, np.asarray(rows.known) | np.asarray(asked.known))
    return dataclasses.replace(request, asks=Requests(rows, request.first, notes=notes), n=n)


def _interventions(model: StructuralModel, texts: Sequence[str]) -> dict[str, float]:
    do: dict[str, float] = {}
    for name, text in vocabulary.parse(texts).items():
        if name not in model.mechanisms:
            raise ConfigError(
                f"the model does not have {name}, so nothing is known of what follows; it has "
                f"{', '.join(model.mechanisms)}"
            )
        do[name], known = vocabulary.encode_value(name, text)
        if not known:
            raise ConfigError(f"--do {name}={text} must be an actual value")
    effects.refuse_unsupported(model, do)
    return do
