"""Whether readers paid attention: what they made of the controls of a study.

Controls never enter the numbers of the verdict. In single images the AUC is that of the controls
against the real cases; in pairs a control stands beside the image that it was made of.

"Nobody could tell" is also what readers say who do not look, so "equivalent" needs every reader of
the panel to find the degraded images: the 95% interval lies above .5 (assay sensitivity; ICH E10,
1.5).
"""

import dataclasses
from collections.abc import Sequence

from rfxray.readers.equivalence import CHANCE, NOT_SHOWN
from rfxray.readers.key import DEGRADED
from rfxray.readers.per_reader import ReaderResult, reader_result
from rfxray.readers.study import Study
from rfxray.readers.verdict import Verdict


@dataclasses.dataclass(frozen=True)
class ControlResult:
    """What a reader made of the controls of a kind; `found` if the interval lies above .5."""

    kind: str
    found: bool
    result: ReaderResult


def results(study: Study) -> tuple[ControlResult, ...]:
    """Results of all readers on all kinds of controls."""
    found = []
    for kind, part in study.controls.items():
        for i in range(len(part.modalities)):
            for j in range(len(part.readers)):
                result = reader_result(part, i, j)
                interval = result.auc_interval
                above = interval is not None and interval[0] > CHANCE
                found.append(ControlResult(kind, above, result))
    return tuple(found)


def judged(
    verdict: Verdict, study: Study, found: Sequence[ControlResult], panel: Sequence[str]
) -> Verdict:
    """A verdict in view of the degraded controls: readers who missed them show no equivalence."""
    if DEGRADED not in study.controls or not verdict.verdict.startswith("equivalent"):
        return verdict
    attentive = {row.result.reader for row in found if row.kind == DEGRADED and row.found}
    if not (missed := [reader for reader in panel if reader not in attentive]):
        return verdict
    why = (
        f"readers who did not find the degraded controls: {', '.join(missed)}; equal scores may "
        "come from not looking"
    )
    return dataclasses.replace(verdict, verdict=NOT_SHOWN, reasons=(*verdict.reasons, why))
