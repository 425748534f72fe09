"""Changes one thing in radiographs: the command `rfxray edit`; its flags are in
`rfxray/sampling/edit_flags.py`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rfxray import version
from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import INDEX, Attributes
from rfxray.causes import effects, fitting, folder, tables
from rfxray.causes.abduction import counterfactual
from rfxray.causes.graph import GRAPH, read_graph
from rfxray.causes.mechanisms import StructuralModel
from rfxray.command_line import Progress, exit_on_error
from rfxray.data.dataset import open_dataset
from rfxray.errors import ConfigError
from rfxray.outputs import lock
from rfxray.outputs.files import file_sha256, remove_temporary, saving
from rfxray.runtime import distributed
from rfxray.sampling import distance, edit_flags, edit_folder, editing, edits, samples
from rfxray.sampling.edit_flags import STRIPS, Change, EditRequest
from rfxray.sampling.editing import EditSettings
from rfxray.sampling.interventions import before_and_after
from rfxray.sampling.model_flags import described, is_run
from rfxray.sampling.pretrained import Model, load
from rfxray.sampling.radiographs import Given, carried_back, read_mask, read_square


@dataclasses.dataclass(frozen=True)
class Causes:
    """What lets findings follow a change.

    Attributes:
      model: Causal model of the attributes.
      record: Digests of what it comes from.
    """

    model: StructuralModel
    record: Mapping[str, str]


def run(request: EditRequest) -> None:
    """Loads the model; reads, edits and writes each radiograph.

    Raises:
      ConfigError, DataError: For what cannot be edited, see `read_square` and `editing`.
      NonFiniteError, SaveFailed: If an edit is not finite, or cannot be written.
    """
    out, settings, count = request.out, request.settings, len(request.changes)
    samples.refuse_folder(out)
    causes = fitted(request) if request.propagate else None
    if causes:
        for change in request.changes:
            effects.refuse_unsupported(causes.model, encoded(change))
    plan = plan_of(request, causes)
    step = request.step
    if step is None and is_run(request.checkpoint):
        step = edit_folder.begun_step(out, plan)
    model = load(
        request.checkpoint, request.ema, step, allow_kinds=request.allow_kinds, vae=request.vae
    )
    plan |= samples.by_content(model.source)
    edit_folder.refuse_other(out, plan)
    if count == 1:  # bad input is refused before a folder is made; of a list, when its turn comes
        check(model, request, request.changes[0])
    print(f"rfxray.edit: {described(model.source)}")
    print(
        f"rfxray.edit: {count} radiograph{'s' if count > 1 else ''} at {model.size}², "
        f"{settings.method}, {settings.guide}"
    )
    with saving(out):
        out.mkdir(parents=True, exist_ok=True)
        with lock.locked(out):
            edit_folder.claim(out, plan)
            own = of_images(plan)
            done = [edit_folder.is_done(out / c.folder, own[c.folder]) for c in request.changes]
            with Progress("rfxray.edit", count, sum(done), "edit") as progress:
                for change, is_done in zip(request.changes, done, strict=True):
                    if not is_done:
                        edit_one(model, request, change, own[change.folder], causes)
                        progress.advance()
    where = f"{out}" if count == 1 else f"the {count} folders of {out}"
    print(f"rfxray.edit: edited.png, difference.png, mask.png and edit.json in {where}")


def plan_of(request: EditRequest, causes: Causes | None) -> dict[str, Any]:
    """What decides the edits, except for the network, as JSON values; no name of a file."""
    return {
        "edits": [
            {
                "folder": each.folder,
                "image_sha256": edit_folder.image_sha256(each.image),
                "from": dict(each.shown),
                "set": dict(each.change),
                "twin": each.twin,
            }
            for each in request.changes
        ],
        "masks_sha256": {name: edit_folder.image_sha256(p) for name, p in request.masks.items()},
        "propagate": dict(causes.record) if causes else None,
        "strip": request.strip,
        "dicom": request.dicom,
        "native": request.native,
        "anonymous": request.anonymous,
        **dataclasses.asdict(request.settings),
    }


def of_images(plan: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The part of a plan that decides each edit, by the folder of the edit."""
    rest = {key: value for key, value in plan.items() if key != "edits"}
    return {
        own["folder"]: {**rest, **{key: value for key, value in own.items() if key != "folder"}}
        for own in plan["edits"]
    }


def fitted(request: EditRequest) -> Causes:
    """The causal model of --propagate: one that was fitted, or one of the data set named there."""
    assert request.propagate
    if folder.is_model(request.propagate):
        if request.graph:
            raise ConfigError(
                f"{request.propagate} was fitted to a graph of its own; leave --graph out"
            )
        model, record = folder.load(request.propagate)
        return Causes(model, {"model": record["tensors_sha256"]})
    file = request.graph or GRAPH
    graph = read_graph(file)
    dataset = open_dataset(request.propagate, latents=True)
    model = fitting.fit(graph, tables.read(request.propagate, graph))
    for note in model.notes:
        print(f"rfxray.edit: {note}")
    return Causes(model, {"data": dataset.fingerprint, "graph_sha256": file_sha256(file)})


def check(model: Model, request: EditRequest, change: Change) -> None:
    """Raises what reading a radiograph and its masks raises."""
    given = read_square(change.image, model.size)
    places(model, request, given)
    if request.native:
        carried_back(change.image, given, given.image, given.outside, request.masks)


def edit_one(
    model: Model,
    request: EditRequest,
    change: Change,
    own: Mapping[str, Any],
    causes: Causes | None,
) -> None:
    """Reads a radiograph, edits it and writes its folder, with what decides the edit."""
    source, target = before_and_after(change.shown, change.change)
    follows = {}
    if causes:
        key = f"{own['image_sha256']}/{change.twin}"
        target, follows = propagated(source, change, causes, request.settings.seed, key)
    for name, what in follows.items():
        print(f"rfxray.edit: follows: {name}={what['now']} (probability {what['probability']})")
    given = read_square(change.image, model.size)
    if given.text:
        print(
            f"rfxray.edit: the radiograph may show text ({given.text} lines), which an edit "
            "carries on; look at edited.png before you pass it on"
        )
    mask, keep = places(model, request, given)
    made = variants(model, given, source, target, request, mask, keep)
    entry = {
        "synthetic": True,
        **own,
        "index": 0,
        "follows": follows,
        "attributes": vocabulary.decode(target.rows(0)),
        "mean_absolute_change": made.mean_absolute_change,
        "content_box": list(given.content_box),
        "lines_of_text": given.text,
    }
    native = None
    if request.native:
        kept = np.zeros(given.image.shape, bool) if keep is None else keep
        native = carried_back(change.image, given, made.edited, kept, request.masks)
    record = {"command": request.command(model), "versions": version.versions()}
    record["checkpoint"] = model.source["checkpoint"]
    record |= warn_if_far(model, given)
    if not request.anonymous:
        record["path"] = str(change.image)
    folder = request.out / change.folder
    folder.mkdir(exist_ok=True)
    remove_temporary(folder)
    edits.save_edit(made, entry, record, folder, request.dicom, given.text > 0, native)


def warn_if_far(model: Model, given: Given) -> dict[str, float | None]:
    """Warns of a radiograph unlike the training data; returns its loss and the limit."""
    found = {
        "flow_loss": round(float(model.flow_losses(given.image[None])[0]), 5),
        "flow_loss_limit": model.flow_loss_limit,
    }
    if found["flow_loss_limit"] is None:
        print(
            "rfxray.edit: the run logged no flow loss of held-out images (an older run, or without "
            "evaluators.validation_loss), so nobody knows whether the radiograph is like its data"
        )
    elif found["flow_loss"] > found["flow_loss_limit"]:
        print(
            f"rfxray.edit: warning: the radiograph is far from the training data (flow loss "
            f"{found['flow_loss']:.3f}; of held-out images {distance.SHARE:.1%} are below "
            f"{found['flow_loss_limit']:.3f}); the edit may replace it by what the model knows"
        )
    return found


def encoded(change: Change) -> dict[str, float]:
    """The new value of each attribute that changes."""
    return {name: vocabulary.encode_value(name, value)[0] for name, value in change.change.items()}


def propagated(
    source: Attributes, change: Change, causes: Causes, seed: int, key: str
) -> tuple[Attributes, dict[str, dict[str, object]]]:
    """The attributes [1, 19] after the change and what follows from it, by a causal model.

    Args:
      source: Attributes before the change, [1, 19].
      change: Change.
      causes: Model.
      seed: Seed of the noise.
      key: What the noise of this twin is drawn by: the content of the radiograph and the number of
        the twin, so that no place in a table matters.

    Returns:
      Attributes, and of each descendant that is known its `probability` of being present and the
      value that it has `now`.
    """
    target, chances = counterfactual(
        causes.model, source, encoded(change), seed, np.array([tables.named(key)], np.uint64)
    )
    follows = {
        name: {
            "probability": round(float(chance[0]), 3),
            "now": vocabulary.decode_value(name, float(target.values[0, INDEX[name]]), True),
        }
        for name, chance in chances.items()
        if target.known[0, INDEX[name]]
    }
    return target, follows


def places(
    model: Model, request: EditRequest, given: Given
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Where to edit ([size, size] float32) and what to keep (bool); None for everywhere, nothing.

    What pads the radiograph to the square is always kept.

    Raises:
      ConfigError: For a mask of another size, or masks that leave nothing of the radiograph.
    """
    shape = given.decoded.pixels.shape
    masks = {name: read_mask(path, shape, model.size) for name, path in request.masks.items()}
    mask, keep = masks.get("mask"), given.outside
    # A pixel that a mask touches at all is kept, or redrawn.
    if "keep" in masks:
        keep = keep | (masks["keep"] > 0)
    elif "inpaint" in masks:
        keep = keep | (masks["inpaint"] <= 0)
    free = ~keep if mask is None else ~keep & (mask > 0)
    if not free.any():
        flags = " and ".join(f"--{name}" for name in masks)
        raise ConfigError(
            f"{flags}: no pixel of the radiograph is left to change; give another mask"
        )
    return mask, keep if keep.any() else None


def variants(
    model: Model,
    given: Given,
    source: Attributes,
    target: Attributes,
    request: EditRequest,
    mask: np.ndarray | None,
    keep: np.ndarray | None,
) -> edits.Edit:
    """The edit, and if a strip is requested the same over a range of guidance or strength.

    Args:
      model: Model from `load`.
      given: Radiograph.
      source, target: Attributes before and after, [1, 19].
      request: Request of which the settings and `strip` are read.
      mask, keep: Pixels to edit, and pixels to keep, [size, size].
    """
    settings, original, path = request.settings, given.image, None
    if settings.method != "flow":
        path = editing.abduct(model, original[None], source, settings)

    def make(how: EditSettings) -> np.ndarray:
        if path is not None and how.strength == settings.strength:
            return editing.predict(model, path, source, target, how, mask, keep)[0]
        return editing.edit(model, original[None], source, target, how, mask, keep)[0]

    others = {}
    if request.strip:
        others = {
            f"{request.strip} {value:g}": dataclasses.replace(settings, **{request.strip: value})
            for value in STRIPS[request.strip]
            if request.strip == "guidance" or value > settings.low
        }
    edited = make(settings)
    drawn = {label: make(how) for label, how in others.items()}
    return edits.Edit(original, edited, drawn, given.content_box)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = edit_flags.parser().parse_args(argv)
    with exit_on_error("rfxray.edit"):
        distributed.start_one("rfxray.edit")
        run(edit_flags.request_of(arguments))


if __name__ == "__main__":
    main()
