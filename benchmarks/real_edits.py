"""Real radiographs inverted and drawn again, and edited to the other projection.

    python -m benchmarks.real_edits --checkpoint runs/hannover/train --data runs/hannover/data \
      --out runs/hannover/edits

Held-out radiographs are inverted and drawn again (with the residual stored, and by the bare ODE);
then their view is changed, AP to PA and PA to AP. Prints the figures and writes `edits.png`. There
is no true counterfactual to compare with. One minute on one core.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

from rfxray import sampling
from rfxray.attributes.states import known_from_states
from rfxray.attributes.vocabulary import INDEX, Attributes
from rfxray.command_line import ArgumentParser, exit_on_error
from rfxray.data import pixels
from rfxray.data.dataset import open_dataset, stored
from rfxray.data.pixels import to_float
from rfxray.outputs import contact_sheet, files
from rfxray.runtime import distributed
from rfxray.sampling import editing
from rfxray.sampling.editing import EditSettings

WAYS = {
    "invert, guidance 1": EditSettings(guidance=1.0, steps=25),
    "invert, guidance 3": EditSettings(guidance=3.0, steps=25),
    "flow, guidance 3": EditSettings(method="flow", guidance=3.0, steps=25),
}


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.real_edits", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--checkpoint", required=True, metavar="WORKDIR", help="workdir of a run")
    parser.add_argument("--data", required=True, metavar="DIR", help="data set of radiographs")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="output folder")
    parser.add_argument(
        "--n", type=int, default=8, help="number of held-out radiographs (default: 8)"
    )
    arguments = parser.parse_args()
    with exit_on_error("benchmarks.real_edits"):
        distributed.start()
        model = sampling.load(arguments.checkpoint)
        records = stored(open_dataset(arguments.data), "validation")
        records = list(itertools.islice(records, arguments.n))
        real = to_float(np.stack([record["image"] for record in records]))
        attributes = np.stack([record["attributes"] for record in records])
        known = np.stack([known_from_states(record["states"]) for record in records])
        source = Attributes(np.where(known, attributes, 0).astype(np.float32), known)
        other = source.values.copy()
        other[:, INDEX["view"]] = 1 - other[:, INDEX["view"]]
        target = Attributes(other, known)

        def report(name, images):
            error = np.sqrt(np.mean((images - real) ** 2) / np.mean(real**2))
            change = np.abs(images - real).mean() * 127.5
            print(f"{name}: relative error {error:.1e}, {change:.2f} levels of 255")

        rows, labels = [real], ["as taken"]
        for name, floor in (("residual stored", 0.2), ("bare ODE", 0.0)):
            how = EditSettings(floor=floor, guidance=1.0, steps=50)
            path = editing.abduct(model, real, source, how)
            back = editing.predict(model, path, source, source, how)
            report(f"{name}: noise of std {path.states[:, 0].std():.2f}; drawn again", back)
            rows.append(back)
            labels.append(f"drawn again, {name}")
        for name, how in WAYS.items():
            edited = editing.edit(model, real, source, target, how)
            report(f"other view, {name}: change", edited)
            rows.append(edited)
            labels.append(f"other view, {name}")
        arguments.out.mkdir(parents=True, exist_ok=True)
        views = ["AP to PA" if row else "PA to AP" for row in source.values[:, INDEX["view"]]]
        sheet = contact_sheet.table(pixels.to_uint8(np.stack(rows)), labels, views)
        files.save_png(arguments.out / "edits.png", sheet)
    print(f"wrote {arguments.out / 'edits.png'}")


if __name__ == "__main__":
    main()
