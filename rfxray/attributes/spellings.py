"""Spellings of values: what tables and people write for the categories of an attribute.

They are read in any case, with spaces, hyphens and underscores alike; `ages` reads ages. What is
not understood is said so (None) and never guessed.
"""

import re

from rfxray.attributes.views import read_view

# Cells of a table that say nothing
BLANK = {"", "unknown", "unk", "none", "nan", "na", "n/a", "null", "?", "[]"}

UNCERTAIN = "uncertain"  # what a reader was not sure of; nothing is known of it

# By attribute: the code in a table, folded → the value of the attribute.
CODES: dict[str, dict[str, str]] = {
    "sex": {
        **dict.fromkeys(("female", "woman", "weiblich", "femenino", "feminino", "mujer"), "F"),
        **dict.fromkeys(("male", "man", "männlich", "masculino", "hombre"), "M"),
    },
    "race": {
        "caucasian": "White",
        "white or caucasian": "White",
        "black or african american": "Black",
        "african american": "Black",
    },
    "source": {},
}

# A mark such as x says that a finding is present; a blank beside it says nothing. A lone minus is
# not here: it negates in one table and means "no entry" in another.
_FINDINGS = {
    **dict.fromkeys(
        ("1", "+1", "+", "present", "positive", "pos", "yes", "y", "true", "t", "x", "✓", "✔"),
        "present",
    ),
    **dict.fromkeys(("0", "-0", "absent", "negative", "neg", "no", "n", "false", "f"), "absent"),
    **dict.fromkeys(("-1", UNCERTAIN), UNCERTAIN),
}


def read(name: str, text: str) -> str | None:
    """The value of a category or finding that a text is a common spelling of; None if of none.

    Female is F, AP semi-erect is AP. A finding is `present`, `absent` or `uncertain`, as 1, 0 or −1
    (CheXpert's 1.0, 0.0 and −1.0), a mark or a word says.
    """
    cell = text.strip().lower()
    if name == "view":
        return read_view(cell)
    if name in CODES:
        return CODES[name].get(re.sub(r"[\s_-]+", " ", cell).strip())
    return _FINDINGS.get(re.sub(r"(?<=\d)[.,]0*$", "", cell.replace("−", "-")))
