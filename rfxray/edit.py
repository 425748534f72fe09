"""Changes one thing in a radiograph: `python -m rfxray.edit --checkpoint WORKDIR --image FILE …`.

    --from view=AP --from sex=M           what the picture shows, as far as you know it
    --set cardiomegaly=absent             what it shall show instead
    --mask lungs.png                      white: edit only here
    --keep heart.png                      white: not one pixel of this may change
    --inpaint hole.png                    white: draw this anew (by noise), keep all else
    --propagate DATA                      let what descends from the change follow (sampling/causal)

The picture is read as data_prep reads it: made square and 16-bit grey, at the model's size. Writes
`original.png`, `edited.png` (and .dcm with --dicom), `difference.png` (red is brighter, blue
darker), `strip.png` over guidance or strength, and `edit.json`, whose `command` makes them again.
"""

import argparse
import dataclasses
import hashlib
import json
import shlex
import sys
from pathlib import Path

import numpy as np

from rfxray import sampling
from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import INDEX, PATHOLOGY_NAMES, Attributes
from rfxray.causes import logistic
from rfxray.command_line import ArgumentParser, exit_on_error, refuse_unread, settings_given
from rfxray.data import pixels
from rfxray.data.dataset import open_dataset
from rfxray.data.pixels import to_float, to_uint16
from rfxray.errors import ConfigError, DataError
from rfxray.outputs import contact_sheet, dicom, files
from rfxray.outputs.files import saving
from rfxray.runtime import distributed
from rfxray.sampling import editing
from rfxray.sampling.editing import EditSettings
from rfxray.sampling.samples import refuse_folder

STRIPS = {"guidance": (1.0, 2.0, 3.0, 4.0, 5.0), "strength": (0.3, 0.5, 0.7, 0.9, 1.0)}
SAYS = {"Software": "rfxray", "Description": dicom.EDITED}

# Of the flags that only some methods read, those that the others leave unread.
UNREAD = {
    "invert": (),
    "noise": ("corrections", "floor"),
    "flow": ("solver", "corrections", "floor"),
}


# ---------------------------------------------------------------------------------------------
# What is given


def read_square(path: Path, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """A radiograph file as the model's square: ([size, size] float32 in [−1, 1], its own size).

    Raises:
      DataError: where the file is no whole grey radiograph of one frame, with the reason.
      ConfigError: where the decoders are not installed.
    """
    reader = _reader()
    try:
        found = reader.read(path)
        image = reader.square(found, size)["image"]
    except reader.Refused as refusal:
        raise DataError(f"{path}: {refusal}") from None
    return to_float(image), found.pixels.shape


def read_mask(path: Path, original: tuple[int, int], size: int) -> np.ndarray:
    """A mask file as [size, size] float32 in [0, 1], placed as the radiograph was.

    Raises:
      ConfigError: where it is of neither the radiograph's size nor the model's, or black.
      DataError: where it cannot be read, or is in colour.
    """
    try:
        levels = files.read_png(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no mask that can be read: {error}") from error
    if not levels.any():
        raise ConfigError(f"the mask {path} is black everywhere, so it says nothing")
    mask = levels.astype(np.float32) / levels.max()
    if mask.shape == (size, size):
        return mask
    if mask.shape != tuple(original):
        found, wanted = (" × ".join(map(str, shape)) for shape in (mask.shape, original))
        raise ConfigError(f"the mask {path} is {found} pixels and the radiograph {wanted}")
    return _reader().to_square(mask, size)[0]


def conditions(told: dict[str, str], change: dict[str, str]) -> tuple[Attributes, Attributes]:
    """(source, target), one row each; No Finding follows where the findings settle it."""
    source = vocabulary.encode(told)
    both = {**told, **change}
    if "no_finding" not in change and _unsettled(told, change):
        both.pop("no_finding", None)
    target = vocabulary.derive_no_finding(vocabulary.encode(both))
    return vocabulary.stack([source]), vocabulary.stack([target])


def _unsettled(told: dict[str, str], change: dict[str, str]) -> bool:
    """Whether No Finding may be another after the change.

    Present, it says of every pathology that it is absent, so a change to that changes nothing;
    absent, it stays so with a pathology that is present.
    """
    allowed = (1 - vocabulary.encode_value("no_finding", told.get("no_finding"))[0], True)
    return any(
        vocabulary.encode_value(name, value)
        not in (allowed, vocabulary.encode_value(name, told.get(name)))
        for name, value in change.items()
        if name in PATHOLOGY_NAMES
    )


def propagated(source: Attributes, change: dict[str, str], arguments) -> tuple[Attributes, dict]:
    """The target with what descends from the change, and the chance of each descendant.

    Raises:
      ConfigError: for a change to "unknown", from which nothing follows.
    """
    do = {}
    for name, value in change.items():
        do[name], known = vocabulary.encode_value(name, value)
        if not known:
            raise ConfigError(f"--set {name}={value} with --propagate: say which value it takes")
    model = logistic.fit_dataset(
        logistic.read_graph(arguments.graph or logistic.GRAPH), open_dataset(arguments.propagate)
    )
    target, chances = logistic.counterfactual(model, source, do, arguments.seed)
    told = {
        name: {
            "probability": round(float(chance[0]), 3),
            "now": vocabulary.decode_value(name, target.values[0, INDEX[name]], True),
        }
        for name, chance in chances.items()
        if target.known[0, INDEX[name]]
    }
    return target, told


# ---------------------------------------------------------------------------------------------
# What is written


def difference(edited: np.ndarray, original: np.ndarray) -> np.ndarray:
    """What an edit changed, as colour on white: [height, width, 3] uint8.

    Red where it became brighter, blue where darker, full at a quarter of the range.
    """
    amount = np.clip((edited - original) / 0.5, -1, 1)
    fade = 255 * (1 - np.abs(amount))
    red, blue = (np.where(side, 255, fade) for side in (amount >= 0, amount <= 0))
    return np.round(np.stack([red, fade, blue], axis=-1)).astype(np.uint8)


def strip(original: np.ndarray, edits: dict[str, np.ndarray]) -> np.ndarray:
    """The original and edits in a row, below each what changed (grey: nothing): uint8."""
    images = [original, *edits.values()]
    rows = [images, [0.5 * (image - original) for image in images]]
    return contact_sheet.table(
        pixels.to_uint8(np.array(rows)), ["picture", "change"], ["original", *edits]
    )


def settings_of(arguments: argparse.Namespace) -> EditSettings:
    if arguments.inpaint:
        if arguments.mask or arguments.keep:
            raise ConfigError("--inpaint is a mask already; leave --mask and --keep out")
        if arguments.method not in (None, "noise"):
            raise ConfigError(f"--inpaint draws by --method noise, not {arguments.method}")
    given = settings_given(arguments, EditSettings)
    settings = EditSettings(**given | ({"method": "noise"} if arguments.inpaint else {}))
    refuse_unread(arguments, UNREAD[settings.method], f"--method {settings.method}")
    if settings.guide != "factored":
        refuse_unread(arguments, ["unchanged"], f"--guide {settings.guide}")
    if not arguments.propagate:
        refuse_unread(arguments, ["graph"], "an edit without --propagate")
    editing.refuse_masks(settings, bool(arguments.mask), bool(arguments.keep or arguments.inpaint))
    return settings


def edit(arguments: argparse.Namespace) -> None:
    """What the command does.

    Raises:
      ConfigError, DataError: for what cannot be edited, see `read_square` and `editing`.
      NonFiniteError, SaveFailed: where an edit is no picture, or cannot be written.
    """
    settings = settings_of(arguments)
    told, change = vocabulary.parse(arguments.told), vocabulary.parse(arguments.set)
    refuse_folder(arguments.out)
    source, target = conditions(told, change)
    # What is drawn anew may show what was there before.
    if not arguments.inpaint and not editing.changed(source, target).any():
        raise ConfigError("nothing would change: --set says what --from says already, or nothing")
    follows = {}
    if arguments.propagate:
        target, follows = propagated(source, change, arguments)
    model = sampling.load(arguments.checkpoint, arguments.ema, arguments.step)
    size = model.size
    original, shape = read_square(arguments.image, size)
    mask, keep, hole = (
        read_mask(path, shape, size) if path else None
        for path in (arguments.mask, arguments.keep, arguments.inpaint)
    )
    # A pixel that a mask touches at all is kept, or drawn anew.
    keep = keep > 0 if keep is not None else None if hole is None else hole <= 0
    print(f"rfxray.edit: {arguments.image} at {size}², {settings.method}, {settings.guide}")
    for name, what in follows.items():
        print(f"rfxray.edit: follows: {name}={what['now']} (probability {what['probability']})")

    path = None
    if settings.method != "flow":
        path = editing.abduct(model, original[None], source, settings)

    def make(how: EditSettings) -> np.ndarray:
        if path is not None and how.strength == settings.strength:
            return editing.predict(model, path, source, target, how, mask, keep)[0]
        return editing.edit(model, original[None], source, target, how, mask, keep)[0]

    edited = make(settings)
    variants = {
        f"{arguments.strip} {value:g}": make(
            dataclasses.replace(settings, **{arguments.strip: value})
        )
        for value in STRIPS[arguments.strip]
        if arguments.strip == "guidance" or value > settings.low
    }
    command = ["python", "-m", "rfxray.edit", *map(str, arguments.argv)]
    if arguments.step is None:
        command += ["--step", str(model.source["step"])]
    entry = {
        "synthetic": True,
        "edit_of": arguments.image.name,
        "image_sha256": _sha256(arguments.image),
        "masks_sha256": {
            name: _sha256(getattr(arguments, name))
            for name in ("mask", "keep", "inpaint")
            if getattr(arguments, name)
        },
        "index": 0,
        "from": told,
        "set": change,
        "follows": follows,
        "attributes": vocabulary.decode(target.rows(0)),
        **dataclasses.asdict(settings),
        **model.source,
        "mean_absolute_change": round(float(np.abs(edited - original).mean() * 127.5), 3),
        "command": shlex.join(command),
    }
    out = arguments.out
    with saving(out):
        out.mkdir(parents=True, exist_ok=True)
        files.save_png(out / "original.png", to_uint16(original), {"Software": "rfxray"})
        files.save_png(out / "edited.png", to_uint16(edited), {**SAYS, "rfxray": entry})
        files.save_png(out / "difference.png", difference(edited, original), SAYS)
        files.save_png(out / "strip.png", strip(original, variants), SAYS)
        if arguments.dicom:
            dicom.save(
                out / "edited.dcm", to_uint16(edited), entry, f"edited from {arguments.image.name}"
            )
        files.write_whole(out / "edit.json", (json.dumps(entry, indent=1) + "\n").encode())
    print(f"rfxray.edit: edited.png, difference.png, strip.png and edit.json in {out}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reader():
    """What turns files into squares; it needs the decoders of the extra `prep`."""
    try:
        from rfxray.data import radiograph
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"reading radiographs needs {error.name}: pip install -e '.[prep]'"
        ) from error
    return radiograph


def parser() -> argparse.ArgumentParser:
    p = ArgumentParser(
        prog="python -m rfxray.edit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = EditSettings()
    p.add_argument("--checkpoint", required=True, metavar="WORKDIR", help="of rfxray.train")
    p.add_argument("--image", required=True, type=Path, metavar="FILE", help="PNG, JPEG or DICOM")
    p.add_argument("--out", required=True, type=Path, metavar="DIR")
    p.add_argument("--from", action="append", default=[], dest="told", metavar="NAME=VALUE")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    p.add_argument("--mask", type=Path, metavar="PNG", help="white: edit only here")
    p.add_argument("--keep", type=Path, metavar="PNG", help="white: keep to the last bit")
    p.add_argument("--inpaint", type=Path, metavar="PNG", help="white: draw anew, keep the rest")
    p.add_argument("--propagate", metavar="DATA", help="fit the causal model to that data set")
    p.add_argument("--graph", type=Path, metavar="JSON", help="other edges of --propagate")
    how = p.add_argument_group("how it is edited (docs/sampling.md)")
    methods = ", ".join(editing.METHODS)
    how.add_argument("--method", help=f"{methods} ({defaults.method}; noise with --inpaint)")
    how.add_argument("--guide", default=defaults.guide, help=", ".join(editing.GUIDES))
    how.add_argument("--guidance", type=float, default=defaults.guidance, help="of what is changed")
    how.add_argument("--unchanged", type=float, help="of the rest (with --guide factored)")
    how.add_argument("--strength", type=float, default=1.0, help="how far towards noise, to 1")
    how.add_argument("--floor", type=float, help=f"where inversion begins ({defaults.floor})")
    how.add_argument("--steps", type=int, default=defaults.steps)
    how.add_argument("--solver", help=f"of invert and noise ({defaults.solver})")
    how.add_argument("--corrections", type=int, help=f"of inversion ({defaults.corrections})")
    how.add_argument("--seed", type=int, default=0)
    how.add_argument("--strip", default="guidance", choices=STRIPS, help="what strip.png varies")
    how.add_argument("--ema", type=float, default=0.05, help="relative width of the EMA profile")
    how.add_argument("--step", type=int, help="of the checkpoint; the newest by default")
    how.add_argument("--dicom", action="store_true", help="also write edited.dcm")
    return p


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    arguments = parser().parse_args(argv)
    arguments.argv = argv
    with exit_on_error("rfxray.edit"):
        distributed.start()
        edit(arguments)


if __name__ == "__main__":
    main()
