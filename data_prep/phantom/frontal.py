"""The frontal chest, PA or AP, as a map of attenuation.

What makes AP: the heart and the mediastinum are magnified, the patient breathes in less, the ribs
lie flatter, the clavicles rise above the apices, and the scapulae stay over the lungs.
"""

import numpy as np

from data_prep.phantom import anatomy, frontal_findings
from data_prep.phantom.patient import Patients
from data_prep.phantom.raster import blend, bump, egg, ellipse, segment, smoothstep
from data_prep.phantom.scene import AIR, Scene, fork_tree, frame, paint

_RIB_SPACING = 0.135
_RIBS = 10
# Directions of the main pulmonary vessels, radians from the lateral direction, downwards positive.
_VESSELS = (-1.25, -0.85, -0.45, -0.05, 0.35, 0.72, 1.02, 1.32)


def draw(patients: Patients, size: int) -> np.ndarray:
    """Attenuation [n, size, size] float32; `draw.py` makes a picture of it."""
    scene = _cavity(patients, size)
    _soft_tissue(scene)
    _mediastinum(scene)
    _vessels(scene)
    _ribs(scene)
    _shoulder_girdle(scene)
    paint(scene, frontal_findings.PAINTERS)
    return scene.density + scene.vessels * scene.air - np.float32(AIR) * scene.air


def _cavity(patients: Patients, size: int) -> Scene:
    shape = anatomy.frontal(patients)
    x, y, pixel = frame(patients, size)
    across = np.abs(x)
    apex_x = np.float32(0.50) * shape.half_width
    wall = egg(
        across,
        y,
        apex_x,
        shape.widest,
        left=apex_x - np.float32(0.02),
        right=shape.half_width - apex_x,
        top=shape.widest - shape.apex,
        bottom=2.6,
    )
    lateral = (across - apex_x) / (shape.half_width - apex_x)
    outer, inner = np.maximum(lateral, 0), np.maximum(-lateral, 0)
    outer = outer * outer
    curve = np.float32(0.17) * outer + np.float32(0.10) * outer * outer
    curve = curve + np.float32(0.09) * inner * inner
    leftward = smoothstep(x / np.float32(0.3) + np.float32(0.5))
    top = shape.right_dome + (shape.left_dome - shape.right_dome) * leftward
    dome = top + curve - y
    scene = Scene(
        patients, shape, size, x, y, pixel, wall, dome,
        body=np.zeros_like(x), air=np.zeros_like(x), vessels=np.zeros_like(x), density=np.zeros_like(x),
    )  # fmt: skip
    # The depth of lung grows quickly from its edge to the middle.
    inside = np.minimum(wall, dome)
    depth = np.float32(0.72) + np.float32(0.28) * smoothstep(wall / np.float32(0.30))
    scene.air = scene.edge(inside, 0.016) * depth
    return scene


def _soft_tissue(scene: Scene) -> None:
    patients, shape = scene.patients, scene.shape
    x, y = scene.x, scene.y
    across = np.abs(x)
    # The torso; it flares into the arms above the armpits. A man's shoulders are broader, a woman's
    # waist is narrower.
    girth = patients.normal("body/girth", 0.02, 0.17) + np.float32(0.015) * patients.male
    flare = smoothstep((np.float32(0.02) - y) / np.float32(0.50))
    breadth = np.float32(0.26) + np.float32(0.10) * patients.male
    hips = np.float32(0.05) * (1 - patients.male) * bump(y - np.float32(0.72), 0.35)
    skin = shape.half_width + girth + breadth * flare - hips - across
    slope = (across - np.float32(0.17)) / np.float32(0.80)
    shoulder = np.float32(-1.02) + np.float32(0.30) * np.sqrt(np.maximum(slope, 0))
    shoulder = np.where(slope > 0, shoulder, np.float32(-1.6) - 0 * shoulder)
    inside = np.minimum(skin, y - shoulder)
    depth = np.clip(1 - (across / np.float32(1.15)) ** 2, 0, 1)
    body = scene.edge(inside, 0.02)
    body = body * (np.float32(0.34) + np.float32(0.30) * np.sqrt(depth))
    neck = np.float32(0.10) * bump(x, 0.15) * smoothstep((np.float32(-0.60) - y) / 0.25)
    below = scene.edge(-scene.dome, 0.016) * scene.edge(skin, 0.02)
    belly = np.float32(0.20) * below * smoothstep((shape.half_width + np.float32(0.05) - across) / 0.1)
    scene.body = scene.edge(inside, 0.02)
    scene.density = body + neck + belly
    _stomach(scene)
    _breasts(scene)


def _stomach(scene: Scene) -> None:
    # Air under the left dome, flat below where it meets the fluid when the patient stands.
    patients = scene.patients
    top = scene.shape.left_dome + np.float32(0.05)
    cx = patients.normal("stomach/x", 0.03, 0.36)
    width = patients.between("stomach/width", 0.10, 0.16)
    bubble = ellipse(scene.x, scene.y, cx, top + np.float32(0.07), width, 0.08)
    level = top + np.float32(0.09) + np.float32(0.05) * patients.supine - scene.y
    scene.density -= np.float32(0.20) * scene.edge(np.minimum(bubble, level), 0.015)


def _breasts(scene: Scene) -> None:
    patients = scene.patients
    womanly = patients.womanly
    if not womanly.any():
        return
    volume = patients.normal("breast/size", 0.02, 0.29)
    sag = np.float32(0.10) * patients.aged
    across = np.abs(scene.x)
    y = scene.y - (np.float32(0.36) + sag)
    disc = ellipse(across, y, patients.normal("breast/x", 0.02, 0.44), 0, volume, volume)
    # Thick and sharply bounded below, thinning out above.
    weight = smoothstep((y + volume) / (np.float32(1.6) * volume))
    scene.density += np.float32(0.14) * womanly * weight * scene.edge(disc, 0.03)


def _mediastinum(scene: Scene) -> None:
    patients, shape = scene.patients, scene.shape
    x, y = scene.x - shape.shift, scene.y
    aged, supine = patients.aged, patients.supine
    half = shape.mediastinum
    wide = half / np.float32(0.115)

    heart = ellipse(
        scene.x, y, shape.heart_x, shape.heart_y,
        shape.heart_long, shape.heart_short, shape.heart_tilt,
    )  # fmt: skip
    # Great vessels between the neck and the heart, splaying a little towards the neck.
    top = smoothstep((np.float32(-0.45) - y) / np.float32(0.5))
    pedicle = half * (1 + np.float32(0.35) * top) - np.abs(x)
    pedicle = np.minimum(pedicle, np.float32(0.15) - y)
    cava = ellipse(x, y, -half * 0.62, -0.16, half * (0.60 + 0.25 * aged), 0.34)
    # The aortic knob swells and rises with age, and the descending aorta unfolds to the left.
    knob_x = half * np.float32(0.72) + np.float32(0.05) * aged
    knob_y = np.float32(-0.27) - np.float32(0.05) * aged
    radius = np.float32(0.058) + np.float32(0.055) * aged + np.float32(0.02) * (wide - 1)
    knob = ellipse(x, y, knob_x, knob_y, radius, radius)
    trunk = ellipse(x, y, half * 0.85, -0.09, 0.065, 0.11)
    unfolded = np.float32(0.15) * aged * bump(y - np.float32(0.05), 0.30)
    descending = np.minimum(
        np.float32(0.075) + unfolded + 0.3 * (half - 0.115) - np.abs(x - np.float32(0.03)), y - knob_y
    )
    upper = blend(blend(pedicle, cava, 0.04), blend(knob, trunk, 0.03), 0.03)
    heart_mask = scene.edge(heart, 0.014)
    upper_mask = scene.edge(upper, 0.014)
    back_mask = scene.edge(descending, 0.014)
    union = scene.edge(blend(upper, heart, 0.07), 0.014)
    union = 1 - (1 - union) * (1 - np.float32(0.8) * back_mask)
    thickness = smoothstep(heart / (np.float32(0.9) * shape.heart_short))
    scene.air *= 1 - np.float32(0.93) * union
    scene.density += np.float32(0.045) * upper_mask + np.float32(0.05) * back_mask
    scene.density += heart_mask * (np.float32(0.05) + np.float32(0.09) * thickness)
    scene.density += np.float32(0.05) * smoothstep(knob / np.float32(0.05))
    # Calcium in the wall of an old arch.
    chalk = np.clip((aged - np.float32(0.45)) * 2, 0, 1)
    rim = scene.band(knob - np.float32(0.010), 0.006) * scene.edge(x - knob_x - np.float32(0.02), 0.08)
    scene.density += np.float32(0.16) * chalk * rim

    bone = 1 - np.float32(0.5) * aged
    lean = x - patients.normal("spine/curve", 0.01) * np.sin(y * 3)
    vertebra = np.abs((y / np.float32(0.118)) % 1 - np.float32(0.5))
    body = scene.band(lean, 0.068, 0.035) * (np.float32(0.75) + np.float32(0.5) * vertebra)
    pedicles = bump(np.abs(lean) - np.float32(0.045), 0.014) * bump(vertebra, 0.14)
    spinous = bump(lean, 0.012) * bump(vertebra - np.float32(0.42), 0.12)
    scene.density += bone * (0.11 * body + 0.06 * pedicles + 0.06 * spinous).astype(np.float32)

    # Windpipe and main bronchi: the dark Y.
    carina = np.float32(-0.17)
    pipe = scene.band(x - np.float32(0.012), 0.036, 0.014) * scene.edge(carina - y, 0.05)
    right = segment(x, y, np.float32(0.0), carina, np.float32(-0.13), np.float32(-0.03))
    left = segment(x, y, np.float32(0.02), carina, np.float32(0.17), np.float32(-0.06))
    bronchi = scene.band(np.minimum(right, left), 0.024, 0.014)
    scene.density -= np.float32(0.13) * np.maximum(pipe, np.float32(0.7) * bronchi)
    # Hila: the left one higher.
    away = np.abs(x) - np.float32(0.19)
    low = np.where(x < 0, np.float32(0.02), np.float32(-0.035))
    hilum = bump(away, 0.065) * bump(y - low, 0.10)
    scene.density += np.float32(0.11) * hilum * scene.edge(scene.wall, 0.02)


def _vessels(scene: Scene) -> None:
    x, y = scene.x - scene.shape.shift, scene.y
    mirrored = np.abs(x) - np.float32(0.15)
    low = np.where(x < 0, np.float32(0.02), np.float32(-0.03))
    # One fold over the midline serves both lungs; the noise that bends them differs by place.
    tree = fork_tree(scene, "vessels", mirrored, y - low, _VESSELS, 0.72, 0.021)
    grain = scene.texture("lung/fine", 72) * np.float32(0.010)
    mottle = scene.texture("lung/coarse", 24) * np.float32(0.012)
    # Interstitial markings grow with age.
    coarse = 1 + np.float32(1.2) * scene.patients.aged
    scene.vessels = tree + (grain + mottle) * coarse


def _ribs(scene: Scene) -> None:
    """Rings tilted forwards: behind they arch over the lung, in front they run down and inwards."""
    patients, shape = scene.patients, scene.shape
    across, y = np.abs(scene.x), scene.y
    supine = patients.supine
    top = np.minimum(y - shape.widest, 0) / (shape.widest - shape.apex + np.float32(0.10))
    ring = (shape.half_width + np.float32(0.02)) * np.sqrt(np.maximum(1 - top * top, 0.02))
    u = np.minimum(across / ring, np.float32(0.995))
    q = np.sqrt(1 - u * u)
    steep = u / (ring * q)
    behind = np.float32(0.20) - np.float32(0.06) * supine + np.float32(0.03) * patients.aged
    before = np.float32(0.34) - np.float32(0.06) * supine
    first = shape.apex + np.float32(0.20) + patients.normal("ribs/first", 0.015)
    spacing = np.float32(_RIB_SPACING)
    calcium = 1 - np.float32(0.55) * patients.aged
    bone = patients.normal("ribs/contrast", 0.06, 1.0) * calcium
    fenced = scene.edge(scene.wall + np.float32(0.035), 0.02)
    for tilt, half, weight, start in ((behind, 0.026, 0.120, 0.07), (-before, 0.030, 0.085, 0.30)):
        phase = (y + tilt * q - first) / spacing
        phase = frontal_findings.displace_ribs(scene, phase)
        number = np.round(phase)
        off = (phase - number) * spacing / np.sqrt(1 + (tilt * steep) ** 2)
        rib = scene.band(off, half, 0.012)
        cortex = scene.band(np.abs(off) - np.float32(half * 0.82), 0.004, 0.006)
        shown = (number >= 0) & (number < _RIBS)
        fade = scene.edge(across - np.float32(start), 0.02 if start < 0.2 else 0.12) * fenced
        strength = np.float32(weight) * bone * fade * shown
        scene.density += strength * (np.float32(0.8) * rib + np.float32(0.35) * cortex)
    # The cartilage between the front ends and the sternum is not seen until it calcifies.
    chalk = np.clip((patients.aged - np.float32(0.35)) * np.float32(1.6), 0, 1)
    speckle = smoothstep(np.float32(0.8) + scene.texture("ribs/cartilage", 40))
    front = scene.edge(across - np.float32(0.14), 0.05) * scene.edge(0.36 - across, 0.08)
    low = smoothstep((y - np.float32(0.02)) / 0.15) * shown
    scene.density += np.float32(0.13) * chalk * rib * speckle * front * low * fenced


def _shoulder_girdle(scene: Scene) -> None:
    patients = scene.patients
    across, y = np.abs(scene.x), scene.y
    supine = patients.supine
    bone = (1 - np.float32(0.4) * patients.aged) * scene.body
    # Clavicles: a shallow S; in AP higher and level.
    t = (across - np.float32(0.09)) / np.float32(0.66)
    height = np.float32(-0.52) - np.float32(0.20) * supine + patients.normal("clavicle/y", 0.015)
    rise = np.float32(0.17) - np.float32(0.13) * supine
    s_bend = np.float32(0.030) * np.sin(np.float32(5.5) * t)
    off = (y - height + rise * t - s_bend) * np.float32(0.95)
    thick = np.float32(0.026) + np.float32(0.012) * np.abs(t - np.float32(0.5))
    ends = scene.edge(t, 0.03) * scene.edge(1 - t, 0.03)
    cortex = scene.band(np.abs(off) - thick * np.float32(0.85), 0.005)
    clavicle = scene.band(off, thick, 0.01) * np.float32(0.13) + cortex * np.float32(0.05)
    scene.density += bone * ends * clavicle
    # Scapulae: pulled out of the lungs in PA, over their outer thirds in AP.
    out = np.float32(0.27) * (1 - supine) + patients.normal("scapula/x", 0.015)
    blade = ellipse(across, y, np.float32(0.66) + out, -0.30, 0.20, 0.36, 0.18)
    rim = scene.band(blade - np.float32(0.012), 0.012, 0.01)
    scene.density += bone * (np.float32(0.085) * scene.edge(blade, 0.015) + np.float32(0.06) * rim)
    # Heads of the humeri.
    head = ellipse(across, y, 0.97, -0.56, 0.12, 0.12)
    scene.density += bone * np.float32(0.13) * scene.edge(head, 0.02)
