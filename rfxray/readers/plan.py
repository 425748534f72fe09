"""Designs: readers × cases with their power, by formula and by simulation, and a page of them."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from rfxray import version
from rfxray.errors import ConfigError
from rfxray.outputs import files, page
from rfxray.readers import power
from rfxray.readers.equivalence import CHANCE, LEAST_READERS
from rfxray.readers.power import Planned, Rates
from rfxray.readers.roe_metz import RoeMetz

FEWEST = 10  # cases: the formula is of many
PAGE, NUMBERS = "power.html", "power.json"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is planned.

    Attributes:
      margin: Margin of equivalence.
      power: Wanted power.
      area: True AUC that is assumed.
      readers: Numbers of readers to compare.
      cases: Numbers of cases to compare: images, half of them synthetic, or pairs.
      model: Variances.
      studies: Studies that are simulated for each design; 0 for the formula only.
      pairs: Whether two images are shown side by side.
    """

    margin: float
    power: float
    area: float
    readers: tuple[int, ...]
    cases: tuple[int, ...]
    model: RoeMetz
    studies: int
    pairs: bool = False

    def __post_init__(self):
        for name, value, low, high in (
            ("margin", self.margin, 0, 0.5),
            ("power", self.power, 0, 1),
            ("auc", self.area, 0, 1),
        ):
            if not low < value < high:
                raise ConfigError(f"--{name} must be above {low} and below {high} (got {value:g})")
        if min(self.readers) < LEAST_READERS:
            raise ConfigError(
                f"--readers must be at least {LEAST_READERS}: fewer never show equivalence (got "
                f"{min(self.readers)})"
            )
        if bad := [n for n in self.cases if n < FEWEST or (n % 2 and not self.pairs)]:
            kind = f"{'' if self.pairs else 'even and '}at least {FEWEST}"
            raise ConfigError(f"--cases must be {kind} (got {bad[0]})")
        if self.studies < 0:
            raise ConfigError(f"--studies must be at least 0 (got {self.studies})")

    @property
    def goal(self) -> str:
        """What the power is of: `equivalence`, or `difference` if the AUC is not within margin."""
        return "equivalence" if abs(self.area - CHANCE) < self.margin else "difference"


@dataclasses.dataclass(frozen=True)
class Design:
    """One design.

    Attributes:
      readers: Number of readers.
      cases: Number of cases.
      plan: Power by formula.
      found: Rates of simulated studies at the assumed AUC.
      size_difference: Share of simulated studies with a mean of .5 in which the test of the
        difference rejects: its true size, nominally 5%.
      size_tost: Share of simulated studies at the edge of the margin in which TOST accepts: its
        true size, at most 5% nominally.
    """

    readers: int
    cases: int
    plan: Planned
    found: Rates | None
    size_difference: float | None
    size_tost: float | None


def designs(wanted: Wanted, done: Callable[[], None]) -> Iterator[Design]:
    """Every design of the table; `done` is called after each."""
    for readers in wanted.readers:
        for cases in wanted.cases:
            yield design(wanted, readers, cases)
            done()


def formula(wanted: Wanted, readers: int, cases: int) -> Planned:
    """Power of one design by formula."""
    found = power.expected(wanted.model, wanted.area, cases, wanted.pairs)
    return power.planned(found, readers, cases, wanted.margin, wanted.pairs)


def design(wanted: Wanted, readers: int, cases: int) -> Design:
    """One design."""
    plan = formula(wanted, readers, cases)
    if not wanted.studies:
        return Design(readers, cases, plan, None, None, None)
    truth = np.arange(2 * cases) < cases if wanted.pairs else np.arange(cases) < cases // 2

    def run(area: float) -> Rates:
        rng = np.random.default_rng([readers, cases, round(1e6 * area)])
        return power.simulated(
            wanted.model,
            area,
            readers,
            truth,
            wanted.margin,
            wanted.studies,
            rng,
            pairs=wanted.pairs,
        )

    found = run(wanted.area)
    centre = found if wanted.area == CHANCE else run(CHANCE)
    return Design(readers, cases, plan, found, centre.difference, run(CHANCE + wanted.margin).tost)


def smallest(wanted: Wanted) -> dict[int, int | None]:
    """The smallest number of cases for each number of readers; None if there is none."""
    return {
        readers: power.smallest(
            wanted.model, wanted.area, readers, wanted.margin, wanted.power, wanted.pairs
        )
        for readers in wanted.readers
    }


HEADER = (
    "readers × cases",
    "SE",
    "equivalence",
    "difference",
    "equivalence, simulated",
    "difference, simulated",
    'verdict "equivalent"',
    "size of the difference test",
    "size of TOST",
)


def cells(design: Design) -> list[str]:
    """A design as the cells of a row below `HEADER`."""

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{value:.1%}"

    found = design.found
    return [
        f"{design.readers} × {design.cases}",
        f"{design.plan.se:.4f}",
        percent(design.plan.equivalence),
        percent(design.plan.difference),
        percent(found and found.tost),
        percent(found and found.difference),
        percent(found and found.equivalent),
        percent(design.size_difference),
        percent(design.size_tost),
    ]


def sentences(wanted: Wanted, least: dict[int, int | None]) -> list[str]:
    """What the smallest designs are, a line each."""
    test = "TOST" if wanted.goal == "equivalence" else "the test against .5"
    what = f"{test} with power {wanted.power:.0%} at AUC {wanted.area:g}"
    found = []
    for readers, cases in least.items():
        unit = "pairs" if wanted.pairs else "cases"
        need = f"{cases} {unit}" if cases else f"not reached with {power.MOST_CASES:,} {unit}"
        found.append(f"{readers} readers: {need} for {what}, margin ±{wanted.margin:g}")
    return found


def markdown(rows: Sequence[Design]) -> str:
    """The table as Markdown."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---" * len(HEADER) + "|"]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    return "\n".join(lines)


WIDTH, HEIGHT = 560, 260  # of the plot, pixels
COLOURS = ("blue", "orange", "good", "bad", "ink", "quiet")


def _curves(wanted: Wanted) -> dict:
    """Power by the number of cases, a curve for each number of readers, in pixels."""
    most = max(wanted.cases)
    grid = np.unique(np.linspace(10, most, 40).astype(int) // 2 * 2)
    curves = []
    for n, readers in enumerate(wanted.readers):
        points = []
        for cases in grid:
            value = getattr(formula(wanted, readers, int(cases)), wanted.goal)
            points.append(f"{cases / most * WIDTH:.1f},{(1 - value) * HEIGHT:.1f}")
        curves.append((readers, COLOURS[n % len(COLOURS)], " ".join(points)))
    ticks = [(f"{round(most * share)}", WIDTH * share) for share in (0, 0.25, 0.5, 0.75, 1)]
    return {
        "curves": curves,
        "width": WIDTH,
        "height": HEIGHT,
        "wanted": (1 - wanted.power) * HEIGHT,
        "ticks": ticks,
    }


def write(out: Path, wanted: Wanted, rows: Sequence[Design], least: dict[int, int | None]) -> Path:
    """Writes the page and the numbers into a folder; returns the path of the page."""
    numbers = {
        "written_by": version.versions(),
        "wanted": dataclasses.asdict(wanted),
        "smallest": least,
        "designs": [dataclasses.asdict(row) for row in rows],
    }
    with files.saving(out):
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(numbers, indent=1, allow_nan=False)
        files.write_whole(out / NUMBERS, text + "\n")
        html = page.render(
            Path(__file__).with_name("power.html"),
            title="Power of a reader study",
            wanted=wanted,
            header=HEADER,
            rows=[cells(row) for row in rows],
            sentences=sentences(wanted, least),
            plot=_curves(wanted),
            version=version.line(),
        )
        files.write_whole(out / PAGE, html)
    return out / PAGE
