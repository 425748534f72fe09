"""Answers of all readers as arrays, whatever file they came from."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rfxray.errors import DataError
from rfxray.readers import answers as answers_of
from rfxray.readers.answers import SIDES, ReaderFile
from rfxray.readers.diagnosis import Diagnosis, gather
from rfxray.readers.key import Case, Key
from rfxray.readers.published import Row

MIDDLE = 3.0  # of the kit's scores 1 to 5: undecided


@dataclasses.dataclass(frozen=True)
class Repeat:
    """A case that was shown to a reader once more: what was said the first time and this time."""

    modality: int
    reader: int
    case: int
    first: float
    again: float


@dataclasses.dataclass(frozen=True)
class Study:
    """A study: I modalities, J readers, n cases.

    Attributes:
      name: Name of the study.
      modalities: Names.
      readers: Names.
      cases: Names.
      pairs: Whether two images were shown side by side.
      truth: `[n] bool`, true for synthetic; for pairs without meaning.
      patient: `[n] int`, number of the patient of each case.
      strata: Value of each case by field, "" if unknown.
      scores: `[I, J, n]`, NaN for no answer. For pairs 1 if the synthetic image was found, else 0.
      choices: `[I, J, n]`, what was answered, NaN for no answer: the score; for pairs 0 for left
        and 1 for right.
      items: `[I, J, n]`, place in the reader's order, NaN if unknown.
      seconds: `[I, J, n]`, NaN if unknown.
      repeats: Cases that were shown once more.
      middle: Score that means undecided; None if the scale is unknown or for pairs.
      about: Facts on each reader, such as `experience_years`.
      left_out: What was not analysed, and how often.
      diagnosis: Answers of the phase of diagnosis, None if there was none.
      controls: Study of each kind of control: beside the real cases, or of pairs.
      key_sha256: SHA-256 of the opened key, "" for a table that has the truth.
    """

    name: str
    modalities: tuple[str, ...]
    readers: tuple[str, ...]
    cases: tuple[str, ...]
    pairs: bool
    truth: np.ndarray
    patient: np.ndarray
    strata: Mapping[str, tuple[str, ...]]
    scores: np.ndarray
    choices: np.ndarray
    items: np.ndarray
    seconds: np.ndarray
    repeats: tuple[Repeat, ...]
    middle: float | None
    about: Mapping[str, Mapping[str, str]]
    left_out: Mapping[str, int]
    diagnosis: Diagnosis | None = None
    controls: Mapping[str, "Study"] = dataclasses.field(default_factory=dict)
    key_sha256: str = ""


@dataclasses.dataclass(frozen=True)
class _Reading:
    """One answer, whatever file it came from."""

    where: str
    reader: str
    case: str
    modality: str
    repeat: int
    score: float | None
    choice: float | None
    item: int | None
    seconds: float | None


def from_files(files: Sequence[ReaderFile], key: Key) -> Study:
    """Joins the files of the readers and the key.

    Raises:
      DataError: If a file is of another study or another key, a reader occurs twice, or an answer
        is to a case that the key lacks.
    """
    left_out: Counter[str] = Counter()
    paths: dict[str, Path] = {}
    readings = []
    for file in files:
        if file.study != key.study:
            raise DataError(f"{file.path} is of study {file.study!r}, the key of {key.study!r}")
        sealed = file.about.get("key_sha256", "")
        if sealed != key.sha256:
            raise DataError(
                f"{file.path} was read under the key {sealed[:12] or '(none)'}, this key is "
                f"{key.sha256[:12]}: give the key that was sealed before the reading"
            )
        if file.reader in paths:
            raise DataError(
                f"reader {file.reader} is in two files, {paths[file.reader]} and {file.path}; "
                "give one"
            )
        paths[file.reader] = file.path
        for answer in file.answers:
            if answer.phase != "reading":
                left_out[f"answers of the phase {answer.phase}"] += 1
                continue
            readings.append(_reading(file.path, answer, key))
    pairs = key.modality == "pairs"

    def part(chosen: Mapping[str, Case], left_out: Counter[str]) -> Study:
        facts = list(chosen.values())
        fields = sorted({field for case in facts for field in case.strata})
        return _assemble(
            name=key.study,
            readings=[each for each in readings if each.case in chosen],
            readers=tuple(sorted(paths)),
            cases=tuple(chosen),
            truth=np.array([bool(case.synthetic) for case in facts]),
            patients=[case.patient for case in facts],
            strata={f: tuple(case.strata.get(f, "") for case in facts) for f in fields},
            pairs=pairs,
            middle=None if pairs else MIDDLE,
            about={file.reader: file.about for file in files},
            left_out=left_out,
        )

    cases = {name: case for name, case in key.cases.items() if not case.control}
    real = {} if pairs else {name: case for name, case in cases.items() if not case.synthetic}
    controls = {}
    for kind in sorted({case.control for case in key.cases.values()} - {""}):
        own = {name: case for name, case in key.cases.items() if case.control == kind}
        count = sum(each.case in own for each in readings)
        left_out[f"answers to controls ({kind}), which are reported apart"] = count
        controls[kind] = part(real | own, Counter())
    found = part(cases, left_out)
    return dataclasses.replace(
        found, diagnosis=gather(files, key), controls=controls, key_sha256=key.sha256
    )


def _reading(path: Path, answer: answers_of.Answer, key: Key) -> _Reading:
    where = f"{path}, line {answer.line}"
    if answer.case not in key.cases:
        raise DataError(f"{where}: case {answer.case!r} is not in the key")
    if answer.modality != key.modality:
        raise DataError(
            f"{where}: modality is {answer.modality!r}, that of the key {key.modality!r}"
        )
    score = choice = answer.score if isinstance(answer.score, float) else None
    if key.modality == "pairs":
        score = choice = None
        shown = key.sides.get(answer.reader, {}).get(str(answer.item))
        if shown is None:
            raise DataError(
                f"{where}: the key has no side for reader {answer.reader}, item {answer.item}"
            )
        if answer.side:
            score, choice = float(answer.side == shown), float(SIDES.index(answer.side))
    return _Reading(
        where=where,
        reader=answer.reader,
        case=answer.case,
        modality=answer.modality,
        repeat=answer.repeat,
        score=score,
        choice=choice,
        item=answer.item,
        seconds=answer.seconds,
    )


def from_rows(name: str, rows: Sequence[Row], middle: float | None) -> Study:
    """Joins the rows of a published table.

    Raises:
      DataError: If truth, patient or a stratum of a case differs between rows.
    """
    if not rows:
        raise DataError(f"{name} has no answers")
    facts: dict[str, Row] = {}
    for row in rows:
        first = facts.setdefault(row.case, row)
        for field in ("truth", "patient", "strata"):
            if getattr(first, field) != getattr(row, field):
                raise DataError(
                    f"{name}: {field} of case {row.case} differs between line {first.line} and "
                    f"{row.line}"
                )
    cases = tuple(sorted(facts))
    fields = sorted({field for row in facts.values() for field in row.strata})
    return _assemble(
        name=name,
        readings=[
            _Reading(
                where=f"{name}, line {row.line}",
                reader=row.reader,
                case=row.case,
                modality=row.modality,
                repeat=row.repeat,
                score=row.score,
                choice=row.score,
                item=row.item,
                seconds=row.seconds,
            )
            for row in rows
        ],
        readers=tuple(sorted({row.reader for row in rows})),
        cases=cases,
        truth=np.array([facts[case].truth for case in cases]),
        patients=[facts[case].patient for case in cases],
        strata={f: tuple(facts[case].strata.get(f, "") for case in cases) for f in fields},
        pairs=False,
        middle=middle,
        about={},
        left_out=Counter(),
    )


def _assemble(
    *,
    name: str,
    readings: Sequence[_Reading],
    readers: tuple[str, ...],
    cases: tuple[str, ...],
    truth: np.ndarray,
    patients: Iterable[str],
    strata: Mapping[str, tuple[str, ...]],
    pairs: bool,
    middle: float | None,
    about: Mapping[str, Mapping[str, str]],
    left_out: Counter[str],
) -> Study:
    if not pairs and (not truth.any() or truth.all()):
        raise DataError(f"{name}: all cases are {'synthetic' if truth.any() else 'real'}")
    modalities = tuple(sorted({reading.modality for reading in readings}))
    place = {
        (modality, reader, case): (i, j, k)
        for i, modality in enumerate(modalities)
        for j, reader in enumerate(readers)
        for k, case in enumerate(cases)
    }
    shape = (len(modalities), len(readers), len(cases))
    scores, choices, items, seconds = (np.full(shape, np.nan) for _ in range(4))
    seen: dict[tuple, str] = {}
    again = []
    for reading in readings:
        key = (reading.modality, reading.reader, reading.case, reading.repeat)
        if key in seen:
            raise DataError(
                f"{reading.where}: reader {reading.reader} answered case {reading.case} already "
                f"({seen[key]}); give each reader once, and count repeats in `repeat`"
            )
        seen[key] = reading.where
        if reading.score is None:
            left_out["questions left open"] += 1
            continue
        if reading.repeat:
            again.append(reading)
            continue
        where = place[reading.modality, reading.reader, reading.case]
        scores[where], choices[where] = reading.score, reading.choice
        if reading.item is not None:
            items[where] = reading.item
        if reading.seconds is not None:
            seconds[where] = reading.seconds
    repeats = []
    for reading in again:
        where = place[reading.modality, reading.reader, reading.case]
        if np.isnan(scores[where]):
            left_out["repeats of a question that was left open"] += 1
        else:
            left_out["repeats, which are for agreement only"] += 1
            assert reading.score is not None
            repeats.append(Repeat(*where, float(scores[where]), reading.score))
    _, patient = np.unique(list(patients), return_inverse=True)
    return Study(
        name=name,
        modalities=modalities,
        readers=readers,
        cases=cases,
        pairs=pairs,
        truth=truth,
        patient=patient,
        strata=strata,
        scores=scores,
        choices=choices,
        items=items,
        seconds=seconds,
        repeats=tuple(repeats),
        middle=middle,
        about=about,
        left_out=dict(left_out),
    )
