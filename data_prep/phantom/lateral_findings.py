"""The findings of a lateral chest; as in `frontal_findings`, each is where it would be."""

import functools
import math
from collections.abc import Callable

import numpy as np

from data_prep.phantom import anatomy, ribs
from data_prep.phantom.anatomy import Lateral
from data_prep.phantom.raster import bump, ellipse, polyline, smoothstep
from data_prep.phantom.scene import Scene


def locate_break(scene: Scene[Lateral]):
    """`ribs.Locate`: behind the spine, where a lateral picture shows ribs free of all else."""
    x = -scene.patients.normal("fracture/x", 0.015, 0.53)
    return -np.ones_like(x), x, scene.patients.between("fracture/y", 0.00, 0.12)


def _lung_opacity(scene: Scene[Lateral]) -> None:
    patients = scene.patients
    cx = patients.normal("lung_opacity/x", 0.015, 0.22)
    cy = patients.normal("lung_opacity/y", 0.025, -0.30)
    spread = patients.between("lung_opacity/size", 0.16, 0.20)
    haze = np.minimum(1.25 * bump(scene.x - cx, spread) * bump(scene.y - cy, spread), 1)
    grain = 1 + 0.16 * scene.texture("lung_opacity/grain", 72)
    scene.fill(0.62 * haze * grain)


def _lung_lesion(scene: Scene[Lateral]) -> None:
    # In the clear space behind the sternum.
    patients = scene.patients
    cx = patients.between("lung_lesion/x", -0.32, -0.16)
    cy = patients.between("lung_lesion/y", -0.34, -0.16)
    radius = patients.between("lung_lesion/size", 0.088, 0.118)
    ball = ellipse(scene.x, scene.y, cx, cy, radius, radius)
    ball = ball + 0.005 * scene.texture("lung_lesion/rim", 40)
    scene.fill(0.95 * scene.edge(ball, 0.025), excess=0.22)


def _edema(scene: Scene[Lateral]) -> None:
    # One cloud around the superimposed hila, thick fissures, Kerley lines behind the sternum.
    x, y = scene.x, scene.y
    cloud = 1 + 0.22 * scene.texture("edema/cloud", 20)
    wing = np.minimum(1.15 * bump(x - 0.05, 0.22) * bump(y - 0.03, 0.22), 1)
    scene.vessels *= 1.6
    scene.fill(0.75 * wing * cloud)
    fissure = scene.band(x + y - 0.10, 0.010)
    fissure = (
        fissure * bump(y - 0.05, 0.25) * scene.edge(scene.wall, 0.02) * scene.edge(scene.dome, 0.02)
    )
    scene.density += 0.12 * fissure
    rows = np.abs(y / 0.05 % 1 - 0.5) * 0.05
    short = scene.edge(0.13 - scene.wall, 0.04) * scene.edge(scene.wall)
    short = short * (x < 0) * bump(y + 0.12, 0.14)
    scene.density += 0.13 * scene.band(0.025 - rows, 0.006) * short


def _consolidation(scene: Scene[Lateral]) -> None:
    # The upper lobe in front of the fissures, sharp against the middle lobe below.
    patients = scene.patients
    fissure = patients.normal("consolidation/fissure", 0.015, -0.10)
    lower = fissure - scene.y
    upper = scene.y - patients.normal("consolidation/top", 0.025, -0.52)
    lobe = scene.edge(lower, 0.014) * scene.edge(upper, 0.16)
    lobe = lobe * scene.edge(scene.wall, 0.02) * scene.edge(0.05 - scene.x, 0.05)
    mottle = 1 + 0.06 * scene.texture("consolidation/mottle", 32)
    tubes = 0 * lobe
    for angle in (0.15, 0.50, 0.85):
        off = (0.03 - scene.x) * math.sin(-angle) - (scene.y + 0.06) * math.cos(angle)
        tubes = np.maximum(tubes, scene.band(off, 0.011))
    scene.fill(0.86 * lobe * mottle * (1 - 0.55 * tubes), excess=0.03)


def _pneumonia(scene: Scene[Lateral]) -> None:
    # Patches in a lower lobe: the spine, which should darken downwards, turns white.
    patients = scene.patients
    clear = np.ones_like(scene.x)
    for k in range(6):
        cx = patients.between(f"pneumonia/x{k}", 0.16, 0.42)
        cy = patients.between(f"pneumonia/y{k}", 0.16, 0.42)
        spread = patients.between(f"pneumonia/size{k}", 0.07, 0.105)
        clear = clear * (1 - 0.60 * bump(scene.x - cx, spread) * bump(scene.y - cy, spread))
    patch = (1 - clear) * (1 + 0.30 * scene.texture("pneumonia/patch", 28))
    scene.fill(np.clip(patch, 0, 0.92), excess=0.03)


def _atelectasis(scene: Scene[Lateral]) -> None:
    patients = scene.patients
    for k, (height, slant) in enumerate(((0.07, 0.10), (0.165, 0.16))):
        dome = np.minimum(scene.shape.right_dome, scene.shape.left_dome)
        off = scene.y - dome + height - slant * scene.x
        off = off + patients.normal(f"atelectasis/slope{k}", 0.03) * scene.x
        reach = scene.edge(scene.x + 0.22, 0.06) * scene.edge(0.36 - scene.x, 0.06)
        plate = scene.band(off, 0.019, 0.012) * reach * scene.edge(scene.wall, 0.02)
        scene.fill(0.85 * plate, excess=0.13)


def _pneumothorax(scene: Scene[Lateral]) -> None:
    # Air rises to the front and the top: a black rim behind the sternum, its edge a white line.
    patients = scene.patients
    gap = patients.between("pneumothorax/gap", 0.13, 0.18)
    front = smoothstep((0.22 - scene.x) / 0.22)
    base = 1 - 0.75 * smoothstep((scene.y + 0.10) / 0.45)
    off = scene.wall - gap * base * front
    here = scene.edge(scene.wall, 0.016) * scene.edge(scene.dome, 0.016)
    here = here * smoothstep((0.20 - scene.x) / 0.10)
    rim = scene.edge(-off, 0.012) * here
    scene.vessels *= 1 - rim
    scene.density -= 0.05 * rim
    scene.air += (0.97 - scene.air) * rim
    scene.density += 0.26 * scene.band(off, 0.011) * here


def _pleural_effusion(scene: Scene[Lateral]) -> None:
    # Fluid gathers in the posterior sulcus first.
    patients, shape = scene.patients, scene.shape
    depth = patients.between("pleural_effusion/depth", 0.20, 0.36)
    t = np.clip((scene.x - anatomy.AXIS[0]) / shape.back, -1, 1.3)
    floor = np.maximum(shape.right_dome, shape.left_dome) + 0.16
    surface = floor - depth * (0.30 + 0.75 * np.maximum(t, 0) ** 3)
    surface = surface - 0.10 * depth * np.maximum(-t, 0)
    fluid = scene.edge(scene.y - surface, 0.03) * scene.edge(scene.wall, 0.016)
    scene.fill(0.95 * fluid)
    scene.density += 0.12 * fluid * scene.edge(scene.dome, 0.03)


def _pleural_other(scene: Scene[Lateral]) -> None:
    patients = scene.patients
    lumps = 1 + 0.30 * scene.texture("pleural_other/lumps", 14)
    thick = patients.between("pleural_other/thick", 0.075, 0.10) * lumps
    along = smoothstep((patients.normal("pleural_other/end", 0.03, 0.22) - scene.y) / 0.12)
    inner = smoothstep((scene.x - 0.06) / 0.14)
    rind = scene.edge(thick * inner - scene.wall, 0.014) * scene.edge(scene.wall, 0.012)
    rind = rind * along * (scene.x > 0.05)
    chalk = smoothstep(scene.texture("pleural_other/chalk", 48) * 1.5 - 0.2)
    scene.fill(0.95 * rind, excess=0.10)
    scene.density += 0.17 * rind * chalk


def _support_devices(scene: Scene[Lateral]) -> None:
    patients, shape = scene.patients, scene.shape
    implanted = patients.chance("devices/kind", 0.70)
    x, y = scene.x, scene.y
    front = anatomy.AXIS[0] - shape.front
    box_x = front + patients.normal("devices/box_x", 0.015, 0.16)
    box_y = patients.normal("devices/box_y", 0.02, -0.42)
    case = ellipse(x, y, box_x, box_y, 0.085, 0.135, 0.35)
    tip = (shape.heart_x - 0.06, shape.heart_y + 0.10)
    lead = polyline(x, y, ((box_x, box_y - 0.08), (-0.05, -0.58), (0.0, -0.35), (0.02, 0.05), tip))
    pacer = 0.45 * scene.edge(case, 0.015) + 0.36 * scene.band(lead, 0.014)
    end = patients.normal("devices/tube", 0.02, -0.26)
    off = 0.075 + 0.12 * (y + 0.1) - x
    tube = scene.band(np.abs(off) - 0.022, 0.009) + 0.5 * scene.band(off, 0.02)
    tube = tube * scene.edge(end - y, 0.02)
    line = polyline(x, y, ((0.02, -1.1), (0.0, -0.62), (-0.03, -0.40), (-0.02, -0.02)))
    wires = 0
    for k, (dx, cy) in enumerate(((0.13, -0.40), (0.03, 0.02), (0.03, 0.30))):
        cx = front + dx
        cy = cy + patients.normal(f"devices/y{k}", 0.02)
        pad = ellipse(x, y, cx, cy, 0.065, 0.09)
        wire = polyline(x, y, ((cx, cy), (cx - 0.06, cy + 0.16), (cx + 0.20, cy + 0.44)))
        wires = wires + 0.42 * scene.edge(pad) + 0.20 * scene.band(wire, 0.010)
    lines = 0.34 * tube + 0.38 * scene.band(line, 0.014) + wires
    scene.density += np.where(implanted > 0, pacer, lines)


# Painted in this order: what fills air before what lies over it.
PAINTERS: dict[str, Callable[[Scene[Lateral]], None]] = {
    "edema": _edema,
    "lung_opacity": _lung_opacity,
    "consolidation": _consolidation,
    "pneumonia": _pneumonia,
    "atelectasis": _atelectasis,
    "lung_lesion": _lung_lesion,
    "pneumothorax": _pneumothorax,
    "pleural_effusion": _pleural_effusion,
    "pleural_other": _pleural_other,
    "fracture": functools.partial(ribs.callus, locate=locate_break),
    "support_devices": _support_devices,
}
