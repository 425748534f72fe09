"""The findings of a frontal chest, each painted where and how a radiologist expects it.

Side, place and size are the patient's: drawn from the noise whether or not the finding is there.
"""

import functools
import math
from collections.abc import Callable

import numpy as np

from data_prep.phantom import ribs
from data_prep.phantom.anatomy import Frontal
from data_prep.phantom.raster import bump, ellipse, polyline, segment, smoothstep
from data_prep.phantom.scene import Scene


def locate_break(scene: Scene[Frontal]):
    """`ribs.Locate`: the outer ribs of one side, in the mid zone."""
    patients = scene.patients
    x = patients.normal("fracture/x", 0.015, 0.80) * scene.shape.half_width
    return patients.side("fracture"), x, patients.between("fracture/y", 0.02, 0.16)


def _lung_opacity(scene: Scene[Frontal]) -> None:
    # Ground glass: a haze in the outer mid zone through which the vessels still show.
    patients = scene.patients
    side = patients.side("lung_opacity")
    cx = patients.normal("lung_opacity/x", 0.015, 0.66) * scene.shape.half_width
    cy = patients.normal("lung_opacity/y", 0.025, -0.02)
    spread = patients.between("lung_opacity/size", 0.17, 0.21)
    haze = bump(side * scene.x - cx, spread) * bump(scene.y - cy, 1.15 * spread)
    haze = np.minimum(1.25 * haze, 1)
    grain = 1 + 0.16 * scene.texture("lung_opacity/grain", 72)
    scene.fill(0.60 * haze * grain)


def _lung_lesion(scene: Scene[Frontal]) -> None:
    patients = scene.patients
    side = patients.side("lung_lesion")
    cx = patients.between("lung_lesion/x", 0.29, 0.42)
    cy = patients.between("lung_lesion/y", -0.42, 0.00)
    radius = patients.between("lung_lesion/size", 0.088, 0.118)
    ball = ellipse(side * scene.x, scene.y, cx, cy, radius, radius)
    ball = ball + 0.005 * scene.texture("lung_lesion/rim", 40)
    inside = scene.edge(ball, 0.025)
    scene.fill(0.95 * inside * scene.edge(scene.wall, 0.02), excess=0.16)


def _edema(scene: Scene[Frontal]) -> None:
    # Bat wings around both hila that spare the periphery, thick vessels, and Kerley B lines.
    x, y = scene.x - scene.shape.shift, scene.y
    wing = bump(np.abs(x) - 0.27, 0.15) * bump(y, 0.27)
    cloud = 1 + 0.22 * scene.texture("edema/cloud", 20)
    scene.vessels *= 1.6
    scene.fill(0.72 * np.minimum(1.1 * wing, 1) * cloud)
    rows = np.abs(y / 0.05 % 1 - 0.5) * 0.05
    base = smoothstep((y - 0.14) / 0.10) * scene.edge(scene.dome - 0.02)
    short = scene.edge(0.11 - scene.wall, 0.04) * scene.edge(scene.wall)
    short = short * (np.abs(x) > 0.4)
    lines = scene.band(0.025 - rows, 0.006)
    scene.density += 0.13 * lines * base * short


def _consolidation(scene: Scene[Frontal]) -> None:
    # An upper lobe, dense down to the fissure that bounds it, with air in its bronchi.
    patients = scene.patients
    side = patients.side("consolidation")
    across = side * scene.x
    fissure = patients.normal("consolidation/fissure", 0.015, -0.14)
    lower = fissure - 0.10 * (across - 0.35) - scene.y
    upper = scene.y - patients.normal("consolidation/top", 0.025, -0.52)
    lobe = scene.edge(lower, 0.014) * scene.edge(upper, 0.16) * scene.edge(across - 0.10, 0.04)
    lobe = lobe * scene.edge(scene.wall, 0.02)
    tubes = 0 * lobe
    for angle in (-0.20, -0.55, -0.95):
        off = (across - 0.16) * math.sin(angle) - (scene.y + 0.10) * math.cos(angle)
        tubes = np.maximum(tubes, scene.band(off, 0.011))
    tubes = tubes * scene.edge(across - 0.20, 0.06) * scene.edge(0.52 - across, 0.16)
    mottle = 1 + 0.06 * scene.texture("consolidation/mottle", 32)
    scene.fill(0.86 * lobe * mottle * (1 - 0.55 * tubes), excess=0.02)


def _pneumonia(scene: Scene[Frontal]) -> None:
    # Ill-defined confluent patches in one lower zone.
    patients = scene.patients
    side = patients.side("pneumonia")
    # On the left they lie beside the heart rather than before it.
    across = side * scene.x - 0.04 * (1 + side)
    clear = np.ones_like(scene.x)
    for k in range(6):
        cx = patients.between(f"pneumonia/x{k}", 0.26, 0.52)
        cy = patients.between(f"pneumonia/y{k}", 0.10, 0.36)
        spread = patients.between(f"pneumonia/size{k}", 0.07, 0.105)
        clear = clear * (1 - 0.66 * bump(across - cx, spread) * bump(scene.y - cy, spread))
    patch = (1 - clear) * (1 + 0.30 * scene.texture("pneumonia/patch", 28))
    scene.fill(np.clip(patch, 0, 0.92))


def _atelectasis(scene: Scene[Frontal]) -> None:
    # Plates above a dome that anatomy.py has lifted.
    patients = scene.patients
    side = patients.side("atelectasis")
    across = side * scene.x
    for k, (height, slant) in enumerate(((0.075, 0.10), (0.175, 0.16))):
        level = np.where(side < 0, scene.shape.right_dome, scene.shape.left_dome) - height
        slope = slant + patients.normal(f"atelectasis/slope{k}", 0.04)
        off = scene.y - level + slope * (across - 0.35)
        reach = scene.edge(across - 0.17, 0.06)
        reach = reach * scene.edge(0.60 - 0.05 * k - across, 0.06)
        plate = scene.band(off, 0.019, 0.012) * reach * scene.edge(scene.wall, 0.02)
        scene.fill(0.85 * plate, excess=0.10)


def _pneumothorax(scene: Scene[Frontal]) -> None:
    # The lung falls away from the wall: a thin white line, and black without vessels beyond it.
    patients = scene.patients
    side = patients.side("pneumothorax")
    across = side * scene.x
    gap = patients.between("pneumothorax/gap", 0.14, 0.20)
    base = 1 - 0.75 * smoothstep((scene.y + 0.10) / 0.55)
    outer = smoothstep((across - 0.14) / 0.20)
    off = scene.wall - gap * base * outer
    here = (across > 0) * scene.edge(scene.wall, 0.016) * scene.edge(scene.dome, 0.016)
    here = here * smoothstep((across - 0.18) / 0.10)
    rim = scene.edge(-off, 0.012) * here
    scene.vessels *= 1 - rim
    scene.density -= 0.10 * rim
    scene.air += (0.97 - scene.air) * rim
    scene.air *= 1 - 0.10 * here * (1 - rim)
    scene.density += 0.26 * scene.band(off, 0.011) * here


def _pleural_effusion(scene: Scene[Frontal]) -> None:
    # Fluid fills the costophrenic angle and climbs the wall: the meniscus. In a third, both sides.
    patients = scene.patients
    side = patients.side("pleural_effusion")
    both = patients.chance("pleural_effusion/both", 0.35)
    depth = patients.between("pleural_effusion/depth", 0.20, 0.36)
    floor = np.where(scene.x < 0, scene.shape.right_dome, scene.shape.left_dome) + 0.10
    t = np.clip(np.abs(scene.x) / scene.shape.half_width, 0, 1)
    surface = floor - depth * (0.35 + 0.9 * t**3)
    here = np.maximum(scene.edge(side * scene.x - 0.08, 0.03), both)
    fluid = scene.edge(scene.y - surface, 0.03) * scene.edge(scene.wall, 0.016) * here
    scene.fill(0.97 * fluid)
    scene.density += 0.14 * fluid * scene.edge(scene.dome, 0.03)


def _pleural_other(scene: Scene[Frontal]) -> None:
    # Thickened pleura along the upper wall and over the apex, with chalk in it.
    patients = scene.patients
    side = patients.side("pleural_other")
    lumps = 1 + 0.30 * scene.texture("pleural_other/lumps", 14)
    thick = patients.between("pleural_other/thick", 0.075, 0.10) * lumps
    along = smoothstep((patients.normal("pleural_other/end", 0.03, 0.22) - scene.y) / 0.12)
    here = (side * scene.x > 0.12) * along
    inner = smoothstep((side * scene.x - 0.16) / 0.14)
    rind = scene.edge(thick * inner - scene.wall, 0.014) * scene.edge(scene.wall, 0.012) * here
    chalk = smoothstep(scene.texture("pleural_other/chalk", 48) * 1.5 - 0.2)
    scene.fill(0.95 * rind, excess=0.06)
    scene.density += 0.15 * rind * chalk


def _support_devices(scene: Scene[Frontal]) -> None:
    # A pacemaker, or the lines of intensive care: tube, central venous catheter, electrodes.
    patients = scene.patients
    implanted = patients.chance("devices/kind", 0.70 - 0.25 * patients.supine)
    x, y = scene.x, scene.y
    box_x = patients.normal("devices/box_x", 0.02, 0.50)
    box_y = patients.normal("devices/box_y", 0.02, -0.36)
    case = ellipse(x, y, box_x, box_y, 0.135, 0.115, 0.3)
    tip = (scene.shape.heart_x + 0.05, scene.shape.heart_y + 0.08)
    knots = ((box_x - 0.10, box_y - 0.02), (0.24, -0.55), (-0.06, -0.40), (-0.11, 0.02), tip)
    lead = polyline(x, y, knots)
    electrode = segment(x, y, tip[0] - 0.05, tip[1] - 0.02, *tip)
    pacer = 0.48 * scene.edge(case, 0.015)
    pacer = pacer + 0.14 * scene.band(case - 0.02, 0.008)
    pacer = pacer + 0.36 * scene.band(lead, 0.014)
    pacer = pacer + 0.3 * scene.band(electrode, 0.022)

    end = patients.normal("devices/tube", 0.02, -0.26)
    tube = np.abs(x - 0.012) - 0.022
    tube = scene.band(tube, 0.009) + 0.5 * scene.band(x - 0.012, 0.02)
    tube = tube * scene.edge(end - y, 0.02)
    neck = patients.between("devices/neck", -0.30, -0.20)
    line = polyline(x, y, ((neck, -1.1), (neck + 0.04, -0.62), (-0.08, -0.42), (-0.10, -0.02)))
    wires = 0
    for k, (cx, cy) in enumerate(((-0.52, -0.40), (0.52, -0.40), (0.50, 0.30), (-0.50, 0.34))):
        cx = cx + patients.normal(f"devices/x{k}", 0.02)
        cy = cy + patients.normal(f"devices/y{k}", 0.02)
        pad = ellipse(x, y, cx, cy, 0.085, 0.085)
        stud = ellipse(x, y, cx, cy, 0.045, 0.045)
        wire = polyline(x, y, ((cx, cy), (cx * 1.15, cy + 0.22), (cx * 1.6, cy + 0.40)))
        wires = wires + 0.26 * scene.edge(pad) + 0.25 * scene.edge(stud)
        wires = wires + 0.20 * scene.band(wire, 0.010)
    lines = 0.34 * tube + 0.38 * scene.band(line, 0.014) + wires
    scene.density += np.where(implanted > 0, pacer, lines)


# Painted in this order: what fills air before what lies over it.
PAINTERS: dict[str, Callable[[Scene[Frontal]], None]] = {
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
