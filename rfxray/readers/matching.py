"""Matched images: as many real as synthetic ones of each stratum, decoded as they are drawn.

Strata get the shares that they have among the real images. What the table says decides first; if
burned-in text is matched too, it is read from the pixels of the images that are drawn, so a set of
100,000 images is never decoded as a whole. Of a patient one image is drawn, so training, cases and
controls are of different patients.
"""

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from rfxray.errors import DataError
from rfxray.readers import leaks, traces
from rfxray.readers.candidates import BURNED_IN, Candidate

Stratum = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """An image of a study.

    Attributes:
      name: Name of its file or record.
      patient: Name of its patient, "" if unknown.
      facts: Values of the matched names.
      image: Image that is shown, `[side, side] uint8`.
      known: All that is known of it, of which `facts` is a part.
    """

    name: str
    patient: str
    facts: Mapping[str, str]
    image: np.ndarray
    known: Mapping[str, str]


class Source:
    """Draws images without repetition of an image or a patient.

    Args:
      match: Names of attributes that have the same values in both sets.
      size: Side of the images, pixels.
      rng: Source of every choice.
      drawn: Function called after each image that is taken.
    """

    def __init__(
        self,
        match: Sequence[str],
        size: int,
        rng: np.random.Generator,
        drawn: Callable[[], None] = lambda: None,
    ):
        self._match, self._size, self._rng, self._drawn = match, size, rng, drawn
        self._taken: set[int] = set()  # candidates, by identity: a file has no key
        self._patients: set[str] = set()
        self._seen: dict[bytes, str] = {}
        self.left_out: dict[str, int] = {}

    def pairs(
        self, real: Sequence[Candidate], synthetic: Sequence[Candidate], count: int
    ) -> list[tuple[Drawn, Drawn]]:
        """Pairs of a real and a synthetic image of one stratum, in random order.

        Raises:
          DataError: If a stratum has too few images of a side.
        """
        strata = self._strata(real, synthetic)
        self.left_out = {
            f"{side} images of strata without a {other} one": number
            for k, side, other in ((0, "real", "synthetic"), (1, "synthetic", "real"))
            if (number := sum(len(both[k]) for both in strata.values() if not both[1 - k]))
        }
        wanted = _shares(strata, count, self._rng)
        self._refuse_short(strata, wanted, count)
        pairs = []
        for stratum, number in wanted.items():
            found = self._of(strata[stratum])
            for made in range(number):
                pair = next(found, None)
                if pair is None:
                    first, second = map(len, strata[stratum])
                    raise DataError(
                        f"stratum {self._named(stratum)} gives {made} of {number} pairs: its "
                        f"{first} real and {second} synthetic images, one of a patient, have no "
                        f"more of equal {BURNED_IN if BURNED_IN in self._match else 'kind'}; lower "
                        "--cases, or give more images"
                    )
                pairs.append(pair)
        return [pairs[k] for k in self._rng.permutation(len(pairs))]

    def singles(self, real: Sequence[Candidate], count: int) -> list[Drawn]:
        """Further real images of patients that were not drawn.

        Raises:
          DataError: If there are too few.
        """
        found = []
        for k in self._rng.permutation(len(real)):
            if len(found) == count:
                break
            if (taken := self._take(real[k], self._match)) is not None:
                found.append(taken)
        if len(found) < count:
            raise DataError(
                f"{count} controls need {count} more real images of other patients, and "
                f"{len(found)} are left; lower --cases or the number of controls"
            )
        return found

    def again(self, candidate: Candidate) -> Drawn:
        """Another image of a patient that was drawn, such as a reconstruction."""
        return self._decode(candidate, ())

    def _strata(
        self, real: Sequence[Candidate], synthetic: Sequence[Candidate]
    ) -> dict[Stratum, tuple[list[Candidate], list[Candidate]]]:
        strata: dict[Stratum, tuple[list, list]] = defaultdict(lambda: ([], []))
        named = [name for name in self._match if name != BURNED_IN]
        for place, candidates in enumerate((real, synthetic)):
            for k in self._rng.permutation(len(candidates)):
                facts = candidates[k].facts
                strata[tuple(facts[name].lower() for name in named)][place].append(candidates[k])
        return dict(sorted(strata.items()))

    def _refuse_short(
        self, strata: Mapping[Stratum, tuple[list, list]], wanted: Mapping[Stratum, int], count: int
    ) -> None:
        for stratum, number in wanted.items():
            found = [_patients(side) for side in strata[stratum]]
            if min(found) < number:
                fits = next(
                    (
                        fewer
                        for fewer in range(count - 1, 0, -1)
                        if all(
                            min(map(_patients, strata[s])) >= n
                            for s, n in _shares(strata, fewer, self._rng).items()
                        )
                    ),
                    0,
                )
                raise DataError(
                    f"stratum {self._named(stratum)} needs {number} images of each side and has "
                    f"{found[0]} real and {found[1]} synthetic ones (one of a patient): give more, "
                    f"--match fewer names, or lower --cases and --training from {count} pairs to "
                    f"{fits}"
                )

    def _named(self, stratum: Stratum) -> str:
        named = [name for name in self._match if name != BURNED_IN]
        return ", ".join(f"{n}={v}" for n, v in zip(named, stratum, strict=True)) or "(all images)"

    def _of(self, sides: tuple[list[Candidate], list[Candidate]]) -> Iterator[tuple[Drawn, Drawn]]:
        """Pairs of a stratum that also agree in what the pixels say."""
        waiting: dict[str, tuple[list[Drawn], list[Drawn]]] = defaultdict(lambda: ([], []))
        places = [0, 0]
        while True:
            for both in waiting.values():
                while both[0] and both[1]:
                    yield both[0].pop(0), both[1].pop(0)
            # The side that has fewer waiting is drawn from
            counts = [sum(len(both[k]) for both in waiting.values()) for k in (0, 1)]
            side = int(np.argmin(counts))
            if places[side] == len(sides[side]):
                side = 1 - side
            if places[side] == len(sides[side]):
                return
            candidate = sides[side][places[side]]
            places[side] += 1
            if (taken := self._take(candidate, self._match)) is not None:
                waiting[taken.facts.get(BURNED_IN, "")][side].append(taken)

    def _take(self, candidate: Candidate, match: Sequence[str]) -> Drawn | None:
        """Decodes an image; None if it or its patient was drawn already."""
        if candidate.patient in self._patients or id(candidate) in self._taken:
            return None
        self._taken.add(id(candidate))
        self._patients |= {candidate.patient} - {""}
        return self._decode(candidate, match)

    def _decode(self, candidate: Candidate, match: Sequence[str]) -> Drawn:
        image = leaks.shown(candidate.pixels(self._size))
        digest = hashlib.sha256(image.tobytes()).digest()
        if digest in self._seen:
            raise DataError(
                f"{self._seen[digest]} and {candidate.name} are the same image; the sets must not "
                "overlap and must hold each image once"
            )
        self._seen[digest] = candidate.name
        facts = {name: candidate.facts[name] for name in match if name != BURNED_IN}
        if BURNED_IN in match:
            facts[BURNED_IN] = "yes" if traces.burned_in(image) else "no"
        self._drawn()
        return Drawn(candidate.name, candidate.patient, facts, image, candidate.facts)


def _patients(side: Sequence[Candidate]) -> int:
    """Number of images if one of each patient is drawn."""
    named = [each.patient for each in side if each.patient]
    return len(set(named)) + len(side) - len(named)


def _shares(
    strata: Mapping[Stratum, tuple[list, list]], count: int, rng: np.random.Generator
) -> dict[Stratum, int]:
    """Pairs of each stratum that has both sides, by its share of the real images."""
    common = [stratum for stratum, sides in strata.items() if sides[0] and sides[1]]
    if not common:
        raise DataError(
            "no stratum has real and synthetic images; check the values of the matched names, or "
            "--match fewer"
        )
    real = np.array([_patients(strata[stratum][0]) for stratum in common])
    exact = count * real / real.sum()
    whole = np.floor(exact).astype(int)
    # Largest remainders; the small noise decides between equal ones
    order = np.argsort(exact - whole + 1e-9 * rng.random(len(exact)))[::-1]
    whole[order[: count - whole.sum()]] += 1
    return {stratum: int(n) for stratum, n in zip(common, whole, strict=True) if n}
