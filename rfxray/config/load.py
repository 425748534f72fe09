"""Configs: from a file and flags to a checked, frozen tree."""

import ast
import difflib
import importlib.util
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import ml_collections

from rfxray.config.schema import ATTENTION, REMEMBERED_SKIPS, SOLVERS, defaults, flatten
from rfxray.errors import ConfigError


def _nearest(key: str, keys: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(keys), n=2, cutoff=0.5)
    return (
        f"; did you mean {' or '.join(near)}?"
        if near
        else "; rfxray/config/schema.py lists them all"
    )


def overrides(arguments: Sequence[str]) -> list[str]:
    """`--config.KEY=VALUE` or `--config.KEY VALUE` arguments as `KEY=VALUE`.

    Raises:
      ConfigError: for any other argument.
    """
    found, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--config."):
            raise ConfigError(f"no flag {argument}; a config key is set by --config.KEY=VALUE")
        argument = argument.removeprefix("--config.")
        if "=" not in argument and rest and not rest[0].startswith("--"):
            argument += "=" + rest.pop(0)
        found.append(argument)
    return found


def load_config(file: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """The checked config of a file with overrides applied.

    Args:
      file: a Python file with `get_config()`; `file.py:argument` hands it a string.
      overrides: `model.width=256` and the like; a value is read as the type of the key's default.

    Raises:
      ConfigError: in one line, for a missing file, an unknown key, a wrong type or value, or a
        combination that cannot be built.
    """
    path, _, argument = file.partition(":")
    if not (Path(path).is_file() and path.endswith(".py")):
        raise ConfigError(
            f"no config file {path} (of Python); configs/ has those that come with the project"
        )
    spec = importlib.util.spec_from_file_location("rfxray_config", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(argument) if argument else module.get_config()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{path} fails: {type(error).__name__}: {error}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(f"get_config() of {path} returns no ConfigDict but {config!r}")
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(f"--config.{override} has no value; write --config.{key}=VALUE")
        _set(config, key, text)
    return check_config(config)


def _set(config: ml_collections.ConfigDict, key: str, text: str) -> None:
    keys = flatten(config)
    if key not in keys:
        raise ConfigError(f"no config key {key!r}{_nearest(key, keys)}")
    default = keys[key]
    if isinstance(default, str):
        value = text
    else:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = {"true": True, "false": False}.get(text.lower(), text)
        if isinstance(default, tuple) and not isinstance(value, tuple):
            value = tuple(text.split(",")) if isinstance(value, str) else (value,)
    *parents, last = key.split(".")
    for parent in parents:
        config = config[parent]
    with config.unlocked(), config.ignore_type():
        config[last] = value


def check_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config, frozen, after every key, type and combination was checked.

    Raises:
      ConfigError: as `load`.
    """
    base = flatten(defaults())
    values = flatten(config)
    for key in values.keys() - base.keys():
        raise ConfigError(f"no config key {key!r}{_nearest(key, base)}")
    for key in base.keys() - values.keys():
        raise ConfigError(f"config key {key!r} is missing; start from rfxray/config/schema.py")
    for key, default in base.items():
        value, kind = values[key], type(default)
        right = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not right or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"{key}={value!r} is not of type {kind.__name__}")
        inner = str if kind is tuple and isinstance(default[0], str) else (int, float)
        if kind is tuple and not all(isinstance(v, inner) for v in value):
            raise ConfigError(f"{key}={value!r} does not hold what its default {default!r} holds")

        for number in value if kind is tuple else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{key}={value!r} is not finite")

    def require(condition, line):
        if not condition:
            raise ConfigError(line.format(**config))

    def choice(key, *allowed):
        require(values[key] in allowed, f"{key}={{{key}}} is none of {', '.join(allowed)}")

    choice("flow.prediction", "v", "x")
    choice("optim.schedule", "constant", "cosine", "wsd")
    choice("attention", *ATTENTION)
    choice("remat", "none", "dots", "attention", "full")
    choice("model.dtype", "float32", "bfloat16")
    choice("samples.solver", *SOLVERS)
    choice("data.verify", "none", "sample", "full")
    counts = ["steps", "batch_size", "log_every", "checkpoint_keep", "unroll", "stop_seconds"]
    counts += ["data.threads", "data.prefetch", "eval.batches", "samples.n", "samples.steps"]
    counts += ["mesh.fsdp", "accumulate", "profile.steps", "skip.limit", "skip.window"]
    counts += [key for key in base if key.startswith("model.") and key != "model.rope_theta"]
    for key in counts:
        require(not isinstance(base[key], int) or values[key] >= 1, key + " must be at least 1")
    whole = ["eval.every", "samples.every", "data.workers", "data.tolerate", "profile.first"]
    whole += ["checkpoint_every", "checkpoint_minutes", "checkpoint_keep_every", "ema_every"]
    whole += ["skip.factor", "watchdog.seconds", "watchdog.give_up", "samples.guidance"]
    for key in whole:
        require(values[key] >= 0, key + " must be at least 0")
    require(
        config.skip.limit <= REMEMBERED_SKIPS,
        f"skip.limit={{skip.limit}} must be at most {REMEMBERED_SKIPS}, as many as are remembered",
    )
    require(config.watchdog.factor > 1, "watchdog.factor={watchdog.factor} must be above 1")
    require(0 <= config.seed < 2**32, "seed={seed} must lie in [0, 2³²)")

    require(
        config.steps * config.batch_size < 2**32,
        "steps={steps} of batch_size={batch_size} are more than the 2³² examples that are counted",
    )
    require(
        config.profile.first <= config.steps,
        "profile.first={profile.first} comes after steps={steps}",
    )
    require(
        config.mesh.data == -1 or config.mesh.data >= 1,
        "mesh.data={mesh.data} is neither −1 nor at least 1",
    )

    m, o, n = config.model, config.optim, config.dropout
    require(m.rope_theta > 1, "model.rope_theta={model.rope_theta} must be above 1")
    require(0 <= o.b1 < 1 and 0 <= o.b2 < 1, "optim.b1={optim.b1}, optim.b2={optim.b2}: in [0, 1)")
    require(o.eps > 0, "optim.eps={optim.eps} must be above 0")
    require(o.weight_decay >= 0, "optim.weight_decay={optim.weight_decay} must be at least 0")
    require(
        m.size % m.patch == 0, "model.patch={model.patch} does not divide model.size={model.size}"
    )
    require(
        m.width % (4 * m.heads) == 0,
        "model.width={model.width} is not model.heads={model.heads} times a multiple of 4, "
        "as axial rotary embedding needs",
    )
    for key in ("heads", "mlp_width"):
        line = f"mesh.tensor={{mesh.tensor}} does not divide model.{key}={{model.{key}}}"
        require(config.mesh.tensor >= 1 and m[key] % config.mesh.tensor == 0, line)
    require(
        config.mesh.sequence >= 1 and (m.size // m.patch) ** 2 % config.mesh.sequence == 0,
        "mesh.sequence={mesh.sequence} does not divide the (model.size / model.patch)² tokens",
    )
    require(o.clip > 0, "optim.clip={optim.clip} must be above 0")
    require(o.learning_rate > 0, "optim.learning_rate={optim.learning_rate} must be above 0")
    require(o.warmup >= 0, "optim.warmup={optim.warmup} must be at least 0")
    require(
        o.schedule != "wsd" or 0 < o.decay <= config.steps - o.warmup,
        "optim.schedule=wsd needs 0 < optim.decay={optim.decay} <= steps={steps} - "
        "optim.warmup={optim.warmup}",
    )
    require(
        o.schedule != "cosine" or o.warmup < config.steps,
        "optim.warmup={optim.warmup} leaves the cosine no step of steps={steps}",
    )
    require(config.flow.t_std > 0, "flow.t_std={flow.t_std} must be above 0")
    require(config.flow.shift > 0, "flow.shift={flow.shift} must be above 0")
    require(
        min(n.all_null, n.each) >= 0 and n.all_null + n.each <= 1,
        "dropout.all_null={dropout.all_null} and dropout.each={dropout.each} are shares of a whole",
    )
    require(
        0 < len(config.data.dirs) == len(config.data.weights),
        "data.dirs={data.dirs} and data.weights={data.weights} differ in length, or are empty",
    )
    require(min(config.data.weights) > 0, "data.weights={data.weights} must be above 0")
    require(
        config.ema_sigmas and all(0 < sigma <= 0.25 for sigma in config.ema_sigmas),
        "ema_sigmas={ema_sigmas} must lie in (0, 0.25]",
    )
    require(
        len({f"{sigma:.3f}" for sigma in config.ema_sigmas}) == len(config.ema_sigmas),
        "ema_sigmas={ema_sigmas} are told apart by three decimals",
    )
    config.lock()
    return ml_collections.FrozenConfigDict(config)


def override(config: ml_collections.ConfigDict, values: dict[str, object]):
    """A checked config with some keys (`mesh.fsdp`) replaced, checked again."""
    changed = ml_collections.ConfigDict(config)
    changed.update_from_flattened_dict(values)
    return check_config(changed)


def from_json(tree: dict) -> ml_collections.FrozenConfigDict:
    """The config of a run from its `config.json`; keys that it did not know have their default.

    Raises:
      ConfigError: as `load`.
    """
    config = defaults()
    with config.unlocked(), config.ignore_type():
        config.update(with_tuples(ml_collections.ConfigDict(tree, convert_dict=True)))
    return check_config(config)


def with_tuples(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A tree read back from JSON, its lists as the tuples they were."""
    tuples = ml_collections.ConfigDict()
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            value = with_tuples(value)
        tuples[key] = tuple(value) if isinstance(value, list) else value
    return tuples
