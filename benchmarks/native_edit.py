"""An edit at native resolution of one radiograph as PNG and as DICOM, as a figure for the docs.

    python -m benchmarks.native_edit --checkpoint WORKDIR --image NIH.png --out docs/native_edit.png

The DICOM file is written from the same pixels: 12 bits, MONOCHROME1, a window. The edit is in a
region over the lung on the left of the image. Prints how many pixels outside differ: must be 0.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from rfxray import edit
from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.outputs import contact_sheet, dicom
from rfxray.outputs.files import read_png, save_png

SIDE = 320  # pixels of a picture of the figure


def main() -> None:
    p = ArgumentParser(
        prog="python -m benchmarks.native_edit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for flag, what in (("checkpoint", "workdir"), ("image", "grey PNG"), ("out", "figure, a PNG")):
        p.add_argument(f"--{flag}", type=local_path, required=True, help=what)
    arguments = p.parse_args()
    with exit_on_error("benchmarks.native_edit"):
        draw(arguments)


def draw(arguments: argparse.Namespace) -> None:
    """Makes both edits and the figure."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        film = read_png(arguments.image)
        region = np.zeros(film.shape, np.uint8)
        height, width = film.shape
        region[int(0.4 * height) : int(0.85 * height), int(0.1 * width) : int(0.45 * width)] = 255
        save_png(Path(folder) / "region.png", region)
        twelve = 4095 - film.astype(np.uint16) * 16
        tags = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
        tags |= {"WindowCenter": 2048, "WindowWidth": 4096, "PixelSpacing": [0.143, 0.143]}
        tags["PixelData"] = twelve.astype("<u2").tobytes()
        source = Path(folder) / "film.dcm"
        dicom.save(source, twelve, {"attributes": {}}, carried=tags)
        for image, values in ((arguments.image, film), (source, twelve)):
            out = Path(folder) / image.suffix[1:]
            flags = ["--checkpoint", arguments.checkpoint, "--image", image, "--out", out]
            flags += ["--native", "--method", "flow", "--set", "pleural_effusion=present"]
            flags += ["--mask", Path(folder) / "region.png"]
            edit.main([str(flag) for flag in flags])
            native = out / f"native{image.suffix}"
            is_png = image.suffix == ".png"
            after = read_png(native) if is_png else pydicom.dcmread(native).pixel_array
            mask = read_png(out / "native_mask.png")
            differ = int((after != values)[region == 0].sum())
            print(f"{differ} of {(region == 0).sum():,} pixels outside the region differ")
            shown = [a if is_png else (4095 - a) // 16 for a in (values, after)]
            change = np.clip(128 + shown[1].astype(int) - shown[0], 0, 255)
            rows.append([small(each) for each in (*shown, change, mask)])
    columns = ["original", "edited", "difference", "mask"]
    save_png(arguments.out, contact_sheet.table(np.array(rows), ["PNG", "DICOM"], columns))


def small(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image.astype(np.uint8)).resize((SIDE, SIDE)))


if __name__ == "__main__":
    main()
