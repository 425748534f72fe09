"""The page for pre-registration, in Markdown: what is fixed before anybody reads."""

from rfxray.readers import leaks
from rfxray.readers.design import Design, Made

TEMPLATE = """# Protocol of the reader study {study}

Register this page before the first reading.

- **Hypothesis**: readers cannot tell synthetic images from real ones: their mean AUC is within
  .5 ± margin. Margin: ______
- **Design**: {phase}{cases} {unit}, matched by {match}; {training} training items with feedback,
  which are not analysed; {readers} readers, each with an order of its own; {repeats:.0%} of the
  cases again, after all others; no feedback.
- **Images**: {size} × {size} pixels, 8-bit PNG of equal length without metadata, by one decoder for
  both sets.
- **Analysis**: `rfxray readers analyse` with the margin above: readers and cases random, two
  one-sided tests at 5%, and the conditions on single readers in its documentation.
- **Power** (from `rfxray readers power`): ______
- **Key**: SHA-256 `{key_sha256}`. It is opened after the last reader has handed in.
- **Withdrawal**: a reader may stop at any time. What was answered until then is kept if the reader
  agrees, and is otherwise deleted; the number of readers who stopped is reported in both cases.
- **Ethics approval**: ______
- **Consent of readers**: ______

## Leak check

A check with a p blocks the study at p ≤ {alarm:g}, which is adjusted for all of them: at most
{alarm:.0%} of clean studies are blocked. The others are what readers may see: reported only.

| feature | AUC | p |
|---|---|---|
{rows}
"""


def text(design: Design, made: Made) -> str:
    """The protocol of a study that was made."""
    rows = [
        f"| {x.feature} | {x.auc:.2f} | {'reported only' if x.p is None else f'{x.p:.2g}'} |"
        for x in made.leaks
    ]
    return TEMPLATE.format(
        study=design.study,
        phase=f"first a diagnosis of each image ({', '.join(design.diagnosis)}), then "
        if design.diagnosis
        else "",
        cases=design.cases,
        unit="pairs" if design.modality == "pairs" else "images, half of them synthetic",
        match=", ".join(design.match) or "nothing",
        training=design.training,
        readers=design.readers,
        repeats=design.repeats,
        size=design.size,
        key_sha256=made.key_sha256,
        alarm=leaks.FALSE_ALARM,
        rows="\n".join(rows),
    )
