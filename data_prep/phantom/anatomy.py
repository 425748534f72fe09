"""The shape of a chest from attributes and patient noise: lengths that the drawing and the truth
share, in the patient's own frame (half of an adult's picture is 1, y points down)."""

import dataclasses

import numpy as np

from data_prep.phantom.patient import Patients

WIDEST = 0.08  # y where a frontal thorax is widest
HEART_TILT = 0.62  # of its long axis below the horizontal, radians; mean, from the front
HEART_PROPORTION = 0.78  # of its short axis to the long one
HEART_OFFSET = 0.32  # of its centre from the midline, in halves of its width; mean
AXIS = (-0.02, 0.16)  # x, y where a lateral thorax is deepest


@dataclasses.dataclass(frozen=True)
class Frontal:
    """A chest seen from the front; every field is [n, 1, 1].

    x points to the patient's left, which is the image's right.

    Attributes:
      half_width: Half-width of the thorax inside the ribs, at its widest.
      apex: Top of the lungs, y.
      right_dome, left_dome: Tops of the hemidiaphragms, y.
      ratio: Cardiothoracic ratio, the heart's width over the inner width of the thorax.
      heart_x, heart_y: Centre of the heart.
      heart_long, heart_short: Semi-axes of the heart; the long one points to the apex, down and to
        the left.
      heart_tilt: Angle of the long axis below the horizontal, radians.
      mediastinum: Half-width of the upper mediastinum.
      shift: Shift of the mediastinum towards the side that lost volume.
    """

    half_width: np.ndarray
    apex: np.ndarray
    right_dome: np.ndarray
    left_dome: np.ndarray
    ratio: np.ndarray
    heart_x: np.ndarray
    heart_y: np.ndarray
    heart_long: np.ndarray
    heart_short: np.ndarray
    heart_tilt: np.ndarray
    mediastinum: np.ndarray
    shift: np.ndarray


def cardiothoracic_ratio(patients: Patients) -> np.ndarray:
    """Of the frontal picture: 0.45 in a healthy adult PA, 0.60 with cardiomegaly, and 1.12 times as
    much in AP, where the heart lies farther from the detector."""
    normal = patients.normal("heart/ratio", 0.016, 0.45)
    enlarged = patients.normal("heart/enlarged", 0.018, 0.15)
    ratio = normal + enlarged * patients.value("cardiomegaly")
    if patients.heart is not None:
        ratio = patients.heart[:, None, None].astype(np.float32)
    return ratio * (1 + 0.12 * patients.supine)


def frontal(patients: Patients) -> Frontal:
    supine, male = patients.supine, patients.male
    half_width = patients.normal("thorax/width", 0.018, 0.665) + 0.04 * male
    ratio = cardiothoracic_ratio(patients)
    extent = ratio * half_width  # half of the heart's width
    tilt = patients.normal("heart/tilt", 0.06, HEART_TILT)
    # The semi-axes of that proportion that give the horizontal extent `extent`.
    long = extent / np.sqrt(np.cos(tilt) ** 2 + (HEART_PROPORTION * np.sin(tilt)) ** 2)
    collapse = patients.side("atelectasis") * patients.value("atelectasis")
    dome = patients.normal("diaphragm/dome", 0.022, 0.45) - 0.09 * supine
    lift = 0.13  # of the dome below a collapse
    right = dome - lift * np.maximum(-collapse, 0)
    left = dome + patients.normal("diaphragm/step", 0.012, 0.06) - lift * np.maximum(collapse, 0)
    shift = 0.035 * collapse
    widened = patients.value("enlarged_cardiomediastinum")
    return Frontal(
        half_width=half_width,
        apex=patients.normal("thorax/apex", 0.015, -0.80),
        right_dome=right,
        left_dome=left,
        ratio=ratio,
        heart_x=shift + extent * patients.normal("heart/offset", 0.04, HEART_OFFSET),
        heart_y=dome - 0.16 + 0.03 * supine,
        heart_long=long,
        heart_short=HEART_PROPORTION * long,
        heart_tilt=tilt,
        mediastinum=(patients.normal("mediastinum/width", 0.006, 0.115) * (1 + 0.15 * supine))
        * (1 + patients.normal("mediastinum/widened", 0.08, 0.75) * widened),
        shift=shift,
    )


@dataclasses.dataclass(frozen=True)
class Lateral:
    """A chest seen from the left, facing the image's left; every field is [n, 1, 1].

    Attributes:
      front, back: Reach of the thorax before and behind its axis.
      apex: Top of the lungs, y.
      right_dome, left_dome: Tops of the hemidiaphragms, y.
      heart_x, heart_y, heart_a, heart_b, heart_tilt: Heart as a tilted ellipse.
      kyphosis: Distance that the spine bulges backwards.
      widened: 1 where the upper mediastinum is enlarged.
    """

    front: np.ndarray
    back: np.ndarray
    apex: np.ndarray
    right_dome: np.ndarray
    left_dome: np.ndarray
    heart_x: np.ndarray
    heart_y: np.ndarray
    heart_a: np.ndarray
    heart_b: np.ndarray
    heart_tilt: np.ndarray
    kyphosis: np.ndarray
    widened: np.ndarray


def lateral(patients: Patients) -> Lateral:
    aged, enlarged = patients.aged, patients.value("cardiomegaly")
    if patients.heart is not None:  # 0 at a ratio of 0.45, 1 at 0.60, as from the front
        enlarged = (patients.heart[:, None, None].astype(np.float32) - 0.45) / 0.15
    deep = patients.normal("thorax/width", 0.018, 0.0) + 0.025 * patients.male
    collapse = patients.side("atelectasis") * patients.value("atelectasis")
    dome = patients.normal("diaphragm/dome", 0.022, 0.42)
    lift = 0.13
    # An old chest is a barrel.
    front = 0.53 + deep + 0.05 * aged
    heart_a = patients.normal("heart/ratio", 0.008, 0.265) * (1 + 0.34 * enlarged)
    return Lateral(
        front=front,
        back=0.56 + deep + 0.06 * aged,
        apex=patients.normal("thorax/apex", 0.015, -0.80) + 0.04 * aged,
        right_dome=dome - lift * np.maximum(-collapse, 0),
        left_dome=dome
        + patients.normal("diaphragm/step", 0.01, 0.065)
        - lift * np.maximum(collapse, 0),
        heart_x=AXIS[0] - front + 0.07 + heart_a,
        heart_y=dome - 0.13 - 0.04 * enlarged,
        heart_a=heart_a,
        heart_b=1.12 * heart_a,
        heart_tilt=patients.normal("heart/tilt", 0.06, -0.35),
        kyphosis=patients.normal("spine/kyphosis", 0.015, 0.07) + 0.17 * aged,
        widened=patients.value("enlarged_cardiomediastinum"),
    )
