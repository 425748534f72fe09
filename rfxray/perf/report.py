"""Report on a program compiled for a pod: its needs and expected times, as JSON and as text."""

import jax

from rfxray.perf import roofline
from rfxray.perf.topology import Pod


def report(compiled: jax.stages.Compiled, pod: Pod, mesh, model_flops: float) -> dict:
    """Memory, FLOPs, traffic, communication and expected time of a program, as JSON values.

    Args:
      compiled: Program compiled for the devices of the pod.
      pod, mesh: Pod and mesh that it is compiled for.
      model_flops: Model FLOPs of the program over all devices, from flops.py.
    """
    memory = compiled.memory_analysis()
    assert memory is not None  # every compiler of XLA gives it
    needed = {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
    }
    total = sum(needed.values())
    coordinates = [(d.coords, getattr(d, "slice_index", 0)) for d in mesh.devices.flat]
    places = [(*at, slice_) for at, slice_ in coordinates]
    guess = roofline.estimate(compiled.as_text() or "", pod.chip, places)
    share = model_flops / mesh.size
    cost = compiled.cost_analysis() or {}
    return {
        "topology": pod.name,
        "device": pod.devices[0].device_kind,
        "chips": mesh.size,
        "mesh": dict(mesh.shape),
        "memory": {
            **needed,
            "total": total,
            "capacity": pod.chip.memory,
            "headroom": 1 - total / pod.chip.memory,
        },
        "flops": {
            "model": share,
            "executed": guess.flops,
            "executed_over_model": guess.flops / share,
            "xla_cost_analysis": cost.get("flops", 0.0),
        },
        "traffic": guess.traffic,
        "collectives": guess.collectives,
        "seconds": {
            "roofline": guess.roofline,
            "expected": guess.expected,
            "exposed_communication": guess.exposed,
            "parts": guess.parts,
        },
        "mfu": {
            "roofline": share / guess.roofline / pod.chip.flops,
            "expected": share / guess.expected / pod.chip.flops,
        },
    }


def whole_run(steps: int, step_tokens: int, found: dict, price: float | None) -> dict[str, float]:
    """Chip-hours and dollars of all steps at the expected rate, without interruptions.

    Args:
      steps: Steps of the run.
      step_tokens: Tokens of a step.
      found: Report on the step.
      price: Dollars per chip-hour, if known.
    """
    hours = steps * found["seconds"]["expected"] * found["chips"] / 3600
    dollars = {} if price is None else {"dollars": hours * price}
    return {"steps": steps, "tokens": steps * step_tokens, "chip_hours": hours, **dollars}


def whole_set(images: int, found: dict) -> dict[str, float]:
    """Images a second of a chip, and chip-hours of a million images, at the expected rate.

    Args:
      images: Images that the program takes, over all devices.
      found: Report on the program.
    """
    rate = images / found["chips"] / found["seconds"]["expected"]
    return {"images_per_second": rate, "chip_hours_of_a_million": 1e6 / rate / 3600}


def lines(found: dict) -> list[str]:
    """A report as lines of text."""
    gib = 2**30
    m, f, s = found["memory"], found["flops"], found["seconds"]
    mesh = " × ".join(f"{k} {v}" for k, v in found["mesh"].items() if v > 1) or "one device"
    out = [
        f"{found['chips']} chips of {found['topology']} ({found['device']}), mesh {mesh}, "
        f"{found['run']}",
        f"parameters      {found['parameters']:,}",
        f"HBM per chip    {m['total'] / gib:.2f} GiB = arguments {m['arguments'] / gib:.2f} + "
        f"temporaries {m['temporaries'] / gib:.2f} + outputs {m['outputs'] / gib:.2f} + program "
        f"{m['program'] / gib:.2f}; of {m['capacity'] / gib:.2f} GiB, headroom {m['headroom']:.1%}",
        f"FLOPs per chip  model {f['model']:.4g}, executed {f['executed']:.4g} (read from the "
        f"compiled module, × {f['executed_over_model']:.3f}); XLA's cost analysis says "
        f"{f['xla_cost_analysis']:.4g} (it counts a loop once)",
        f"HBM traffic     {found['traffic'] / 1e9:.1f} GB per chip",
    ]
    if "host" in found:
        out.append(f"host            {found['host'] / gib:.2f} GiB of maps")
    for kind, c in found["collectives"].items():
        out.append(
            f"{kind:18s}  {c['count']:5.0f} × a step, {c['bytes'] / 1e9:7.3f} GB per chip, links "
            f"{c['seconds'] * 1e3:8.2f} ms, not overlapped {c['exposed'] * 1e3:8.2f} ms"
        )
    out.append(
        "parts           "
        + ", ".join(f"{name} {1e3 * took:.0f} ms" for name, took in s["parts"].items())
    )
    out.append(
        f"time            roofline {s['roofline'] * 1e3:.1f} ms (MFU "
        f"{found['mfu']['roofline']:.1%}), expected {s['expected'] * 1e3:.1f} ms (MFU "
        f"{found['mfu']['expected']:.1%}), of which only communication "
        f"{s['exposed_communication'] * 1e3:.1f} ms: estimates, see rfxray/perf/roofline.py"
    )
    if total := found.get("whole_run"):
        dollars = f", {total['dollars']:,.0f} dollars" if "dollars" in total else ""
        out.append(
            f"the whole run   {total['steps']:,} steps, {total['tokens']:.3g} tokens, "
            f"{total['chip_hours']:,.0f} chip-hours{dollars} (estimate)"
        )
    if whole := found.get("encoding"):
        out.append(
            f"a million images {whole['chip_hours_of_a_million']:,.1f} chip-hours, "
            f"{whole['images_per_second']:,.1f} images/s a chip (estimate, without reading files)"
        )
    return out
