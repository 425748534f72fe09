"""A fitted model in a folder: `causes.safetensors`, `causes.json`, `graph.json` and `page.html`.

Nothing is pickled, and no patient is named.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rfxray.causes.design import Cause, Design
from rfxray.causes.graph import Graph, read_graph, written
from rfxray.causes.mechanisms import Mechanism, StructuralModel
from rfxray.causes.parts import Part
from rfxray.checkpoints import tensor_files
from rfxray.errors import ConfigError, DataError

TENSORS, RECORD, PAGE, GRAPH = "causes.safetensors", "causes.json", "page.html", "graph.json"
FILES = (PAGE, GRAPH, TENSORS, RECORD)
_ARRAYS = ("weights", "edges", "seen", "replicates")


def contents(model: StructuralModel, record: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a model by name, without its page.

    Args:
      model: Model.
      record: What else is known of the fit, as JSON values.
    """
    parts = {name: part_of(mechanism) for name, mechanism in model.mechanisms.items()}
    arrays = {
        f"{name}.{field}": array
        for name, part in parts.items()
        for field, array in part.arrays.items()
    }
    tensors = tensor_files.encode(arrays, ("format", "rfxray causes 1"))
    tree = {
        "format": 1,
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
        "mechanisms": {name: part.tree for name, part in parts.items()},
        "notes": model.notes,
        **record,
    }
    text = json.dumps(tree, indent=1, ensure_ascii=False) + "\n"
    return {
        GRAPH: written(model.graph, "json").encode(),
        TENSORS: tensors,
        RECORD: text.encode(),
    }


def part_of(mechanism: Mechanism) -> Part:
    """A mechanism as JSON values and arrays, which `mechanism_of` reads."""
    tree = {
        "parents": mechanism.parents,
        "causes": [dataclasses.asdict(cause) for cause in mechanism.design.causes],
        "order": mechanism.design.order,
        "unit": mechanism.unit,
        "rows": mechanism.rows,
    }
    return Part(tree, {field: np.asarray(getattr(mechanism, field)) for field in _ARRAYS})


def mechanism_of(graph: Graph, name: str, part: Part) -> Mechanism:
    """The mechanism of a variable of a graph."""
    tree, parents = part.tree, tuple(part.tree["parents"])
    causes = tuple(
        Cause(**{**cause, "knots": tuple(cause["knots"]), "column": graph.index[parent]})
        for parent, cause in zip(parents, tree["causes"], strict=True)
    )
    return Mechanism(
        column=graph.index[name],
        parents=parents,
        design=Design(causes, tree["order"]),
        unit=tree["unit"],
        rows=tree["rows"],
        **part.arrays,
    )


def is_model(folder: str | Path) -> bool:
    """Whether a folder is that of a fitted model."""
    return (Path(folder) / RECORD).is_file()


def load(folder: str | Path) -> tuple[StructuralModel, dict[str, Any]]:
    """A model and the record of its fit.

    Raises:
      ConfigError: If the folder holds no model.
      DataError: If it is damaged.
    """
    folder = Path(folder)
    if not is_model(folder):
        raise ConfigError(f"{folder} holds no {RECORD}; give a folder that rfxray causes fit wrote")
    try:
        tree = json.loads((folder / RECORD).read_text())
        digest = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
        if digest != tree["tensors_sha256"]:
            raise DataError(f"{folder / TENSORS} is not the file that {RECORD} names; fit again")
        arrays, _ = tensor_files.read(folder / TENSORS)
        graph = read_graph(folder / GRAPH)
        mechanisms = {
            name: mechanism_of(
                graph, name, Part(each, {field: arrays[f"{name}.{field}"] for field in _ARRAYS})
            )
            for name, each in tree["mechanisms"].items()
        }
        return StructuralModel(graph, mechanisms, tuple(tree["notes"])), tree
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder} is damaged ({error!r}); fit again") from error
