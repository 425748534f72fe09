"""The page for pre-registration, in Markdown: what is fixed before anybody reads."""

from rfxray import version
from rfxray.readers import leaks, plan
from rfxray.readers.design import Design, Made
from rfxray.readers.equivalence import LEAST_READERS
from rfxray.readers.key import DEGRADED, RECONSTRUCTED
from rfxray.readers.panel import STOPPED
from rfxray.readers.roe_metz import RoeMetz

STUDIES = 2000  # that are simulated for the power: a share of them to ±2 points

TEMPLATE = """# Protocol of the reader study {study}

Register this page before the first reading. Lines with ______ are to be filled in.

## Question

- **Hypothesis**: readers cannot tell synthetic images from real ones: their mean {merit} lies
  within .5 ± {margin:g}.
- **Why this margin**: ______
- **Readers**: who they are, and how they are found: ______

## Design

- **Cases**: {cases} {unit}, matched by {match}, in the shares of the real set; one image of a
  patient.
- **Readers**: {readers}, each with an order of its own; no feedback.
- **Training**: {training} items with feedback before the cases, of other images; not analysed.
- **Repeats**: {repeats} of the cases again, after all others; for the agreement of a reader only.
- **Controls**: {controls}
{diagnosis}- **Images**: {size} × {size} pixels, 8-bit PNG of equal length without metadata;
  both sets through the same resize.

## Analysis

- `rfxray readers analyse --margin {margin:g}`: Obuchowski–Rockette, readers and cases random,
  DeLong covariances; two one-sided tests at 5%, and the conditions on single readers in its
  documentation.
- **Power at this design** ({readers} readers × {cases} {what}), of readers at .5: {power}
- **Missing answers**: a case that a reader left open is left out for all; a reader with fewer than
  {stopped:.0%} of the cases is left out of the mean, listed, and can still refuse equivalence.
- **Withdrawal**: a reader may stop at any time. What was answered until then is kept if the reader
  agrees, and is otherwise deleted; the number of readers who stopped is reported in both cases.

## Seal

- **Key**: SHA-256 `{key_sha256}` of its opened content, which holds a random nonce. It is opened
  after the last reader has handed in; `analyse` refuses answers that were read under another key.
- **Made by**: {version}.

## Approval

- **Ethics approval** (committee, number, date): ______
- **Consent of readers** (text, and how it is given): ______
- **Use of the radiographs** (agreement, who may see them): ______
- **Registered at**: ______ on ______

## Leak check

A check with a p blocks the study at p ≤ {alarm:g}, which is adjusted for all of them: at most
{alarm:.0%} of clean studies are blocked. The others are what readers may see: reported only.{grid}

| feature | AUC | p |
|---|---|---|
{rows}
"""

GRID = """ A
grid of {0:g} pixels was declared to be the model's own (`--model-grid`), and is not compared."""


def text(design: Design, made: Made) -> str:
    """The protocol of a study that was made; it simulates studies of its design."""
    rows = [
        f"| {x.feature} | {x.auc:.2f} | {'reported only' if x.p is None else f'{x.p:.2g}'} |"
        for x in made.leaks
    ]
    pairs = design.modality == "pairs"
    return TEMPLATE.format(
        study=design.study,
        merit="share of pairs in which the synthetic image is found" if pairs else "AUC",
        margin=design.margin,
        cases=design.cases,
        unit="pairs of a real and a synthetic image" if pairs else "images, half of them synthetic",
        what="pairs" if pairs else "images",
        match=", ".join(design.match) or "nothing",
        training=design.training,
        readers=design.readers,
        repeats=round(design.repeats * design.cases),
        controls=_controls(design),
        diagnosis=_diagnosis(design),
        size=design.size,
        power=_power(design),
        stopped=STOPPED,
        key_sha256=made.key_sha256,
        version=version.line(),
        alarm=leaks.FALSE_ALARM,
        grid=GRID.format(design.model_grid) if design.model_grid else "",
        rows="\n".join(rows),
    )


def _controls(design: Design) -> str:
    counts = {DEGRADED: design.degraded, RECONSTRUCTED: design.reconstructed}
    named = [f"{count} {kind} real images" for kind, count in counts.items() if count]
    if not named:
        return "no images that were changed."
    rule = (
        '; "equivalent" needs every reader of the mean to find the degraded ones (95% interval\n'
        "  above .5)"
    )
    return (
        f"{' and '.join(named)} among the cases, of other patients, reported apart"
        f"{rule if design.degraded else ''}."
    )


def _diagnosis(design: Design) -> str:
    if not design.diagnosis:
        return ""
    return (
        "- **Diagnosis**: before the question is known, each image of a case is asked for "
        f"{', '.join(design.diagnosis)};\n  reported apart.\n"
    )


def _power(design: Design) -> str:
    if design.readers < LEAST_READERS:
        return (
            f"zero; with {design.readers} readers the verdict is never equivalence, "
            f"{LEAST_READERS} are needed."
        )
    if design.cases < plan.FEWEST:
        return f"not computed for fewer than {plan.FEWEST} cases."
    wanted = plan.Wanted(
        margin=design.margin,
        power=0.8,
        area=0.5,
        readers=(design.readers,),
        cases=(design.cases,),
        model=RoeMetz(),
        studies=STUDIES,
        pairs=design.modality == "pairs",
    )
    found = plan.design(wanted, design.readers, design.cases)
    model = wanted.model
    assert found.found is not None
    return f"""the 90% interval lies
  within the margin in {found.found.tost:.0%} of {STUDIES:,} simulated studies, and the verdict is
  "equivalent" in {found.found.equivalent:.0%}; a true mean at the edge of the margin is accepted
  in {found.size_tost:.1%}. Standard error of the mean: {found.plan.se:.3f}. Assumed: variance of
  readers {model.reader:g}, share of cases {model.case:g} (Roe and Metz); a pilot gives others
  (`rfxray readers power --pilot`)."""
