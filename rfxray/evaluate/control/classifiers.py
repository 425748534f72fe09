"""Classifiers that read attributes from images, by name: the judges of control.

| `--classifier` | reads |
|---|---|
| `oracle`, `oracle=FILE.npz` | every attribute of phantoms except source |
| `xrv=FILE.safetensors` | the findings that DenseNet-121 of TorchXRayVision has under our names |
| `run=WORKDIR` | what a run of `rfxray train --config classifier` learned |
| `python=FILE.py` | what a function of yours answers |

`FILE.py` has `SIZE` (pixels) and `predict(images)`, which takes `[n, SIZE, SIZE] float32 in [0, 1]`
and returns a mapping of attribute to `[n]` (probability that a finding is present, or years of age)
or `[n, classes]` (probability of each value, in the order of `rfxray sample --list`). It may have
`WEIGHTS`, paths of files that count to its identity, and `TRAINED_ON`, names of sources.
"""

import contextlib
import dataclasses
import hashlib
import importlib.util
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

from rfxray.attributes.vocabulary import (
    ATTRIBUTES,
    FINDING_NAMES,
    PATHOLOGIES,
    PATHOLOGY_NAMES,
    lookup,
)
from rfxray.command_line import at_home, refuse_address
from rfxray.errors import ConfigError, DataError, first_line
from rfxray.evaluate import classifier as oracles
from rfxray.evaluate.control import trained
from rfxray.evaluate.extractors import kinds
from rfxray.evaluate.extractors.extractor import Extractor, Preprocessing
from rfxray.outputs import files

NAMES = ("oracle", "xrv", "run", "python")

# Scores of XRV by attribute. Nodule, Mass and Infiltration are parts of findings of ours, and what
# a part scores is not what the whole does.
_XRV = dict(zip(PATHOLOGY_NAMES, PATHOLOGIES, strict=True))
_XRV |= {"pleural_effusion": "Effusion", "pleural_other": "Pleural_Thickening"}


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a classifier read from a set of images.

    Attributes:
      answers: Probability of each value, `[n, values]` float64, by attribute; years, `[n, 1]`, of
        age.
    """

    answers: Mapping[str, np.ndarray]

    @property
    def values(self) -> dict[str, np.ndarray]:
        """The likeliest value of each attribute, encoded, or years: `[n]` float64."""
        return {
            name: answer[:, 0] if lookup(name).continuous else answer.argmax(1).astype(float)
            for name, answer in self.answers.items()
        }


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network that reads attributes.

    Attributes:
      extractor: Its answers as features, so that they are cached, resumed and hashed as these are.
      names: Attributes that it reads, in the order of the answers.
    """

    extractor: Extractor
    names: tuple[str, ...]

    def reading(self, answers: np.ndarray) -> Reading:
        """The answers of `extractor`, `[n, width]`, by attribute."""
        ends = np.cumsum([width(name) for name in self.names])[:-1]
        parts = np.split(np.asarray(answers, np.float64), ends, axis=1)
        return Reading(dict(zip(self.names, parts, strict=True)))


def width(name: str) -> int:
    """Number of answers about an attribute."""
    return len(lookup(name).values) or 1


def open_classifier(spec: str) -> Classifier:
    """The classifier that `NAME` or `NAME=FILE` stands for.

    Raises:
      ConfigError: If there is none, or it needs a file that is not there.
      DataError: If the file is damaged or answers wrongly.
    """
    name, separator, path = spec.partition("=")
    if name not in NAMES:
        raise ConfigError(f"no classifier {name!r}; there are {', '.join(NAMES)}")
    if name == "python":
        if not path.strip():
            raise ConfigError("python needs a file: python=FILE.py with SIZE and predict(images)")
        refuse_address(path)
        return _of_file(at_home(path))
    if name == "run":
        if not path.strip():
            raise ConfigError(
                "run needs a workdir of rfxray train --config classifier: run=WORKDIR"
            )
        refuse_address(path)
        return Classifier(*trained.open_run(at_home(path)))
    base = kinds.open_extractor(spec)
    if name == "xrv":
        return _xrv(base)
    return _oracle(base, at_home(path) if separator else oracles.PACKAGED)


def _oracle(base: Extractor, file: Path) -> Classifier:
    oracle = oracles.load(file)
    names = tuple(attribute.name for attribute in oracles.READ)

    def answer(images: np.ndarray) -> np.ndarray:
        said = oracle.answers(np.asarray(images)[..., 0])
        return np.concatenate([said[name] for name in names], 1)

    return _classifier(base, names, answer)


def _xrv(base: Extractor) -> Classifier:
    assert base.scores is not None
    scores = base.scores

    def answer(images: np.ndarray) -> np.ndarray:
        said = scores(images)
        return np.concatenate([_both(said[_XRV[name]]) for name in PATHOLOGY_NAMES], 1)

    return _classifier(base, PATHOLOGY_NAMES, answer)


def _classifier(
    base: Extractor, names: tuple[str, ...], answer: Callable[[np.ndarray], np.ndarray]
) -> Classifier:
    total = sum(map(width, names))
    # Another name than that of the extractor: the cache tells answers and features apart by it.
    extractor = dataclasses.replace(
        base, name=f"{base.name} answers", width=total, features=answer, scores=None
    )
    return Classifier(extractor, names)


def _both(present: np.ndarray) -> np.ndarray:
    return np.stack([1 - present, present], -1)


# ------------------------------------------------------------------------------------------------
# A function of somebody else


def _of_file(path: Path) -> Classifier:
    module = _imported(path)
    size, predict = getattr(module, "SIZE", None), getattr(module, "predict", None)
    if type(size) is not int or size < 1 or not callable(predict):
        raise ConfigError(f"{path} must have SIZE, a number of pixels, and predict(images)")
    digest = hashlib.sha256(path.read_bytes())
    for file in _names(path, module, "WEIGHTS"):
        if not Path(file).is_file():
            raise ConfigError(f"{path} names WEIGHTS {file}, and there is no such file")
        digest.update(files.file_sha256(Path(file)).encode())

    def said_of(images: np.ndarray) -> dict[str, np.ndarray]:
        with _of_user(f"{path}: predict failed"):
            said = predict(images)
        return _checked(path, said, len(images))

    names = tuple(said_of(np.zeros((1, size, size), np.float32)))

    def answer(images: np.ndarray) -> np.ndarray:
        said = said_of(np.asarray(images)[..., 0])
        if tuple(said) != names:
            raise DataError(
                f"{path} answers {', '.join(said)} to one batch and {', '.join(names)} to another; "
                "answer the same attributes always"
            )
        return np.concatenate(list(said.values()), 1).astype(np.float32)

    return Classifier(
        Extractor(
            name=f"python {path.stem}",
            hash=digest.hexdigest(),
            width=sum(map(width, names)),
            preprocessing=Preprocessing(size, "pad", "area", False, 1, (0.0,), (1.0,)),
            features=answer,
            trained_on=_names(path, module, "TRAINED_ON"),
        ),
        names,
    )


def _imported(path: Path) -> ModuleType:
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(f"python={path} must be a file .py with SIZE and predict(images)")
    spec = importlib.util.spec_from_file_location("rfxray_classifier", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _of_user(f"{path} cannot be imported"):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _of_user(what: str) -> Iterator[None]:
    """Turns whatever the code of somebody else raises into one line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(line.filename).name} line {line.lineno}"
        raise ConfigError(
            f"{what} ({type(error).__name__}: {first_line(error)}; {where})"
        ) from error


def _names(path: Path, module: ModuleType, name: str) -> tuple[str, ...]:
    found = getattr(module, name, ())
    if not isinstance(found, list | tuple) or not all(isinstance(x, str | Path) for x in found):
        raise ConfigError(f"{path}: {name} must be a list of strings (got {found!r})")
    return tuple(map(str, found))


def _checked(path: Path, said: object, count: int) -> dict[str, np.ndarray]:
    """Answers by attribute, in the order of the vocabulary, each [n, width]."""
    if not isinstance(said, Mapping) or not said:
        raise DataError(f"{path}: predict must return a mapping of attributes to arrays")
    found = {}
    for given, values in said.items():
        name = lookup(str(given)).name
        try:
            array = np.asarray(values, np.float64)
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{path}: predict answers {name} with what is not an array of numbers "
                f"({first_line(error)})"
            ) from error
        if name in FINDING_NAMES and array.shape == (count,):
            array = _both(array)
        if array.shape == (count,) and lookup(name).continuous:
            array = array[:, None]
        if array.shape != (count, width(name)):
            raise DataError(
                f"{path}: predict answers {name} with {list(array.shape)} for {count} images, not "
                f"{[count, width(name)]}"
            )
        if not lookup(name).continuous and not _probabilities(array):
            raise DataError(f"{path}: {name} is not answered by probabilities that sum to 1")
        found[name] = array
    return {each.name: found[each.name] for each in ATTRIBUTES if each.name in found}


def _probabilities(array: np.ndarray) -> bool:
    return bool((array >= 0).all() and np.allclose(array.sum(1), 1, atol=1e-3))
