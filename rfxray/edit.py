"""Changes one thing in a radiograph: `python -m rfxray.edit --checkpoint WORKDIR --image FILE …`.

    --from view=AP --from sex=M           what the radiograph shows, as far as you know it
    --set cardiomegaly=absent             what it is to show instead
    --mask lungs.png                      edit only where this is white
    --keep heart.png                      change nothing where this is white
    --inpaint hole.png                    redraw where this is white (by noise), keep the rest
    --propagate DATA                      findings that the change causes follow (rfxray.causes)

A mask is a grey PNG of the size of the radiograph in its file, or of the images of the model.
Attributes are view, sex, race, age, source and 14 findings (present or absent), all listed in
rfxray/attributes/vocabulary.py. The radiograph is read as data_prep reads it: made square and
16-bit grey, at the size of the model's images.

Writes `original.png`, `edited.png` (and .dcm with --dicom), `difference.png` (red is brighter, blue
darker), `strip.png` (the edit at several values of --strip) and `edit.json`, which names the
`command` that makes them again.
"""

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rfxray import stop_signals
from rfxray.attributes import vocabulary
from rfxray.attributes.listing import add_list
from rfxray.attributes.vocabulary import INDEX, Attributes
from rfxray.causes import logistic
from rfxray.causes.abduction import counterfactual
from rfxray.command_line import (
    ArgumentParser,
    add_allow_kind,
    exit_on_error,
    refuse_unread,
    settings_given,
)
from rfxray.data.dataset import Dataset, open_dataset
from rfxray.errors import ConfigError
from rfxray.outputs.files import file_sha256, saving
from rfxray.runtime import distributed
from rfxray.sampling import editing, edits, samples
from rfxray.sampling.editing import EditSettings
from rfxray.sampling.interventions import before_and_after, changed
from rfxray.sampling.pretrained import Model, load
from rfxray.sampling.radiographs import read_mask, read_square
from rfxray.sampling.solvers import SOLVERS

STRIPS = {"guidance": (1.0, 2.0, 3.0, 4.0, 5.0), "strength": (0.3, 0.5, 0.7, 0.9, 1.0)}

# Of the flags that only some methods read, those that the others leave unread.
UNREAD = {
    "invert": (),
    "noise": ("corrections", "floor"),
    "flow": ("solver", "corrections", "floor"),
}


@dataclasses.dataclass(frozen=True)
class EditRequest:
    """What the command was asked to edit.

    Attributes:
      checkpoint: Workdir of `rfxray.train`.
      image: File of the radiograph.
      out: Directory that is written.
      shown: What the radiograph shows, as far as it is known.
      change: What it is to show instead.
      settings: Settings of the edit.
      masks: Files of the masks that are given, by `mask`, `keep` and `inpaint`.
      propagate: Data set to fit the causal model to; None lets nothing follow.
      graph: File of the causal graph.
      strip: Setting that `strip.png` varies, a key of `STRIPS`.
      ema: Relative width of the EMA profile.
      step: Step of the checkpoint; the newest when None.
      dicom: Whether to write a DICOM file too.
      allow_kinds: Kinds outside of rfxray that may be run.
      words: Words of the command line.

    Raises:
      ConfigError: for fields that do not go together.
    """

    checkpoint: Path
    image: Path
    out: Path
    shown: Mapping[str, str]
    change: Mapping[str, str]
    settings: EditSettings
    masks: Mapping[str, Path]
    propagate: str | None
    graph: Path
    strip: str
    ema: float
    step: int | None
    dicom: bool
    allow_kinds: Sequence[str]
    words: Sequence[str]

    def __post_init__(self):
        source, target = before_and_after(self.shown, self.change)
        # Inpainting may draw what was there before.
        if "inpaint" not in self.masks and not changed(source, target).any():
            raise ConfigError(
                "nothing would change: --set must give at least one attribute a value that differs "
                "from --from"
            )
        if self.propagate:
            for name, value in self.change.items():
                if not vocabulary.encode_value(name, value)[1]:
                    raise ConfigError(
                        f"--propagate needs the new value of {name}; give --set {name}=VALUE an "
                        f"actual value (got {value!r})"
                    )

    def command(self, model: Model) -> str:
        """A command that makes the same edit when the run has continued."""
        words = ["python", "-m", "rfxray.edit", *self.words]
        if self.step is None:
            words += ["--step", str(model.source["step"])]
        return shlex.join(words)


# ---------------------------------------------------------------------------------------------
# Flags


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
        refuse_unread(arguments, ["graph"], "an edit without --propagate")
    editing.refuse_masks(settings, bool(arguments.mask), bool(arguments.keep or arguments.inpaint))
    return settings


def request_of(arguments: argparse.Namespace, words: Sequence[str]) -> EditRequest:
    """The request that the parsed flags make.

    Raises:
      ConfigError: for flags that are wrong, or do not go together.
    """
    paths = {name: getattr(arguments, name) for name in ("mask", "keep", "inpaint")}
    return EditRequest(
        checkpoint=arguments.checkpoint,
        image=arguments.image,
        out=arguments.out,
        shown=vocabulary.parse(arguments.shown),
        change=vocabulary.parse(arguments.set),
        settings=settings_of(arguments),
        masks={name: path for name, path in paths.items() if path},
        propagate=arguments.propagate,
        graph=arguments.graph or logistic.GRAPH,
        strip=arguments.strip,
        ema=arguments.ema,
        step=arguments.step,
        dicom=arguments.dicom,
        allow_kinds=arguments.allow_kind,
        words=words,
    )


# ---------------------------------------------------------------------------------------------
# What the command does


def run(request: EditRequest) -> None:
    """Loads the model, reads the radiograph, edits, writes.

    Raises:
      ConfigError, DataError: for what cannot be edited, see `read_square` and `editing`.
      NonFiniteError, SaveFailed: if an edit is not finite, or cannot be written.
    """
    settings = request.settings
    samples.refuse_folder(request.out)
    source, target = before_and_after(request.shown, request.change)
    follows = {}
    if request.propagate:
        target, follows = propagated(source, request, open_dataset(request.propagate))
    model = load(request.checkpoint, request.ema, request.step, allow_kinds=request.allow_kinds)
    original, shape = read_square(request.image, model.size)
    masks = {name: read_mask(path, shape, model.size) for name, path in request.masks.items()}
    print(f"rfxray.edit: {request.image} at {model.size}², {settings.method}, {settings.guide}")
    for name, what in follows.items():
        print(f"rfxray.edit: follows: {name}={what['now']} (probability {what['probability']})")
    made = variants(model, original, source, target, request, masks)
    entry = {
        "synthetic": True,
        "edit_of": request.image.name,
        "image_sha256": file_sha256(request.image),
        "masks_sha256": {name: file_sha256(path) for name, path in request.masks.items()},
        "index": 0,
        "from": request.shown,
        "set": request.change,
        "follows": follows,
        "attributes": vocabulary.decode(target.rows(0)),
        **dataclasses.asdict(settings),
        **model.source,
        "mean_absolute_change": made.mean_absolute_change,
        "command": request.command(model),
    }
    with saving(request.out):
        edits.save_edit(made, entry, request.out, request.dicom)
    print(f"rfxray.edit: edited.png, difference.png, strip.png and edit.json in {request.out}")


def propagated(
    source: Attributes, request: EditRequest, dataset: Dataset
) -> tuple[Attributes, dict[str, dict[str, object]]]:
    """The attributes [1, 19] after the change and what follows from it, by a model of a data set.

    Returns:
      Attributes, and of each descendant that is known its `probability` of being present and the
      value that it has `now`.
    """
    do = {name: vocabulary.encode_value(name, value)[0] for name, value in request.change.items()}
    model = logistic.fit_dataset(logistic.read_graph(request.graph), dataset)
    target, chances = counterfactual(model, source, do, request.settings.seed)
    follows = {
        name: {
            "probability": round(float(chance[0]), 3),
            "now": vocabulary.decode_value(name, float(target.values[0, INDEX[name]]), True),
        }
        for name, chance in chances.items()
        if target.known[0, INDEX[name]]
    }
    return target, follows


def variants(
    model: Model,
    original: np.ndarray,
    source: Attributes,
    target: Attributes,
    request: EditRequest,
    masks: Mapping[str, np.ndarray],
) -> edits.Edit:
    """The edit, and the same over a range of guidance or strength.

    Args:
      model: Model from `load`.
      original: Image, [size, size] float32 in [−1, 1].
      source, target: Attributes before and after, [1, 19].
      request: Request of which the settings and `strip` are read.
      masks: Masks [size, size] by `mask`, `keep` and `inpaint`.
    """
    settings, mask, keep = request.settings, masks.get("mask"), None
    # A pixel that a mask touches at all is kept, or redrawn.
    if "keep" in masks:
        keep = masks["keep"] > 0
    elif "inpaint" in masks:
        keep = masks["inpaint"] <= 0
    path = None
    if settings.method != "flow":
        path = editing.abduct(model, original[None], source, settings)

    def make(how: EditSettings) -> np.ndarray:
        if path is not None and how.strength == settings.strength:
            return editing.predict(model, path, source, target, how, mask, keep)[0]
        return editing.edit(model, original[None], source, target, how, mask, keep)[0]

    others = {
        f"{request.strip} {value:g}": dataclasses.replace(settings, **{request.strip: value})
        for value in STRIPS[request.strip]
        if request.strip == "guidance" or value > settings.low
    }
    edited = make(settings)
    return edits.Edit(original, edited, {label: make(how) for label, how in others.items()})


# ---------------------------------------------------------------------------------------------
# The command line


def parser() -> argparse.ArgumentParser:
    p = ArgumentParser(
        prog="python -m rfxray.edit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    d = EditSettings()
    add = p.add_argument
    add_list(p)
    add(
        "--checkpoint",
        required=True,
        type=Path,
        metavar="WORKDIR",
        help="--workdir of rfxray train",
    )
    add("--image", required=True, type=Path, metavar="FILE", help="PNG, JPEG or DICOM file")
    add("--out", required=True, type=Path, metavar="DIR", help="folder to create or to write into")
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
        type=Path,
        metavar="PNG",
        help="mask: edit only where it is white, in part where it is grey (default: everywhere)",
    )
    add(
        "--keep",
        type=Path,
        metavar="PNG",
        help="mask: pixels where it is not black stay exactly as they are (default: none)",
    )
    add(
        "--inpaint",
        type=Path,
        metavar="PNG",
        help="mask: redraw where it is not black, all other pixels stay exactly as they are "
        "(default: no inpainting)",
    )
    add(
        "--propagate",
        metavar="DATA",
        help="data set folder to fit a causal model of the attributes to; findings that the change "
        "causes then follow it (default: nothing follows)",
    )
    add(
        "--graph",
        type=Path,
        metavar="JSON",
        help="for --propagate: which attributes act on which "
        f"(default: rfxray/attributes/{logistic.GRAPH.name})",
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
        default="guidance",
        choices=STRIPS,
        help=f"what strip.png varies ({ranges}) (default: guidance)",
    )
    add(
        "--ema",
        type=float,
        default=0.05,
        help="which average of the weights: its width as a fraction of the training so far "
        "(default: 0.05)",
    )
    add("--step", type=int, help="training step of the checkpoint (default: the newest)")
    add("--dicom", action="store_true", help="write edited.dcm too (default: off)")
    add_allow_kind(how)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    words = list(sys.argv[1:] if argv is None else argv)
    with exit_on_error("rfxray.edit"):
        distributed.start()
        stop_signals.hear_again()  # on several hosts JAX takes SIGTERM, for what only training does
        run(request_of(arguments, words))


if __name__ == "__main__":
    main()
