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
from rfxray.checkpoints import tensor_files
from rfxray.errors import ConfigError, DataError

TENSORS, RECORD, PAGE, GRAPH = "causes.safetensors", "causes.json", "page.html", "graph.json"
_ARRAYS = ("weights", "edges", "seen", "replicates")


def contents(model: StructuralModel, record: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a model by name, without its page.

    Args:
      model: Model.
      record: What else is known of the fit, as JSON values.
    """
    arrays = {
        f"{name}.{field}": np.asarray(getattr(mechanism, field))
        for name, mechanism in model.mechanisms.items()
        for field in _ARRAYS
    }
    tensors = tensor_files.encode(arrays, ("format", "rfxray causes 1"))
    tree = {
        "format": 1,
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
        "mechanisms": {
            name: {
                "parents": each.parents,
                "causes": [dataclasses.asdict(cause) for cause in each.design.causes],
                "order": each.design.order,
                "unit": each.unit,
                "rows": each.rows,
            }
            for name, each in model.mechanisms.items()
        },
        "notes": model.notes,
        **record,
    }
    text = json.dumps(tree, indent=1, ensure_ascii=False) + "\n"
    return {
        GRAPH: written(model.graph, "json").encode(),
        TENSORS: tensors,
        RECORD: text.encode(),
    }


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
            name: _mechanism(graph, name, each, arrays) for name, each in tree["mechanisms"].items()
        }
        return StructuralModel(graph, mechanisms, tuple(tree["notes"])), tree
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise DataError(f"{folder} is damaged ({error!r}); fit again") from error


def _mechanism(graph: Graph, name: str, tree: Mapping[str, Any], arrays: Mapping) -> Mechanism:
    parents = tuple(tree["parents"])
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
        **{field: arrays[f"{name}.{field}"] for field in _ARRAYS},
    )
