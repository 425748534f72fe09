"""What a model card quotes of an evaluation of privacy, as Markdown."""

from collections.abc import Mapping
from typing import Any


def markdown(found: Mapping[str, Any]) -> str:
    """The part of a model card.

    Args:
      found: The results.
    """
    sets = found["sets"]
    lines = [
        "## Privacy",
        "",
        f"{sets['synthetic']['images']:,} samples against {sets['train']['images']:,} training "
        f"images{_patients(sets['train'])}; null: {found['null']['held_out']:,} held-out images "
        f"and {found['null']['training']:,} training images among other patients'.",
        "",
        "| figure | value | 95% interval |",
        "|---|---|---|",
    ]
    for row in found["figures"]:
        value = "not estimable" if row["value"] is None else f"{row['value']:.4g}"
        interval = "" if row["low"] is None else f"{row['low']:.4g} to {row['high']:.4g}"
        lines.append(f"| {row['name']} | {value} | {interval} |")
    lines += ["", f"About {found['level']:.3g} of samples that copy nothing are listed too."]
    gate = found["gate"]
    if gate is not None:
        verdict = "passed" if gate["reason"] is None else f"failed: {gate['reason']}"
        lines += ["", f"Release gate {verdict}."]
        missing = [check["name"] for check in gate["checks"] if check["passed"] is None]
        if missing:
            lines.append(f"Not measured: {', '.join(missing)}.")
    made = found["written_by"]
    lines += [
        "",
        f"`{found['command']}`, rfxray {made['rfxray']}, commit {made['commit']}. Copies that were "
        "mirrored, turned, zoomed or strongly blurred are not found, and stronger attacks exist.",
    ]
    return "\n".join(lines) + "\n"


def _patients(of: Mapping[str, Any]) -> str:
    return f" of {of['patients']:,} patients" if of["patients"] else ""
