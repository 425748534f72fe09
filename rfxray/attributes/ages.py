"""Ages, as DICOM headers, hospitals and spreadsheets write them, in years."""

import re

# DICOM's units (PS3.5 6.2, AS) and words for them: English, Spanish, Portuguese, German
_UNITS = {
    "y": r"y[./]?o|y|yrs?|years?|a[nñ]os?|jahre?|j",
    "m": r"m|mos?|mths?|months?|mes(?:es)?|monate?",
    "w": r"w|wks?|weeks?|semanas?|wochen?",
    "d": r"d|days?|d[ií]as?|tage?",
}
_DAYS = {"y": 365.25, "m": 30.4375, "w": 7.0, "d": 1.0}
_NUMBER = r"(\d{1,3}(?:[.,]\d*)?)"
_UNIT = "|".join(f"(?P<{unit}>{words})" for unit, words in _UNITS.items())
_PART = re.compile(rf"{_NUMBER}[\s-]*(?:{_UNIT})(?![^\W\d_])\.?[\s,-]*(?:old\b)?\s*")
_YEARS = r"\s*(?:y|yrs?|years?)?\s*"
_ABOVE = re.compile(rf"(?:>|over|above|older than)\s*{_NUMBER}{_YEARS}")
_OR_MORE = r"(?:\+|plus|(?:and|or) (?:more|over|above|older))?"
_AT_LEAST = re.compile(rf"(?:>=|≥)?\s*{_NUMBER}{_YEARS}{_OR_MORE}{_YEARS}")
_RANGE = re.compile(rf"{_NUMBER}\s*(?:-|–|to)\s*{_NUMBER}{_YEARS}")


def read_age(cell: str) -> float | None:
    """The age that a cell in lower case says, in years; None if it is not one number or duration.

    `63`, `63.5`, `63,5`, DICOM's `063Y` and `018M`, `63 years`, `6 months`, `1y 6m`.
    """
    if re.fullmatch(_NUMBER, cell):  # float() itself reads 6_3 and 1e2, too
        return _number(cell)
    days, at, smaller = 0.0, 0, "ymwd"
    while at < len(cell):
        match = _PART.match(cell, at)
        unit = match and next(unit for unit in _UNITS if match[unit])
        if not match or not unit or unit not in smaller:
            return None
        days += _number(match[1]) * _DAYS[unit]
        at, smaller = match.end(), smaller[smaller.index(unit) + 1 :]
    return days / _DAYS["y"] if at else None


def likely_age(cell: str) -> str:
    """A number to offer for an age that is only bounded, such as `>89`, `90+` or `40-49`."""
    if match := _RANGE.fullmatch(cell):
        return f"{(_number(match[1]) + _number(match[2])) / 2:g}"
    if match := _ABOVE.fullmatch(cell):
        return f"{_number(match[1]) + 1:g}"
    match = _AT_LEAST.fullmatch(cell)
    return f"{_number(match[1]):g}" if match else ""


def _number(text: str) -> float:
    return float(text.replace(",", "."))
