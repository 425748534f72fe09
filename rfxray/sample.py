"""Draws radiographs from a trained model: `python -m rfxray.sample --checkpoint WORKDIR --out DIR`.

    --set view=PA --set age=63            what every picture is asked to be; the rest is not told
    --grid cardiomegaly=absent,present    a table instead: the same noise under each value
    --grid age=20,50,80                   … and columns by a second attribute
    --nearest DATA                        beside each picture the nearest one that it trained on

Writes 16-bit PNGs, `grid.png` to look at, and `samples.json`, whose `command` makes them again.
"""

import argparse
import itertools
import shlex
import sys
from pathlib import Path

import numpy as np
from einops import rearrange
from tqdm import tqdm

from rfxray import conditioning, devices, pictures, sampling
from rfxray.errors import ArgumentParser, ConfigError, exit_on_error
from rfxray.input import open_dataset
from rfxray.sampling.nearest import nearest
from rfxray.sampling.nearest import sheet as sheet_of_nearest


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
        name = conditioning.lookup(name).name
        if name in axes or name in asked:
            raise ConfigError(f"--grid {name} is given twice, or by --set too")
        axes[name] = [value.strip() for value in values.split(",")]
        for value in axes[name]:
            conditioning.encode_value(name, value)
    if len(axes) > 2:
        raise ConfigError(f"--grid takes rows and columns, not {len(axes)} attributes")
    return axes


def _draw(model, arguments, settings, asked, axes) -> sampling.Pictures:
    """n pictures, or n for every cell of the grid (cells vary fastest)."""
    cells = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    encoded = [conditioning.encode({**asked, **cell}) for cell in cells]
    values, known = (
        np.tile(np.stack(part), (arguments.n, 1)) for part in zip(*encoded, strict=True)
    )
    first = arguments.first_index
    indices = np.repeat(np.arange(first, first + arguments.n), len(cells))
    with tqdm(total=len(indices), unit="picture", disable=not sys.stderr.isatty()) as bar:
        return sampling.generate(
            model, (values, known), indices=indices, settings=settings, progress=bar.update
        )


def _sheet(drawn: sampling.Pictures, axes: dict[str, list[str]], n: int, title: str) -> np.ndarray:
    images = pictures.to_uint8(drawn.images)
    if not axes:
        return pictures.grid(images, title=title)
    (row_name, row_values), *more = axes.items()
    columns = [f"{name}={value}" for name, values in more for value in values]
    cells = rearrange(
        images, "(n r c) h w -> (n r) c h w", n=n, r=len(row_values), c=max(1, len(columns))
    )
    rows = [f"{row_name}={value}" for value in row_values] * n
    return pictures.table(cells, rows, columns, title)


def sample(arguments: argparse.Namespace) -> None:
    """What the command does.

    Raises:
      ConfigError, DataError: see `sampling.load` and `conditioning.parse`.
    """
    asked = conditioning.parse(arguments.set)
    axes = parse_grid(arguments.grid, asked)
    if arguments.n < 1 or arguments.first_index < 0:
        raise ConfigError("--n is at least 1 and --first-index at least 0")
    settings = sampling.Settings(
        seed=arguments.seed,
        steps=arguments.steps,
        solver=arguments.solver,
        guidance=arguments.guidance,
        shift=arguments.shift,
        batch_size=arguments.batch_size,
    )
    trained_on = open_dataset(arguments.nearest) if arguments.nearest else None
    model = sampling.load(arguments.checkpoint, arguments.ema, arguments.step)
    source = model.source
    print(f"rfxray.sample: {source['checkpoint']} at step {source['step']}, EMA {source['ema']}")
    drawn = _draw(model, arguments, settings, asked, axes)
    # The step is written out: the command stays the same when the run has gone on.
    command = [*("python", "-m", "rfxray.sample"), *arguments.argv]
    if arguments.step is None:
        command += ["--step", str(source["step"])]
    paths = sampling.save(drawn, arguments.out, {"command": shlex.join(command)})
    told = ", ".join(f"{k}={v}" for k, v in asked.items()) or "nothing else told"
    title = f"synthetic: {told}, guidance {settings.guidance:g}"
    sheet = _sheet(drawn, axes, arguments.n, title)
    pictures.save_png(arguments.out / "grid.png", sheet, {"Description": "synthetic radiographs"})
    if trained_on is not None:
        near = nearest(drawn.images, trained_on)
        pictures.save_png(arguments.out / "nearest.png", sheet_of_nearest(drawn.images, near))
        closest = int(near.distances.argmin())
        print(
            f"rfxray.sample: nearest.png shows the nearest training pictures; root mean square "
            f"distance {near.distances.mean():.3f} on average, least {near.distances[closest]:.3f} "
            f"({paths[closest].name} to {near.keys[closest]})"
        )
    print(f"rfxray.sample: {len(paths)} pictures, grid.png and samples.json in {arguments.out}")


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
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    p.add_argument("--grid", action="append", default=[], metavar="NAME=VALUE,VALUE")
    p.add_argument("--nearest", metavar="DATA", help="also find the nearest pictures of a data set")
    p.add_argument("--guidance", type=float, default=2.0, help="classifier-free weight, 1: none")
    p.add_argument("--solver", default=defaults.solver, help="euler, heun, midpoint or rk4")
    p.add_argument("--steps", type=int, default=defaults.steps, help="of the solver")
    p.add_argument("--shift", type=float, default=defaults.shift, help="of the time grid")
    p.add_argument("--ema", type=float, default=0.05, help="relative width of the EMA profile")
    p.add_argument("--step", type=int, help="of the checkpoint; the newest by default")
    p.add_argument("--seed", type=int, default=defaults.seed)
    p.add_argument("--first-index", type=int, default=0, help="of the pictures of the seed")
    p.add_argument("--batch-size", type=int, default=defaults.batch_size)
    return p


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    arguments = parser().parse_args(argv)
    arguments.argv = argv
    with exit_on_error("rfxray.sample"):
        devices.start()
        sample(arguments)


if __name__ == "__main__":
    main()
