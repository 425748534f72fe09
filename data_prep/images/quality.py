"""What a thumbnail gives away: blank, inverted, rotated, another view or no chest at all.

A radiograph is compared with the mean of procedural chests (`data_prep.phantom`), squeezed to the
same square: a frontal one with the picture upright, turned by 90°, 180° and 270° and inverted, a
lateral one with the picture as it faces and mirrored. Unexposed plate around the field is bright
and takes no part (`exposed_field`).

What is nearly certain drops an image (`verdict`): no detail, no likeness to a chest in any way, or
a turned or inverted picture that is a good chest and much better than the upright one. What is only
likely is a flag (`flags`): the image is kept, counted, and shown by the audit.

Measured on 919 real frontal radiographs (768 of the NIH, 151 of Hannover): none is dropped, none
flagged as turned or inverted, 5 flagged as lateral. Turned by 90°, 180° or 270° or inverted, 828 to
836 of them are dropped, and at most 10 of the rest are not flagged. With plate around or beside 305
of them, in 15 arrangements, none is dropped, at most 2 are flagged as turned or inverted and at
most 14 as lateral. Of 200 lateral phantoms labelled PA 193 are flagged as lateral, of 20 laterals
that another group's model drew 13, and 2 for another reason.
"""

import functools
import hashlib
import json
from typing import NamedTuple

import cv2
import numpy as np

SIDE = 64  # of a thumbnail, pixels
SMOOTHING = 4.0  # pixels; what is narrower is detail


# All thresholds, in one place; the manifest repeats them.
THRESHOLDS = {
    "blank_below": 8.0,  # standard deviation of the detail, of 255; real ones have 10.5 or more,
    # 9.6 if unexposed plate takes half of the contrast; a glow without a picture 6, a ramp 3
    "no_chest_below": 0.3,  # best correlation of all; real ones have 0.41 or more
    # Of a turned or an inverted picture: both drop an image, the second only flags it
    "turned_good": 0.6,  # its correlation; of upright real ones 88% have that much
    "turned_margin": 0.15,  # over upright; real ones stay below 0.12
    # Of the view that is not the one of the table, over that of the table; flags an image
    "lateral_margin": 0.17,  # of 919 real frontal ones 5 have more
    "frontal_margin": 0.1,  # no lateral phantom has that much
}

# How unexposed plate is recognised: lines at an edge of the picture in which most pixels have the
# grey of that edge, of 255, and that is bright, or dark up to a straight edge; a side of the field
# has at least so many pixels of 64.
PLATE = {"brighter": 128.0, "darker": 64.0, "within": 14.0, "share": 0.85, "field_at_least": 12}

_SHIFT = 8  # pixels of 64, either way
_TEMPLATE_PHANTOMS, _TEMPLATE_SEED = 96, 7
_POSES = ("upright", *(f"rotated: by {d}° clockwise" for d in (90, 180, 270)), "inverted")
FRONTAL = ("PA", "AP")


class Scores(NamedTuple):
    """What a thumbnail is judged by. All but the first are correlations, from -1 to 1.

    Attributes:
      detail: Standard deviation of its detail, of 255; 0 if hardly any pixel is not black.
      upright, turned_90, turned_180, turned_270: Likeness to a frontal chest, if it was turned
        clockwise by so many degrees.
      inverted: Likeness of the negative to a frontal chest.
      lateral: Likeness to a lateral chest that faces either way.
    """

    detail: float = 0.0
    upright: float = 0.0
    turned_90: float = 0.0
    turned_180: float = 0.0
    turned_270: float = 0.0
    inverted: float = 0.0
    lateral: float = 0.0

    @property
    def poses(self) -> tuple[float, ...]:
        """Likeness to a frontal chest, in the order of `_POSES`."""
        return self[1:6]

    @property
    def turned(self) -> float:
        """How much more than upright the best other pose looks like a frontal chest."""
        return max(self.poses[1:]) - self.upright


def scores(thumbnail: np.ndarray) -> Scores:
    """Scores of a [64, 64] uint8."""
    content = _content(thumbnail)
    if content is None:
        return Scores()
    frontal, lateral = _templates()
    field = exposed_field(content)
    poses = [_best(np.ascontiguousarray(np.rot90(field, n)), frontal) for n in range(4)]
    # In the negative of an inverted picture the plate is bright again
    poses.append(_best(exposed_field(255 - content), frontal))
    mirrored = np.ascontiguousarray(field[:, ::-1])
    side = max(_best(field, lateral), _best(mirrored, lateral))
    detail = field - cv2.GaussianBlur(field, (0, 0), SMOOTHING)
    return Scores._make([float(detail.std()), *poses, side])


def verdict(seen: Scores, frontal: bool) -> str:
    """Why a picture is to be dropped; empty if it is not.

    Args:
      seen: Scores of the picture.
      frontal: Whether the source says PA or AP. Only then is the pose judged: what laterals have
        in common is too little to tell which way up they are.
    """
    if seen.detail < THRESHOLDS["blank_below"]:
        return "blank"
    best = max(seen.poses)
    good = best >= THRESHOLDS["turned_good"]
    if frontal and good and seen.turned > THRESHOLDS["turned_margin"]:
        return _POSES[seen.poses.index(best)]
    if max(best, seen.lateral) < THRESHOLDS["no_chest_below"]:
        return "no chest"
    return ""


def flags(seen: Scores, view: str) -> tuple[str, ...]:
    """What is odd about a picture that is kept, in a few words each; empty if nothing is.

    Args:
      seen: Scores of the picture.
      view: View that the source names, a value of the attribute; empty if it names none.
    """
    found = []
    if view in (*FRONTAL, "") and seen.turned > THRESHOLDS["turned_margin"]:
        found.append(f"possibly {_POSES[seen.poses.index(max(seen.poses))].replace(':', '')}")
    lateral = seen.lateral >= max(seen.poses)
    if view in FRONTAL and lateral and seen.lateral - seen.upright > THRESHOLDS["lateral_margin"]:
        found.append(f"looks lateral but is labelled {view}")
    if view == "lateral" and seen.upright - seen.lateral > THRESHOLDS["frontal_margin"]:
        found.append("looks frontal but is labelled lateral")
    return tuple(found)


def digest() -> str:
    """SHA-256 of all that decides the scores, hex: the chests that pictures are compared with,
    which follow `data_prep.phantom`, and how plate is recognised.
    """
    decided = json.dumps([SMOOTHING, _SHIFT, PLATE]).encode()
    return hashlib.sha256(
        b"".join([decided, *(np.rint(t).tobytes() for t in _templates())])
    ).hexdigest()


def exposed_field(content: np.ndarray) -> np.ndarray:
    """The picture without unexposed plate at its edges, stretched to [64, 64] float32.

    Where the collimator kept the rays away, the plate is white, and a wide white border makes any
    radiograph look like the negative of another. A black border is plate only if it ends in a
    straight edge: air beside a patient is black too, and its outline is part of the likeness.

    Args:
      content: [64, 64] float32, of 255.
    """
    for dark in (True, False):
        top, left, bottom, right = _without_plate(content, dark)
        inside = content[top:bottom, left:right]
        if dark:
            # Past the edge and its penumbra hardly any pixel is as dark as the plate
            straight = [
                _near(inside[number] if axis == 0 else inside[:, number], _outer(content, side))
                <= 1 - PLATE["share"]
                for side, (axis, number) in enumerate(((0, 1), (1, 1), (0, -2), (1, -2)))
            ]
            whole = (0, 0, *content.shape)
            top, left, bottom, right = (
                found if ends else edge
                for found, edge, ends in zip(
                    (top, left, bottom, right), whole, straight, strict=True
                )
            )
            inside = content[top:bottom, left:right]
        content = np.ascontiguousarray(inside)
    if content.shape == (SIDE, SIDE):
        return content
    return cv2.resize(content, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def _without_plate(content: np.ndarray, dark: bool) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of what is left if lines of plate are taken off at the edges."""
    top, left, (bottom, right) = 0, 0, content.shape
    greys = [_outer(content, side) for side in range(4)]
    able = [grey <= PLATE["darker"] if dark else grey >= PLATE["brighter"] for grey in greys]
    least = PLATE["field_at_least"]

    def plate(side: int, line: np.ndarray) -> bool:
        return able[side] and _near(line, greys[side]) >= PLATE["share"]

    before = None
    while before != (before := (top, left, bottom, right)):
        top += bottom - top > least and plate(0, content[top, left:right])
        left += right - left > least and plate(1, content[top:bottom, left])
        bottom -= bottom - top > least and plate(2, content[bottom - 1, left:right])
        right -= right - left > least and plate(3, content[top:bottom, right - 1])
    return top, left, bottom, right


def _outer(content: np.ndarray, side: int) -> float:
    """The grey of an edge: of top, left, bottom, right."""
    line = (content[0], content[:, 0], content[-1], content[:, -1])[side]
    return float(np.median(line))


def _near(line: np.ndarray, grey: float) -> float:
    """Share of the pixels that have a grey."""
    return float((np.abs(line - grey) <= PLATE["within"]).mean())


def _content(thumbnail: np.ndarray) -> np.ndarray | None:
    """What is not padding, squeezed to the whole square, float32; None if nothing is."""
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
