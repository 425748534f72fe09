"""The seven sets of CXR7: who reads each, what it should hold, what its terms allow.

Published counts: RadiT (arXiv 2606.19460), table of CXR7-1M. Terms are a reading of the public
licence texts to plan by, not advice: who downloads a set agrees to its own text.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from data_prep.sources import brax, chexpert, mimic, nih, padchest, rexgradient, vindr
from data_prep.sources.layout import Layout
from data_prep.tables.table import Table


@dataclasses.dataclass(frozen=True)
class RawSet:
    """One of the seven.

    Attributes:
      read: Function of the root folder that returns the table; paths in it are as published, no
        image is looked at. If there are `labels` it also takes the name of one.
      published: Images that RadiT kept of it; None if the set is not one of the seven.
      title, terms: Texts for the audit page.
      redistribute, train, publish_weights: Permission in the terms; "yes", "no", or a condition.
      layout: Text on how the files lie, as far as it is known.
      labels: Label tables, one of which may be asked for by its name.
    """

    read: Callable[..., Table] | None
    published: int | None
    title: str
    terms: str
    redistribute: str
    train: str
    publish_weights: str
    layout: Layout = dataclasses.field(default_factory=Layout)
    labels: tuple[str, ...] = ()


_PHYSIONET = "PhysioNet Credentialed Health Data License 1.5.0"
_CREDENTIALED: dict[str, Any] = {
    "terms": _PHYSIONET,
    "redistribute": "no",
    "train": "yes, credentialed users",
    "publish_weights": "not settled by the text: ask PhysioNet, or share there",
}

SETS: dict[str, RawSet] = {
    "mimic": RawSet(mimic.read, 377_095, "MIMIC-CXR-JPG", **_CREDENTIALED, labels=mimic.LABELS),
    "rexgradient": RawSet(
        rexgradient.read,
        273_004,
        "ReXGradient-160K",
        terms="gated; non-commercial use",
        redistribute="no",
        train="yes, non-commercial",
        publish_weights="non-commercial at most: ask",
    ),
    "chexpert": RawSet(
        chexpert.read,
        223_462,
        "CheXpert / CheXpert-Plus",
        terms="Stanford University Dataset Research Use Agreement",
        redistribute="no",
        train="yes, research, non-commercial",
        publish_weights="not settled by the text: ask",
        layout=chexpert.LAYOUT,
        labels=chexpert.LABELS,
    ),
    "padchest": RawSet(
        padchest.read,
        160_846,
        "PadChest",
        terms="PadChest Dataset Research Use Agreement",
        redistribute="no",
        train="yes, research, non-commercial",
        publish_weights="not settled by the text: ask",
        layout=padchest.LAYOUT,
    ),
    "nih": RawSet(
        nih.read,
        112_120,
        "NIH ChestX-ray14",
        terms="open; attribution to the NIH Clinical Center",
        redistribute="yes, with attribution",
        train="yes",
        publish_weights="yes",
        layout=nih.LAYOUT,
    ),
    "brax": RawSet(brax.read, 40_967, "BRAX", **_CREDENTIALED, layout=brax.LAYOUT),
    "vindr": RawSet(vindr.read, 18_000, "VinDr-CXR", **_CREDENTIALED, layout=vindr.LAYOUT),
}


def raw_set(name: str) -> RawSet:
    """One of the seven, or what is to be said of a folder of one's own."""
    asked = "as its owner says"
    return SETS.get(name) or RawSet(None, None, name, "a folder of your own", asked, asked, asked)
