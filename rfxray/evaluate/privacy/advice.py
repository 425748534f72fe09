"""What to do about near-copies, with the cost of each."""

from collections.abc import Sequence

from rfxray.evaluate.privacy.gate import Check
from rfxray.evaluate.privacy.near import Found

SAME = 0.98  # correlation of edges of two training images, from which on they are one picture twice


def repeated(found: Found) -> int:
    """Training images, of those that were looked up, that another patient's image repeats."""
    return int((found.left_out.correlation >= SAME).sum())


def steps(found: Found, training: int, checks: Sequence[Check]) -> list[str]:
    """What helps, the cheapest first; empty if every limit is kept.

    Args:
      found: Near-copies.
      training: Number of training images.
      checks: Limits beside what was measured.
    """
    failed = {check.name for check in checks if check.passed is False}
    lines = []
    if {"samples", "held_out"} & failed:
        lines.append("Give more images: with so few, a pass would say little. It costs minutes.")
    if not failed - {"samples", "held_out"}:
        return lines
    listed, total = int(found.listed.sum()), len(found.listed)
    if "near_copies" in failed:
        lines.append(
            f"Filter: leave out the {listed:,} of {total:,} samples that samples.csv lists. It "
            "costs these samples and nothing else; the model itself still holds what it memorised, "
            "so its weights are not made safe."
        )
    same, looked_up = repeated(found), len(found.left_out)
    lines.append(
        f"Deduplicate: {same:,} of {looked_up:,} training images that were looked up have "
        f"the edges of another patient's image (correlation of {SAME:g} or more). Repeats are "
        "memorised first (arXiv 2202.06539). It costs a training run."
        if same
        else f"Deduplicate: of {looked_up:,} training images that were looked up none repeats "
        "another patient's, so this would change little."
    )
    lines.append(
        "Stop earlier: an earlier checkpoint saw each image less often. It costs this command for "
        "each (--checkpoint with --step, and samples of it), and sharpness."
    )
    lines.append(
        f"More data: the share falls with the number of training images ({training:,} here). It "
        "costs the data and a training run of the same steps."
    )
    return lines
