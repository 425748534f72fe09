"""Every key of a config as data: its default, its meaning and unit, what it may be.

`defaults` builds the tree that a config file starts from. What a network, an objective or an
evaluator reads depends on its kind; `MODELS`, `OBJECTIVES` and `EVALUATORS` hold the keys of ours,
and a kind that is not ours (`package.module:name`) brings its own as `KEYS`. A key that the chosen
kind does not read is refused.

A key marked `runtime` may change between a run and its resumption. All others are the identity of
the run: a checkpoint made under other values is refused.
"""

import dataclasses
from collections.abc import Mapping

import ml_collections

from rfxray.config import kinds
from rfxray.config.key import Key, Value, runtime
from rfxray.config.models import MODELS

SOLVERS = ("euler", "heun", "midpoint", "rk4", "ab2", "exponential")

REMEMBERED_SKIPS = 16  # skipped steps that a run remembers: the largest skip.limit

# ---------------------------------------------------------------------------------------------
# Keys of every run

COMMON: dict[str, Key] = {
    "seed": Key(0, "Seed of initialisation, data order, noise and dropout.", least=0),
    # Not runtime if optim.schedule depends on it: see identity.py.
    "steps": runtime(100_000, "Optimizer steps of the whole run.", least=1),
    "batch_size": Key(256, "Examples per step, over all devices.", least=1),
    # Where the data is may change; what it is, by content, is identity.
    "data.dirs": runtime(("",), "Data set directories, as data_prep writes them."),
    "data.weights": Key((1.0,), "Share of each directory in the mixture, any positive scale."),
    "data.split": Key("train", "Split to train on."),
    "data.closed_vocabulary_negatives": Key(
        True, "Whether a finding that a closed list does not name trains as absent."
    ),
    "data.make": runtime("", "Command that makes data.dirs, shown if they are absent."),
    "data.verify": runtime(
        "sample",
        "Check at the start: none, sample (one record of each shard) or full (every checksum).",
        choices=("none", "sample", "full"),
    ),
    "data.tolerate": runtime(
        0, "Damaged records of a run that the next record may replace.", least=0
    ),
    "data.threads": runtime(2, "Reader threads per host, or per worker process.", least=1),
    "data.workers": runtime(0, "Reader processes per host; 0: threads only.", least=0),
    "data.prefetch": runtime(4, "Batches read ahead per host or worker process.", least=1),
    "ema_sigmas": Key((0.05, 0.10), "Relative widths of the power-function EMA profiles."),
    "mesh.data": runtime(-1, "Replicas of the model; -1: the devices that are left."),
    "mesh.fsdp": runtime(
        1, "Shards of parameters, optimizer and EMA; also splits the batch.", least=1
    ),
    "mesh.tensor": runtime(1, "Shards of attention heads and of the MLP's width.", least=1),
    "mesh.sequence": runtime(1, "Shards of the tokens of an image.", least=1),
    "accumulate": runtime(
        1, "Parts of a batch that are computed one after another, to save memory.", least=1
    ),
    "skip.factor": runtime(
        50.0,
        "Multiple of the usual gradient norm above which a step is skipped; 0: only steps that "
        "are not finite.",
        least=0,
    ),
    "skip.limit": runtime(8, "Skipped steps within skip.window that end the run.", least=1),
    "skip.window": runtime(1000, "Steps over which skips are counted.", least=1),
    "log_every": runtime(50, "Steps between two lines of metrics.", least=1),
    "checkpoint_every": runtime(
        1000, "Steps between checkpoints; 0: only by minutes and at the end.", least=0
    ),
    "checkpoint_minutes": runtime(
        30.0,
        "Minutes after which a checkpoint is overdue, looked at when metrics are logged; 0: never.",
        least=0,
    ),
    "checkpoint_keep": runtime(3, "Newest checkpoints that are kept.", least=1),
    "checkpoint_keep_every": runtime(
        0, "Interval of the steps that are kept for ever; 0: none.", least=0
    ),
    "ema_every": runtime(
        0, "Steps between snapshots of the averages, kept for ever; 0: none.", least=0
    ),
    "stop_seconds": runtime(
        25,
        "Seconds from a request to stop to the end of the process, saved or not; a spot machine "
        "is gone 30 seconds after its notice.",
        least=1,
    ),
    "watchdog.factor": runtime(
        20.0, "Multiple of the median step after which a stall is reported.", above=1
    ),
    "watchdog.seconds": runtime(
        120.0, "Seconds that a stall lasts at least before it is reported; 0: never.", least=0
    ),
    "watchdog.give_up": runtime(
        1800.0, "Seconds of standing still that end the process; 0: never.", least=0
    ),
    "profile.first": runtime(
        0, "First step of a trace for XProf or Perfetto; 0: no trace.", least=0
    ),
    "profile.steps": runtime(3, "Steps of the trace.", least=1),
}

# Of `optim`, and of `parts.NAME.optim`.
OPTIM: dict[str, Key] = {
    "learning_rate": Key(3e-4, "Peak learning rate.", above=0),
    "schedule": Key(
        "constant",
        "Learning rate after the warm-up: constant, cosine or wsd (warm-up, stable, decay).",
        choices=("constant", "cosine", "wsd"),
    ),
    "warmup": Key(1000, "Steps of linear warm-up from 1/warmup of the peak.", least=0),
    "decay": Key(
        0, "Last steps of wsd, which fall to 0 along 1 - sqrt; not read by the others.", least=0
    ),
    "b1": Key(0.9, "Decay of the first moment of AdamW.", least=0),
    "b2": Key(0.95, "Decay of the second moment of AdamW.", least=0),
    "eps": Key(1e-8, "Added to the root of the second moment.", above=0),
    "weight_decay": Key(0.0, "Decoupled weight decay, of matrices only.", least=0),
    "clip": Key(1.0, "Largest global norm of the gradient.", above=0),
}

# Of `parts.NAME` that is not trained, instead of an optimizer. What they are, by content, is
# identity.
FROZEN: dict[str, Key] = {
    "weights": runtime(
        "",
        "Weights that are not trained, NAME=PATH: ssl=FOLDER (rfxray export), or rad_dino=FOLDER "
        "or dinov2=FOLDER (Hugging Face).",
    ),
    "licence": runtime(
        "",
        "Licence of these weights, which exports of the run carry; those of Hugging Face need it.",
    ),
}

# ---------------------------------------------------------------------------------------------
# Keys of each kind

OBJECTIVES: dict[str, dict[str, Key]] = {
    "autoencoding": {
        "distance": Key(
            "l1",
            "Distance of the pixels, from -1 to 1: l1 (mean absolute) or l2 (mean squared).",
            choices=("l1", "l2"),
        ),
        "spectrum_weight": Key(
            0.0,
            "Weight of the mean absolute difference of amplitudes by octave, in windows of 16 "
            "pixels and in the unit of pixels as l1: it keeps power that distance leaves out. 0: "
            "none.",
            least=0,
        ),
        "spectrum_start": Key(
            0,
            "Examples seen before the spectrum term begins: steps × batch_size.",
            least=0,
        ),
        "perceptual_weight": Key(
            0.0,
            "Weight of the mean squared difference of normalised states in parts.perceptual; such "
            "a difference is about 1e-3, so 250 to 500 make it as large as l1. 0: none.",
            least=0,
        ),
        "kl_weight": Key(
            1e-6,
            "Weight of the KL divergence, a mean over latent values, in nats. Latent diffusion "
            "sums it, and the pixels too: its 1e-6 is this times latent values / pixel values of "
            "an image, so 1e-6 / 48 for f8 z4 in colour and 2.5e-7 for f8 z16 in grey.",
            least=0,
        ),
        "adversarial_weight": Key(
            0.0,
            "Strength of the adversarial term against the reconstruction, as a ratio of gradients "
            "in the last layer: 0.5 in latent diffusion. 0: none.",
            least=0,
        ),
        "adversarial_start": Key(
            0,
            "Examples seen before the adversarial term and its discriminator begin: steps × "
            "batch_size.",
            least=0,
        ),
        "equivariance": Key(
            0.0,
            "Share of the examples of which image and latents are shrunk to 0.25 to 1 of their "
            "side before they are decoded: 0.5 in EQ-VAE. 0: none.",
            least=0,
        ),
        "latent_noise": Key(
            0.0,
            "Deviation of the sigma of the noise on latents, in their own unit: each example has "
            "sigma = |N(0, this)|. 0: only that of the posterior.",
            least=0,
        ),
    },
    "classification": {
        "attributes": Key(
            ("findings",), "Attributes that are learned: findings, which are all 14, and names."
        ),
        "shift": Key(
            0.05, "Largest distance that an image is moved, as a share of its side.", least=0
        ),
        "contrast": Key(0.1, "Largest change of the contrast, as a factor of 1 ± this.", least=0),
    },
    "flow_matching": {
        "prediction": Key(
            "v",
            "What the network predicts: v (velocity) or x (data); the loss is on v.",
            choices=("v", "x"),
        ),
        "t_mean": Key(0.0, "Mean of logit(t) before the shift."),
        "t_std": Key(1.0, "Standard deviation of logit(t) before the shift.", above=0),
        "shift": Key(
            1.0,
            "s of t' = s·t / (1 + (s - 1)·t); above 1 moves training towards noise.",
            above=0,
        ),
        "drop_all": Key(0.1, "Share of examples with every attribute dropped.", least=0),
        "drop_each": Key(
            0.2, "Share of examples with each attribute dropped at one random rate.", least=0
        ),
    },
    "masked_image": {
        "share": Key(0.5, "Share of the cells of an image that are covered.", above=0),
        "cell": Key(16, "Side of a cell that is covered as a whole, in pixels.", least=1),
    },
}

EVALUATORS: dict[str, dict[str, Key]] = {
    "validation_loss": {
        "every": runtime(1000, "Steps between two evaluations; 0: never.", least=0),
        "split": runtime("validation", "Split that is evaluated."),
        "batches": runtime(
            4, "Batches of batch_size; always the same examples, times and noise.", least=1
        ),
    },
    "sample_grid": {
        "every": runtime(1000, "Steps between two grids; 0: never.", least=0),
        "split": runtime("validation", "Split that gives the attributes, by its first examples."),
        "n": runtime(16, "Samples in the grid.", least=1),
        "solver": runtime("heun", "Solver of the ODE.", choices=SOLVERS),
        "steps": runtime(20, "Steps of the solver.", least=1),
        "guidance": runtime(2.0, "Weight of classifier-free guidance; 1: none.", least=0),
    },
    "fidelity": {
        "every": runtime(0, "Steps between two measurements; 0: never.", least=0),
        "split": runtime("validation", "Split of the real images, and of the requests."),
        "n": runtime(
            320, "Samples, and real images at most; FD64 needs 320 of each, KID two.", least=2
        ),
        "extractor": runtime(
            "efficientnet_lite0",
            "Network of the features: NAME or NAME=WEIGHTS, docs/extractors.md.",
        ),
        "solver": runtime("ab2", "Solver of the ODE.", choices=SOLVERS),
        "steps": runtime(10, "Steps of the solver.", least=1),
        "guidance": runtime(1.0, "Weight of classifier-free guidance; 1: none.", least=0),
    },
}

# ---------------------------------------------------------------------------------------------
# The tree


def defaults(
    model: str = "radit",
    objective: str = "flow_matching",
    evaluators: Mapping[str, str] | None = None,
    parts: Mapping[str, str] | None = None,
    frozen: Mapping[str, str] | None = None,
) -> ml_collections.ConfigDict:
    """A config of those kinds with the default of every key.

    Args:
      model: Kind of the network: a name of `MODELS`, or `package.module:name`.
      objective: Kind of the objective, likewise.
      evaluators: Name of each evaluator to its kind; ours under their own names by default.
      parts: Name of each further network that the objective trains to its kind.
      frozen: Name of each network that the objective reads and nothing trains to its kind; it is
        among the parts too, and has weights instead of an optimizer.

    Raises:
      ConfigError: If a kind does not exist.
    """
    evaluators = {name: name for name in EVALUATORS} if evaluators is None else evaluators
    config = ml_collections.ConfigDict()
    config.model = ml_collections.ConfigDict({"kind": model})
    config.objective = ml_collections.ConfigDict({"kind": objective})
    config.evaluators = ml_collections.ConfigDict({n: {"kind": k} for n, k in evaluators.items()})
    config.parts = ml_collections.ConfigDict(
        {name: {"model": {"kind": kind}} for name, kind in (parts or {}).items()}
        | {n: {"model": {"kind": kind}, "weights": ""} for n, kind in (frozen or {}).items()}
    )
    for kind in kinds_of(config):
        if kinds.is_foreign(kind):
            kinds.allow(kind)
    for key, about in keys_of(config).items():
        *sections, last = key.split(".")
        section = config
        for name in sections:
            if name not in section:
                section[name] = ml_collections.ConfigDict()
            section = section[name]
        if last not in section:
            section[last] = about.default
    return config


def kinds_of(config: ml_collections.ConfigDict) -> list[str]:
    """The kinds that a config names."""
    sections = [config.model, config.objective, *config.evaluators.values()]
    sections += [part.model for part in config.parts.values()]
    return [section.kind for section in sections]


def is_frozen(part: ml_collections.ConfigDict) -> bool:
    """Whether a part of a config has given weights, which nothing trains."""
    return "weights" in part


def keys_of(config: ml_collections.ConfigDict) -> dict[str, Key]:
    """Every key that a config of those kinds has, by its dotted name.

    Raises:
      ConfigError: If a kind does not exist, or is foreign and was not allowed.
    """
    keys = dict(COMMON)

    def add(prefix: str, section: ml_collections.ConfigDict, table: Mapping, what: str) -> None:
        own = kinds.lookup(section.kind, table, what)
        if kinds.is_foreign(section.kind):
            own = own.KEYS
        keys[f"{prefix}.kind"] = Key(section.kind, f"Kind of {what}.")
        keys.update({f"{prefix}.{name}": key for name, key in own.items()})

    add("model", config.model, MODELS, "network")
    add("objective", config.objective, OBJECTIVES, "objective")
    keys |= {f"optim.{name}": key for name, key in OPTIM.items()}
    for name, part in config.parts.items():
        add(f"parts.{name}.model", part.model, MODELS, "network")
        if is_frozen(part):
            keys |= {f"parts.{name}.{key}": about for key, about in FROZEN.items()}
        else:
            keys |= {f"parts.{name}.optim.{key}": about for key, about in OPTIM.items()}
    for name, evaluator in config.evaluators.items():
        add(f"evaluators.{name}", evaluator, EVALUATORS, "evaluator")
    # What is only looked at changes no run.
    return {
        name: dataclasses.replace(key, runtime=True) if name.startswith("evaluators.") else key
        for name, key in keys.items()
    }


def flatten(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, Value]:
    """A tree of keys as one level of dotted ones."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat
