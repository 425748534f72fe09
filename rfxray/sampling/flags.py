"""Draws radiographs from a trained model: `python -m rfxray.sample --checkpoint WORKDIR --out DIR`.

    --set view=PA --set age=63            requested of every image; the rest is unconditioned
    --csv FILE                            … or of each a row of a table; its header names attributes
    --like DATA                           … or what each radiograph of a data set (a folder) shows
    --balance sex,race,view,age_decade    … or every combination of subgroups equally often
    --complete table=DATA                 the rest of each request is drawn from rows of a data set
    --complete causes=MODEL               … or from a causal model of rfxray causes fit
    --do sex=M --causes MODEL             … or a population under an intervention (rfxray causes)
    --grid cardiomegaly=absent,present    a table instead: the same noise under each value
    --grid age=20,50,80                   … and columns by a second attribute
    --nearest DATA                        beside each image the nearest one that it was trained on

Attributes are view, sex, race, age, source and 14 findings (present or absent); --list prints all
with their values. The command writes 16-bit PNG, DICOM Secondary Capture or
ArrayRecord (--format), `grid.png` and `gallery.html` to look at, and `samples.json`, which names
the `command` that draws them again. Memory does not grow with --n while it draws. To continue
after an interruption, run the same command again: it keeps the checkpoint that it began with. A
larger --n adds images to those that are there.
"""

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from rfxray.attributes import vocabulary
from rfxray.attributes.listing import add_list
from rfxray.command_line import (
    ArgumentParser,
    at_home,
    data_folder,
    local_path,
    refuse_address,
    refuse_unread,
    settings_given,
    words_of,
)
from rfxray.data.dataset import open_dataset
from rfxray.errors import ConfigError
from rfxray.sampling import completion, model_flags, requests, stream, tables
from rfxray.sampling.plan import refuse_range
from rfxray.sampling.requests import Requests
from rfxray.sampling.sample_request import SampleRequest
from rfxray.sampling.settings import LAST, Settings
from rfxray.sampling.solvers import SOLVERS, SPACINGS
from rfxray.sampling.tables import Table

# (folder of a causal model, seed) → what draws from it
CausalModel: TypeAlias = Callable[[Path, int], completion.Completer]

GRID = ("steps", "shift", "spacing")  # unread if the times come from elsewhere


def parse_weights(texts: Sequence[str]) -> tuple[tuple[tuple[str, ...], float], ...]:
    """`["view+sex=1.5"]` as `((("view", "sex"), 1.5),)`.

    Raises:
      ConfigError: For what is not NAMES=WEIGHT, or a wrong name.
    """
    groups = []
    for text in texts:
        names, _, weight = text.partition("=")
        try:
            number = float(weight)
        except ValueError:
            raise ConfigError(f"--weight {text!r} is not NAMES=W, such as view+sex=2") from None
        groups.append((tuple(vocabulary.lookup(name).name for name in names.split("+")), number))
    return tuple(groups)


def parse_numbers(flag: str, text: str) -> tuple[float, ...]:
    """`"0.1,0.9"` as (0.1, 0.9).

    Raises:
      ConfigError: For anything except numbers between commas.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"{flag} must be numbers separated by commas, such as 1,0.5,0 (got {text!r})"
        ) from None


def parse_weak(text: str) -> tuple[float, int | None]:
    """`"0.10@1000"` as the EMA profile and step (0.1, 1000), `"0.10"` as (0.1, None).

    Raises:
      ConfigError: For anything else.
    """
    profile, at, step = text.partition("@")
    try:
        return float(profile), int(step) if at else None
    except ValueError:
        raise ConfigError(
            f"--autoguide {text!r} is not EMA or EMA@STEP, such as 0.10@1000"
        ) from None


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings that the flags give, if each of them is read."""
    interval = parse_numbers("--interval", arguments.interval)
    if len(interval) != 2:
        raise ConfigError(f"--interval {arguments.interval!r} is not LOW,HIGH, such as 0.1,0.9")
    if arguments.negative and arguments.autoguide is not None:
        raise ConfigError(
            "--autoguide leads away from a network, not from --negative; leave one out"
        )
    if arguments.times is not None:
        refuse_unread(arguments, GRID, "--times")
    if arguments.solver == "adaptive":
        refuse_unread(arguments, (*GRID, "times"), "--solver adaptive")
    else:
        refuse_unread(arguments, ["tolerance"], "a solver other than adaptive")
    parsed = {
        "times": () if arguments.times is None else parse_numbers("--times", arguments.times),
        "weights": parse_weights(arguments.weight),
        "negative": tuple(vocabulary.parse(arguments.negative).items()),
        "interval": interval,
    }
    return Settings(**settings_given(arguments, Settings) | parsed).refuse_idle()


def asks_of(arguments: argparse.Namespace, asked: Mapping[str, str], n: int) -> Requests | Table:
    """What --grid, --csv, --like or --balance request of n images, or only --set."""
    ways = ("grid", "csv", "like", "balance")
    given = [name for name in ways if getattr(arguments, name) is not None]
    if len(given) > 1:
        raise ConfigError(f"--{given[0]} and --{given[1]} exclude each other; leave one out")
    first = arguments.first_index
    if arguments.csv is None:
        refuse_unread(arguments, ("per_row", "file_names"), "a command without --csv")
        if arguments.anonymous:
            raise ConfigError("a command without --csv does not read --anonymous; leave it out")
    if arguments.grid is not None:
        if arguments.format != "png":
            raise ConfigError("--grid is only written as png; leave --format out")
        return Table(tables.parse_axes(arguments.grid, asked), asked, n, first)
    if arguments.csv is not None:
        if arguments.anonymous and arguments.file_names is not None:
            raise ConfigError(
                "--anonymous numbers the files, --file-names names them; leave one out"
            )
        per_row = 1 if arguments.per_row is None else arguments.per_row
        if not 1 <= per_row < 2**32:
            raise ConfigError(f"--per-row must be at least 1 and below 2³² (got {per_row})")
        return requests.from_csv(
            arguments.csv, asked, per_row, arguments.file_names, arguments.anonymous
        )
    if arguments.like is not None:
        path, _, split = arguments.like.partition(":")
        return requests.from_dataset(
            open_dataset(path, latents=True), split or "train", asked, n, first
        )
    if arguments.balance is not None:
        return requests.balanced(arguments.balance.split(","), asked, arguments.seed)
    return requests.alike(asked)


def completed(
    arguments: argparse.Namespace, asks: Requests | Table, causal: CausalModel | None
) -> Requests | Table:
    """What is requested, and what --complete draws of the rest."""
    if arguments.complete is None:
        return asks
    kind, equals, data = arguments.complete.partition("=")
    if kind not in ("table", "causes") or not equals or not data.strip():
        raise ConfigError(
            "--complete must be table=DATA, table=DATA:SPLIT or causes=MODEL (got "
            f"{arguments.complete!r})"
        )
    if isinstance(asks, Table):
        raise ConfigError("--grid changes its attributes only; leave --complete out")
    refuse_address(data)
    if kind == "causes":
        if causal is None:
            raise ConfigError("only rfxray sample draws from a causal model; give table=DATA")
        return dataclasses.replace(asks, completion=causal(at_home(data), arguments.seed))
    path, _, split = data.partition(":")
    dataset = open_dataset(at_home(path), latents=True)
    table = completion.of_dataset(dataset, split or "train", arguments.seed)
    return dataclasses.replace(asks, completion=table)


def request_of(arguments: argparse.Namespace, causal: CausalModel | None = None) -> SampleRequest:
    """The request that the parsed flags make.

    Args:
      arguments: Parsed flags.
      causal: Function that opens the causal model of `--complete causes=MODEL`.

    Raises:
      ConfigError, DataError: For flags that are wrong, do not go together or name no data.
    """
    asked, first = vocabulary.parse(arguments.set), arguments.first_index
    n = 16 if arguments.n is None else arguments.n
    refuse_range(n, first)
    asks = completed(arguments, asks_of(arguments, asked, n), causal)
    if isinstance(asks, Requests) and arguments.csv is not None:
        if arguments.n is None:
            n = max(1, asks.images - first)
            refuse_range(n, first)
        if asks.names and first + n > asks.images:
            raise ConfigError(
                f"--file-names names {asks.images} images, not image {first} to {first + n - 1}; "
                "lower --n, or leave it out"
            )
    if arguments.format not in stream.FORMATS:
        raise ConfigError(f"no --format {arguments.format!r}, only {', '.join(stream.FORMATS)}")
    return SampleRequest(
        checkpoint=arguments.checkpoint,
        out=arguments.out,
        n=n,
        first=first,
        format=arguments.format,
        settings=settings_of(arguments),
        asked=asked,
        asks=asks,
        ema=arguments.ema,
        step=arguments.step,
        weak=parse_weak(arguments.autoguide) if arguments.autoguide is not None else None,
        nearest=arguments.nearest,
        compile_only=arguments.compile_only,
        allow_kinds=arguments.allow_kind,
        vae=arguments.vae,
        words=words_of(parser(), arguments, ("csv",) if arguments.anonymous else ()),
    )


def parser() -> argparse.ArgumentParser:
    """The parser of `rfxray sample`; its `--help` begins with this file's docstring."""
    p = ArgumentParser(
        prog="python -m rfxray.sample",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    d = Settings()
    add = p.add_argument
    model_flags.add_places(p)
    add(
        "--n",
        type=int,
        help="images, or images per cell of a --grid (default: 16, or all that --csv requests)",
    )
    add_list(p)
    add = p.add_argument_group("what is requested").add_argument
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="attribute of each image, such as age=63 (years); repeatable (default: unconditioned)",
    )
    add(
        "--grid",
        action="append",
        metavar="NAME=VALUE,…",
        help="table with a row per value; given twice, rows and columns (default: no table)",
    )
    add(
        "--csv",
        type=local_path,
        metavar="FILE",
        help="table with the attributes of one image per row, their names in the header; reused "
        "from its first row if --n is larger; columns image_id and path go into samples.json only "
        "(default: none)",
    )
    add(
        "--per-row",
        type=int,
        metavar="K",
        help="images of each row of --csv, each with a noise of its own (default: 1)",
    )
    add(
        "--file-names",
        metavar="COLUMN",
        help="column of --csv that names the files; _0, _1, … follow if --per-row is above 1 "
        "(default: sample_00000, …)",
    )
    add(
        "--anonymous",
        action="store_true",
        help="carry nothing of --csv except attributes: no image_id, path or file name (default: "
        "off)",
    )
    add(
        "--like",
        type=data_folder,
        metavar="DATA[:SPLIT]",
        help="data set folder; each image is requested with the attributes of one of its "
        "radiographs, in order (default: none; SPLIT: train)",
    )
    add(
        "--balance",
        metavar="NAMES",
        help="draw every combination of the values of these attributes equally often, such as "
        "sex,race,view,age_decade (default: none)",
    )
    add(
        "--complete",
        metavar="table=DATA[:SPLIT]|causes=MODEL",
        help="draw what is not requested from a row of this data set that has what is requested, "
        "or from a causal model given what is requested, and request it too: for populations "
        "(default: leave it to the model; SPLIT: train)",
    )
    add(
        "--do",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="intervention of a causal model on everybody, such as sex=M: what it causes follows, "
        "and all attributes are drawn by the model; repeatable (default: none)",
    )
    add(
        "--causes",
        type=local_path,
        metavar="MODEL",
        help="folder of rfxray causes fit, for --do (default: none)",
    )
    add(
        "--counterfactual-of",
        type=data_folder,
        metavar="DATA[:SPLIT]",
        help="for --do: a twin of each radiograph of a data set, with its attributes as they would "
        "be under the intervention (default: a new population; SPLIT: train)",
    )
    add = p.add_argument_group(
        "how it is drawn (docs/sampling.md)", "Time 1 is pure noise, time 0 the finished image."
    ).add_argument
    add(
        "--guidance",
        type=float,
        default=d.guidance,
        help="weight of the requested attributes (classifier-free guidance): 1 is off, higher "
        f"shows them more strongly (default: {d.guidance:g})",
    )
    add(
        "--weight",
        action="append",
        default=[],
        metavar="NAMES=W",
        help="guidance weight of a group of attributes, such as view+sex=2, repeatable; all others "
        "have --guidance (default: one group)",
    )
    add(
        "--negative",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="attribute that guidance leads away from, such as support_devices=present; repeatable "
        "(default: guidance leads away from what is unconditioned)",
    )
    add("--interval", default="0,1", metavar="LOW,HIGH", help="times with guidance (default: 0,1)")
    add(
        "--rescale",
        type=float,
        default=d.rescale,
        help=f"share (0 to 1) of the contrast added by guidance to remove (default: {d.rescale:g})",
    )
    add(
        "--optimised",
        action="store_true",
        help="CFG-Zero*: fit the scale of the unconditioned prediction to the conditioned one, and "
        "skip the first step (default: off)",
    )
    add(
        "--autoguide",
        metavar="EMA[@STEP]",
        help="guide away from a weaker network of this run instead of the unconditioned one: its "
        "--ema and --step, such as 0.10@1000 (default: none; STEP: the same step)",
    )
    add("--solver", default=d.solver, help=f"{', '.join(SOLVERS)}, adaptive (default: {d.solver})")
    add("--steps", type=int, help=f"solver steps from noise to image (default: {d.steps})")
    add(
        "--shift",
        type=float,
        help=f"above 1 takes more of the steps near noise, below 1 fewer (default: {d.shift:g})",
    )
    add("--spacing", help=f"{' or '.join(SPACINGS)} (more near the image) (default: {d.spacing})")
    add("--times", metavar="1,…,0", help="all times (default: from --steps, --shift, --spacing)")
    add("--last", default=d.last, help=f"last step: {' or '.join(LAST)} (default: {d.last})")
    add(
        "--tolerance",
        type=float,
        help=f"error allowed in a step of --solver adaptive (default: {d.tolerance:g})",
    )
    add(
        "--churn",
        type=float,
        default=d.churn,
        help="fresh noise added in each step, with --solver euler: 0 is none, 1 the amount in the "
        f"SiT paper, 2 that in the SiT code (default: {d.churn:g})",
    )
    which = p.add_argument_group("which, and as what")
    add = which.add_argument
    model_flags.add_weights(which)
    model_flags.add_vae(which)
    add(
        "--seed",
        type=int,
        default=d.seed,
        help=f"seed of the noise; image i of a seed always has the same noise (default: {d.seed})",
    )
    add("--first-index", type=int, default=0, help="number i of the first image (default: 0)")
    add(
        "--batch-size",
        type=int,
        default=d.batch_size,
        help=f"images drawn at once; fewer need less memory (default: {d.batch_size})",
    )
    add("--format", default="png", help=f"{', '.join(stream.FORMATS)} (default: png)")
    add(
        "--nearest",
        type=data_folder,
        metavar="DATA",
        help="data set folder of the training; nearest.png shows the most similar training image "
        "beside each of the first images (default: none)",
    )
    add(
        "--compile-only", action="store_true", help="only fill the compilation cache (default: off)"
    )
    return p
