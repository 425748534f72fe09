"""Draws radiographs from a trained model: `python -m rfxray.sample --checkpoint WORKDIR --out DIR`.

    --set view=PA --set age=63            what every picture is asked to be; the rest is not told
    --csv FILE                            … or a row of a table each, its header naming attributes
    --like DATA                           … or what each radiograph of a data set shows
    --balance sex,race,view,age_decade    … or every combination of subgroups alike often
    --grid cardiomegaly=absent,present    a table instead: the same noise under each value
    --grid age=20,50,80                   … and columns by a second attribute
    --nearest DATA                        beside each picture the nearest one that it trained on

Writes 16-bit PNG, DICOM Secondary Capture or ArrayRecord (--format), `grid.png` and `gallery.html`
to look at, and `samples.json`, whose `command` makes them again. Any number of pictures is drawn in
bounded memory; to go on after an interruption, run the same command again: it keeps to the step of
the checkpoint that it began with. A table (--grid) is held in memory whole and has no gallery; its
folder is empty, or holds what the same command wrote.
"""

import argparse
import itertools
import json
import math
import shlex
import sys
import time
from pathlib import Path

import numpy as np
from einops import rearrange
from tqdm import tqdm

from rfxray import sampling
from rfxray.attributes import vocabulary
from rfxray.command_line import (
    ArgumentParser,
    duration,
    exit_on_error,
    refuse_unread,
    settings_given,
)
from rfxray.data import pixels
from rfxray.data.dataset import open_dataset
from rfxray.data.pixels import to_float
from rfxray.errors import ConfigError, Preempted
from rfxray.evaluate import memorisation
from rfxray.outputs import contact_sheet, files
from rfxray.outputs.files import saving
from rfxray.runtime import distributed
from rfxray.sampling import requests, stream
from rfxray.sampling.sampler import Batches
from rfxray.sampling.samples import refuse_folder

ON_SHEET = 64  # pictures of grid.png
LINE_SECONDS = 10.0  # between lines of progress in a log

GRID = ("steps", "shift", "spacing")  # unread where the times come from elsewhere


# ---------------------------------------------------------------------------------------------
# What the flags say


def parse_grid(texts: list[str], asked: dict[str, str]) -> dict[str, list[str]]:
    """`["age=20,50"]` as `{"age": ["20", "50"]}`, checked.

    Raises:
      ConfigError: for a wrong name or value, more than two attributes, or one that is also set.
    """
    axes: dict[str, list[str]] = {}
    for text in texts:
        name, separator, values = text.partition("=")
        if not separator or not values:
            raise ConfigError(f"--grid {text!r} is not NAME=VALUE,VALUE,…, such as age=20,50,80")
        name = vocabulary.lookup(name).name
        if name in axes or name in asked:
            raise ConfigError(f"--grid {name} is given twice, or by --set too")
        axes[name] = [value.strip() for value in values.split(",")]
        for value in axes[name]:
            vocabulary.encode_value(name, value)
    if len(axes) > 2:
        raise ConfigError(f"--grid takes rows and columns, not {len(axes)} attributes")
    return axes


def parse_weights(texts: list[str]) -> tuple[tuple[tuple[str, ...], float], ...]:
    """`["view+sex=1.5"]` as `((("view", "sex"), 1.5),)`.

    Raises:
      ConfigError: for what is not NAMES=WEIGHT, or a wrong name.
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


def numbers(flag: str, text: str) -> tuple[float, ...]:
    """`"0.1,0.9"` as (0.1, 0.9).

    Raises:
      ConfigError: for what is not numbers between commas.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{flag} {text!r} is not numbers between commas") from None


def parse_weak(text: str) -> tuple[float, int | None]:
    """`"0.10@1000"` as the EMA profile and step (0.1, 1000), `"0.10"` as (0.1, None).

    Raises:
      ConfigError: for anything else.
    """
    profile, at, step = text.partition("@")
    try:
        return float(profile), int(step) if at else None
    except ValueError:
        raise ConfigError(
            f"--autoguide {text!r} is not EMA or EMA@STEP, such as 0.10@1000"
        ) from None


def settings_of(arguments: argparse.Namespace) -> sampling.Settings:
    interval = numbers("--interval", arguments.interval)
    if len(interval) != 2:
        raise ConfigError(f"--interval {arguments.interval!r} is not LOW,HIGH, such as 0.1,0.9")
    if arguments.times is not None:
        refuse_unread(arguments, GRID, "--times")
    if arguments.solver == "adaptive":
        refuse_unread(arguments, (*GRID, "times"), "--solver adaptive")
    else:
        refuse_unread(arguments, ["tolerance"], "a solver other than adaptive")
    parsed = {
        "times": () if arguments.times is None else numbers("--times", arguments.times),
        "weights": parse_weights(arguments.weight),
        "interval": interval,
    }
    return sampling.Settings(**settings_given(arguments, sampling.Settings) | parsed)


def requests_of(arguments: argparse.Namespace, asked: dict[str, str]) -> requests.Requests:
    """The rows of attributes that --csv, --like, --balance or --set alone ask for."""
    if arguments.csv:
        return requests.from_csv(arguments.csv, asked)
    if arguments.like:
        path, _, split = arguments.like.partition(":")
        return requests.from_dataset(
            open_dataset(path), split or "train", asked, arguments.n, arguments.first_index
        )
    if arguments.balance:
        return requests.balanced(arguments.balance.split(","), asked, arguments.seed)
    return requests.alike(asked)


# ---------------------------------------------------------------------------------------------
# The two kinds of runs


class Progress:
    """How many pictures are done: a bar on a terminal, a line now and then in a log."""

    def __init__(self, n: int):
        self._n, self._done, self._drawn = n, 0, 0
        self._bar = tqdm(total=n, unit="picture", disable=not sys.stderr.isatty())
        self._began = self._last = time.monotonic()

    def __call__(self, new: int) -> None:
        """Counts pictures; those of an earlier run come before any time has passed."""
        self._bar.update(new)
        self._done += new
        now = time.monotonic()
        if now - self._began > 1:
            self._drawn += new
        if self._bar.disable and now - self._last >= LINE_SECONDS and self._drawn:
            self._last = now
            rate = self._drawn / (now - self._began)
            left = duration((self._n - self._done) / rate)
            print(
                f"rfxray.sample: {self._done:,} of {self._n:,}, {rate:.1f}/s, ETA {left}",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        self._bar.close()


def draw_grid(model, arguments, settings, asked, axes, command: str) -> tuple[int, np.ndarray]:
    """n pictures for every cell of a table (cells vary fastest): (how many, images)."""
    _refuse_others(arguments.out, command)
    cells = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    table = [vocabulary.encode({**asked, **cell}) for cell in cells] * arguments.n
    first = arguments.first_index
    indices = np.repeat(np.arange(first, first + arguments.n), len(cells))
    progress = Progress(len(indices))
    drawn = sampling.generate(
        model, vocabulary.stack(table), indices=indices, settings=settings, progress=progress
    )
    progress.close()
    (row_name, row_values), *more = axes.items()
    columns = [f"{name}={value}" for name, values in more for value in values]
    table = rearrange(
        pixels.to_uint8(drawn.images),
        "(n r c) h w -> (n r) c h w",
        n=arguments.n,
        r=len(row_values),
        c=max(1, len(columns)),
    )
    rows = [f"{row_name}={value}" for value in row_values] * arguments.n
    with saving(arguments.out):
        sampling.save(drawn, arguments.out, {"command": command})
        _save_sheet(
            arguments.out, contact_sheet.table(table, rows, columns, _title(settings, asked))
        )
    return len(indices), drawn.images


def _refuse_others(out: Path, command: str) -> None:
    """Raises a ConfigError where a folder holds something, and not from the same command."""
    try:
        same = json.loads((out / "samples.json").read_text())["command"] == command
    except (OSError, ValueError, LookupError, TypeError):
        same = False
    if out.is_dir() and any(out.iterdir()) and not same:
        raise ConfigError(f"{out} is not empty, nor made by this very command; take another --out")


def draw_stream(model, arguments, settings, asked, command: str) -> tuple[int, np.ndarray]:
    """n pictures to disk, however many: (how many, those that the gallery shows)."""
    asks = requests_of(arguments, asked)
    block = min(arguments.batch_size, arguments.n)
    plan = stream.Plan(arguments.n, arguments.first_index, block, arguments.format)
    progress = Progress(plan.n)
    with saving(arguments.out):
        try:
            extra = {"command": command}
            stream.write(model, settings, asks, plan, arguments.out, extra, progress)
        except KeyboardInterrupt:
            raise Preempted("interrupted; the same command goes on where it was") from None
        finally:
            progress.close()
        shown = to_float(stream.first_pictures(arguments.out, plan))
        images = pixels.to_uint8(shown[:ON_SHEET])
        _save_sheet(arguments.out, contact_sheet.grid(images, title=_title(settings, asked)))
    return plan.n, shown


def _title(settings, asked) -> str:
    told = ", ".join(f"{k}={v}" for k, v in asked.items()) or "nothing else told"
    return f"synthetic: {told}, guidance {settings.guidance:g}"


def _save_sheet(out: Path, sheet: np.ndarray) -> None:
    files.save_png(out / "grid.png", sheet, {"Description": "synthetic radiographs"})


def sample(arguments: argparse.Namespace) -> None:
    """What the command does.

    Raises:
      ConfigError, DataError: see `sampling.load` and `conditioning.parse`.
      NonFiniteError, SaveFailed: where a picture is none, or cannot be written.
    """
    asked = vocabulary.parse(arguments.set)
    axes = parse_grid(arguments.grid, asked)
    if arguments.n < 1 or arguments.first_index < 0:
        raise ConfigError("--n is at least 1 and --first-index at least 0")
    kinds = [k for k in ("grid", "csv", "like", "balance") if getattr(arguments, k)]
    if len(kinds) > 1 or (arguments.grid and arguments.format != "png"):
        raise ConfigError("only one of --grid (as PNG), --csv, --like and --balance at a time")
    settings = settings_of(arguments)
    if arguments.format not in stream.FORMATS:
        raise ConfigError(f"no --format {arguments.format!r}, only {', '.join(stream.FORMATS)}")
    refuse_folder(arguments.out)
    trained_on = open_dataset(arguments.nearest) if arguments.nearest else None
    weak = parse_weak(arguments.autoguide) if arguments.autoguide else None
    step, begun = arguments.step, stream.begun(arguments.out)
    if step is None and begun.get("checkpoint") == str(Path(arguments.checkpoint)):
        step = begun["step"]  # the training run may have gone on since
    model = sampling.load(arguments.checkpoint, arguments.ema, step, weak)
    if trained_on is not None:
        memorisation.check(trained_on, model.size)
    source = model.source
    print(f"rfxray.sample: {source['checkpoint']} at step {source['step']}, EMA {source['ema']}")
    if arguments.compile_only:
        began = time.monotonic()
        n = arguments.n * math.prod(map(len, axes.values()))
        batches = Batches(model, settings, min(arguments.batch_size, n))
        batches.compile()
        print(f"rfxray.sample: compiled for {batches.size} in {time.monotonic() - began:.1f} s")
        return
    # The steps are written out: the command stays the same when the run has gone on.
    command = ["python", "-m", "rfxray.sample", *map(str, arguments.argv)]
    if arguments.step is None:
        command += ["--step", str(source["step"])]
    if weak and weak[1] is None:
        command += ["--autoguide", f"{weak[0]}@{source['weak']['step']}"]
    if axes:
        count, shown = draw_grid(model, arguments, settings, asked, axes, shlex.join(command))
    else:
        count, shown = draw_stream(model, arguments, settings, asked, shlex.join(command))
    if trained_on is not None:
        near = memorisation.nearest(shown, trained_on)
        with saving(arguments.out):
            files.save_png(arguments.out / "nearest.png", memorisation.sheet(shown, near))
        closest = int(near.distances.argmin())
        which = "each" if len(shown) == count else f"each of the first {len(shown)}"
        print(
            f"rfxray.sample: nearest.png shows the training picture nearest to {which}; root mean "
            f"square distance {near.distances.mean():.3f} on average, least "
            f"{near.distances[closest]:.3f} (sample_{closest:05d} to {near.keys[closest]})"
        )
    print(f"rfxray.sample: {count:,} pictures, grid.png and samples.json in {arguments.out}")


def parser() -> argparse.ArgumentParser:
    p = ArgumentParser(
        prog="python -m rfxray.sample",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = sampling.Settings()
    p.add_argument("--checkpoint", required=True, metavar="WORKDIR", help="of rfxray.train")
    p.add_argument("--out", required=True, type=Path, metavar="DIR")
    p.add_argument("--n", type=int, default=16, help="pictures, or pictures per cell of the grid")
    asks = p.add_argument_group("what is asked for")
    asks.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    asks.add_argument("--grid", action="append", default=[], metavar="NAME=VALUE,VALUE")
    asks.add_argument(
        "--csv", type=Path, metavar="FILE", help="a row a picture, from the top again"
    )
    asks.add_argument("--like", metavar="DATA[:SPLIT]", help="the attributes of a data set")
    asks.add_argument("--balance", metavar="NAMES", help="such as sex,race,view,age_decade")
    how = p.add_argument_group("how it is drawn (docs/sampling.md)")
    how.add_argument("--guidance", type=float, default=2.0, help="classifier-free weight, 1: none")
    how.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="NAMES=W",
        help="factored guidance: a group such as view+sex=2; --guidance is then for the rest",
    )
    how.add_argument("--interval", default="0,1", metavar="LOW,HIGH", help="times with guidance")
    how.add_argument(
        "--rescale", type=float, default=0.0, help="share of added contrast taken back"
    )
    how.add_argument(
        "--optimised", action="store_true", help="CFG-Zero*: at rest in the first step of the grid"
    )
    how.add_argument(
        "--autoguide",
        metavar="EMA[@STEP]",
        help="lead away from that network, by default of the same step",
    )
    names = ", ".join((*sampling.SOLVERS, "adaptive"))
    how.add_argument("--solver", default=defaults.solver, help=f"{names} ({defaults.solver})")
    how.add_argument("--steps", type=int, help=f"of the solver ({defaults.steps})")
    how.add_argument("--shift", type=float, help=f"of the time grid ({defaults.shift:g})")
    how.add_argument("--spacing", help=f"uniform or quadratic ({defaults.spacing})")
    how.add_argument("--times", metavar="1,…,0", help="a time grid of your own, in place of these")
    how.add_argument("--tolerance", type=float, help=f"of adaptive ({defaults.tolerance:g})")
    how.add_argument(
        "--churn",
        type=float,
        default=0.0,
        help="stochastic (euler); 1 is w = σ_t of SiT's equation, 2 the default of SiT's code",
    )
    which = p.add_argument_group("which, and as what")
    which.add_argument("--ema", type=float, default=0.05, help="relative width of the EMA profile")
    which.add_argument(
        "--step", type=int, help="of the checkpoint; the newest, or what --out began"
    )
    which.add_argument("--seed", type=int, default=defaults.seed)
    which.add_argument("--first-index", type=int, default=0, help="of the pictures of the seed")
    which.add_argument("--batch-size", type=int, default=defaults.batch_size)
    which.add_argument("--format", default="png", help=", ".join(stream.FORMATS))
    which.add_argument("--nearest", metavar="DATA", help="the nearest pictures of a data set, too")
    which.add_argument("--compile-only", action="store_true", help="fill the compilation cache")
    return p


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    arguments = parser().parse_args(argv)
    arguments.argv = argv
    with exit_on_error("rfxray.sample"):
        distributed.start()
        sample(arguments)


if __name__ == "__main__":
    main()
