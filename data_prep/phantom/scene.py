"""What is drawn on: coordinates in the patient's frame and the layers of attenuation."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import numpy as np

from data_prep.phantom.anatomy import Frontal, Lateral
from data_prep.phantom.patient import Patients
from data_prep.phantom.raster import band, edge, grid, texture

Shape = TypeVar("Shape", Frontal, Lateral)

AIR = 0.49  # attenuation that a full depth of lung takes away from the body's


@dataclasses.dataclass
class Scene(Generic[Shape]):
    """A batch of chests under construction; arrays broadcast to [n, size, size] float32.

    Attributes:
      patients: Patients that are drawn.
      shape: Geometry of the patients.
      size: Side of the picture, pixels.
      x, y: Coordinates in the patient's frame.
      pixel: Width of a pixel in that frame, [n, 1, 1].
      wall: Signed distance inward from the chest wall.
      dome: Height above the diaphragm.
      body: 1 within the skin.
      air: 0 to 1, how much of the depth is lung.
      vessels: Attenuation of the pulmonary vessels, seen only where air is around them.
      density: Attenuation of all else.
    """

    patients: Patients
    shape: Shape
    size: int
    x: np.ndarray
    y: np.ndarray
    pixel: np.ndarray
    wall: np.ndarray
    dome: np.ndarray
    body: np.ndarray
    air: np.ndarray
    vessels: np.ndarray
    density: np.ndarray

    def take(self, rows: np.ndarray) -> "Scene[Shape]":
        """A copy of some of the chests."""
        shape = type(self.shape)(
            *(getattr(self.shape, field.name)[rows] for field in dataclasses.fields(self.shape))
        )
        names = ("x", "y", "pixel", "wall", "dome", "body", "air", "vessels", "density")
        layers = {name: getattr(self, name)[rows] for name in names}
        return Scene(self.patients.take(rows), shape, self.size, **layers)

    def edge(self, distance: np.ndarray, soft: float = 0.012) -> np.ndarray:
        """`raster.edge`, at least a pixel wide."""
        return edge(distance, np.hypot(self.pixel, soft))

    def band(self, distance: np.ndarray, half: np.ndarray | float, soft: float = 0.006):
        """`raster.band`, its edges at least a pixel wide."""
        return band(distance, half, np.hypot(self.pixel, soft))

    def texture(self, name: str, cells: int) -> np.ndarray:
        return texture(self.patients.noise, name, self.size, cells)

    def attenuation(self) -> np.ndarray:
        """What all layers take from the beam together.

        An old chest holds more air for its tissue (senile emphysema), and less muscle over it.
        """
        aged = self.patients.aged
        air = (0.80 + 0.24 * aged) * AIR * self.air
        return (1.04 - 0.08 * aged) * self.density + self.vessels * self.air - air

    def fill(self, opacity: np.ndarray, excess: float = 0.0) -> None:
        """Replaces a share of the air by fluid or tissue, `excess` denser than the chest around."""
        self.air *= 1 - opacity
        if excess:
            self.density += excess * opacity


def paint(scene: Scene[Shape], painters: Mapping[str, Callable[[Scene[Shape]], None]]) -> None:
    """Lets each finding's painter work on the chests that have it."""
    for name, painter in painters.items():
        rows = scene.patients.rows(name)
        if rows.size:
            part = scene.take(rows)
            painter(part)
            scene.air[rows], scene.vessels[rows] = part.air, part.vessels
            scene.density[rows] = part.density


def frame(patients: Patients, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y [n, size, size] in the patient's frame, and the pixel's width there [n, 1, 1].

    A patient lies a little turned and off centre, and is as large as the years allow: a newborn
    measures 0.60 of an adult on the picture.
    """
    angle = patients.normal("frame/angle", 0.025)  # radians: 1.4 degrees
    scale = (0.60 + 0.40 * patients.grown) * patients.normal("frame/scale", 0.022, 1.0)
    x, y = grid(size)
    x = x - patients.normal("frame/x", 0.02)
    y = y - patients.normal("frame/y", 0.02)
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    return cos * x + sin * y, cos * y - sin * x, 2 / size / scale


def fork_tree(scene: Scene, name: str, dx, dy, angles, reach: float, girth: float) -> np.ndarray:
    """Vessels that leave a hilum, bend and fork twice, as attenuation [n, size, size].

    In polar coordinates around the hilum a vessel is angle(r); folding the distance to it at a
    radius turns one branch into two, so a tree of four tips costs little more than a line.

    Args:
      scene: Scene, for the patients, the pixel and their noise.
      name: Name of the noise to use.
      dx, dy: Distance from the hilum; dx grows away from the midline.
      angles: Angles of the main branches, radians from the lateral direction, downwards positive.
      reach: Distance at which the last twig ends.
      girth: Half-width of a main branch at the hilum.
    """
    noise = scene.patients.noise
    count = len(angles)

    def each(what, spread, mean):
        drawn = noise.normal(f"{name}/{what}", count)[:, :, None, None]
        return mean + spread * drawn

    tilts, curls = each("angle", 0.12, 0.0), each("curl", 0.6, 0.0)
    forks, twigs = each("fork", 0.03, 0.14), each("twig", 0.04, 0.33)
    spreads = each("spread", 0.07, 0.34)
    radius = np.hypot(dx, dy)
    bend = np.arctan2(dy, dx) + 0.10 * scene.texture(f"{name}/bend", 12)
    calibre = girth * np.maximum(1 - radius / reach, 0)
    calibre = calibre * np.sqrt(calibre / girth) + 0.0015
    fade = calibre * (radius < reach) * np.clip(radius * 12, 0, 1)
    width = np.hypot(scene.pixel, 0.008)
    tree = np.zeros_like(radius)
    for i, angle in enumerate(angles):
        off = radius * (bend - (angle + tilts[:, i]) - curls[:, i] * radius)
        off = np.abs(np.abs(off) - spreads[:, i] * np.maximum(radius - forks[:, i], 0))
        off = np.abs(off) - 0.22 * np.maximum(radius - twigs[:, i], 0)
        tree = np.maximum(tree, band(off, calibre, width))
    return 9.0 * tree * fade
