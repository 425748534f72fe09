"""A reader study from a set of real and a set of synthetic images: cases, orders, sides, key."""

import dataclasses
import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rfxray.errors import ConfigError
from rfxray.readers import controls, diagnosis, leaks, reader_page
from rfxray.readers.answers import SIDES
from rfxray.readers.candidates import Candidate, refuse_overlap
from rfxray.readers.controls import Control
from rfxray.readers.leaks import Leak
from rfxray.readers.matching import Drawn, Source


@dataclasses.dataclass(frozen=True)
class Design:
    """A study to be made.

    Attributes:
      study: Name of the study.
      modality: `single` (one image, 1 to 5) or `pairs` (the synthetic one of two).
      cases: Number of cases: images, half of them synthetic, or pairs.
      training: Number of training items with feedback, before the cases.
      readers: Number of readers.
      repeats: Share of the cases that is shown again, all after the last case.
      match: Names of attributes that have the same values in both sets.
      size: Side of the images, pixels.
      diagnosis: Findings that are asked of each image of a case before anything else; empty for no
        such phase.
      folder: Whether the images lie in files beside the pages, not in them.
      degraded: Number of degraded images among the cases, controls that attentive readers find.
      reconstructed: Number of reconstructions of real images among the cases.
      margin: Margin of equivalence that the protocol names.
      model_grid: Period in pixels of a grid that the model of synthetic images makes.
    """

    study: str
    modality: str
    cases: int
    training: int
    readers: int
    repeats: float
    match: tuple[str, ...]
    size: int
    diagnosis: tuple[str, ...] = ()
    folder: bool = False
    degraded: int = 0
    reconstructed: int = 0
    margin: float = 0.05
    model_grid: float | None = None

    def __post_init__(self):
        if not self.study.strip() or any(c in self.study for c in "\r\n"):
            raise ConfigError(f"--study must be a name on one line (got {self.study!r})")
        if self.cases < 4 or self.readers < 1 or self.size < 32 or self.training < 0:
            raise ConfigError(
                "--cases must be at least 4, --readers 1, --size 32, --training 0 (got "
                f"{self.cases}, {self.readers}, {self.size}, {self.training})"
            )
        if self.modality == "single" and (self.cases % 2 or self.training % 2):
            raise ConfigError(
                "--cases and --training must be even, half of them synthetic (got "
                f"{self.cases} and {self.training})"
            )
        # Repeats come from the first half of the order, so that half of the cases lie between.
        if not 0 <= self.repeats <= 0.5:
            raise ConfigError(f"--repeats must be from 0 to 0.5 (got {self.repeats:g})")
        if not 0 < self.margin < 0.5:
            raise ConfigError(f"--margin must be above 0 and below 0.5 (got {self.margin:g})")
        if self.reconstructed < 0 or self.degraded < 0:
            raise ConfigError(
                f"numbers of controls must be at least 0 (got {self.degraded} degraded and "
                f"{self.reconstructed} reconstructed)"
            )
        if self.model_grid is not None and not self.model_grid > 1:
            raise ConfigError(f"--model-grid must be above 1 pixel (got {self.model_grid:g})")
        controls.refuse_few(self.degraded)


@dataclasses.dataclass(frozen=True)
class Made:
    """A study that was made.

    Attributes:
      key: Content of the key.
      pages: HTML of each reader, by name.
      images: Content of the files of the folder of images, by name; empty if pages hold them.
      leaks: Checks.
      key_sha256: SHA-256 of the key, hex.
      left_out: What of the sets could not be drawn, and how often.
    """

    key: bytes
    pages: Mapping[str, str]
    images: Mapping[str, str]
    leaks: Sequence[Leak]
    key_sha256: str
    left_out: Mapping[str, int]


def make(
    design: Design,
    real: Sequence[Candidate],
    synthetic: Sequence[Candidate],
    rng: np.random.Generator,
    strings: Mapping[str, str],
    progress: Callable[[], None] = lambda: None,
    reconstructions: Sequence[Candidate] = (),
) -> Made:
    """Makes a study.

    Args:
      design: What to make.
      real: Real images.
      synthetic: Synthetic images.
      rng: Source of every choice; the nonce does not come from it.
      strings: Texts of the page.
      progress: Function called for each image that was decoded.
      reconstructions: Reconstructions of real images, for controls.

    Raises:
      DataError: If there are too few images, two of them are equal, or they leak what they are.
    """
    per_item = 1 if design.modality == "pairs" else 2
    training, cases = design.training // per_item, design.cases // per_item
    refuse_overlap(real, synthetic)
    source = Source(design.match, design.size, rng, progress)
    matched = source.pairs(real, synthetic, training + cases)
    chosen = [each for pair in matched for each in pair]
    truth = np.tile([False, True], len(matched))
    added = controls.make(source, real, design.degraded, reconstructions, design.reconstructed, rng)
    images = [*chosen, *(each for one in added for each in _shown_of(design, one))]
    names = [f"i{n + 1:04d}" for n in rng.permutation(len(images))]
    files = leaks.encode({name: each.image for name, each in zip(names, images, strict=True)})
    compared = names[: len(chosen)]  # controls differ on purpose
    found = leaks.check(
        [each.image for each in chosen],
        {name: files[name] for name in compared},
        truth,
        [" ".join(each.facts.values()) for each in chosen],
        design.model_grid,
    )
    leaks.refuse(found)
    shown = {name: files[name] for name in sorted(names)}  # a drawn order, which says nothing
    units = [(2 * k, 2 * k + 1) for k in range(len(matched))]
    if design.modality == "single":
        units = [(index,) for unit in units for index in unit]
    trained, read = units[: design.training], units[design.training :]
    diagnosed = [index for unit in read for index in unit] if design.diagnosis else []
    facts = [_case(design, chosen[unit[0]], truth[unit[0]]) for unit in read]
    each = 2 if design.modality == "pairs" else 1
    starts = range(len(chosen), len(images), each)
    read += [tuple(range(start, start + each)) for start in starts]
    facts += [_control(design, one) for one in added]
    labels = [f"c{n + 1:04d}" for n in rng.permutation(len(read))]
    orders = {f"reader-{r + 1}": _order(design, rng) for r in range(design.readers)}
    key: dict[str, Any] = {
        "study": design.study,
        "modality": design.modality,
        "nonce": secrets.token_hex(32),
        "cases": dict(sorted(zip(labels, facts, strict=True))),
        "images": {name: images[i].name for i, name in enumerate(names)},
    }
    if design.modality == "pairs":
        start = len(diagnosed) + design.training + 1
        key["sides"] = {
            reader: {str(start + n): SIDES[side] for n, (_, _, side) in enumerate(order)}
            for reader, order in orders.items()
        }
    if diagnosed:
        key["diagnosis"] = {
            names[i]: _diagnosed(design, chosen[i], bool(truth[i]))
            for i in sorted(diagnosed, key=lambda i: names[i])
        }
    content = (json.dumps(key, indent=1) + "\n").encode()
    digest = hashlib.sha256(content).hexdigest()
    pages = {}
    for reader, order in orders.items():
        items: list[dict[str, Any]] = [
            {
                "item": n + 1,
                "case": names[i],
                "repeat": 0,
                "phase": "diagnosis",
                "images": [names[i]],
            }
            for n, i in enumerate(rng.permutation(np.array(diagnosed, int)))
        ]
        for n, unit in enumerate(trained):
            items.append(
                {
                    "item": len(items) + 1,
                    "case": f"t{n + 1:02d}",
                    "repeat": 0,
                    "phase": "training",
                    "feedback": _feedback(design, unit, n, truth),
                    "images": _sides(names, unit, n % 2),
                }
            )
        for k, repeat, side in order:
            items.append(
                {
                    "item": len(items) + 1,
                    "case": labels[k],
                    "repeat": repeat,
                    "phase": "reading",
                    "images": _sides(names, read[k], side),
                }
            )
        pages[reader] = reader_page.render(
            study=design.study,
            reader=reader,
            modality=design.modality,
            key_sha256=digest,
            items=items,
            images=shown,
            folder=design.folder,
            findings=design.diagnosis,
            strings=strings,
        )
    sheets = reader_page.sheets(shown) if design.folder else {}
    return Made(content, pages, sheets, found, digest, source.left_out)


def _order(design: Design, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Case, number of the showing, and side of the synthetic image, for each item of a reader.

    Controls have the numbers after the cases, and are not repeated.
    """
    total = design.cases + design.degraded + design.reconstructed
    first = rng.permutation(total)
    early = first[first < design.cases][: (design.cases + 1) // 2]
    again = rng.permutation(early)[: round(design.repeats * design.cases)]
    # As often left as right among the cases, among the controls and among the repeats
    kind = np.concatenate([first >= design.cases, np.full(len(again), 2)])
    sides = np.zeros(len(kind), int)
    for each in range(3):
        sides[kind == each] = rng.permutation(np.arange((kind == each).sum()) % 2)
    leaks.refuse_imbalance(int((sides[kind == 0] == 0).sum()), design.cases)
    shown = [(int(k), 0) for k in first] + [(int(k), 1) for k in again]
    return [(k, repeat, int(side)) for (k, repeat), side in zip(shown, sides, strict=True)]


def _sides(names: Sequence[str], unit: tuple[int, ...], side: int) -> list[str]:
    """Names of the images of an item, from the left; the synthetic one is the second of a unit."""
    shown = [names[i] for i in unit]
    return shown if side == 1 else shown[::-1]


def _feedback(design: Design, unit: tuple[int, ...], number: int, truth: np.ndarray) -> str:
    if design.modality == "pairs":
        return f"feedback_{SIDES[number % 2]}"
    return "feedback_synthetic" if truth[unit[0]] else "feedback_real"


def _diagnosed(design: Design, image: Drawn, synthetic: bool) -> dict[str, Any]:
    """What the key says of an image that is diagnosed, as of a case of one image."""
    facts: dict[str, Any] = {"truth": int(synthetic)}
    if image.patient:
        facts["patient"] = image.patient
    return facts | diagnosis.known(image.known, design.diagnosis)


def _case(design: Design, image: Drawn, synthetic: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {name: image.facts[name] for name in design.match}
    if image.patient:
        facts["patient"] = image.patient
    if design.modality == "single":
        facts["truth"] = int(synthetic)
    return facts


def _control(design: Design, one: Control) -> dict[str, Any]:
    facts = _case(dataclasses.replace(design, match=()), one.original, True)
    return {**facts, "control": one.kind, "change": one.change}


def _shown_of(design: Design, one: Control) -> tuple[Drawn, ...]:
    """The images of an item of a control; in pairs its original is the real one."""
    return (one.original, one.altered) if design.modality == "pairs" else (one.altered,)
