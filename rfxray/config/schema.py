"""Every key of a run, once: its default, its unit, its meaning.

Another config starts from this one and overrides what differs; a key that is not here is refused.
Any key can be set on the command line: `--config.optim.learning_rate=1e-4`.

Keys marked (runtime) may change freely between a run and its resumption; all others are the
identity of the run, and a checkpoint made under other values is refused.
"""

import ml_collections

ATTENTION = ("auto", "xla", "cudnn", "splash")
SOLVERS = ("euler", "heun", "midpoint", "rk4", "ab2", "exponential")
# Skipped steps that a run remembers: the largest skip.limit.
REMEMBERED_SKIPS = 16

# What may change between a run and its resumption (the comments below mark the same keys).
RUNTIME = (
    *("steps", "data.dirs", "data.make", "data.threads", "data.workers", "data.prefetch"),
    *("data.verify", "data.tolerate", "skip", "watchdog"),
    *("mesh", "attention", "remat", "accumulate", "unroll"),
    *("log_every", "checkpoint_every", "checkpoint_minutes", "checkpoint_keep"),
    *("checkpoint_keep_every", "ema_every", "stop_seconds"),
    *("profile", "eval", "samples"),
)


def defaults() -> ml_collections.ConfigDict:
    c = ml_collections.ConfigDict()
    c.seed = 0  # of initialisation, data order, noise and dropout
    c.steps = 100_000  # optimizer steps in all (runtime, unless optim.schedule depends on it)
    c.batch_size = 256  # examples per step over all devices

    c.data = d = ml_collections.ConfigDict()
    d.dirs = ("",)  # data set directories, as data_prep writes them (runtime: content is identity)
    d.weights = (1.0,)  # share of each in the mixture, any positive scale
    d.split = "train"
    d.closed_vocabulary_negatives = True  # a closed list's silence trains as "absent"
    d.make = ""  # the command that makes dirs, shown where they are absent (runtime)
    d.verify = "sample"  # at the start: none, sample (a record of each shard) or full (runtime)
    d.tolerate = 0  # damaged records of a run that the next one may replace (runtime)
    d.threads = 2  # reader threads per host, or per worker process (runtime)
    d.workers = 0  # reader processes per host; 0: threads alone (runtime)
    d.prefetch = 4  # batches read ahead per host or worker (runtime)

    c.model = m = ml_collections.ConfigDict()
    m.size = 512  # side of the square input: pixels, or latent cells
    m.channels = 1  # 1 for pixels, 16 for the default latents
    m.patch = 16  # side of a patch in the same unit; tokens = (size / patch)²
    m.width = 1024  # of the token stream
    m.depth = 24  # blocks
    m.heads = 8  # attention heads; width / heads is the head dimension
    m.mlp_width = 2816  # hidden width of SwiGLU
    m.adaln_rank = 128  # rank of each block's own part of the modulation
    m.rope_theta = 100.0  # base of the axial rotary frequencies
    m.dtype = "bfloat16"  # of activations and matrix products; parameters stay float32

    c.flow = f = ml_collections.ConfigDict()
    f.prediction = "v"  # what the network predicts: v (velocity) or x (data); the loss is on v
    f.t_mean = 0.0  # of logit(t) before the shift
    f.t_std = 1.0
    f.shift = 1.0  # s of t' = s·t / (1 + (s − 1)·t); above 1 moves training towards noise

    c.dropout = n = ml_collections.ConfigDict()
    n.all_null = 0.1  # share of examples with every attribute forgotten
    n.each = 0.2  # share with each attribute forgotten at one random rate

    c.optim = o = ml_collections.ConfigDict()
    o.learning_rate = 3e-4  # peak
    o.schedule = "constant"  # constant, cosine or wsd, each after the warm-up
    o.warmup = 1000  # steps of linear warm-up from 1/warmup of the peak
    o.decay = 0  # last steps of wsd, falling to 0 along 1 − sqrt; unused otherwise
    o.b1 = 0.9
    o.b2 = 0.95
    o.eps = 1e-8
    o.weight_decay = 0.0  # decoupled, on matrices only
    o.clip = 1.0  # largest global gradient norm

    c.ema_sigmas = (0.05, 0.10)  # relative widths of the power-function EMA profiles

    c.mesh = s = ml_collections.ConfigDict()
    s.data = -1  # replicas; −1: the devices that are left (runtime)
    s.fsdp = 1  # shards of parameters, optimizer and EMA; also splits the batch (runtime)
    s.tensor = 1  # splits heads and mlp_width (runtime)
    s.sequence = 1  # splits the tokens of a picture (runtime)

    c.attention = "auto"  # auto, xla, cudnn (GPU) or splash (TPU) (runtime)
    c.remat = "none"  # computed again backward: none, dots (no matmul), attention, full (runtime)
    c.accumulate = 1  # parts that a batch is taken in, one after another (runtime)
    c.unroll = 1  # blocks per iteration of the layer scan; more compiles longer (runtime)

    c.skip = k = ml_collections.ConfigDict()
    k.factor = 50.0  # times the usual gradient norm are skipped; 0: not finite alone (runtime)
    k.limit = 8  # skipped steps within the window that end the run (runtime)
    k.window = 1000  # steps (runtime)

    c.log_every = 50  # steps (runtime)
    c.checkpoint_every = 1000  # steps; 0: by minutes and at the end alone (runtime)
    c.checkpoint_minutes = 30.0  # at the latest, seen at log steps; 0: by steps alone (runtime)
    c.checkpoint_keep = 3  # newest checkpoints kept (runtime)
    c.checkpoint_keep_every = 0  # steps whose multiples are kept for ever; 0: none (runtime)
    c.ema_every = 0  # steps between snapshots of the EMA kept for ever; 0: none (runtime)
    c.stop_seconds = 60  # from a SIGTERM to the end, saved or not (runtime)

    c.watchdog = w = ml_collections.ConfigDict()
    w.factor = 20.0  # times the median step are reported, see watchdog.py (runtime)
    w.seconds = 120.0  # and at least so long; 0: nothing is (runtime)
    w.give_up = 1800.0  # seconds of standing still that end the process; 0: none (runtime)

    c.profile = r = ml_collections.ConfigDict()
    r.first = 0  # first step of a trace, for XProf or Perfetto; 0: none (runtime)
    r.steps = 3  # of the trace (runtime)

    c.eval = e = ml_collections.ConfigDict()
    e.every = 1000  # steps between validation losses; 0: never (runtime)
    e.split = "validation"  # (runtime)
    e.batches = 4  # of batch_size, always the same examples, t and noise (runtime)

    c.samples = p = ml_collections.ConfigDict()
    p.every = 1000  # steps between sample grids; 0: never (runtime)
    p.n = 16  # pictures in the grid (runtime)
    p.solver = "heun"  # (runtime)
    p.steps = 20  # solver steps (runtime)
    p.guidance = 2.0  # classifier-free guidance weight (runtime)
    return c


def flatten(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, object]:
    """A tree of keys as one level of dotted ones."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat
