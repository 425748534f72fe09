"""What a thumbnail gives away: blank, inverted, rotated or no chest at all.

A radiograph is compared with the mean of procedural chests (`data_prep.phantom`), squeezed to the
same square, in five ways: upright, turned by 90°, 180° and 270°, and inverted. The verdicts are
deliberately slow to speak: of 151 real frontal radiographs of one hospital none is dropped, and of
the same turned or inverted 147 or more of 151 are. `no chest` catches only what resembles no chest
in any way; a classifier would do better, and a wrong part of the body may pass.
"""

import functools
import hashlib
from typing import NamedTuple

import cv2
import numpy as np

SIDE = 64  # of a thumbnail, pixels
SMOOTHING = 4.0  # pixels; what is narrower is detail


# All thresholds, in one place; the manifest repeats them.
THRESHOLDS = {
    "blank_below": 10.0,  # standard deviation of the detail, of 255; real ones have 21 or more,
    # noise without a picture 6, a ramp 3
    "turned_margin": 0.15,  # in correlation over upright; real ones stay below -0.03
    "no_chest_below": 0.3,  # best correlation of all; real ones have 0.40 or more
}

_SHIFT = 8  # pixels of 64, either way
_TEMPLATE_PHANTOMS, _TEMPLATE_SEED = 96, 7
_POSES = ("upright", *(f"rotated: by {d}° clockwise" for d in (90, 180, 270)), "inverted")


class Scores(NamedTuple):
    """What a thumbnail is judged by.

    Attributes:
      detail: standard deviation of its detail, of 255; 0 where hardly any pixel is not black.
      upright, turned_90, turned_180, turned_270, inverted: correlation with a frontal chest.
      lateral: correlation with a lateral chest.
    """

    detail: float = 0.0
    upright: float = 0.0
    turned_90: float = 0.0
    turned_180: float = 0.0
    turned_270: float = 0.0
    inverted: float = 0.0
    lateral: float = 0.0


def scores(thumbnail: np.ndarray) -> Scores:
    """Of a [64, 64] uint8."""
    content = _content(thumbnail)
    if content is None:
        return Scores()
    frontal, lateral = _templates()
    detail = content - cv2.GaussianBlur(content, (0, 0), SMOOTHING)
    poses = [_best(np.ascontiguousarray(pose), frontal) for pose in _poses(content)]
    side = _best(content, lateral)
    return Scores(float(detail.std()), *poses, side)  # pyright: ignore[reportCallIssue]  all poses


def verdict(seen: Scores, frontal: bool) -> str:
    """Why a picture is to be dropped; empty where it is not.

    Args:
      frontal: whether the source says PA or AP. Only then is the pose judged: laterals face both
        ways and have no mean to speak of.
    """
    if seen.detail < THRESHOLDS["blank_below"]:
        return "blank"
    poses = seen[1:6]
    if frontal and max(poses[1:]) - seen.upright > THRESHOLDS["turned_margin"]:
        return _POSES[poses.index(max(poses))]
    if max(seen[1:]) < THRESHOLDS["no_chest_below"]:
        return "no chest"
    return ""


def template_digest() -> str:
    """Of the chests that pictures are compared with; they follow `data_prep.phantom`."""
    return hashlib.sha256(b"".join(np.rint(t).tobytes() for t in _templates())).hexdigest()


def _poses(content: np.ndarray):
    yield content
    for quarters in (1, 2, 3):
        yield np.rot90(content, quarters)
    yield 255 - content


def _content(thumbnail: np.ndarray) -> np.ndarray | None:
    """What is not padding, squeezed to the whole square, float32; None where nothing is."""
    rows, columns = (np.flatnonzero(thumbnail.max(axis=axis)) for axis in (1, 0))
    if len(rows) < SIDE // 8 or len(columns) < SIDE // 8:
        return None
    inside = thumbnail[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return cv2.resize(inside.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _best(content: np.ndarray, template: np.ndarray) -> float:
    inner = template[_SHIFT:-_SHIFT, _SHIFT:-_SHIFT]
    return float(cv2.matchTemplate(content, inner, cv2.TM_CCOEFF_NORMED).max())


@functools.cache
def _templates() -> tuple[np.ndarray, np.ndarray]:
    """The mean frontal and the mean lateral phantom, [64, 64] float32."""
    from data_prep.phantom import draw_attributes, draw_images
    from rfxray.attributes.vocabulary import ATTRIBUTES, INDEX

    indices = np.arange(_TEMPLATE_PHANTOMS)
    attributes = draw_attributes(_TEMPLATE_SEED, indices)
    images = draw_images(attributes, _TEMPLATE_SEED, indices, SIDE).astype(np.float32) / 257
    view = INDEX["view"]
    lateral = attributes[:, view] == ATTRIBUTES[view].values.index("lateral")
    return images[~lateral].mean(axis=0), images[lateral].mean(axis=0)
