"""Changes one thing in a radiograph: `python -m rfxray.edit --checkpoint WORKDIR --image FILE …`.

    --from view=AP --from sex=M           what the radiograph shows, as far as you know it
    --set cardiomegaly=absent             what it is to show instead
    --mask lungs.png                      edit only where this is white
    --keep heart.png                      change nothing where this is white
    --inpaint hole.png                    redraw where this is white (by noise), keep the rest
    --propagate MODEL                     findings that the change causes follow (rfxray causes)
    --csv edits.csv                       several radiographs: columns image, from, set, name

A mask is a grey PNG of the size of the radiograph in its file, or of the images of the model.
Attributes are view, sex, race, age, source and 14 findings (present or absent); --list prints all
with their values. The radiograph is read as data_prep reads it: made square and 16-bit grey, at the
size of the model's images. What pads it to the square never changes.

Writes `original.png`, `edited.png` (and .dcm with --dicom), `mask.png` (white where pixels
changed), `difference.png` (red is brighter, blue darker), and `edit.json`, which names the
`command` that makes them again; with --native also the same change in the file's own pixels. With
--csv each row has a folder of its own in --out: by its name, or numbered. To continue after an
interruption, run the same command again.
"""

import argparse
import csv
import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from rfxray.attributes import vocabulary
from rfxray.attributes.listing import add_list
from rfxray.command_line import (
    ArgumentParser,
    data_folder,
    local_path,
    refuse_unread,
    settings_given,
    words_of,
)
from rfxray.errors import ConfigError, DataError
from rfxray.sampling import editing, model_flags
from rfxray.sampling.editing import EditSettings
from rfxray.sampling.file_names import file_stem, refuse_alike
from rfxray.sampling.interventions import before_and_after, changed
from rfxray.sampling.pretrained import Model
from rfxray.sampling.solvers import SOLVERS

STRIPS = {"guidance": (1.0, 2.0, 3.0, 4.0, 5.0), "strength": (0.3, 0.5, 0.7, 0.9, 1.0)}
COLUMNS = ("image", "from", "set", "name")  # of --csv; only the first is required
MASKS = ("mask", "keep", "inpaint")
MOST_TWINS = 1000

# Of the flags that only some methods read, those that the others leave unread.
UNREAD = {
    "invert": (),
    "noise": ("corrections", "floor"),
    "flow": ("solver", "corrections", "floor"),
}


@dataclasses.dataclass(frozen=True)
class Change:
    """What is to change in one radiograph.

    Attributes:
      image: File of the radiograph.
      folder: Name of the folder of its edit in `out`; empty for `out` itself.
      shown: What the radiograph shows, as far as it is known.
      change: What it is to show instead.
      twin: Number of the twin, of which each has its own draw of what follows.
    """

    image: Path
    folder: str
    shown: Mapping[str, str]
    change: Mapping[str, str]
    twin: int = 0


@dataclasses.dataclass(frozen=True)
class EditRequest:
    """What the command was asked to edit.

    Attributes:
      checkpoint: Workdir of `rfxray.train` or folder of `rfxray export`; None for the packaged one.
      changes: Radiographs and what is to change in each.
      out: Directory that is written.
      settings: Settings of the edits.
      masks: Files of the masks that are given, by `mask`, `keep` and `inpaint`.
      propagate: Folder of a causal model, or data set to fit one to; None lets nothing follow.
      graph: File of the causal graph; None for that of rfxray.
      strip: Setting that `strip.png` varies, a key of `STRIPS`; None draws no strip.
      ema: Relative width of the EMA profile; see `load` for None.
      step: Step of the checkpoint; the newest, or that which `out` began with, when None.
      dicom: Whether to write a DICOM file too.
      native: Whether to carry the change back to the pixels of the file.
      anonymous: Whether the records leave out the names of files that were given.
      allow_kinds: Kinds outside of rfxray that may be run.
      vae: Folder of the autoencoder of a model of latents; its own copy when None.
      words: Words of the command line, for the record.
    """

    checkpoint: Path | None
    changes: tuple[Change, ...]
    out: Path
    settings: EditSettings
    masks: Mapping[str, Path]
    propagate: str | None
    graph: Path | None
    strip: str | None
    ema: float | None
    step: int | None
    dicom: bool
    native: bool
    anonymous: bool
    allow_kinds: Sequence[str]
    vae: Path | None
    words: Sequence[str]

    def command(self, model: Model) -> str:
        """A command that makes the same edits when the run has continued, from the step used."""
        words = ["python", "-m", "rfxray.edit", *self.words]
        if self.step is None:
            words += ["--step", str(model.source["step"])]
        return shlex.join(words)


def settings_of(arguments: argparse.Namespace) -> EditSettings:
    """The settings that the flags give, if each of them is read."""
    if arguments.inpaint:
        if arguments.mask or arguments.keep:
            raise ConfigError("--inpaint is a mask already; leave --mask and --keep out")
        if arguments.method not in (None, "noise"):
            raise ConfigError(f"--inpaint needs --method noise, not {arguments.method}")
    given = settings_given(arguments, EditSettings)
    if arguments.inpaint:
        given["method"] = "noise"
    settings = EditSettings(**given)
    refuse_unread(arguments, UNREAD[settings.method], f"--method {settings.method}")
    if settings.guide != "factored":
        refuse_unread(arguments, ["unchanged"], f"--guide {settings.guide}")
    if not arguments.propagate:
        refuse_unread(arguments, ["graph", "twins"], "an edit without --propagate")
    editing.refuse_masks(settings, bool(arguments.mask), bool(arguments.keep or arguments.inpaint))
    return settings


def changes_of(arguments: argparse.Namespace) -> tuple[Change, ...]:
    """What --image or the rows of --csv ask for; --from and --set are for every row.

    Raises:
      ConfigError: For a wrong attribute, row or column, or a row in which nothing would change.
      DataError: If the table cannot be read.
    """
    if (arguments.image is None) == (arguments.csv is None):
        raise ConfigError("give either --image, or --csv with a radiograph in each row")
    if arguments.image is not None:
        return (_change(arguments, arguments.image, "", [], []),)
    rows, lines = read_table(arguments.csv, arguments.anonymous)
    found = []
    for number, (row, line) in enumerate(zip(rows, lines, strict=True)):
        shown, change = (
            [part.strip() for part in row.get(column, "").split(";") if part.strip()]
            for column in ("from", "set")
        )
        try:
            folder = file_stem(row["name"]) if "name" in row else f"{number:05d}"
            image = arguments.csv.parent / row["image"]
            found.append(_change(arguments, image, folder, shown, change))
        except ConfigError as error:
            raise ConfigError(f"{arguments.csv}, {line}: {error}") from None
    refuse_alike([each.folder for each in found], lines)
    return tuple(found)


def read_table(path: Path, anonymous: bool) -> tuple[list[dict[str, str]], list[str]]:
    """The rows of a table of edits by column, and of each where it stands, such as `line 2`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", strict=True)
            rows, lines = [], []
            for row in reader:
                if "" in row or None in row.values():
                    raise DataError(f"{path}, line {reader.line_num}: not as many cells as columns")
                rows.append({name.strip(): text.strip() for name, text in row.items()})
                lines.append(f"line {reader.line_num}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the table {path} cannot be read: {error}") from error
    if not rows:
        raise DataError(f"the table {path} has no rows; its header is {','.join(COLUMNS)}")
    if wrong := [name for name in rows[0] if name not in COLUMNS]:
        raise ConfigError(f"{path} has a column {wrong[0]!r}; it may have {', '.join(COLUMNS)}")
    if "image" not in rows[0]:
        raise ConfigError(f"{path} has no column image with the file of each radiograph")
    if anonymous and "name" in rows[0]:
        raise ConfigError(f"--anonymous numbers the folders; leave the column name out of {path}")
    for row, line in zip(rows, lines, strict=True):
        if not row["image"]:
            raise ConfigError(f"{path}, {line}: no image; give the file of a radiograph")
    return rows, lines


def _change(arguments, image: Path, folder: str, shown: list, change: list) -> Change:
    made = Change(
        image,
        folder,
        vocabulary.parse([*arguments.shown, *shown]),
        vocabulary.parse([*arguments.set, *change]),
    )
    source, target = before_and_after(made.shown, made.change)
    # Inpainting may draw what was there before.
    if not arguments.inpaint and not changed(source, target).any():
        raise ConfigError(
            "nothing would change: --set must give at least one attribute a value that differs "
            "from --from"
        )
    if arguments.propagate:
        for name, value in made.change.items():
            if not vocabulary.encode_value(name, value)[1]:
                raise ConfigError(
                    f"--propagate needs the new value of {name}; give --set {name}=VALUE an "
                    f"actual value (got {value!r})"
                )
    return made


def with_twins(changes: Sequence[Change], twins: int | None) -> tuple[Change, ...]:
    """The changes, or of each as many twins in folders of their own.

    Raises:
      ConfigError: For fewer than one twin.
    """
    if twins is None:
        return tuple(changes)
    if not 1 <= twins <= MOST_TWINS:
        raise ConfigError(f"--twins must be from 1 to {MOST_TWINS} (got {twins})")
    return tuple(
        dataclasses.replace(each, folder="_".join(filter(None, (each.folder, f"twin_{k}"))), twin=k)
        for each in changes
        for k in range(twins)
    )


def request_of(arguments: argparse.Namespace) -> EditRequest:
    """The request that the parsed flags make.

    Raises:
      ConfigError: For flags that are wrong, or do not go together.
      DataError: If the table of --csv cannot be read.
    """
    paths = {name: getattr(arguments, name) for name in MASKS}
    hidden = ("image", "csv", "out", *MASKS)
    return EditRequest(
        checkpoint=arguments.checkpoint,
        changes=with_twins(changes_of(arguments), arguments.twins),
        out=arguments.out,
        settings=settings_of(arguments),
        masks={name: path for name, path in paths.items() if path},
        propagate=arguments.propagate,
        graph=arguments.graph,
        strip=arguments.strip,
        ema=arguments.ema,
        step=arguments.step,
        dicom=arguments.dicom,
        native=arguments.native,
        anonymous=arguments.anonymous,
        allow_kinds=arguments.allow_kind,
        vae=arguments.vae,
        words=words_of(parser(), arguments, hidden if arguments.anonymous else ()),
    )


def parser() -> argparse.ArgumentParser:
    p = ArgumentParser(
        prog="python -m rfxray.edit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    d = EditSettings()
    add = p.add_argument
    add_list(p)
    model_flags.add_places(p)
    add(
        "--image",
        type=local_path,
        metavar="FILE",
        help="PNG, JPEG or DICOM file (default: those of --csv)",
    )
    add(
        "--csv",
        type=local_path,
        metavar="FILE",
        help="table of edits: image (a file, from the folder of the table), from and set (such as "
        "view=AP;sex=M, beside --from and --set), name (of its folder) (default: one --image)",
    )
    add(
        "--from",
        action="append",
        default=[],
        dest="shown",
        metavar="NAME=VALUE",
        help="attribute that the radiograph is known to show, such as view=AP; optional, "
        "repeatable (default: unknown)",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="attribute to change, such as cardiomegaly=absent; repeatable, optional only with "
        "--inpaint (default: unchanged)",
    )
    add(
        "--mask",
        type=local_path,
        metavar="PNG",
        help="mask: edit only where it is white, in part where it is grey (default: everywhere)",
    )
    add(
        "--keep",
        type=local_path,
        metavar="PNG",
        help="mask: pixels where it is not black stay exactly as they are (default: none)",
    )
    add(
        "--inpaint",
        type=local_path,
        metavar="PNG",
        help="mask: redraw where it is not black, all other pixels stay exactly as they are "
        "(default: no inpainting)",
    )
    add(
        "--propagate",
        type=data_folder,
        metavar="DATA|MODEL",
        help="folder of rfxray causes fit, or a data set to fit a causal model to at once; "
        "findings that the change causes then follow it (default: nothing follows)",
    )
    add(
        "--graph",
        type=local_path,
        metavar="FILE",
        help="for --propagate with a data set: which attributes act on which "
        "(default: rfxray/attributes/graph.json)",
    )
    add(
        "--twins",
        type=int,
        metavar="K",
        help="for --propagate: so many edits of each radiograph, each with its own draw of what "
        "follows, in folders twin_0, twin_1, … (default: one edit, without a folder of its own)",
    )
    how = p.add_argument_group(
        "how it is edited (docs/sampling.md)", "Time 1 is pure noise, time 0 the image."
    )
    add = how.add_argument
    add(
        "--method",
        help="invert: find the noise that the image comes from, and draw from it again; noise: add "
        "new noise and draw from it; flow: go from image to image without finding its noise "
        f"(FlowEdit), the fastest (default: {d.method}; noise with --inpaint)",
    )
    add(
        "--guide",
        default=d.guide,
        help="contrast: strengthen the changed attributes, given the others; factored: strengthen "
        "these and the others separately, by --guidance and --unchanged; plain: strengthen all "
        f"(default: {d.guide})",
    )
    add(
        "--guidance",
        type=float,
        default=d.guidance,
        help="weight of the changed attributes (--guide plain: of all): 1 is off, higher shows "
        f"them more strongly (default: {d.guidance:g})",
    )
    add(
        "--unchanged",
        type=float,
        help=f"weight of the other attributes, for --guide factored (default: {d.unchanged:g})",
    )
    add(
        "--strength",
        type=float,
        default=d.strength,
        help="time up to which the image is taken towards noise; lower changes less "
        f"(default: {d.strength:g})",
    )
    add(
        "--floor",
        type=float,
        help="for --method invert: time at which it begins and ends; detail too fine for the model "
        f"is copied from the image there (default: {d.floor:g})",
    )
    add(
        "--steps",
        type=int,
        default=d.steps,
        help=f"solver steps; --method invert takes them twice (default: {d.steps})",
    )
    add(
        "--solver",
        help=f"for --method invert (one-step solvers only) and noise: {', '.join(SOLVERS)} "
        f"(default: {d.solver})",
    )
    add(
        "--corrections",
        type=int,
        help="for --method invert: fixed-point iterations per step; more invert it more exactly "
        f"(default: {d.corrections})",
    )
    add("--seed", type=int, default=d.seed, help=f"seed of added noise (default: {d.seed})")
    ranges = "; ".join(f"{name}: {low:g} to {high:g}" for name, (low, *_, high) in STRIPS.items())
    add(
        "--strip",
        choices=STRIPS,
        help=f"write strip.png, the edit at five values of this setting ({ranges}); costs up to "
        "five more edits (default: no strip)",
    )
    model_flags.add_weights(how)
    model_flags.add_vae(how)
    add("--dicom", action="store_true", help="write edited.dcm too (default: off)")
    add(
        "--native",
        action="store_true",
        help="write native.png or native.dcm too: the change in the pixels of the file, at their "
        "size and bits; all other pixels are the same (default: off)",
    )
    add(
        "--anonymous",
        action="store_true",
        help="leave the names of the given files out of edit.json too; no other file that is "
        "written has them (default: off)",
    )
    return p
