"""Phantoms as a data set: the records, and the directory of shards that the trainer reads; or as a
table of attributes only."""

import csv
import dataclasses
import functools
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_prep.phantom import causes, interacting
from data_prep.phantom.causes import observe
from data_prep.phantom.draw import SIZES, draw_images
from data_prep.tables.splits import check_fractions, hashed_split
from data_prep.tables.table import NO_FINDING_RULE
from rfxray.attributes.states import known_from_states
from rfxray.attributes.vocabulary import NAMES, decode_value
from rfxray.data.plan import make_plan
from rfxray.data.writing import write_dataset
from rfxray.errors import ConfigError
from rfxray.outputs import files

WORLDS = ("additive", "interacting")
COMMAND = "data_prep.phantom"
SHARD_EXAMPLES = 2048  # 9 MiB at 64²
SEEDS = 2**63
_DRAWN_AT_ONCE = 64
_BITS = 16


def key(index: int, seed: int = 0) -> str:
    """`source/patient/study/image` of a phantom."""
    return f"{patient(index, seed)}/s0/i0"


def patient(index: int, seed: int = 0) -> str:
    """A phantom by its name. Phantom 7 of seed 1 is another person than phantom 7 of seed 0, so its
    name has the seed; that of the default seed has none."""
    return f"phantom/p{index:07d}" if seed == 0 else f"phantom/seed{seed}-p{index:07d}"


def population(
    world: str, seed: int, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """True attributes [n, 19], states [n, 19] and heart sizes [n], if they are a variable.

    Args:
      world: One of `WORLDS`.
      seed, indices: Those given to `draw_attributes`.
    """
    if world == "additive":
        attributes = causes.draw_attributes(seed, indices)
        return attributes, causes.draw_states(seed, indices, attributes), None
    attributes, heart = interacting.draw(seed, indices)
    return attributes, interacting.draw_states(seed, indices, attributes), heart


def records(
    indices: Sequence[int], seed: int, size: int, world: str = "additive"
) -> Iterator[dict]:
    """A record (as `rfxray.data.record.serialize` takes it) for each patient, in order."""
    for start in range(0, len(indices), _DRAWN_AT_ONCE):
        block = np.asarray(indices[start : start + _DRAWN_AT_ONCE])
        attributes, states, heart = population(world, seed, block)
        observed = observe(attributes, states)
        images = draw_images(attributes, seed, block, size, heart)
        for i, index in enumerate(block.tolist()):
            yield {
                "image": images[i],
                "content_box": (0, 0, size, size),
                "original_size": (size, size),
                "original_bits": _BITS,
                "pixel_spacing": (0.0, 0.0),
                "laterality": "",
                "attributes": observed[i],
                "states": states[i],
                "key": key(index, seed),
                "patient": patient(index, seed),
            }


@dataclasses.dataclass(frozen=True)
class Options:
    """Which phantoms to draw.

    Attributes:
      out: Directory of the data set.
      n: Number of patients.
      size: Side of the images, pixels.
      seed: Seed of the population.
      validation: Share of patients held out.
      workers: Processes.
      world: Population, one of `WORLDS`.
    """

    out: Path
    n: int
    size: int
    seed: int
    validation: float
    workers: int
    world: str = "additive"


def write(options: Options) -> dict:
    """Writes the phantoms of indices 0 to n − 1 as a data set; returns its manifest.

    Raises:
      ConfigError: If the numbers make no data set, or `out` holds something else.
    """
    n, size, seed, validation = options.n, options.size, options.seed, options.validation
    _refuse(n, seed)
    if not SIZES[0] <= size <= SIZES[1]:
        raise ConfigError(f"--size {size} is not {SIZES[0]} to {SIZES[1]} pixels")
    check_fractions(validation, 0.0)
    print(f"{COMMAND}: {n:,} phantoms of {size}², seed {seed}, to {options.out}")
    splits: dict[str, list[int]] = {"train": [], "validation": []}
    for index in range(n):
        splits[hashed_split(patient(index, seed), validation, 0.0)].append(index)
    # Named only if it is another one: a data set of the first population stays what it was.
    other = {} if options.world == WORLDS[0] else {"world": options.world}
    planned = make_plan(
        splits,
        name="phantom",
        size=size,
        shard_examples=SHARD_EXAMPLES,
        description="Procedural chest radiographs; synthetic, drawn from attributes that follow a "
        "known causal graph (data_prep/phantom).",
        options={"n": n, "size": size, "seed": seed, "validation": validation, **other},
        preprocessing={"no_finding": NO_FINDING_RULE},
        versions={"numpy": np.__version__},
    )
    make = functools.partial(records, seed=seed, size=size, **other)
    return write_dataset(planned, make, options.out, workers=options.workers, command=COMMAND)


def write_table(file: Path, world: str, n: int, seed: int) -> None:
    """Writes what is recorded of n phantoms as a CSV file, and beside it the graph of their world.

    Columns are the key, the patient, the 19 attributes and, where it is a variable, the size of the
    heart; what is not known is blank.

    Raises:
      ConfigError: If the numbers make no population.
    """
    _refuse(n, seed)
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    measures = [interacting.HEART] if world == "interacting" else []
    out.writerow(["key", "patient", *NAMES, *measures])
    for start in range(0, n, 2**16):
        indices = np.arange(start, min(n, start + 2**16))
        attributes, states, heart = population(world, seed, indices)
        known = known_from_states(states)
        for i, index in enumerate(indices.tolist()):
            own = (decode_value(*each) for each in zip(NAMES, attributes[i], known[i], strict=True))
            cells = ["" if value is None else value for value in own]
            hearts = [] if heart is None else [f"{heart[i]:.6f}"]
            out.writerow([key(index, seed), patient(index, seed), *cells, *hearts])
    with files.saving(file):
        files.write_whole(file, text.getvalue())
        if world == "interacting":
            graph = json.dumps(interacting.graph(), indent=1) + "\n"
            files.write_whole(file.with_suffix(".graph.json"), graph)


def _refuse(n: int, seed: int) -> None:
    if n < 1 or not 0 <= seed < SEEDS:
        raise ConfigError(
            f"--n {n} phantoms of --seed {seed}: give at least 1, and a seed from 0 to {SEEDS - 1}"
        )
