"""What tests of networks with published weights share: drawn weights and errors beside a peer."""

from collections.abc import Callable, Mapping

import numpy as np

# Largest difference of a network and its peer, as a share of the largest output.
TOLERANCE = 1e-4
# A tensor matters if its absence changes the output by several times the tolerance.
MATTERS = 5 * TOLERANCE


def draw(shapes: Mapping[str, tuple[int, ...]], std: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights from N(0, std²); variances are positive, and of the size of a square of a weight."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, shape in shapes.items():
        if name.endswith("running_var"):
            drawn[name] = (std**2 * rng.uniform(0.5, 2, shape)).astype(np.float32)
        else:
            drawn[name] = rng.normal(0, std, shape).astype(np.float32)
    return drawn


def relative(ours, theirs) -> float:
    """Largest difference, as a share of the largest value of `theirs`."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def effects(
    run: Callable[[dict], np.ndarray], weights: dict[str, np.ndarray], names=None
) -> dict[str, float]:
    """By how much the output changes if one tensor is zero, for each of them."""
    whole = run(weights)
    names = weights if names is None else names
    return {n: relative(run(weights | {n: np.zeros_like(weights[n])}), whole) for n in names}
