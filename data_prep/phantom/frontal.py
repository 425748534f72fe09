"""The frontal chest, PA or AP, as a map of attenuation.

What makes AP: the heart and the mediastinum are magnified, the patient breathes in less, the ribs
lie flatter, the clavicles rise above the apices, and the scapulae stay over the lungs.
"""

import numpy as np

from data_prep.phantom import anatomy, frontal_findings, ribs
from data_prep.phantom.anatomy import Frontal
from data_prep.phantom.patient import Patients
from data_prep.phantom.raster import blend, bump, egg, ellipse, segment, smoothstep
from data_prep.phantom.scene import Scene, fork_tree, frame, paint

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
    return scene.attenuation()


def _cavity(patients: Patients, size: int) -> Scene[Frontal]:
    shape = anatomy.frontal(patients)
    x, y, pixel = frame(patients, size)
    across = np.abs(x)
    apex_x = 0.50 * shape.half_width
    wall = egg(
        across,
        y,
        apex_x,
        anatomy.WIDEST,
        left=apex_x - 0.02,
        right=shape.half_width - apex_x,
        top=anatomy.WIDEST - shape.apex,
        bottom=2.6,
    )
    lateral = (across - apex_x) / (shape.half_width - apex_x)
    outer, inner = np.maximum(lateral, 0), np.maximum(-lateral, 0)
    outer = outer * outer
    curve = 0.17 * outer + 0.10 * outer * outer
    curve = curve + 0.09 * inner * inner
    leftward = smoothstep(x / 0.3 + 0.5)
    top = shape.right_dome + (shape.left_dome - shape.right_dome) * leftward
    dome = top + curve - y
    scene = Scene(
        patients, shape, size, x, y, pixel, wall, dome,
        body=np.zeros_like(x), air=np.zeros_like(x),
        vessels=np.zeros_like(x), density=np.zeros_like(x),
    )  # fmt: skip
    # The depth of lung grows quickly from its edge to the middle.
    inside = np.minimum(wall, dome)
    depth = 0.72 + 0.28 * smoothstep(wall / 0.30)
    scene.air = scene.edge(inside, 0.016) * depth
    return scene


def _soft_tissue(scene: Scene[Frontal]) -> None:
    patients, shape = scene.patients, scene.shape
    x, y = scene.x, scene.y
    across = np.abs(x)
    # The torso; it flares into the arms above the armpits. A man's shoulders are broader, a woman's
    # waist is narrower.
    girth = patients.normal("body/girth", 0.02, 0.17) + 0.015 * patients.male
    flare = smoothstep((0.02 - y) / 0.50)
    # A child's arms reach beyond the picture too.
    breadth = 0.26 + 0.10 * patients.male + 0.8 * (1 - patients.grown)
    hips = 0.05 * (1 - patients.male) * bump(y - 0.72, 0.35)
    skin = shape.half_width + girth + breadth * flare - hips - across
    slope = (across - 0.17) / 0.80
    shoulder = -1.02 + 0.30 * np.sqrt(np.maximum(slope, 0))
    shoulder = np.where(slope > 0, shoulder, -2)
    inside = np.minimum(skin, y - shoulder)
    depth = np.clip(1 - (across / 1.15) ** 2, 0, 1)
    scene.body = scene.edge(inside, 0.02)
    trunk = scene.body * (0.34 + 0.30 * np.sqrt(depth))
    neck = 0.10 * bump(x, 0.15) * smoothstep((-0.60 - y) / 0.25)
    below = scene.edge(-scene.dome, 0.016) * scene.edge(skin, 0.02)
    belly = 0.20 * below * smoothstep((shape.half_width + 0.05 - across) / 0.1)
    scene.density = trunk + neck + belly
    _stomach(scene)
    _breasts(scene)


def _stomach(scene: Scene[Frontal]) -> None:
    # Air under the left dome, flat below where it meets the fluid when the patient stands.
    patients = scene.patients
    top = scene.shape.left_dome + 0.05
    cx = patients.normal("stomach/x", 0.03, 0.36)
    width = patients.between("stomach/width", 0.10, 0.16)
    bubble = ellipse(scene.x, scene.y, cx, top + 0.07, width, 0.08)
    level = top + 0.09 + 0.05 * patients.supine - scene.y
    scene.density -= 0.20 * scene.edge(np.minimum(bubble, level), 0.015)


def _breasts(scene: Scene[Frontal]) -> None:
    patients = scene.patients
    womanly = patients.womanly
    if not womanly.any():
        return
    volume = patients.normal("breast/size", 0.02, 0.29)
    sag = 0.10 * patients.aged
    across = np.abs(scene.x)
    y = scene.y - (0.36 + sag)
    disc = ellipse(across, y, patients.normal("breast/x", 0.02, 0.44), 0, volume, volume)
    # Thick and sharply bounded below, thinning out above.
    weight = smoothstep((y + volume) / (1.6 * volume))
    scene.density += 0.14 * womanly * weight * scene.edge(disc, 0.03)


def _mediastinum(scene: Scene[Frontal]) -> None:
    patients, shape = scene.patients, scene.shape
    x, y = scene.x - shape.shift, scene.y
    aged = patients.aged
    half = shape.mediastinum
    wide = half / 0.115

    heart = ellipse(
        scene.x, y, shape.heart_x, shape.heart_y,
        shape.heart_long, shape.heart_short, shape.heart_tilt,
    )  # fmt: skip
    # Great vessels between the neck and the heart, splaying a little towards the neck.
    top = smoothstep((-0.45 - y) / 0.5)
    pedicle = half * (1 + 0.35 * top) - np.abs(x)
    pedicle = np.minimum(pedicle, 0.15 - y)
    cava = ellipse(x, y, -half * 0.62, -0.16, half * (0.60 + 0.25 * aged), 0.34)
    # The aortic knob swells and rises with age, and the descending aorta unfolds to the left.
    knob_x = half * 0.72 + 0.05 * aged
    knob_y = -0.27 - 0.05 * aged
    radius = 0.058 + 0.055 * aged + 0.02 * (wide - 1)
    knob = ellipse(x, y, knob_x, knob_y, radius, radius)
    trunk = ellipse(x, y, half * 0.85, -0.09, 0.065, 0.11)
    unfolded = 0.15 * aged * bump(y - 0.05, 0.30)
    descending = np.minimum(
        0.075 + unfolded + 0.3 * (half - 0.115) - np.abs(x - 0.03),
        y - knob_y,
    )
    upper = blend(blend(pedicle, cava, 0.04), blend(knob, trunk, 0.03), 0.03)
    heart_mask = scene.edge(heart, 0.014)
    upper_mask = scene.edge(upper, 0.014)
    back_mask = scene.edge(descending, 0.014)
    union = scene.edge(blend(upper, heart, 0.07), 0.014)
    union = 1 - (1 - union) * (1 - 0.8 * back_mask)
    thickness = smoothstep(heart / (0.9 * shape.heart_short))
    scene.air *= 1 - 0.93 * union
    scene.density += 0.045 * upper_mask + 0.05 * back_mask
    scene.density += heart_mask * (0.05 + 0.09 * thickness)
    scene.density += 0.05 * smoothstep(knob / 0.05)
    # Calcium in the wall of an old arch.
    chalk = np.clip((aged - 0.45) * 2, 0, 1)
    rim = scene.band(knob - 0.010, 0.006) * scene.edge(x - knob_x - 0.02, 0.08)
    scene.density += 0.16 * chalk * rim

    bone = 1 - 0.5 * aged
    lean = x - patients.normal("spine/curve", 0.01) * np.sin(y * 3)
    vertebra = np.abs((y / 0.118) % 1 - 0.5)
    body = scene.band(lean, 0.068, 0.035) * (0.75 + 0.5 * vertebra)
    pedicles = bump(np.abs(lean) - 0.045, 0.014) * bump(vertebra, 0.14)
    spinous = bump(lean, 0.012) * bump(vertebra - 0.42, 0.12)
    scene.density += bone * (0.11 * body + 0.06 * pedicles + 0.06 * spinous)

    # Windpipe and main bronchi: the dark Y.
    carina = -0.17
    pipe = scene.band(x - 0.012, 0.036, 0.014) * scene.edge(carina - y, 0.05)
    right = segment(x, y, 0.0, carina, -0.13, -0.03)
    left = segment(x, y, 0.02, carina, 0.17, -0.06)
    bronchi = scene.band(np.minimum(right, left), 0.024, 0.014)
    scene.density -= 0.13 * np.maximum(pipe, 0.7 * bronchi)
    # Hila: the left one higher.
    away = np.abs(x) - 0.19
    low = np.where(x < 0, np.float32(0.02), np.float32(-0.035))
    hilum = bump(away, 0.065) * bump(y - low, 0.10)
    scene.density += 0.11 * hilum * scene.edge(scene.wall, 0.02)


def _vessels(scene: Scene[Frontal]) -> None:
    x, y = scene.x - scene.shape.shift, scene.y
    mirrored = np.abs(x) - 0.15
    low = np.where(x < 0, np.float32(0.02), np.float32(-0.03))
    # One fold over the midline serves both lungs; the noise that bends them differs by place.
    tree = fork_tree(scene, "vessels", mirrored, y - low, _VESSELS, 0.72, 0.021)
    grain = scene.texture("lung/fine", 72) * 0.010
    mottle = scene.texture("lung/coarse", 24) * 0.012
    # Interstitial markings grow with age.
    coarse = 1 + 1.2 * scene.patients.aged
    scene.vessels = tree + (grain + mottle) * coarse


def _ribs(scene: Scene[Frontal]) -> None:
    """Rings tilted forwards: behind they arch over the lung, in front they run down and inwards."""
    patients, shape = scene.patients, scene.shape
    across, y = np.abs(scene.x), scene.y
    supine, aged = patients.supine, patients.aged
    top = np.minimum(y - anatomy.WIDEST, 0) / (anatomy.WIDEST - shape.apex + 0.10)
    ring = (shape.half_width + 0.02) * np.sqrt(np.maximum(1 - top * top, 0.02))
    u = np.minimum(across / ring, 0.995)
    q = np.sqrt(1 - u * u)
    steep = u / (ring * q)
    first = shape.apex + 0.20 + patients.normal("ribs/first", 0.015)
    contrast = patients.normal("ribs/contrast", 0.06, 1.0) * (1 - 0.55 * aged)
    fenced = scene.edge(scene.wall + 0.035, 0.02)

    def arcs(tilt, half):
        phase = (y + tilt * q - first) / ribs.SPACING
        phase = ribs.displace(scene, phase, frontal_findings.locate_break)
        return ribs.course(scene, phase, tilt * steep, half) * fenced

    behind = arcs(0.20 - 0.06 * supine + 0.03 * aged, 0.026)
    before = arcs(0.06 * supine - 0.34, 0.030)
    scene.density += 0.120 * contrast * behind * scene.edge(across - 0.07, 0.02)
    scene.density += 0.085 * contrast * before * scene.edge(across - 0.30, 0.12)
    # The cartilage between the front ends and the sternum is not seen until it calcifies.
    chalk = np.clip((aged - 0.35) * 1.6, 0, 1)
    speckle = smoothstep(0.8 + scene.texture("ribs/cartilage", 40))
    cartilage = before * scene.edge(across - 0.14, 0.05) * scene.edge(0.36 - across, 0.08)
    scene.density += 0.15 * chalk * speckle * cartilage * smoothstep((y - 0.02) / 0.15)


def _shoulder_girdle(scene: Scene[Frontal]) -> None:
    patients = scene.patients
    across, y = np.abs(scene.x), scene.y
    supine = patients.supine
    bone = (1 - 0.4 * patients.aged) * scene.body
    # Clavicles: a shallow S; in AP higher and level.
    t = (across - 0.09) / 0.66
    height = -0.52 - 0.20 * supine + patients.normal("clavicle/y", 0.015)
    rise = 0.17 - 0.13 * supine
    s_bend = 0.030 * np.sin(5.5 * t)
    off = (y - height + rise * t - s_bend) * 0.95
    thick = 0.026 + 0.012 * np.abs(t - 0.5)
    ends = scene.edge(t, 0.03) * scene.edge(1 - t, 0.03)
    cortex = scene.band(np.abs(off) - thick * 0.85, 0.005)
    clavicle = scene.band(off, thick, 0.01) * 0.13 + cortex * 0.05
    scene.density += bone * ends * clavicle
    # Scapulae: pulled out of the lungs in PA, over their outer thirds in AP.
    out = 0.27 * (1 - supine) + patients.normal("scapula/x", 0.015)
    blade = ellipse(across, y, 0.66 + out, -0.30, 0.20, 0.36, 0.18)
    rim = scene.band(blade - 0.012, 0.012, 0.01)
    scene.density += bone * (0.085 * scene.edge(blade, 0.015) + 0.06 * rim)
    # Heads of the humeri.
    head = ellipse(across, y, 0.97, -0.56, 0.12, 0.12)
    scene.density += bone * 0.13 * scene.edge(head, 0.02)
