"""The lateral chest as a map of attenuation: seen from the left, the sternum at the image's left,
the spine at its right, both lungs one upon the other."""

import numpy as np

from data_prep.phantom import anatomy, lateral_findings, ribs
from data_prep.phantom.anatomy import Lateral
from data_prep.phantom.patient import Patients
from data_prep.phantom.raster import blend, bump, egg, ellipse, segment, smoothstep
from data_prep.phantom.scene import Scene, fork_tree, frame, paint

_VESSELS = (-2.5, -1.9, -1.3, -0.7, -0.1, 0.5, 1.0, 1.5, 2.2)


def draw(patients: Patients, size: int) -> np.ndarray:
    """Attenuation [n, size, size] float32; `draw.py` makes a picture of it."""
    scene = _cavity(patients, size)
    _soft_tissue(scene)
    _mediastinum(scene)
    _vessels(scene)
    _ribs(scene)
    _spine(scene)
    _sternum(scene)
    paint(scene, lateral_findings.PAINTERS)
    return scene.attenuation()


def spine_x(scene: Scene[Lateral]) -> np.ndarray:
    """x of the middle of the vertebral bodies at each height, [n, size, size]."""
    along = (scene.y - 0.02) / 0.82
    return 0.31 + scene.shape.kyphosis * (1 - along * along)


def _cavity(patients: Patients, size: int) -> Scene[Lateral]:
    shape = anatomy.lateral(patients)
    x, y, pixel = frame(patients, size)
    wall = egg(
        x,
        y,
        *anatomy.AXIS,
        left=shape.front,
        right=shape.back + 0.5 * shape.kyphosis,
        top=anatomy.AXIS[1] - shape.apex,
        bottom=1.9,
    )
    # Each dome falls gently to the front and far down behind: the posterior sulcus.
    back = np.maximum(x, 0) / 0.50
    fore = np.maximum(-0.05 - x, 0) / 0.42
    curve = 0.22 * back * back + 0.09 * fore * fore
    right, left = shape.right_dome + curve - y, shape.left_dome + curve - y
    scene = Scene(
        patients, shape, size, x, y, pixel, wall, np.maximum(right, left),
        body=np.zeros_like(x), air=np.zeros_like(x), vessels=np.zeros_like(x),
        density=np.zeros_like(x),
    )  # fmt: skip
    depth = 0.72 + 0.26 * smoothstep(wall / 0.25)
    both = 0.5 * (scene.edge(right, 0.016) + scene.edge(left, 0.016))
    scene.air = both * scene.edge(wall, 0.016) * depth
    return scene


def _soft_tissue(scene: Scene[Lateral]) -> None:
    patients, shape = scene.patients, scene.shape
    x, y = scene.x, scene.y
    girth = patients.normal("body/girth", 0.015, 0.085)
    bulge = patients.womanly * patients.normal("breast/size", 0.015, 0.19)
    sag = 0.10 * patients.aged
    breast = bulge * bump(y - 0.22 - sag, 0.25)
    kyphosis = 0.5 * shape.kyphosis
    trunk = egg(
        x,
        y,
        *anatomy.AXIS,
        left=shape.front + girth + 0.02 * patients.male + breast,
        right=shape.back + kyphosis + 0.06 + girth,
        top=anatomy.AXIS[1] - shape.apex + 0.16,
        bottom=1.9,
    )
    neck = 0.21 - np.abs(x - 0.07 - 0.25 * (y + 1))
    neck = np.minimum(neck, -0.3 - y)
    # The arms are raised out of the way, their muscles cross the upper corner.
    arms = 0.25 - segment(x, y, 0.12, -0.64, -1.34, -1.84)
    # The belly goes straight down from the ribs.
    belly = np.minimum(
        y - anatomy.AXIS[1], np.minimum(x + shape.front + girth, shape.back + kyphosis + girth - x)
    )
    inside = blend(blend(blend(trunk, neck, 0.10), arms, 0.12), belly, 0.06)
    scene.body = scene.edge(inside, 0.02)
    thick = smoothstep((inside + 0.02) / 0.40)
    below = scene.edge(-scene.dome, 0.016) * scene.body
    shoulder = smoothstep(arms / 0.25)
    scene.density = scene.body * (0.36 + 0.26 * thick)
    scene.density += 0.16 * below + 0.15 * shoulder
    # The breast itself, over the front of the heart.
    mound = ellipse(x, y, anatomy.AXIS[0] - shape.front, 0.22 + sag, 0.24, 0.22)
    scene.density += 0.10 * patients.womanly * scene.edge(mound, 0.16) * scene.body
    # Air in the stomach, below the left dome.
    top = shape.left_dome + 0.05
    bubble = ellipse(x, y, patients.normal("stomach/x", 0.03, -0.10), top + 0.07, 0.13, 0.07)
    level = top + 0.09 - y
    scene.density -= 0.18 * scene.edge(np.minimum(bubble, level), 0.015)


def _mediastinum(scene: Scene[Lateral]) -> None:
    patients, shape = scene.patients, scene.shape
    x, y, aged, wide = scene.x, scene.y, patients.aged, shape.widened
    heart = ellipse(
        x, y, shape.heart_x, shape.heart_y, shape.heart_a, shape.heart_b, shape.heart_tilt
    )
    # The arch: up from the heart, over the windpipe, down before the spine; longer with age.
    radius = 0.155 + 0.045 * aged + 0.03 * wide
    thick = 0.052 + 0.018 * aged + 0.035 * wide
    cx, cy = 0.05, -0.13
    ring = thick - np.abs(np.hypot(x - cx, (y - cy) * 0.9) - radius)
    ring = np.minimum(ring, cy + 0.10 - y)
    rise = thick * 1.2 - segment(x, y, -0.05, -0.34, shape.heart_x + 0.06, shape.heart_y - 0.1)
    down = np.minimum(thick - np.abs(x - spine_x(scene) + 0.10), y - cy)
    vessels = ellipse(x, y, -0.02, -0.54, 0.085 + 0.11 * wide, 0.36 + 0.08 * wide, 0.12)
    union = scene.edge(blend(blend(rise, vessels, 0.06), heart, 0.12), 0.016)
    aorta = np.maximum(scene.edge(ring, 0.03) * 0.50, scene.edge(down, 0.03) * 0.32)
    window = 0.35 * bump(x - cx, 0.10) * bump(y - cy, 0.12)
    faint = np.maximum(np.maximum(aorta, union), window)
    heart_mask = scene.edge(heart, 0.016)
    scene.air *= 1 - 0.72 * faint
    scene.density += 0.07 * heart_mask * smoothstep(heart / shape.heart_a)
    scene.density += 0.07 * wide * scene.edge(vessels, 0.05)
    chalk = np.clip((aged - 0.45) * 2, 0, 1)
    rim = scene.band(ring - 0.008, 0.005) * (y < cy)
    scene.density += 0.10 * chalk * rim
    # Hila, and the windpipe that ends between them.
    hila = bump(x - 0.04, 0.10) * bump(y - 0.02, 0.11)
    scene.density += 0.13 * hila
    pipe = 0.075 + 0.12 * (y + 0.1) - x
    pipe = scene.band(pipe, 0.034, 0.014) * scene.edge(-0.03 - y, 0.04)
    scene.density -= 0.14 * pipe * scene.body


def _vessels(scene: Scene[Lateral]) -> None:
    dx, dy = scene.x - 0.04, scene.y - 0.03
    tree = fork_tree(scene, "vessels", dx, dy, _VESSELS, 0.66, 0.017)
    grain = scene.texture("lung/fine", 72) * 0.010
    mottle = scene.texture("lung/coarse", 24) * 0.012
    scene.vessels = tree + (grain + mottle) * (1 + 1.2 * scene.patients.aged)


def _ribs(scene: Scene[Lateral]) -> None:
    """Arcs from the spine down to the front, those of the far side larger and a little lower."""
    patients, shape = scene.patients, scene.shape
    t = (anatomy.AXIS[0] + shape.back - scene.x) / (shape.back + shape.front)
    contrast = patients.normal("ribs/contrast", 0.06, 1.0) * (1 - 0.55 * patients.aged)
    shown = (
        np.clip(1.15 - t, 0, 1) * scene.edge(t - 0.02, 0.05) * scene.edge(scene.wall + 0.03, 0.02)
    )
    drop = 0.42 * t - 0.16 * (1 - t) * t
    for lag, half in ((0.0, 0.022), (0.055, 0.026)):
        phase = (scene.y - drop + (0.55 - lag)) / ribs.SPACING
        phase = ribs.displace(scene, phase, lateral_findings.locate_break)
        scene.density += 0.115 * contrast * shown * ribs.course(scene, phase, 0.45, half)


def _spine(scene: Scene[Lateral]) -> None:
    patients = scene.patients
    bone = 1 - 0.45 * patients.aged
    off = scene.x - spine_x(scene)
    vertebra = np.abs((scene.y / 0.118) % 1 - 0.5)
    inside = scene.band(off, 0.068, 0.02)
    disc = bump(vertebra, 0.10)
    plate = bump(vertebra - 0.16, 0.06)
    body = inside * (1 - 0.75 * disc + 0.35 * plate)
    rim = scene.band(np.abs(off) - 0.066, 0.006) * (1 - disc)
    arch = scene.band(off - 0.14, 0.05, 0.05) * (0.5 + vertebra)
    seen = scene.body
    scene.density += bone * seen * (0.16 * body + 0.07 * rim)
    scene.density += bone * seen * 0.09 * arch


def _sternum(scene: Scene[Lateral]) -> None:
    bone = 1 - 0.4 * scene.patients.aged
    front = scene.x < anatomy.AXIS[0]
    tall = scene.edge(scene.y + 0.46, 0.04) * scene.edge(0.30 - scene.y, 0.04)
    plate = scene.band(scene.wall + 0.022, 0.020, 0.01)
    notch = 1 - 0.8 * bump(scene.y + 0.26, 0.012)
    scene.density += 0.17 * bone * plate * tall * front * notch
    # A scapula over the upper back.
    blade = segment(scene.x, scene.y, 0.36, -0.62, 0.50, -0.12)
    scene.density += 0.06 * bone * scene.band(blade, 0.03, 0.02) * scene.body
