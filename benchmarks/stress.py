"""Classifiers that were built to lean on sex, and clean ones: what `rfxray causes stress` says.

    python -m benchmarks.stress --checkpoint runs/smoke/train --out runs/stress
    python -m benchmarks.results --add stress=runs/stress/stress.json

A hundred small networks learn one finding each from phantoms in which all attributes are
independent. For half of them sex goes with the finding: 90% of those with it are of one sex, and
90% of those without it of the other. Twins of other phantoms along sex are made once, by a model;
beside them stand the true twins, the same phantoms drawn with the other sex (their placebo is the
true change of age by 40 years; that of a finding is too small to be made equal in most). Each part
is written when it is done, and a killed command goes on with the next.
"""

import argparse
import json
import platform
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange

from data_prep import phantom
from rfxray import sampling, version
from rfxray.attributes.vocabulary import INDEX, Attributes
from rfxray.causes import leaning, pairs, twinned
from rfxray.command_line import ArgumentParser, Progress, exit_on_error, local_path
from rfxray.data.pixels import to_float
from rfxray.evaluate import auc, intervals
from rfxray.evaluate.pictures import Pictures
from rfxray.outputs import files
from rfxray.runtime import distributed
from rfxray.sampling.editing import EditSettings

FINDINGS = (
    *("cardiomegaly", "lung_opacity", "lung_lesion", "edema", "consolidation"),
    *("pneumonia", "atelectasis", "pneumothorax", "pleural_effusion", "pleural_other"),
)
EACH = 5  # classifiers of each finding and kind
SIZE, POOL, ROWS = 64, 8192, 2048  # pixels; phantoms to learn from, and of each classifier
CONFOUNDED = 0.9
STEPS, BATCH, RATE, TOGETHER = 250, 64, 2e-3, 20  # of the training; classifiers at once
SEEDS = {"pool": 6001, "pairs": 5151, "classifiers": 17}
PAIRS = 256
SETTINGS = EditSettings(method="flow", guidance=2.0, steps=24)


# ---------------------------------------------------------------------------------------------
# Classifiers


def kinds() -> list[tuple[str, float]]:
    """Finding of each classifier, and the share of those with it who are men."""
    found = []
    for finding in FINDINGS:
        for k in range(EACH):
            found += [(finding, CONFOUNDED if k % 2 else 1 - CONFOUNDED), (finding, 0.5)]
    return found


def chosen(values: np.ndarray, finding: str, men: float, rng: np.random.Generator) -> np.ndarray:
    """Rows of the pool that a classifier learns from: half with the finding, `men` of them men."""
    present, male = (values[:, INDEX[name]] > 0.5 for name in (finding, "sex"))
    rows = []
    for there, sex, share in ((1, 1, men), (1, 0, 1 - men), (0, 1, 1 - men), (0, 0, men)):
        cell = np.flatnonzero((present == there) & (male == sex))
        count = round(ROWS / 2 * share)
        rows.append(rng.choice(cell, count, replace=count > len(cell)))
    return rng.permutation(np.concatenate(rows))[: ROWS - 8]


def initial(key: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Weights of a network of four layers: patches of 4, of 2, all of them, one logit."""
    widths = ((16, 16), (64, 32), (32 * (SIZE // 8) ** 2, 32), (32, 1))
    keys = jax.random.split(key, len(widths))
    return [
        (jax.random.normal(k, shape) * (2 / shape[0]) ** 0.5, jnp.zeros(shape[1]))
        for k, shape in zip(keys, widths, strict=True)
    ]


def logits(weights: list[tuple[jax.Array, jax.Array]], images: jax.Array) -> jax.Array:
    """Log-odds [n] of images [n, height, width] in [−1, 1]."""
    x = rearrange(images, "n (r y) (c x) -> n r c (y x)", y=4, x=4)
    x = jax.nn.gelu(x @ weights[0][0] + weights[0][1])
    x = rearrange(x, "n (r y) (c x) k -> n r c (y x k)", y=2, x=2)
    x = jax.nn.gelu(x @ weights[1][0] + weights[1][1])
    x = jax.nn.gelu(x.reshape(len(images), -1) @ weights[2][0] + weights[2][1])
    return (x @ weights[3][0] + weights[3][1])[:, 0]


def trained(part: Sequence[int], images: jax.Array, values: np.ndarray) -> list:
    """Weights of some of the classifiers, each leaf [classifiers, …]."""
    every = kinds()
    rng = np.random.default_rng([SEEDS["classifiers"], part[0]])
    rows = np.stack([chosen(values, *every[k], rng) for k in part])
    labels = np.stack(
        [values[r, INDEX[every[k][0]]] > 0.5 for k, r in zip(part, rows, strict=True)]
    )
    optimizer = optax.adamw(optax.cosine_decay_schedule(RATE, STEPS), weight_decay=1e-2)
    keys = jax.random.split(jax.random.key(SEEDS["classifiers"]), len(every))[np.array(part)]
    weights = jax.vmap(initial)(keys)

    def loss(own, at, wanted):
        return optax.sigmoid_binary_cross_entropy(logits(own, images[at]), wanted).mean()

    @jax.jit
    def step(weights, state, at, wanted):
        slopes = jax.vmap(jax.grad(loss))(weights, at, wanted)
        updates, state = jax.vmap(optimizer.update)(slopes, state, weights)
        return optax.apply_updates(weights, updates), state

    state = jax.vmap(optimizer.init)(weights)
    for _ in range(STEPS):
        at = rng.integers(rows.shape[1], size=(len(part), BATCH))
        of = np.take_along_axis(rows, at, 1), np.take_along_axis(labels, at, 1).astype(np.float32)
        weights, state = step(weights, state, *of)
    return weights


# ---------------------------------------------------------------------------------------------
# Twins


def patients(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices, attributes and images in [−1, 1] of phantoms that no network has seen."""
    indices = np.arange(n)
    values = phantom.draw_attributes(SEEDS["pairs"], indices)
    return indices, values, drawn(values, indices)


def drawn(values: np.ndarray, indices: np.ndarray, seed: int | None = None) -> np.ndarray:
    seed = SEEDS["pairs"] if seed is None else seed
    blocks = [slice(k, k + 256) for k in range(0, len(indices), 256)]
    return to_float(
        np.concatenate([phantom.draw_images(values[b], seed, indices[b], SIZE) for b in blocks])
    )


def as_pictures(values: np.ndarray, images: np.ndarray) -> Pictures:
    keys = tuple(f"{k:05d}" for k in range(len(images)))
    return Pictures(
        name="phantoms",
        keys=keys,
        patients=keys,
        attributes=Attributes(values.astype(np.float32), np.ones(values.shape, bool)),
        boxes=None,
        fingerprint="",
        reading="",
        records=False,
        synthetic=True,
        rejected={},
        notes=(),
        load=lambda number: ((images[number] + 1) / 2).astype(np.float32),
    )


def made(checkpoint: str, n: int, out: Path) -> dict[str, np.ndarray]:
    """Images of the model's twins by folder, in [−1, 1]; made once."""
    folder = out / "pairs"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / pairs.TABLE).exists():
        _, values, images = patients(n)
        wanted = twinned.Wanted("sex", None, "race", n)
        model = sampling.load(checkpoint)
        with Progress("benchmarks.stress", n, unit="pair") as progress:
            pictures = as_pictures(values, images)
            twinned.make(
                *(model, pictures, np.arange(n), wanted, SETTINGS, None, folder, progress.advance)
            )
    opened = pairs.read(folder)
    return {
        name: np.stack([of.read(k) for k in range(n)]) * 2 - 1 for name, of in opened.sets.items()
    }


def true_twins(n: int) -> dict[str, np.ndarray]:
    """The same phantoms with the other sex, and 40 years younger or older."""
    indices, values, images = patients(n)
    other, aged = values.copy(), values.copy()
    other[:, INDEX["sex"]] = 1 - values[:, INDEX["sex"]]
    age = values[:, INDEX["age"]]
    aged[:, INDEX["age"]] = np.where(age < 50, age + 40, age - 40)
    after, unrelated = drawn(other, indices), drawn(aged, indices)
    equal = [twinned.equalised(*three) for three in zip(images, unrelated, after, strict=True)]
    return {"before": images, "after": after, "placebo": np.stack(equal), "nothing": images}


# ---------------------------------------------------------------------------------------------
# What is said of them


def judged(
    of: Mapping[str, np.ndarray], images: Mapping[str, np.ndarray], values: np.ndarray
) -> list[leaning.Finding]:
    """The verdict on each classifier.

    Args:
      of: Probabilities by folder, [classifiers, n].
      images: Twins, by folder.
      values: Attributes of the phantoms, [n, 19].
    """
    off = _unequal(images)
    sign = np.where(values[:, INDEX["sex"]] > 0.5, -1, 1)
    known = leaning.Pairs(sign, np.arange(len(sign)), {1: "F → M", -1: "M → F"}, {})
    found = []
    for k, (finding, _) in enumerate(kinds()):
        parts = {name: np.asarray(each[k], np.float64) for name, each in of.items()}
        parts["placebo"] = np.where(off, np.nan, parts["placebo"])
        found += leaning.judge({finding: leaning.Twins(**parts)}, known)
    return found


def _unequal(images: Mapping[str, np.ndarray]) -> np.ndarray:
    """The pairs of which the placebo has another size than the change, bool [n]."""
    after, placebo = (
        np.abs(images[name] - images["before"]).mean((1, 2)) for name in ("after", "placebo")
    )
    return np.abs(placebo - after) > pairs.EQUAL * after


def measured(flags: argparse.Namespace) -> dict[str, Any]:
    """Everything, from what is there and what is missing."""
    out, seconds = flags.out, {}
    began = time.monotonic()
    twins = {"model": made(flags.checkpoint, flags.n, out), "truth": true_twins(flags.n)}
    seconds["twins"] = time.monotonic() - began
    indices = np.arange(POOL)
    pool = phantom.draw_trial(SEEDS["pool"], indices)
    values = patients(flags.n)[1]
    began, count, learned = time.monotonic(), len(kinds()), None
    read = jax.jit(
        lambda weights, images: jax.nn.sigmoid(jax.vmap(logits, (0, None))(weights, images))
    )
    answers: dict[str, list] = {f"{kind} {name}": [] for kind in twins for name in pairs.FOLDERS}
    with Progress("benchmarks.stress", count, unit="classifier") as progress:
        for start in range(0, count, TOGETHER):
            part = range(start, min(start + TOGETHER, count))
            file = out / f"answers-{start:03d}.npz"
            if not file.exists():
                if learned is None:
                    learned = jnp.asarray(drawn(pool, indices, SEEDS["pool"]))
                weights = trained(part, learned, pool)
                own = {
                    f"{kind} {name}": np.asarray(read(weights, jnp.asarray(images[name])))
                    for kind, images in twins.items()
                    for name in pairs.FOLDERS
                }
                with files.whole_file(file) as temporary, temporary.open("wb") as opened:
                    np.savez(opened, allow_pickle=False, **own)
            with np.load(file) as opened:
                for name in answers:
                    answers[name].append(opened[name])
            progress.advance(len(part))
    seconds["classifiers"] = time.monotonic() - began
    whole = {name: np.concatenate(each) for name, each in answers.items()}
    rows = []
    of = {
        kind: judged({name: whole[f"{kind} {name}"] for name in pairs.FOLDERS}, twins[kind], values)
        for kind in twins
    }
    for k, (finding, men) in enumerate(kinds()):
        present = values[:, INDEX[finding]] > 0.5
        area = auc.area(auc.placements(whole["truth before"][k][None], present), present)
        row = {"finding": finding, "men": men, "auroc": float(area[0])}
        for kind, each in of.items():
            own = each[k]
            row[kind] = {
                "verdict": own.verdict,
                "drift": own.drift.value,
                "placebo": own.placebo.value,
                "placebo_mean": own.placebo_mean.value,
                "nothing": own.nothing.value,
                "flips": own.flips.value,
                "placebo_flips": own.placebo_flips.value,
            }
        rows.append(row)
    sizes = {
        kind: {
            name: float(np.abs(images[name] - images["before"]).mean() * 127.5)
            for name in pairs.FOLDERS[1:]
        }
        for kind, images in twins.items()
    }
    unequal = {kind: int(_unequal(images).sum()) for kind, images in twins.items()}
    return {
        "classifiers": rows,
        "pairs": flags.n,
        "sizes": sizes,
        "unequal": unequal,
        "seconds": seconds,
    }


# ---------------------------------------------------------------------------------------------
# Tables


def table(found: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    rows = found["classifiers"]
    lines = [
        f"{len(rows)} classifiers, {found['pairs']} phantoms of as many patients, "
        f"a margin of {leaning.MARGIN:g}:",
        "",
        "| twins | built to lean: leans / not decided / does not | sensitivity | clean: leans / "
        "not decided / does not | specificity | change, grey levels | placebo | unequal |",
        "|---" * 8 + "|",
    ]
    for kind, words in (("model", "of the model"), ("truth", "true")):
        cells = []
        for leans in (True, False):
            own = [row[kind]["verdict"] for row in rows if (row["men"] != 0.5) == leans]
            verdicts = (leaning.LEANS, leaning.UNDECIDED, leaning.DOES_NOT)
            cells.append(" / ".join(str(own.count(each)) for each in verdicts))
            hits = np.array([(each == leaning.LEANS) == leans for each in own])
            share = intervals.proportion("share", hits, np.arange(len(own)), 0, len(own))
            if share.low is None:  # fewer than an interval needs
                cells.append(f"{share.value:.2f}")
            else:
                cells.append(f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]")
        size = found["sizes"][kind]
        cells += [f"{size['after']:.1f}", f"{size['placebo']:.1f}", f"{found['unequal'][kind]}"]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    drifts = np.array([[row[kind]["drift"] for kind in ("model", "truth")] for row in rows])
    lines += [
        "",
        f"Drift by the model's twins against that by the true ones: correlation "
        f"{np.corrcoef(drifts.T)[0, 1]:.3f}, mean absolute difference "
        f"{np.abs(drifts[:, 0] - drifts[:, 1]).mean():.3f}, largest "
        f"{np.abs(drifts[:, 0] - drifts[:, 1]).max():.3f}. The round trip moves a score by at most "
        f"{max(abs(row['model']['nothing']) for row in rows):.4f}.",
        "",
        "| finding | built to lean: AUROC | drift, model | true | placebo | flips | of placebo "
        "| clean: AUROC | drift, model | true | placebo | flips | of placebo |",
        "|---" * 13 + "|",
    ]
    for finding in dict.fromkeys(row["finding"] for row in rows):
        cells = []
        for leans in (True, False):
            own = [
                row for row in rows if row["finding"] == finding and (row["men"] != 0.5) == leans
            ]
            cells.append(f"{np.mean([row['auroc'] for row in own]):.3f}")
            for kind, name in (("model", "drift"), ("truth", "drift"), ("model", "placebo")):
                cells.append(f"{np.mean([abs(row[kind][name]) for row in own]):.3f}")
            for name in ("flips", "placebo_flips"):
                cells.append(f"{np.mean([row['model'][name] for row in own]):.2f}")
        lines.append(f"| {finding} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(prog="python -m benchmarks.stress", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--checkpoint", required=True, metavar="WORKDIR", help="workdir of a run")
    parser.add_argument("--n", type=int, default=PAIRS, help="pairs (default: %(default)s)")
    parser.add_argument("--out", required=True, type=local_path, metavar="DIR", help="folder")
    flags = parser.parse_args(argv)
    with exit_on_error("benchmarks.stress"):
        distributed.start()
        flags.out.mkdir(parents=True, exist_ok=True)
        found = measured(flags)
        words = ["python", "-m", "benchmarks.stress", "--checkpoint", Path(flags.checkpoint).name]
        found |= {
            "command": shlex.join([*words, "--n", str(flags.n)]),
            "written_by": version.versions(),
            "device": f"CPU ({platform.machine()})",
        }
        file = flags.out / "stress.json"
        files.write_whole(file, json.dumps(found, indent=1) + "\n")
        print(table(found))
        print(f"wrote {file}")


if __name__ == "__main__":
    main()
