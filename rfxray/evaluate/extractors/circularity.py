"""Whether an extractor judges what it was fitted to, or a model that was fitted to it.

If the loss of a model compares features (a perceptual loss, alignment), the model comes close to
the reals in those features before its images do, and an extractor sees images of the data that it
was trained on as it sees no others. A distance under either is *circular*, and is printed as such.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from rfxray.checkpoints import exported
from rfxray.errors import DataError
from rfxray.evaluate.extractors.extractor import Extractor

# Sections of a config that decide what a model is trained on or against; its evaluators do not.
_TRAINING = ("objective", "parts")


def reasons(
    extractor: Extractor,
    name: str,
    sources: Collection[str],
    config: Mapping[str, Any] | None = None,
) -> list[str]:
    """Why figures of an extractor are circular for a set or a model, a line each; [] if not.

    Args:
      extractor: Network that judges.
      name: Name of the set or the model, for people.
      sources: Names of the data sets that it comes from or was trained on, as the attribute
        `source` names them.
      config: Config of the model that made it, if it is known.
    """
    found = []
    if shared := sorted(set(sources) & set(extractor.trained_on)):
        found.append(f"{extractor.name} was trained on {', '.join(shared)}, the source of {name}")
    for key, value in _texts(config or {}):
        if value.partition("=")[0] == extractor.name:  # NAME or NAME=WEIGHTS
            found.append(f"{name} was trained against {extractor.name} ({key})")
    return found


def of_model(extractor: Extractor, export: Path) -> list[str]:
    """Why figures of an extractor are circular for a model, a line each; [] if not.

    Args:
      extractor: Network that judges.
      export: Folder that `rfxray export` wrote, which states the sources of the training data. (A
        run names folders, which may hold other data by now.)

    Raises:
      DataError: If it is damaged, or does not state its training data.
    """
    config, facts = exported.read(export)
    if not facts.trained_on:
        raise DataError(
            f"{export} does not state its training data, so nobody knows whether {extractor.name} "
            "was trained on them; export it again with --data"
        )
    return reasons(extractor, export.name, facts.trained_on, config)


def _texts(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every text of the sections that decide about training, with its key."""
    waiting = [(section, config[section]) for section in _TRAINING if section in config]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, Mapping):
            waiting += [(f"{key}.{part}", each) for part, each in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(key, each) for each in value]
