"""The phase of diagnosis: each image is normal or not, with which findings, before the question
whether it is synthetic is asked. Its answers never reach the verdict; they are reported apart.

A row of answers has the phase `diagnosis`, the name of the image as its case, the modality
`diagnosis:FINDING` and the score 1 (present) or 0. `abnormal` is the first finding. The key lists
the images under `diagnosis`, each with `truth` (1 for a synthetic image), `patient` if known, and 1
or 0 for each finding that is known of it.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from rfxray.attributes import vocabulary
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate import auc
from rfxray.readers.agreement import kappa
from rfxray.readers.answers import ReaderFile, number_of
from rfxray.readers.equivalence import reader_interval
from rfxray.readers.key import Key

ABNORMAL = "abnormal"
PREFIX = "diagnosis:"
ASKED = (*vocabulary.PATHOLOGY_NAMES, "support_devices")  # what may be asked


def findings(words: str) -> tuple[str, ...]:
    """The findings that a flag names: `all`, or names with commas between; none if it is empty.

    Raises:
      ConfigError: If a name is not of a finding, or occurs twice.
    """
    if words.strip() == "all":
        return vocabulary.PATHOLOGY_NAMES
    found = tuple(name.strip() for name in words.split(",") if name.strip())
    for name in found:
        if name not in ASKED or found.count(name) > 1:
            raise ConfigError(
                f"--diagnosis takes all, or each once of {', '.join(ASKED)} (got {name!r})"
            )
    return found


def known(facts: Mapping[str, str], asked: Sequence[str]) -> dict[str, int]:
    """What the attributes of an image say of `abnormal` and of the findings, 0 or 1 where known.

    Raises:
      DataError: If an attribute has a value that is not of its vocabulary.
    """
    values = {}
    for name in (*vocabulary.PATHOLOGY_NAMES, "support_devices", "no_finding"):
        try:
            number, is_known = vocabulary.encode_value(name, facts.get(name))
        except ConfigError as error:
            raise DataError(str(error)) from error
        if is_known:
            values[name] = int(number)
    pathologies = [values[n] for n in vocabulary.PATHOLOGY_NAMES if n in values]
    found = {}
    if "no_finding" in values:
        found[ABNORMAL] = 1 - values["no_finding"]
    elif any(pathologies):
        found[ABNORMAL] = 1
    elif len(pathologies) == len(vocabulary.PATHOLOGY_NAMES):
        found[ABNORMAL] = 0
    return found | {name: values[name] for name in asked if name in values}


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Answers of the phase, F findings, J readers, n images.

    Attributes:
      findings: Names, `abnormal` first.
      readers: Names.
      synthetic: `[n] bool`.
      patient: `[n] int`, number of the patient of each image.
      truth: `[F, n]`, 1 or 0, NaN if it is not known.
      answers: `[F, J, n]`, 1 or 0, NaN for no answer.
    """

    findings: tuple[str, ...]
    readers: tuple[str, ...]
    synthetic: np.ndarray
    patient: np.ndarray
    truth: np.ndarray
    answers: np.ndarray


def gather(files: Sequence[ReaderFile], key: Key) -> Diagnosis | None:
    """The answers of all files; None if the study has no such phase.

    Raises:
      DataError: If an answer is to an image that the key lacks, is given twice, or is not 0 or 1.
    """
    rows = [
        (f"{file.path}, line {answer.line}", file.reader, answer)
        for file in files
        for answer in file.answers
        if answer.phase == "diagnosis" and answer.modality.startswith(PREFIX)
    ]
    if not rows:
        return None
    names = list(dict.fromkeys(answer.modality.removeprefix(PREFIX) for *_, answer in rows))
    names.sort(key=lambda name: name != ABNORMAL)
    readers = tuple(sorted({reader for _, reader, _ in rows}))
    images = list(key.diagnosis)
    place = {name: k for k, name in enumerate(images)}
    answers = np.full((len(names), len(readers), len(images)), np.nan)
    seen: dict[tuple, str] = {}
    for where, reader, answer in rows:
        if answer.case not in place:
            raise DataError(f"{where}: image {answer.case!r} is not in the key's diagnosis")
        finding = answer.modality.removeprefix(PREFIX)
        at = names.index(finding), readers.index(reader), place[answer.case]
        if at in seen:
            raise DataError(
                f"{where}: {finding} of {answer.case} was answered already ({seen[at]})"
            )
        seen[at] = where
        score = number_of(where, "score", str(answer.score or ""))
        if score not in (None, 0, 1):
            raise DataError(f"{where}: score of a finding must be 0, 1 or empty (got {score:g})")
        answers[at] = np.nan if score is None else score
    cases = list(key.diagnosis.values())
    states = {"1": 1.0, "0": 0.0}
    _, patient = np.unique([case.patient for case in cases], return_inverse=True)
    return Diagnosis(
        findings=tuple(names),
        readers=readers,
        synthetic=np.array([bool(case.synthetic) for case in cases]),
        patient=patient,
        truth=np.array([[states.get(c.strata.get(f, ""), np.nan) for c in cases] for f in names]),
        answers=answers,
    )


@dataclasses.dataclass(frozen=True)
class Read:
    """What one reader said of one finding, against the truth; None is "not estimable".

    Attributes:
      reader: Name.
      sensitivity: Share of the images with the finding in which it was called.
      specificity: Share of the images without it in which it was not.
      auc: Mean of both, the area under the curve of a yes or no; a reader who gave one answer to
        everything has one by default, so it is not estimable.
      auc_interval: Its 95% interval over patients.
    """

    reader: str
    sensitivity: float | None
    specificity: float | None
    auc: float | None
    auc_interval: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Finding:
    """One finding in one kind of images; None is "not estimable".

    Attributes:
      finding: Name.
      images: `all`, `real` or `synthetic`.
      present: Number of images known to have it.
      absent: Number of images known not to have it.
      answered: Number of answers of all readers, truth known or not.
      auc: Mean of the AUC over the readers that have one.
      same_as_truth: Share of answers that are the truth, mean over readers.
      same: Share of images with the same answer of two readers, mean over each two.
      kappa: κ of two readers, mean over each two that have one.
      readers: Results of each reader.
    """

    finding: str
    images: str
    present: int
    absent: int
    answered: int
    auc: float | None
    same_as_truth: float | None
    same: float | None
    kappa: float | None
    readers: tuple[Read, ...]


def analyse(found: Diagnosis) -> tuple[Finding, ...]:
    """Every finding in all images, in real ones and in synthetic ones."""
    everything = np.ones_like(found.synthetic)
    kinds = {"all": everything, "real": ~found.synthetic, "synthetic": found.synthetic}
    return tuple(
        _finding(found, number, kind, cases)
        for number in range(len(found.findings))
        for kind, cases in kinds.items()
    )


def _finding(found: Diagnosis, number: int, kind: str, cases: np.ndarray) -> Finding:
    truth, answers = found.truth[number, cases], found.answers[number][:, cases]
    reads = [
        _read(reader, answers[j], truth, found.patient[cases])
        for j, reader in enumerate(found.readers)
    ]
    right = []
    for given in answers:
        both = ~np.isnan(given) & ~np.isnan(truth)
        if both.any():
            right.append(float(np.mean(given[both] == truth[both])))
    same, beyond = [], []
    for first, second in itertools.combinations(answers, 2):
        both = ~np.isnan(first) & ~np.isnan(second)
        if not both.any():
            continue
        table = np.zeros((2, 2))
        np.add.at(table, (first[both].astype(int), second[both].astype(int)), 1)
        same.append(float(np.trace(table) / table.sum()))
        beyond.append(kappa(table))
    return Finding(
        finding=found.findings[number],
        images=kind,
        present=int((truth == 1).sum()),
        absent=int((truth == 0).sum()),
        answered=int((~np.isnan(answers)).sum()),
        auc=_mean([read.auc for read in reads if read.auc is not None]),
        same_as_truth=_mean(right),
        same=_mean(same),
        kappa=_mean([value for value in beyond if np.isfinite(value)]),
        readers=tuple(reads),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _read(reader: str, answers: np.ndarray, truth: np.ndarray, patient: np.ndarray) -> Read:
    seen = ~np.isnan(answers) & ~np.isnan(truth)
    given, present, patient = answers[seen], truth[seen] == 1, patient[seen]
    sensitivity = float(given[present].mean()) if present.any() else None
    specificity = float(1 - given[~present].mean()) if (~present).any() else None
    kinds = [len(np.unique(patient[kind])) for kind in (present, ~present)]
    # One answer to everything has an AUC of .5 by default, which says nothing.
    if sensitivity is None or specificity is None or (given == given[0]).all():
        return Read(reader, sensitivity, specificity, None, None)
    merit, interval = (sensitivity + specificity) / 2, None
    if min(kinds) > 1:
        placed = auc.placements(given[None], present)
        variance = auc.delong(placed, present, patient)[0, 0]
        low, high = reader_interval(np.array(merit), variance, kinds[0], kinds[1])
        interval = (float(low), float(high))
    return Read(reader, sensitivity, specificity, merit, interval)
