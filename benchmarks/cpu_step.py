"""Our train step beside a PyTorch SiT of the same width, depth and tokens, on this CPU, in one run.

    pip install -e '.[peers]'
    python -m benchmarks.cpu_step [--config smoke] [--rounds 5]

The two alternate, so that a change in the speed of the machine affects both; the ratio is that of
the medians. Both do forward, backward, clipping and AdamW; rfxray keeps two averages of the
parameters and draws its noise per example, the peer keeps one and draws it per batch.
"""

import importlib.util
import os
import statistics
import time
from importlib.metadata import version

import jax
import numpy as np

from rfxray.attributes import vocabulary
from rfxray.command_line import ArgumentParser, exit_on_error
from rfxray.config import load as configuration
from rfxray.errors import ConfigError
from rfxray.networks import kinds as networks
from rfxray.runtime import sharding
from rfxray.training import recipe as recipes
from rfxray.training import state
from rfxray.training.metrics import fresh
from rfxray.training.step import train_step


def ours(config, batch):
    """A function that takes n steps and waits for them."""
    mesh = sharding.make_mesh(-1, 1, 1, jax.devices()[:1])
    recipe = recipes.build(config)
    carry = [state.init(recipe, mesh), fresh(recipe.metrics, sharding.replicated(mesh))]
    batch = sharding.global_batch(mesh, batch)
    step = jax.jit(train_step(recipe), donate_argnums=0)

    def run(n):
        for _ in range(n):
            carry[:] = step(*carry, batch)
        jax.block_until_ready(carry)

    return run


def peer(config, batch):
    """The same for the PyTorch SiT, and its number of parameters."""
    import torch

    from benchmarks import torch_peer

    m = config.model
    network = torch_peer.SiT(
        m.size, m.channels, m.patch, m.width, m.depth, m.heads, vocabulary.NUM_ATTRIBUTES
    )
    step = torch_peer.train_step(network, config.optim.learning_rate)
    tensors = [torch.from_numpy(np.asarray(batch[k])) for k in ("image", "attributes", "known")]

    def run(n):
        for _ in range(n):
            step(*tensors)

    return run, sum(p.numel() for p in network.parameters())


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.cpu_step", description=__doc__)
    parser.add_argument("--config", default="smoke", help="config file or name (default: smoke)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of each, after a warm-up (default: 5)"
    )
    parser.add_argument("--steps", type=int, default=20, help="steps per round (default: 20)")
    arguments = parser.parse_args()
    with exit_on_error("benchmarks.cpu_step"):
        if importlib.util.find_spec("torch") is None:
            raise ConfigError(
                "the peer needs torch, which is not installed: pip install -e '.[peers]'"
            )
        config = configuration.load_config(arguments.config)
    rng = np.random.default_rng(0)
    m, n = config.model, config.batch_size
    batch = {
        "image": rng.uniform(-1, 1, (n, m.size, m.size, m.channels)).astype(np.float32),
        "attributes": np.zeros((n, vocabulary.NUM_ATTRIBUTES), np.float32),
        "known": np.ones((n, vocabulary.NUM_ATTRIBUTES), bool),
        "content_box": np.tile(np.array([0, 0, m.size, m.size], np.int32), (n, 1)),
        "index": np.arange(n, dtype=np.uint32),
    }
    run_ours = ours(config, batch)
    run_peer, peer_parameters = peer(config, batch)
    seconds = {"rfxray": [], "torch": []}
    for round_ in range(arguments.rounds + 1):
        for name, run in (("rfxray", run_ours), ("torch", run_peer)):
            begin = time.perf_counter()
            run(arguments.steps)
            if round_:
                seconds[name].append((time.perf_counter() - begin) / arguments.steps)
    network = networks.build(config.model)
    print(
        f"{os.cpu_count()} CPU threads, jax {jax.__version__}, torch {version('torch')}, "
        f"{arguments.config}: batch {n}, {network.tokens} tokens, width {m.width}, depth {m.depth}"
    )
    for name, count in (("rfxray", network.parameters), ("torch", peer_parameters)):
        rates = [n * network.tokens / s for s in seconds[name]]
        print(
            f"{name:7s} {count:>10,} parameters  {statistics.median(rates):>9,.0f} tokens/s "
            f"({min(rates):,.0f} to {max(rates):,.0f})"
        )
    ratio = statistics.median(seconds["torch"]) / statistics.median(seconds["rfxray"])
    print(f"ratio rfxray / torch: {ratio:.2f}")


if __name__ == "__main__":
    main()
