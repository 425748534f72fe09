"""Makes twins of radiographs: each with one attribute changed, and both placebos.

The folder holds `before`, `after`, `placebo` and `nothing`, with a PNG of the same name for each
radiograph, and `pairs.csv`, which is written last; see `pairs`. Files have numbers and name no
patient. It is made in blocks of `BLOCK`, so a killed command goes on with the next block. The noise
of an edit is drawn by the key of the radiograph: a twin does not depend on its place.
"""

import csv
import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt64

from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import INDEX, Attributes, Values, lookup
from rfxray.causes import tables
from rfxray.causes.abduction import counterfactual
from rfxray.causes.mechanisms import StructuralModel
from rfxray.causes.pairs import FOLDERS, FOLLOWS, FROM, TABLE, TO
from rfxray.data.pixels import to_uint16
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate.extractors.extractor import Preprocessing
from rfxray.evaluate.pictures import Pictures
from rfxray.outputs import files
from rfxray.sampling import editing
from rfxray.sampling.editing import EditSettings
from rfxray.sampling.edits import SAYS
from rfxray.sampling.given import pair_of
from rfxray.sampling.pretrained import Model

BLOCK = 32  # pairs that are made, and written, at once: 20 s of the smoke model on two cores
MOST = 32.0  # by which the change of a placebo is enlarged at most
_HALVINGS = 24  # of the interval that the factor lies in: 2e-6 of the largest


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which twins to make.

    Attributes:
      name: Attribute that changes.
      value: Encoded value that it gets; None changes it to the other one of its two values (of
        view: between AP and PA).
      placebo: Attribute that the placebo changes, to its next value.
      n: Number of pairs at most: the first ones of the set that can be changed.
    """

    name: str
    value: float | None
    placebo: str
    n: int

    def __post_init__(self):
        if self.name == "no_finding":
            raise ConfigError("no_finding follows from the 12 pathologies; change one of those")
        if self.value is None and len(_switched(self.name)) != 2:
            raise ConfigError(
                f"{self.name} has more than two values; give the new one, such as "
                f"--do {self.name}={(lookup(self.name).values or ('60',))[-1]}"
            )
        if not lookup(self.placebo).values or self.placebo in (self.name, "no_finding"):
            raise ConfigError(
                f"--placebo {self.placebo} must be an attribute with categories other than "
                f"{self.name} and no_finding"
            )
        if self.n < 1:
            raise ConfigError(f"--n must be at least 1 (got {self.n})")

    def rows(self, attributes: Attributes) -> np.ndarray:
        """Numbers of the pictures that are changed: the first `n` that know the attribute and do
        not have the value already."""
        own = np.asarray(attributes.values)[:, INDEX[self.name]]
        able = np.array(attributes.known[:, INDEX[self.name]])
        able &= np.isin(own, _switched(self.name)) if self.value is None else own != self.value
        return np.flatnonzero(able)[: self.n]

    def after(self, attributes: Attributes) -> Float[np.ndarray, " n"]:
        """The encoded value that each of these rows gets."""
        own = np.asarray(attributes.values)[:, INDEX[self.name]]
        return 1 - own if self.value is None else np.full(len(own), self.value, np.float32)


def make(
    model: Model,
    pictures: Pictures,
    rows: np.ndarray,
    wanted: Wanted,
    settings: EditSettings,
    causes: StructuralModel | None,
    out: Path,
    advance: Callable[[int], None] = lambda new: None,
) -> None:
    """Makes what is missing of a folder of twins.

    Args:
      model: Model that edits.
      pictures: Set of radiographs.
      rows: Numbers of the pictures that are changed; see `Wanted.rows`.
      wanted: Which twins to make.
      settings: How the radiographs are edited.
      causes: Model by which findings follow the change; None lets nothing follow.
      out: Folder, which exists and is of these twins.
      advance: Function called with the number of pairs done since the last call.

    Raises:
      DataError, NonFiniteError: For a picture that cannot be read, or an edit that is not finite.
    """
    assert pictures.attributes is not None
    square = Preprocessing(model.size, "pad", "area", False, 1, (0.5,), (0.5,))
    for name in FOLDERS:
        (out / name).mkdir(exist_ok=True)
    table: list[dict[str, str]] = []
    numbers = {name: k for k, name in enumerate(dict.fromkeys(pictures.patients))}
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        source = pictures.attributes.rows(block)
        named = np.array([tables.named(pictures.keys[i]) for i in block], np.uint64)
        target, follows = changed_to(source, wanted, causes, named)
        places = [f"{start + k:05d}.png" for k in range(len(block))]
        for k, (row, place) in enumerate(zip(block, places, strict=True)):
            # Without a name, a picture is a patient of its own.
            patient = pictures.patients[row]
            own = numbers[patient] if patient else len(numbers) + int(row)
            table.append(_described(place, own, source.rows(k), target.rows(k), wanted, follows[k]))
        if not all((out / name / place).is_file() for name in FOLDERS for place in places):
            images = np.stack([square.prepare(pictures.read(i))[..., 0] for i in block])
            inside = _inside(pictures, block, model.size)
            made = _edited(model, images, named, inside, source, target, wanted, settings)
            for name in FOLDERS:
                for image, place in zip(made[name], places, strict=True):
                    says = {"Software": "rfxray"} if name == "before" else SAYS
                    files.save_png(out / name / place, to_uint16(image), says)
        advance(len(block))
    files.write_whole(out / TABLE, _text(table))


def changed_to(
    source: Attributes,
    wanted: Wanted,
    causes: StructuralModel | None,
    named: UInt64[np.ndarray, " n"],
) -> tuple[Attributes, list[list[str]]]:
    """The attributes [n, 19] of the twins, and the names of the findings that follow in each.

    Args:
      source: Attributes of the radiographs, [n, 19].
      wanted: Which twins to make.
      causes: Model by which findings follow; None lets nothing follow.
      named: Number that names each radiograph; see `tables.named`.
    """
    values = wanted.after(source)
    if causes is None:
        return pair_of(source, _words(wanted.name, values), len(values))[1], [[] for _ in values]
    new, known = np.array(source.values), np.array(source.known)
    for value in np.unique(values):
        part = np.flatnonzero(values == value)
        do = {wanted.name: float(value)}
        found, _ = counterfactual(causes, source.rows(part), do, keys=named[part])
        new[part], known[part] = found
    moved = (known != source.known) | (known & (new != source.values))
    moved[:, INDEX[wanted.name]] = False
    follows = [[vocabulary.NAMES[i] for i in np.flatnonzero(row)] for row in moved]
    return Attributes(np.where(known, new, 0), known), follows


def equalised(
    original: Float[np.ndarray, "height width"],
    edited: Float[np.ndarray, "height width"],
    like: Float[np.ndarray, "height width"],
) -> Float[np.ndarray, "height width"]:
    """An edit enlarged or reduced until its mean absolute change is that of another edit.

    The change is multiplied by one factor, up to `MOST`, and the result clipped to [−1, 1]; the
    mean grows with the factor, so halving an interval finds it.
    """
    wanted, change = np.abs(like - original).mean(), edited - original
    low, high = 0.0, MOST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        size = np.abs(np.clip(original + middle * change, -1, 1) - original).mean()
        low, high = (middle, high) if size < wanted else (low, middle)
    return np.clip(original + high * change, -1, 1).astype(np.float32)


def _edited(
    model: Model,
    images: Float[np.ndarray, "n height width"],
    named: UInt64[np.ndarray, " n"],
    inside: Bool[np.ndarray, "n height width"],
    source: Attributes,
    target: Attributes,
    wanted: Wanted,
    settings: EditSettings,
) -> dict[str, np.ndarray]:
    """The images of a block, by folder."""
    numbers = named.astype(np.uint32)  # the lower half
    kinds = len(lookup(wanted.placebo).values)
    own = np.asarray(source.values)[:, INDEX[wanted.placebo]]
    there = np.asarray(source.known)[:, INDEX[wanted.placebo]]
    other = np.where(there, (own + 1) % kinds, 0)
    unrelated = pair_of(source, _words(wanted.placebo, other), len(images))[1]

    def edit(to: Attributes) -> np.ndarray:
        edited = editing.edit(model, images, source, to, settings, numbers=numbers)
        return np.where(inside, edited, images)

    after, placebo = edit(target), edit(unrelated)
    equal = [equalised(*three) for three in zip(images, placebo, after, strict=True)]
    return {
        "before": images,
        "after": after,
        "placebo": np.stack(equal),
        "nothing": edit(source),
    }


def _switched(name: str) -> tuple[float, ...]:
    """The encoded values that are changed into each other."""
    values = ("AP", "PA") if name == "view" else lookup(name).values
    return tuple(float(k) for k in range(len(values)))


def _words(name: str, values: np.ndarray) -> list[Values]:
    return [{name: vocabulary.decode_value(name, float(value), True)} for value in values]


def _inside(pictures: Pictures, block: np.ndarray, size: int) -> np.ndarray:
    """Where each radiograph is within what pads it to a square, [n, size, size] bool."""
    inside = np.ones((len(block), size, size), bool)
    if pictures.boxes is None:
        return inside
    for k, row in enumerate(block):
        side = max(pictures.read(row).shape) / size
        top, left, height, width = np.round(pictures.boxes[row] / side).astype(int)
        inside[k] = False
        inside[k, top : top + height, left : left + width] = True
    return inside


def _described(
    place: str,
    patient: int,
    source: Attributes,
    target: Attributes,
    wanted: Wanted,
    follows: list[str],
) -> dict[str, str]:
    shown = {name: str(value) for name, value in vocabulary.decode(source).items()}
    ends = [vocabulary.decode(each)[wanted.name] for each in (source, target)]
    return {
        "image": place,
        "patient": str(patient),
        FROM: f"{wanted.name}={ends[0]}",
        TO: f"{wanted.name}={ends[1]}",
        FOLLOWS: ";".join(follows),
        **shown,
    }


def _text(table: list[dict[str, str]]) -> str:
    if not table:
        raise DataError("no radiograph can be changed so; see --do and --data")
    head = [*dict.fromkeys(name for row in table for name in row)]
    text = io.StringIO()
    writer = csv.DictWriter(text, head, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()
