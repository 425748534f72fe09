"""Our train step beside a PyTorch SiT under torch.compile, on one device, in one run.

    python -m benchmarks.train_step --config radit:size=xl --batch 32       on a GPU
    python -m benchmarks.train_step --config smoke --rounds 3               on any machine

Prints tokens/s, MFU if the peak of the device is known, and peak memory, for rfxray and for the
peer (extra `peers`) at the same width, depth, tokens and batch. The two run one after the other,
each in its own process. The ratio is that of the medians. `--out` appends the result to a Markdown
file such as benchmarks/RESULTS.md. Exit code 69: the batch does not fit.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rfxray.command_line import ArgumentParser, exit_on_error
from rfxray.config import load as configuration
from rfxray.errors import ConfigError, RfxrayError


def random_batch(config) -> dict:
    """A batch of noise: the time of a step does not depend on the images."""
    import numpy as np

    from rfxray.attributes import vocabulary

    rng = np.random.default_rng(0)
    m, n = config.model, config.batch_size
    return {
        "image": rng.uniform(-1, 1, (n, m.size, m.size, m.channels)).astype(np.float32),
        "attributes": np.zeros((n, vocabulary.NUM_ATTRIBUTES), np.float32),
        "known": np.ones((n, vocabulary.NUM_ATTRIBUTES), bool),
        "content_box": np.tile(np.array([0, 0, m.size, m.size], np.int32), (n, 1)),
        "index": np.arange(n, dtype=np.uint32),
    }


def ours(config):
    """(function that takes n steps and waits, facts, function of the peak memory) for rfxray."""
    import jax

    from rfxray.perf import chips
    from rfxray.runtime import sharding
    from rfxray.training import recipe as recipes
    from rfxray.training import state
    from rfxray.training.metrics import fresh
    from rfxray.training.step import train_step

    mesh = sharding.make_mesh(-1, 1, 1, devices=jax.devices()[:1])
    recipe = recipes.build(config)
    carry = [state.init(recipe, mesh), fresh(recipe.metrics, sharding.replicated(mesh))]
    batch = sharding.global_batch(mesh, random_batch(config))
    with jax.set_mesh(mesh):
        compiled = jax.jit(train_step(recipe), donate_argnums=0).lower(*carry, batch).compile()
    memory = compiled.memory_analysis()

    def run(n):
        for _ in range(n):
            carry[:] = compiled(*carry, batch)
        jax.block_until_ready(carry)

    device = jax.devices()[0]
    chip = chips.find(device.device_kind)
    facts = {
        "device": device.device_kind,
        "version": f"jax {jax.__version__}",
        "parameters": recipe.parameters,
        "flops": recipes.model_flops(config),
        "peak": chip.flops if chip else None,
    }

    def peak_memory():
        # If the backend does not count (a CPU): what the compiler reserves.
        counted = (device.memory_stats() or {}).get("peak_bytes_in_use")
        return counted or memory.argument_size_in_bytes + memory.temp_size_in_bytes

    return run, facts, peak_memory


def peer(config):
    """The same for the compiled PyTorch SiT, with bfloat16 autocast if the config has bfloat16."""
    import torch

    from benchmarks import torch_peer
    from rfxray.attributes import vocabulary

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    m = config.model
    network = torch_peer.SiT(
        m.size, m.channels, m.patch, m.width, m.depth, m.heads, vocabulary.NUM_ATTRIBUTES
    ).to(device)
    forward = torch.compile(network)
    half = m.dtype == "bfloat16"
    step = torch_peer.train_step(network, config.optim.learning_rate, forward, half)
    batch = random_batch(config)
    tensors = [torch.from_numpy(batch[k]).to(device) for k in ("image", "attributes", "known")]

    def run(n):
        for _ in range(n):
            step(*tensors)
        if device.type == "cuda":
            torch.cuda.synchronize()

    # Operations of the peer: its perceptron of ratio 4 costs as much as SwiGLU of ratio 8/3.
    tokens = (m.size // m.patch) ** 2
    block = 12 * m.width**2 + 2 * tokens * m.width
    per_token = m.depth * block + 2 * m.patch**2 * m.channels * m.width
    facts = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "version": f"torch {torch.__version__}",
        "parameters": sum(p.numel() for p in network.parameters()),
        "flops": 6.0 * config.batch_size * tokens * per_token,
        "peak": None,
    }

    def peak_memory():
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        import resource

        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    return run, facts, peak_memory


def serve(which: str, config, rounds: int, steps: int) -> None:
    """Measures one of the two in this process and prints it as JSON."""
    run, facts, peak_memory = {"ours": ours, "peer": peer}[which](config)
    run(2)  # compiles, warms up
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run(steps)
        seconds.append((time.perf_counter() - begin) / steps)
    print(json.dumps({**facts, "seconds": seconds, "memory": peak_memory()}), flush=True)


class DoesNotFit(RfxrayError):
    """The memory of the device is too small for this batch."""

    exit_code = 69  # not the 1 of a traceback: gpu.sh tries a smaller batch only after 69


def measure(which: str, arguments: list[str]) -> dict:
    """What `serve` prints in a process of its own, because each reserves the device's memory.

    Raises:
      DoesNotFit: If the memory of the device is too small.
      ConfigError: If the process ends for another reason.
    """
    command = [sys.executable, "-m", "benchmarks.train_step", "--serve", which, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        message = done.stderr.strip()
        if re.search("RESOURCE_EXHAUSTED|out of memory", message, re.IGNORECASE):
            raise DoesNotFit(f"{which} does not fit in the memory of the device; lower --batch")
        last = message.splitlines()[-1] if message else "no message"
        raise ConfigError(f"the benchmark of {which} ended with {done.returncode}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, found: dict, config, tokens: int, peak: float | None) -> str:
    """A row of the table."""
    seconds = statistics.median(found["seconds"])
    rates = sorted(tokens / s for s in found["seconds"])
    mfu = f"{found['flops'] / seconds / peak:.1%}" if peak else "–"
    m = config.model
    return (
        f"| {name} | {found['version']} | {found['device']} | {m.width} × {m.depth}, {m.dtype}, "
        f"{found['parameters'] / 1e6:,.1f} M | {config.batch_size} | {tokens / seconds:,.0f} "
        f"({rates[0]:,.0f} to {rates[-1]:,.0f}) | {mfu} | {found['memory'] / 2**30:.2f} |"
    )


HEAD = """| | version | device | model | batch | tokens/s, median (range) | MFU | peak GiB |
|--|--|--|--|--|--|--|--|"""


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = ArgumentParser(
        prog="python -m benchmarks.train_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="config file or name")
    parser.add_argument("--batch", type=int, help="examples per step (default: that of the config)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of each (default: %(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=10, help="steps per round (default: %(default)s)"
    )
    parser.add_argument("--no-peer", action="store_true", help="measure only rfxray")
    parser.add_argument("--out", type=Path, help="Markdown file to append to (default: none)")
    parser.add_argument("--serve", choices=("ours", "peer"), help=argparse.SUPPRESS)
    arguments, rest = parser.parse_known_args(argv)
    with exit_on_error("benchmarks.train_step"):
        overrides = configuration.overrides(rest)
        if arguments.batch:
            overrides = [f"batch_size={arguments.batch}", *overrides]
        config = configuration.load_config(arguments.config, overrides)
        if arguments.serve:
            serve(arguments.serve, config, arguments.rounds, arguments.steps)
            return
        same = ["--config", arguments.config, *(f"--config.{o}" for o in overrides)]
        same += ["--rounds", str(arguments.rounds), "--steps", str(arguments.steps)]
        found = {n: measure(n, same) for n in (["ours"] if arguments.no_peer else ["ours", "peer"])}
    tokens = config.batch_size * (config.model.size // config.model.patch) ** 2
    title = {"ours": "rfxray", "peer": "SiT, torch.compile"}
    peak = found["ours"]["peak"]
    lines = [HEAD, *(row(title[n], f, config, tokens, peak) for n, f in found.items())]
    if not arguments.no_peer:
        ours_, peers = (statistics.median(f["seconds"]) for f in found.values())
        lines += ["", f"rfxray / peer, tokens per second: {peers / ours_:.2f}"]
    command = "python -m benchmarks.train_step " + " ".join(argv)
    today = time.strftime("%Y-%m-%d")
    where = f"`{command}` on {platform.machine()}, {os.cpu_count()} CPU threads, {today}"
    text = "\n".join([where, "", *lines, ""])
    print(text)
    if arguments.out:
        with arguments.out.open("a") as file:
            file.write("\n" + text)
        print(f"appended to {arguments.out}")


if __name__ == "__main__":
    main()
