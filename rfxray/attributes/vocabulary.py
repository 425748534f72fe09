"""The 19 clinical attributes: their vocabulary, and values to and from numbers.

An example carries `values` float32 [19] and `known` bool [19], the pair `Attributes`. A categorical
attribute holds the index of its value, age holds years, a finding holds 0 (absent) or 1 (present).
If `known` is False the value is 0 and means nothing: unknown in the data, dropped in training and
not requested in sampling are one state, "unconditioned", with one null embedding per attribute.

Unknown is not missing at random (race is recorded in few sets), so `source` is always known in
training, and a sample with race left null is drawn from the race-unrecorded mixture, not from an
average over races.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from rfxray.attributes import spellings
from rfxray.attributes.ages import read_age
from rfxray.errors import ConfigError

if TYPE_CHECKING:
    import jax

    Array: TypeAlias = np.ndarray | jax.Array


@dataclasses.dataclass(frozen=True)
class Attribute:
    """One conditioning variable.

    Attributes:
      name: Name on a command line, such as `pleural_effusion`.
      label: Published name (CheXpert's spelling for the findings).
      values: Categories in index order; empty for a continuous attribute.
      low, high: Accepted range of a continuous attribute, in `unit`.
      unit: Unit of a continuous attribute.
    """

    name: str
    label: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    unit: str = ""

    @property
    def continuous(self) -> bool:
        return not self.values


PRESENCE = ("absent", "present")

SOURCES = (
    "mimic",
    "rexgradient",
    "chexpert",
    "padchest",
    "nih",
    "brax",
    "vindr",
    "phantom",
    "other",
)

PATHOLOGIES = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
)


def _finding(label: str) -> Attribute:
    return Attribute(label.lower().replace(" ", "_"), label, PRESENCE)


ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("view", "View", ("PA", "AP", "lateral")),
    Attribute("sex", "Sex", ("F", "M")),
    Attribute("race", "Race", ("White", "Black", "Asian", "other")),
    Attribute("age", "Age", low=0.0, high=120.0, unit="years"),
    Attribute("source", "Source", SOURCES),
    *map(_finding, PATHOLOGIES),
    _finding("Support Devices"),
    _finding("No Finding"),
)

NAMES = tuple(attribute.name for attribute in ATTRIBUTES)
INDEX = {name: i for i, name in enumerate(NAMES)}
PATHOLOGY_NAMES = tuple(_finding(label).name for label in PATHOLOGIES)
FINDING_NAMES = (*PATHOLOGY_NAMES, "support_devices", "no_finding")
NUM_ATTRIBUTES = len(ATTRIBUTES)
UNKNOWN = "unknown"

# Attribute to value as a person writes them: {"view": "PA", "age": 63}.
Values: TypeAlias = Mapping[str, str | float | None]


class Attributes(NamedTuple):
    """The attributes of some examples, and which of them are known.

    A pytree of two arrays. An index selects a field, as of any tuple; `rows` selects examples.

    Attributes:
      values: Encoded values, float32 [..., 19]; 0 where not known.
      known: Which values are known, bool [..., 19].
    """

    values: Array
    known: Array

    def __repr__(self) -> str:
        return f"Attributes({' × '.join(map(str, np.shape(self.values)))})"

    def rows(self, index: int | slice | Array) -> Attributes:
        """The examples that an index selects from the first dimension."""
        return Attributes(self.values[index], self.known[index])


def stack(examples: Sequence[Attributes]) -> Attributes:
    """Examples [...] as one `Attributes` of NumPy arrays [examples, ...]."""
    values, known = zip(*examples, strict=True)
    return Attributes(np.stack(values), np.stack(known))


def all_known(values: np.ndarray) -> Attributes:
    """Encoded values [..., 19] of which every one is known."""
    return Attributes(values, np.ones(values.shape, bool))


LOWEST = np.array([attribute.low for attribute in ATTRIBUTES], np.float32)
HIGHEST = np.array([a.high if a.continuous else len(a.values) - 1 for a in ATTRIBUTES], np.float32)
CONTINUOUS = np.array([attribute.continuous for attribute in ATTRIBUTES])


def refuse_outside(attributes: Attributes) -> None:
    """Checks encoded values [..., 19], which may come from a file or another program.

    A number outside of its attribute's categories would select an embedding row of another one.

    Raises:
      ConfigError: For the first known value that is not in the vocabulary: not the index of a
        category, outside of the range of a continuous attribute, or not finite.
    """
    values, known = np.asarray(attributes.values), np.asarray(attributes.known)
    inside = (values >= LOWEST) & (values <= HIGHEST)  # False for NaN
    inside &= CONTINUOUS | (values == np.floor(values))
    wrong = known & ~inside
    if not wrong.any():
        return
    place = tuple(np.argwhere(wrong)[0])
    attribute = ATTRIBUTES[place[-1]]
    allowed = ", ".join(f"{i} ({value})" for i, value in enumerate(attribute.values))
    if attribute.continuous:
        allowed = f"{attribute.low:g} to {attribute.high:g} {attribute.unit}"
    raise ConfigError(f"{attribute.name} is {values[place]:g}; allowed are {allowed}")


def lookup(name: str) -> Attribute:
    """The attribute of that name, in any case and with spaces or hyphens for underscores.

    Raises:
      ConfigError: If there is none; it names the nearest ones.
    """
    key = name.strip().lower().replace(" ", "_").replace("-", "_")
    if key in INDEX:
        return ATTRIBUTES[INDEX[key]]
    near = difflib.get_close_matches(key, NAMES, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "rfxray sample --list prints all"
    raise ConfigError(f"no attribute {name!r}; {hint}")


def encode_value(name: str, value: str | float | None) -> tuple[float, bool]:
    """One value as (number, known), in the spellings that tables have too (`Female`, `1`, `063Y`).

    None, "unknown" and what a finding's −1 ("uncertain") says are not known.

    Raises:
      ConfigError: For a value outside the vocabulary or the range, with the nearest valid ones.
    """
    attribute = lookup(name)
    text = UNKNOWN if value is None else str(value).strip()
    if text.lower() == UNKNOWN:
        return 0.0, False
    if attribute.continuous:
        number = _number(text)
        if not attribute.low <= number <= attribute.high:
            raise ConfigError(
                f"{attribute.name}={text} is not a number of {attribute.unit} from "
                f"{attribute.low:g} to {attribute.high:g}"
            )
        return number, True
    folded = [v.lower() for v in attribute.values]
    word = text.lower()
    read = None if word in folded else spellings.read(attribute.name, word)
    if read == spellings.UNCERTAIN:
        return 0.0, False
    word = (read or word).lower()
    if word in folded:
        return float(folded.index(word)), True
    codes = spellings.CODES.get(attribute.name, {})
    spelled = codes | dict(zip(folded, attribute.values, strict=True))
    near = difflib.get_close_matches(word, spelled, n=1, cutoff=0.5)
    hint = f"; did you mean {spelled[near[0]]}?" if near else ""
    raise ConfigError(
        f"{attribute.name} has no value {text!r}, only {', '.join(attribute.values)} "
        f"or {UNKNOWN}{hint}"
    )


def _number(text: str) -> float:
    """A number, or an age as tables have it (`063Y`); NaN for anything else."""
    try:
        return float(text)
    except ValueError:
        age = read_age(text.lower())
        return math.nan if age is None else age


def written(name: str, value: str | float | None) -> str:
    """A value as we write it: `F` for `Female`, `63` for `063Y`, `unknown` for −1.

    Raises:
      ConfigError: See `encode_value`.
    """
    number = decode_value(name, *encode_value(name, value))
    if number is None:
        return UNKNOWN
    return number if isinstance(number, str) else f"{np.float32(number):.9g}"


def decode_value(name: str, number: float, known: bool) -> str | float | None:
    """The inverse of `encode_value`: a category, a number of years, or None if not known."""
    attribute = lookup(name)
    if not known:
        return None
    return float(number) if attribute.continuous else attribute.values[int(number)]


def encode(values: Values) -> Attributes:
    """A mapping of attribute to value as `Attributes` of one example, [19].

    What the mapping does not name is not known, except what `settle` concludes.

    Raises:
      ConfigError: For a wrong name, a wrong value, or findings that contradict each other.
    """
    numbers = np.zeros(NUM_ATTRIBUTES, np.float32)
    known = np.zeros(NUM_ATTRIBUTES, bool)
    for name, value in values.items():
        i = INDEX[lookup(name).name]
        numbers[i], known[i] = encode_value(name, value)
    attributes = Attributes(numbers, known)
    _refuse_contradiction(attributes)
    return settle(attributes)


def requested(attributes: Attributes) -> Attributes:
    """Encoded values [n, 19] from any program as a request, as `encode` makes it of one in words.

    Raises:
      ConfigError: For arrays of another shape, a value outside of the vocabulary, or findings that
        contradict each other.
    """
    values, known = np.asarray(attributes.values), np.asarray(attributes.known)
    if values.shape != known.shape or values.ndim != 2 or values.shape[1] != NUM_ATTRIBUTES:
        raise ConfigError(
            f"values {values.shape} and known {known.shape} of attributes must both be "
            f"[n, {NUM_ATTRIBUTES}]"
        )
    if known.dtype != bool:
        raise ConfigError(f"known of attributes must be bool (got {known.dtype})")
    attributes = Attributes(np.where(known, values, 0).astype(np.float32), known)
    refuse_outside(attributes)
    _refuse_contradiction(attributes)
    return settle(attributes)


def decode(attributes: Attributes) -> dict[str, str | float]:
    """What is known of one example, [19]: what `encode` was given, and what it concluded."""
    triples = zip(NAMES, attributes.values, attributes.known, strict=True)
    decoded = ((name, decode_value(name, number, known)) for name, number, known in triples)
    return {name: value for name, value in decoded if value is not None}


def parse(assignments: Sequence[str]) -> dict[str, str]:
    """`["view=PA", "age=63"]` as a checked mapping, ready for `encode`.

    Raises:
      ConfigError: For what is not NAME=VALUE, a wrong name or value, an attribute given twice, or
        findings that contradict each other.
    """
    values: dict[str, str] = {}
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        if not separator or not value:
            raise ConfigError(f"{assignment!r} is not NAME=VALUE, such as view=PA")
        attribute = lookup(name)
        if attribute.name in values:
            raise ConfigError(f"{attribute.name} is given twice")
        values[attribute.name] = written(name, value)
    encode(values)
    return values


def derive_no_finding(attributes: Attributes) -> Attributes:
    """The attributes [..., 19], No Finding as the other findings imply it.

    It is absent if any of the 12 pathologies is present, present if all 12 are known to be absent,
    and left as it is otherwise. The given arrays are not changed.
    """
    columns = [INDEX[name] for name in PATHOLOGY_NAMES]
    last = INDEX["no_finding"]
    values, known = np.array(attributes.values), np.array(attributes.known)
    any_present = (known[..., columns] & (values[..., columns] > 0.5)).any(-1)
    all_absent = (known[..., columns] & (values[..., columns] < 0.5)).all(-1)
    values[..., last] = np.where(any_present, 0.0, np.where(all_absent, 1.0, values[..., last]))
    known[..., last] |= any_present | all_absent
    return Attributes(values, known)


def settle(attributes: Attributes) -> Attributes:
    """The attributes [..., 19] with all that No Finding and the 12 pathologies say of each other.

    No Finding as `derive_no_finding` has it; and if it is present, every pathology is absent. Of
    what is requested or assumed: a labeller who says No Finding may not have looked for all 12. The
    given arrays are not changed.
    """
    values, known = derive_no_finding(attributes)
    last = INDEX["no_finding"]
    normal = known[..., last] & (values[..., last] > 0.5)
    known[..., [INDEX[name] for name in PATHOLOGY_NAMES]] |= normal[..., None]
    return Attributes(values, known)


def _refuse_contradiction(attributes: Attributes) -> None:
    """Raises ConfigError for the first of the examples [..., 19] that contradicts itself."""
    last = INDEX["no_finding"]
    derived = derive_no_finding(attributes).values
    wrong = attributes.known[..., last] & (derived[..., last] != attributes.values[..., last])
    if not np.any(wrong):
        return
    place = tuple(np.argwhere(wrong)[0])
    values, known = attributes.values[place], attributes.known[place]
    if values[last]:
        present = [n for n in PATHOLOGY_NAMES if known[INDEX[n]] and values[INDEX[n]]]
        raise ConfigError(f"no_finding=present contradicts {present[0]}=present; leave one out")
    raise ConfigError("no_finding=absent contradicts all 12 pathologies absent; leave one out")
