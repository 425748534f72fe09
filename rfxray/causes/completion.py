"""What is not requested, drawn from a causal model: `rfxray sample --complete causes=MODEL`.

Every attribute of the graph that a request leaves open is drawn, in causal order, from its law
given all that is requested: causes of what is requested too, by what it says of them
(`abduction.py`). No row of a patient is copied. What the graph does not have stays unconditioned,
and No Finding follows from the pathologies.
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np

from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import INDEX, NUM_ATTRIBUTES, Attributes
from rfxray.causes import folder
from rfxray.causes.abduction import abduct
from rfxray.causes.mechanisms import StructuralModel
from rfxray.errors import ConfigError

_TRIES = 200  # draws of a request that No Finding is absent, which no single attribute says
_REMEMBERED = 8192  # images: a block is drawn, and then noted image by image
_NO_FINDING = INDEX["no_finding"]


class CausalCompletion:
    """A causal model, and the seed of what is drawn from it.

    Args:
      model: Model.
      name: Name of the model for people.
      seed: Seed; image i of a seed always gets the same values for the same request.
    """

    def __init__(self, model: StructuralModel, name: str, seed: int):
        self._model, self._name, self._seed = model, name, seed
        self._drawn: OrderedDict[tuple[int, bytes], np.ndarray] = OrderedDict()
        self._columns = [INDEX[each] for each in model.graph.parents if each in INDEX]

    def __str__(self) -> str:
        left = [
            name
            for name, column in INDEX.items()
            if column not in self._columns and column != _NO_FINDING
        ]
        rest = f"; {', '.join(left)} are not in its graph and stay open" if left else ""
        return (
            f"what is not requested is drawn from the causal model {self._name}, given what is "
            f"requested{rest}"
        )

    def fill(self, asked: Attributes, numbers: np.ndarray) -> Attributes:
        """Requests [n, 19] with the rest of the graph, for images of these indices.

        Raises:
          ConfigError: If what is requested has no chance under the model.
        """
        values, known = np.array(asked.values, np.float64), np.array(asked.known)
        keys = [
            (int(number), values[place].tobytes() + known[place].tobytes())
            for place, number in enumerate(numbers)
        ]
        new = np.array([place for place, key in enumerate(keys) if key not in self._drawn], int)
        if len(new):
            found = self._draw(values[new], known[new], np.asarray(numbers)[new])
            for place, row in zip(new, found, strict=True):
                self._drawn[keys[place]] = row
        rows = np.stack([self._drawn[key] for key in keys])
        while len(self._drawn) > _REMEMBERED:
            self._drawn.popitem(last=False)
        there = known.copy()
        there[:, self._columns] = True
        filled = np.where(known, values, np.where(there, rows, 0)).astype(np.float32)
        return vocabulary.settle(Attributes(filled, there))

    def _draw(self, values: np.ndarray, known: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Values of every attribute of the graph, [n, 19]; those that agree with No Finding."""
        found, left = np.empty(values.shape), np.arange(len(values))
        wide = ((0, 0), (0, len(self._model.graph.variables) - NUM_ATTRIBUTES))
        sick = known[:, _NO_FINDING] & (values[:, _NO_FINDING] < 0.5)
        for attempt in range(_TRIES):
            rows = np.pad(values[left], wide), np.pad(known[left], wide)
            keys = numbers[left].astype(np.uint64) + (np.uint64(attempt) << np.uint64(40))
            own = abduct(self._model, *rows, keys, self._seed).values[:, :NUM_ATTRIBUTES]
            found[left] = own
            present = own[:, [INDEX[name] for name in vocabulary.PATHOLOGY_NAMES]] > 0.5
            left = left[sick[left] & ~present.any(1)]
            if not len(left):
                return found
        raise ConfigError(
            f"{self._name} drew no pathology in {_TRIES} draws of a request of "
            "no_finding=absent; request a pathology, or leave --complete out"
        )


def of_model(path: Path, seed: int) -> CausalCompletion:
    """The completion of a folder that `rfxray causes fit` wrote.

    Raises:
      ConfigError: If the folder holds no model.
      DataError: If it is damaged.
    """
    model, _ = folder.load(path)
    return CausalCompletion(model, path.resolve().name, seed)
