"""Views, as DICOM headers, picture archives and people write them.

A view is PA, AP or lateral. The words around it (how the patient stood or lay, the body part, the
side of a lateral) may only be such as leave it certain: "AP semi-erect" and "Chest PA upright" are
read, "portable", "AP LLD", "PA/LAT" and "frontal" are not.
"""

import re
import unicodedata

_PROJECTIONS = {
    **dict.fromkeys(("pa", "posteroanterior"), "PA"),
    **dict.fromkeys(("ap", "anteroposterior"), "AP"),
    **dict.fromkeys(("lateral", "lat", "ll", "rl", "perfil", "profil", "seitlich"), "lateral"),
}
_BODY = {"chest", "cxr", "thorax", "torax", "view", "projection", "film", "radiograph"}
# English, Spanish, Portuguese, German. Any view may be taken so; decubitus is left out, since a
# "lateral decubitus" film is a frontal one of a patient who lies on the side.
_POSTURES = {
    *("erect", "upright", "standing", "sitting", "seated", "supine", "semi", "semierect"),
    *("semiupright", "semirecumbent", "recumbent", "semisupine", "lying", "horizontal"),
    *("portable", "mobile", "bedside", "stehend", "sitzend", "liegend", "portatil", "supino"),
    *("im", "stehen", "sitzen", "liegen", "bettaufnahme"),
}
_SIDES = {"left", "right", "lt", "rt", "l", "r", "izquierda", "derecha", "esquerda", "direita"}
_LYING = {"portable", "mobile", "bedside", "supine", "portatil", "supino"}
_LYING |= {"liegend", "liegen", "bettaufnahme"}


def read_view(cell: str) -> str | None:
    """PA, AP or lateral as a cell in lower case says it; None if it does not, or names several."""
    words = _words(cell)
    if words == ["l"]:  # PadChest's
        return "lateral"
    views = {_PROJECTIONS[word] for word in words if word in _PROJECTIONS}
    if len(views) != 1:
        return None
    (view,) = views
    others = {word for word in words if word not in _PROJECTIONS} - _BODY - _POSTURES
    if view == "lateral":
        others -= _SIDES
    elif "frontal" in others:
        others.remove("frontal")
    return None if others else view


def likely_view(cell: str) -> str:
    """What most films with such a cell are, to be offered but never assumed; empty if unclear.

    Films at the bedside and of lying patients are AP as a rule: the plate is behind the back.
    """
    words = set(_words(cell))
    return "AP" if words & _LYING and words <= _BODY | _POSTURES | {"frontal"} else ""


def _words(cell: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", cell.replace(".", ""))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    plain = re.sub(r"\b(postero|posterior)\W*_*(anterior)\b", "pa", plain)
    plain = re.sub(r"\b(antero|anterior)\W*_*(posterior)\b", "ap", plain)
    return re.sub(r"[\W_]+", " ", plain).split()
