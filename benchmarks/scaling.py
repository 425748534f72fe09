"""Work and memory per device as devices are added: a train step compiled, not run.

    python -m benchmarks.scaling --config radit:size=xl --out docs/scaling.png

The step of one global batch is compiled for 8 … 512 devices that the CPU emulates, sharded over
fsdp up to `--fsdp` ways and over data beyond. Read from the compiled module, per device: operations
of matrix products, bytes of the state, and temporary bytes (activations kept for the backward pass,
gathered parameters, gradients). Prints a line per count; the plot compares each with perfect
division by the number of devices.
"""

import argparse
import os
from pathlib import Path

from rfxray.command_line import ArgumentParser, exit_on_error

COUNTS = (8, 16, 32, 64, 128, 256, 512)
COLOURS = ("#1f5fa8", "#b5402f", "#3b7d3a")


def measure(config, count: int, fsdp: int) -> dict[str, float]:
    """Per device of a mesh of `count`: matrix operations, bytes of state, bytes of temporaries."""
    import jax

    from rfxray import compile_pod
    from rfxray.perf import hlo
    from rfxray.runtime import sharding
    from rfxray.training import recipe as recipes

    recipe = recipes.build(config)
    ways = min(count, fsdp)
    mesh = sharding.make_mesh(count // ways, ways, 1, devices=jax.devices()[:count])
    compiled = compile_pod.lower_step(recipe, mesh).compile(
        # Only the partitioning matters; the machine code is discarded.
        compiler_options={"xla_backend_optimization_level": "0"}
    )
    memory = compiled.memory_analysis()
    return {
        "matrix operations": hlo.matmul_flops(hlo.parse(compiled.as_text())),
        "bytes of state": float(memory.alias_size_in_bytes),
        "bytes in between": float(memory.temp_size_in_bytes),
    }


def draw(rows: dict[int, dict[str, float]], title: str, out: Path) -> None:
    """Draws each quantity, relative to the fewest devices, on log-log axes into a PNG file.

    A thin grey line falls as 1 / devices.
    """
    import math

    from PIL import Image, ImageDraw, ImageFont

    scale, width, height = 2, 640, 400  # drawn at twice the size, for smooth lines
    left, right, top, bottom = 70, 470, 40, 350
    counts = list(rows)
    least = counts[0] / counts[-1] / 2
    sheet = Image.new("RGB", (scale * width, scale * height), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13 * scale)

    def at(count, value):
        x = left + (right - left) * math.log(count / counts[0]) / math.log(counts[-1] / counts[0])
        y = top + (bottom - top) * math.log(value) / math.log(least)
        return scale * x, scale * y

    def write(x, y, text, colour="#333333", anchor="la"):
        pen.text((scale * x, scale * y), text, colour, font, anchor=anchor)

    write(left, 10, title)
    for count in counts:
        x, _ = at(count, 1)
        pen.line([(x, scale * top), (x, scale * bottom)], "#eeeeee", scale)
        write(x / scale, bottom + 8, str(count), anchor="ma")
    write((left + right) / 2, bottom + 28, "devices", anchor="ma")
    for power in range(int(-math.log2(least)) + 1):
        _, y = at(counts[0], 2.0**-power)
        pen.line([(scale * left, y), (scale * right, y)], "#eeeeee", scale)
        write(left - 8, y / scale, f"1/{2**power}" if power else "1", anchor="rm")
    pen.line([at(n, counts[0] / n) for n in counts], "#999999", scale)
    below = 0.0  # labels that would overlap are stacked
    names = sorted(
        rows[counts[0]], key=lambda name: -rows[counts[-1]][name] / rows[counts[0]][name]
    )
    for name, colour in zip(names, COLOURS, strict=True):
        points = [at(n, rows[n][name] / rows[counts[0]][name]) for n in counts]
        pen.line(points, colour, 2 * scale)
        for x, y in points:
            pen.ellipse([x - 6, y - 6, x + 6, y + 6], colour)
        below = max(below + 16, points[-1][1] / scale)
        write(right + 14, below, name, colour, "lm")
    sheet.save(out, optimize=True)


def main(argv: list[str] | None = None) -> None:
    parser = ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="config file or name")
    parser.add_argument(
        "--fsdp", type=int, default=32, help="largest number of shards (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="PNG file for the plot (default: none)")
    arguments, rest = parser.parse_known_args(argv)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={COUNTS[-1]}"
    from rfxray.config import load as configuration

    with exit_on_error("benchmarks.scaling"):
        config = configuration.load_config(arguments.config, configuration.overrides(rest))
        rows = {}
        for count in COUNTS:
            rows[count] = measure(config, count, arguments.fsdp)
            figures = ", ".join(f"{name} {value:.4g}" for name, value in rows[count].items())
            print(f"{count} devices, per device: {figures}", flush=True)
        if arguments.out:
            title = f"one step of {arguments.config}, batch {config.batch_size}"
            draw(rows, title, arguments.out)
            print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
