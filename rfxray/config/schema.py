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

Value = bool | int | float | str | tuple[str, ...] | tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a config.

    Attributes:
      default: Value that a config starts from; its type is the type of the key.
      meaning: What it is, with its unit.
      runtime: Whether it may change between a run and its resumption.
      least: Smallest value allowed, if there is one.
      above: Value that it must exceed, if there is one.
      choices: The only values allowed, if they are few.
    """

    default: Value
    meaning: str
    runtime: bool = False
    least: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()


def _runtime(default: Value, meaning: str, **bounds) -> Key:
    return Key(default, meaning, runtime=True, **bounds)


ATTENTION = ("auto", "xla", "cudnn", "splash")
REMAT = ("none", "dots", "attention", "full")
SOLVERS = ("euler", "heun", "midpoint", "rk4", "ab2", "exponential")

REMEMBERED_SKIPS = 16  # skipped steps that a run remembers: the largest skip.limit

# ---------------------------------------------------------------------------------------------
# Keys of every run

COMMON: dict[str, Key] = {
    "seed": Key(0, "Seed of initialisation, data order, noise and dropout.", least=0),
    # Not runtime if optim.schedule depends on it: see identity.py.
    "steps": _runtime(100_000, "Optimizer steps of the whole run.", least=1),
    "batch_size": Key(256, "Examples per step, over all devices.", least=1),
    # Where the data is may change; what it is, by content, is identity.
    "data.dirs": _runtime(("",), "Data set directories, as data_prep writes them."),
    "data.weights": Key((1.0,), "Share of each directory in the mixture, any positive scale."),
    "data.split": Key("train", "Split to train on."),
    "data.closed_vocabulary_negatives": Key(
        True, "Whether a finding that a closed list does not name trains as absent."
    ),
    "data.make": _runtime("", "Command that makes data.dirs, shown if they are absent."),
    "data.verify": _runtime(
        "sample",
        "Check at the start: none, sample (one record of each shard) or full (every checksum).",
        choices=("none", "sample", "full"),
    ),
    "data.tolerate": _runtime(
        0, "Damaged records of a run that the next record may replace.", least=0
    ),
    "data.threads": _runtime(2, "Reader threads per host, or per worker process.", least=1),
    "data.workers": _runtime(0, "Reader processes per host; 0: threads only.", least=0),
    "data.prefetch": _runtime(4, "Batches read ahead per host or worker process.", least=1),
    "ema_sigmas": Key((0.05, 0.10), "Relative widths of the power-function EMA profiles."),
    "mesh.data": _runtime(-1, "Replicas of the model; -1: the devices that are left."),
    "mesh.fsdp": _runtime(
        1, "Shards of parameters, optimizer and EMA; also splits the batch.", least=1
    ),
    "mesh.tensor": _runtime(1, "Shards of attention heads and of the MLP's width.", least=1),
    "mesh.sequence": _runtime(1, "Shards of the tokens of an image.", least=1),
    "accumulate": _runtime(
        1, "Parts of a batch that are computed one after another, to save memory.", least=1
    ),
    "skip.factor": _runtime(
        50.0,
        "Multiple of the usual gradient norm above which a step is skipped; 0: only steps that "
        "are not finite.",
        least=0,
    ),
    "skip.limit": _runtime(8, "Skipped steps within skip.window that end the run.", least=1),
    "skip.window": _runtime(1000, "Steps over which skips are counted.", least=1),
    "log_every": _runtime(50, "Steps between two lines of metrics.", least=1),
    "checkpoint_every": _runtime(
        1000, "Steps between checkpoints; 0: only by minutes and at the end.", least=0
    ),
    "checkpoint_minutes": _runtime(
        30.0,
        "Minutes after which a checkpoint is overdue, looked at when metrics are logged; 0: never.",
        least=0,
    ),
    "checkpoint_keep": _runtime(3, "Newest checkpoints that are kept.", least=1),
    "checkpoint_keep_every": _runtime(
        0, "Interval of the steps that are kept for ever; 0: none.", least=0
    ),
    "ema_every": _runtime(
        0, "Steps between snapshots of the averages, kept for ever; 0: none.", least=0
    ),
    "stop_seconds": _runtime(
        25,
        "Seconds from a request to stop to the end of the process, saved or not; a spot machine "
        "is gone 30 seconds after its notice.",
        least=1,
    ),
    "watchdog.factor": _runtime(
        20.0, "Multiple of the median step after which a stall is reported.", above=1
    ),
    "watchdog.seconds": _runtime(
        120.0, "Seconds that a stall lasts at least before it is reported; 0: never.", least=0
    ),
    "watchdog.give_up": _runtime(
        1800.0, "Seconds of standing still that end the process; 0: never.", least=0
    ),
    "profile.first": _runtime(
        0, "First step of a trace for XProf or Perfetto; 0: no trace.", least=0
    ),
    "profile.steps": _runtime(3, "Steps of the trace.", least=1),
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

# ---------------------------------------------------------------------------------------------
# Keys of each kind

MODELS: dict[str, dict[str, Key]] = {
    "radit": {
        "size": Key(512, "Side of the square input, in pixels or latent cells.", least=1),
        "channels": Key(1, "Channels of the input: 1 for pixels, 16 for latents.", least=1),
        "patch": Key(16, "Side of a patch in the unit of size; tokens = (size / patch)².", least=1),
        "width": Key(1024, "Width of the token stream.", least=1),
        "depth": Key(24, "Blocks.", least=1),
        "heads": Key(8, "Attention heads; width / heads is the dimension of one.", least=1),
        "mlp_width": Key(2816, "Hidden width of SwiGLU.", least=1),
        "adaln_rank": Key(128, "Rank of each block's own part of the modulation.", least=1),
        "rope_theta": Key(100.0, "Base of the axial rotary frequencies.", above=1),
        "dtype": Key(
            "bfloat16",
            "Type of activations and matrix products in the blocks, float32 ones at the device's "
            "default precision (TF32 on a GPU, bfloat16 on a TPU); parameters stay float32.",
            choices=("float32", "bfloat16"),
        ),
        "attention": _runtime(
            "auto",
            "Attention kernel: xla, cudnn (GPU), splash (TPU), or auto, which takes what fits.",
            choices=ATTENTION,
        ),
        "remat": _runtime(
            "none",
            "What the backward pass computes again: none, dots (no matrix product), attention, "
            "full.",
            choices=REMAT,
        ),
        "unroll": _runtime(
            1, "Blocks per iteration of the scan over layers; more compiles longer.", least=1
        ),
    },
    "masked_vit": {
        "size": Key(64, "Side of the square input, in pixels.", least=1),
        "patch": Key(8, "Side of a patch, in pixels; tokens = (size / patch)² + 1.", least=1),
        "width": Key(192, "Width of the token stream, and number of features.", least=1),
        "depth": Key(4, "Blocks.", least=1),
        "heads": Key(3, "Attention heads; width / heads is the dimension of one.", least=1),
    },
    "vae": {
        "size": Key(512, "Side of the square images, pixels.", least=1),
        "channels": Key(
            1,
            "Channels of the first and the last convolution, 1 or 3; with 3 a grey image is given "
            "three times, and the mean of the output is taken.",
            least=1,
        ),
        "width": Key(128, "Channels that the multipliers multiply.", least=1),
        "multipliers": Key(
            (1, 2, 4, 4),
            "Widths of the levels in units of width, the largest maps first; each level except the "
            "last halves the sides.",
        ),
        "decoder_multipliers": Key(
            (0,),
            "Widths of the levels of the decoder, likewise; 0: those of multipliers.",
        ),
        "blocks": Key(2, "Residual blocks of a level; the decoder has one more.", least=1),
        "z": Key(16, "Channels of the latents.", least=1),
        "groups": Key(32, "Groups of the group norms; they divide every width.", least=1),
        "mid_attention": Key(True, "Whether the cells attend to each other in the middle."),
        "quant_convs": Key(
            False, "Whether a 1 × 1 convolution ends the encoder, and another begins the decoder."
        ),
        "patchify": Key(
            False,
            "Whether 2 × 2 cells of latents are folded into one and normalised by stored "
            "statistics, as FLUX.2 does; 4·z channels at twice the factor.",
        ),
        "dtype": Key(
            "float32",
            "Type of activations and products of the levels, bfloat16 or float32 (exact on every "
            "device); parameters, norms, and the first and last convolutions stay float32.",
            choices=("float32", "bfloat16"),
        ),
        "remat": _runtime(
            "none",
            "What the backward pass computes again: none, or level (each level from its input).",
            choices=("none", "level"),
        ),
    },
}

OBJECTIVES: dict[str, dict[str, Key]] = {
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
        "share": Key(0.6, "Share of the cells of an image that are hidden.", above=0),
        "cell": Key(16, "Side of a cell that is hidden as a whole, in pixels.", least=1),
    },
}

EVALUATORS: dict[str, dict[str, Key]] = {
    "validation_loss": {
        "every": _runtime(1000, "Steps between two evaluations; 0: never.", least=0),
        "split": _runtime("validation", "Split that is evaluated."),
        "batches": _runtime(
            4, "Batches of batch_size; always the same examples, times and noise.", least=1
        ),
    },
    "sample_grid": {
        "every": _runtime(1000, "Steps between two grids; 0: never.", least=0),
        "split": _runtime("validation", "Split that gives the attributes, by its first examples."),
        "n": _runtime(16, "Samples in the grid.", least=1),
        "solver": _runtime("heun", "Solver of the ODE.", choices=SOLVERS),
        "steps": _runtime(20, "Steps of the solver.", least=1),
        "guidance": _runtime(2.0, "Weight of classifier-free guidance; 1: none.", least=0),
    },
}

# ---------------------------------------------------------------------------------------------
# The tree


def defaults(
    model: str = "radit",
    objective: str = "flow_matching",
    evaluators: Mapping[str, str] | None = None,
    parts: Mapping[str, str] | None = None,
) -> ml_collections.ConfigDict:
    """A config of those kinds with the default of every key.

    Args:
      model: Kind of the network: a name of `MODELS`, or `package.module:name`.
      objective: Kind of the objective, likewise.
      evaluators: Name of each evaluator to its kind; ours under their own names by default.
      parts: Name of each further network that the objective trains to its kind.

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
