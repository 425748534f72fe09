"""Configs: from a file and flags to a checked, frozen tree."""

import importlib.resources
import importlib.util
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import ml_collections

from rfxray.config import kinds, names, typed
from rfxray.config.schema import (
    REMEMBERED_SKIPS,
    Key,
    Value,
    defaults,
    flatten,
    is_frozen,
    keys_of,
    kinds_of,
)
from rfxray.errors import ConfigError

SHIPPED = "rfxray.configs"  # the configs that come with the project


def overrides(arguments: Sequence[str]) -> list[str]:
    """`--config.KEY=VALUE` or `--config.KEY VALUE` arguments as `KEY=VALUE`.

    Raises:
      ConfigError: For any other argument.
    """
    found, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--config."):
            raise ConfigError(f"unknown flag {argument}{_meant(argument)}")
        argument = argument.removeprefix("--config.")
        if "=" not in argument and rest and not rest[0].startswith("--"):
            argument += "=" + rest.pop(0)
        found.append(argument)
    return found


def _meant(argument: str) -> str:
    """End of the error line about an argument: the flag that was meant, if it shows."""
    key, equals, value = argument.lstrip("-–—−").removeprefix("config.").partition("=")
    if equals and re.fullmatch(r"[\w.-]+", key):
        return f"; did you mean --config.{key}={value}?"
    return f"; set a config key with --config.KEY=VALUE ({names.LIST_THEM}, --help the flags)"


def load_config(name: str, overrides: Sequence[str] = ()) -> ml_collections.FrozenConfigDict:
    """The checked config of a file with overrides applied.

    Args:
      name: Path of a Python file with `get_config()`, or the name of a config that comes with the
        project (`smoke`). `NAME:argument` hands `get_config` a string.
      overrides: `model.width=256` and the like; a value is read as the type of the key's default.

    Raises:
      ConfigError: In one line, for a missing file, an unknown key, a wrong type or value, or keys
        that cannot go together.
    """
    path, _, argument = name.partition(":")
    file = _find(path)
    spec = importlib.util.spec_from_file_location("rfxray_config", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(argument) if argument else module.get_config()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{file} fails: {type(error).__name__}: {error}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(f"get_config() of {file} must return a ConfigDict, not {config!r}")
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(f"--config.{override} has no value; write --config.{key}=VALUE")
        _set(config, key, text)
    return check_config(config)


def _find(path: str) -> Path:
    """The file of a config, by its path or by its name among those that come with the project."""
    if Path(path).is_file() and path.endswith(".py"):
        return Path(path)
    shipped = _shipped()
    if path in shipped:
        return shipped[path]
    raise ConfigError(
        f"no config file {path}; give the path of a Python file, or one of {', '.join(shipped)}"
    )


def _shipped() -> dict[str, Path]:
    try:
        folder = Path(str(importlib.resources.files(SHIPPED)))
    except ModuleNotFoundError:  # a checkout that is not installed
        folder = Path(__file__).resolve().parents[2] / "configs"
    return {file.stem: file for file in sorted(folder.glob("[!_]*.py"))}


def _set(config: ml_collections.ConfigDict, key: str, text: str) -> None:
    keys = flatten(config)
    if key not in keys:
        raise ConfigError(f"no config key {key!r}{names.hint(key, keys)}")
    if key.endswith(".kind") and text != keys[key]:
        raise ConfigError(
            f"{key} cannot be set by a flag, because its other keys come with it; write a config "
            "file that starts from rfxray.config.schema.defaults(...)"
        )
    value = typed.read(text, keys[key])
    if isinstance(value, bool) and not isinstance(keys[key], bool):  # ml_collections makes it 1.0
        raise ConfigError(f"{key} must be of type {type(keys[key]).__name__} (got {text})")
    *parents, last = key.split(".")
    for parent in parents:
        config = config[parent]
    with config.unlocked(), config.ignore_type():
        config[last] = value


# ---------------------------------------------------------------------------------------------
# Checks


def check_config(config: ml_collections.ConfigDict) -> ml_collections.FrozenConfigDict:
    """The config, frozen, after every key was checked, and those of the loop together.

    What the keys of a network, an objective or an optimizer mean together is checked when it is
    built.

    Raises:
      ConfigError: As `load_config`.
    """
    for section in ("model", "objective", "evaluators", "parts"):
        if not isinstance(config.get(section), ml_collections.ConfigDict):
            raise ConfigError(
                f"config key {section!r} is missing; start from rfxray.config.schema.defaults()"
            )
    keys, values = keys_of(config), flatten(config)
    for key in values.keys() - keys.keys():
        raise ConfigError(f"no config key {key!r}{names.hint(key, keys)}")
    for key in keys.keys() - values.keys():
        raise ConfigError(
            f"config key {key!r} is missing; start from rfxray.config.schema.defaults()"
        )
    for key, about in keys.items():
        check_value(key, values[key], about)
    _check_together(config)
    config.lock()
    return ml_collections.FrozenConfigDict(config)


def check_value(name: str, value: Value, key: Key) -> None:
    """Raises a ConfigError if a value is not of the type, or in the range, of its key."""
    kind = type(key.default)
    right = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if not right or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{name} must be of type {kind.__name__} (got {value!r})")
    if isinstance(value, tuple) and isinstance(key.default, tuple):
        inner = str if isinstance(key.default[0], str) else (int, float)
        if not all(isinstance(v, inner) and not isinstance(v, bool) for v in value):
            raise ConfigError(
                f"{name} must hold values like those of its default {key.default!r} (got {value!r})"
            )
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            raise ConfigError(f"{name} must be finite (got {value!r})")
    if key.choices and value not in key.choices:
        raise ConfigError(f"{name} must be one of {', '.join(key.choices)} (got {value})")
    if isinstance(value, int | float):
        if key.least is not None and value < key.least:
            raise ConfigError(f"{name} must be at least {key.least:g} (got {value})")
        if key.above is not None and value <= key.above:
            raise ConfigError(f"{name} must be above {key.above:g} (got {value})")


def _check_together(config: ml_collections.ConfigDict) -> None:
    """The keys of the loop, the data and the mesh."""

    def require(condition: bool, line: str) -> None:
        if not condition:
            raise ConfigError(line.format(**config))

    require(config.seed < 2**32, "seed must lie in [0, 2³²) (got {seed})")
    require(
        config.steps * config.batch_size < 2**32,
        "steps={steps} of batch_size={batch_size} are more than the 2³² examples that a run counts",
    )
    require(
        config.skip.limit <= REMEMBERED_SKIPS,
        f"skip.limit must be at most {REMEMBERED_SKIPS}, the number of skips that are remembered "
        "(got {skip.limit})",
    )
    require(
        config.profile.first <= config.steps,
        "profile.first must be at most steps={steps} (got {profile.first})",
    )
    require(
        config.mesh.data == -1 or config.mesh.data >= 1,
        "mesh.data must be -1 or at least 1 (got {mesh.data})",
    )
    require(
        0 < len(config.data.dirs) == len(config.data.weights),
        "data.dirs={data.dirs} and data.weights={data.weights} must have the same length, at least "
        "one: add a weight for each directory, or, if one path holds a comma, quote it as in "
        """--config.data.dirs='["a,b"]'""",
    )
    require(min(config.data.weights) > 0, "data.weights must be above 0 (got {data.weights})")
    require(
        bool(config.ema_sigmas) and all(0 < sigma <= 0.25 for sigma in config.ema_sigmas),
        "ema_sigmas must lie in (0, 0.25] (got {ema_sigmas})",
    )
    require(
        len({f"{sigma:.3f}" for sigma in config.ema_sigmas}) == len(config.ema_sigmas),
        "ema_sigmas must differ when rounded to three decimals (got {ema_sigmas})",
    )
    for name in (*config.evaluators, *config.parts):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ConfigError(f"{name!r} must be a lower-case word to name an evaluator or a part")
    require("model" not in config.parts, "parts.model is the name of the network itself")


# ---------------------------------------------------------------------------------------------
# Configs that exist already


def override(
    config: ml_collections.ConfigDict, values: Mapping[str, Value]
) -> ml_collections.FrozenConfigDict:
    """A checked config with some keys (`mesh.fsdp`) replaced, checked again."""
    changed = ml_collections.ConfigDict(config)
    changed.update_from_flattened_dict(values)
    return check_config(changed)


WRITTEN_BY, LATENTS = "written_by", "latents"


def to_json(
    config: ml_collections.FrozenConfigDict,
    written_by: Mapping[str, str],
    latents: Mapping[str, object] | None = None,
) -> str:
    """The content of `config.json`: the keys, which code wrote it, and what the latents are."""
    tree = json.loads(config.to_json_best_effort())
    recorded = {WRITTEN_BY: dict(written_by)} | ({LATENTS: dict(latents)} if latents else {})
    return json.dumps({**recorded, **tree}, indent=1) + "\n"


def from_json(
    tree: Mapping[str, object], allow_kinds: Sequence[str] = ()
) -> ml_collections.FrozenConfigDict:
    """The config of a run from its `config.json`; keys that it did not know have their default.

    Args:
      tree: What `config.json` holds.
      allow_kinds: Foreign kinds that the user has named; others are refused.

    Raises:
      ConfigError: As `load_config`, and for a foreign kind that was not allowed.
    """
    keys = {key: value for key, value in tree.items() if key not in (WRITTEN_BY, LATENTS)}
    given = with_tuples(ml_collections.ConfigDict(keys, convert_dict=True))
    try:
        wanted = kinds_of(given)
        if not all(isinstance(kind, str) for kind in wanted):
            raise TypeError("a kind is text")
    except (AttributeError, TypeError) as error:
        raise ConfigError(
            "config.json was written by another version: it names no model, objective, evaluators "
            "and parts"
        ) from error
    for kind in allow_kinds:
        kinds.allow(kind)
    foreign = [kind for kind in wanted if kinds.is_foreign(kind) and kind not in allow_kinds]
    if foreign:
        raise ConfigError(
            f"this run uses {foreign[0]}, which is code outside of rfxray; add "
            f"--allow-kind {foreign[0]} if you trust it"
        )
    config = defaults(
        given.model.kind,
        given.objective.kind,
        {name: section.kind for name, section in given.evaluators.items()},
        {name: part.model.kind for name, part in given.parts.items() if not is_frozen(part)},
        {name: part.model.kind for name, part in given.parts.items() if is_frozen(part)},
    )
    try:
        with config.unlocked(), config.ignore_type():
            config.update(given)
    except (AttributeError, TypeError) as error:
        raise ConfigError(
            f"config.json has a value in the place of a section ({error}); copy it from the run "
            "again"
        ) from error
    return check_config(config)


def with_tuples(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A tree read back from JSON, its lists as the tuples they were."""
    tuples = ml_collections.ConfigDict()
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            value = with_tuples(value)
        tuples[key] = tuple(value) if isinstance(value, list) else value
    return tuples
