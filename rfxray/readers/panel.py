"""Which readers and cases the pooled analysis takes, and the figures of merit of these.

Rules, each of which is counted in the results:

- A reader who answered fewer than 80% of the cases stopped, and is left out.
- A reader who gave one answer to everything is not estimable, and is left out: an AUC of .5 would
  be a default, not a finding.
- A case that one of the remaining readers left open is left out for all of them.
- Films of one patient are a cluster. Repeats serve the agreement only.
- A reader at an AUC of 0 or 1 stays, with an interval by the score method; the zeros of the
  covariance are not averaged.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from rfxray.evaluate import auc
from rfxray.readers.per_reader import constant
from rfxray.readers.study import Study

# Judgement: with a fifth missing, what remains is a selection by whatever made the reader stop.
STOPPED = 0.8


@dataclasses.dataclass(frozen=True)
class Panel:
    """What the pooled analysis is made of.

    Attributes:
      readers: Indices of the readers that are taken.
      excluded: Reason for each reader that is not, by index.
      cases: Indices of the cases that are taken.
      truth: Whether each of these is synthetic, `[cases] bool`.
      patient: Their patients, `[cases] int`.
      scores: Their scores, `[modalities, readers, cases]`, all finite.
      pairs: Whether two images were shown side by side.
    """

    readers: tuple[int, ...]
    excluded: Mapping[int, str]
    cases: np.ndarray
    truth: np.ndarray
    patient: np.ndarray
    scores: np.ndarray
    pairs: bool

    @property
    def clustered(self) -> bool:
        """Whether a patient has more than one case."""
        return len(np.unique(self.patient)) < len(self.patient)

    def patients(self) -> tuple[int, int]:
        """Numbers of patients with synthetic and with real images; for pairs both are all."""
        if self.pairs:
            count = len(np.unique(self.patient))
            return count, count
        synthetic, real = (len(np.unique(self.patient[k])) for k in (self.truth, ~self.truth))
        return synthetic, real

    def merit(self) -> np.ndarray:
        """AUC or share of correct pairs, `[modalities, readers]`."""
        if self.pairs:
            return self.scores.mean(-1)
        return auc.area(auc.placements(self.scores, self.truth), self.truth)

    def covariance(self, method: str) -> np.ndarray:
        """Covariances by `delong`, `jackknife` or `unbiased`, `[I, J, I, J]`.

        For pairs all three are the covariance of proportions.
        """
        modalities, readers, cases = self.scores.shape
        flat = self.scores.reshape(-1, cases)
        if self.pairs:
            found = auc.of_proportions(flat, self.patient)
        elif method == "delong":
            found = auc.delong(auc.placements(flat, self.truth), self.truth, self.patient)
        elif method == "jackknife":
            found = auc.jackknife(flat, self.truth, self.patient)
        else:
            found = auc.unbiased(flat, self.truth)
        return found.reshape(modalities, readers, modalities, readers)


def panel(study: Study) -> Panel:
    """Applies the rules above."""
    excluded: dict[int, str] = {}
    answered = (~np.isnan(study.scores)).sum(-1)
    for j in range(len(study.readers)):
        least = int(answered[:, j].min(initial=len(study.cases)))
        if least < STOPPED * len(study.cases):
            excluded[j] = f"stopped: answered {least} of {len(study.cases)} cases"
        elif any(constant(study, i, j) for i in range(len(study.modalities))):
            excluded[j] = "gave one answer to everything: not estimable"
    readers = tuple(j for j in range(len(study.readers)) if j not in excluded)
    complete = ~np.isnan(study.scores[:, readers]).any((0, 1))
    cases = np.flatnonzero(complete)
    return subset(study, readers, excluded, cases)


def subset(
    study: Study, readers: tuple[int, ...], excluded: Mapping[int, str], cases: np.ndarray
) -> Panel:
    """A panel of these readers and cases."""
    return Panel(
        readers=readers,
        excluded=excluded,
        cases=cases,
        truth=study.truth[cases],
        patient=study.patient[cases],
        scores=study.scores[:, readers][:, :, cases],
        pairs=study.pairs,
    )


def why_not_estimable(panel: Panel) -> str | None:
    """Why this panel has no pooled result, or None if it has one."""
    if len(panel.readers) < 2:
        return f"{len(panel.readers)} usable reader(s); a mean over readers needs at least 2"
    synthetic, real = panel.patients()
    if min(synthetic, real) < 2:
        return f"{synthetic} patients with synthetic and {real} with real images; 2 are needed"
    # For pairs it is a reader who was always right or wrong, which is a finding.
    if not panel.pairs and (panel.scores == panel.scores[..., :1]).all(-1).any():
        return "a reader gave one answer to all of these cases"
    return None
