"""What a person types as the value of a key, read as the type of the key's default."""

import ast
import contextlib
from decimal import Decimal

from rfxray.config.schema import Value

WORDS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
BRACKETS = {"[": "]", "(": ")"}


def read(text: str, default: Value) -> object:
    """The value that a text means for a key with this default.

    A number may be written in any way of Python, and a whole one also as `1e3`; a list with or
    without brackets and quotes. Quotes keep a comma: `["a,b"]` is one path.

    Args:
      text: Text after `--config.KEY=`.
      default: Default of the key.

    Returns:
      A value of the type of the default, or, for `check_value` to refuse, what was typed.
    """
    if isinstance(default, tuple):
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            found = ast.literal_eval(text.strip())  # Python's own quotes, with escapes
            of_text = isinstance(found, list | tuple) and all(isinstance(f, str) for f in found)
            if of_text and isinstance(default[0], str):
                return tuple(found)
        return tuple(read(item, default[0]) for item in _items(text))
    if isinstance(default, str):
        return _unquoted(text)
    text = _unquoted(text.strip())
    if isinstance(default, bool):
        return WORDS.get(text.lower(), _literal(text))
    try:
        return _whole(text) if isinstance(default, int) else float(text)
    except (ValueError, ArithmeticError):  # of int, of Decimal
        return _literal(text)


def _whole(text: str) -> int:
    """The integer that a text means; a ValueError if it is none, or none of 64 bits."""
    try:
        return int(text, 0)
    except ValueError:
        number = Decimal(text)
        if number.is_finite() and abs(number) < 2**63 and number == int(number):
            return int(number)
        raise


def _items(text: str) -> list[str]:
    """The items of a list: split at commas outside of quotes, without brackets around all."""
    text = text.strip()
    if text[:1] in BRACKETS and text[-1:] == BRACKETS[text[0]]:
        text = text[1:-1].strip()
    items, quote = [""], ""
    for letter in text:
        if letter == quote:
            quote = ""
        elif not quote and letter in "'\"" and not items[-1].strip():
            quote = letter  # an apostrophe inside a word quotes nothing
        if letter == "," and not quote:
            items.append("")
        else:
            items[-1] += letter
    items = [item.strip() for item in items]
    if not items[-1]:  # (1.0,) and []
        items.pop()
    return items


def _unquoted(text: str) -> str:
    """A text without the quotes around it, if they are around all of it."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" and text[0] not in text[1:-1]:
        return text[1:-1]
    return text


def _literal(text: str) -> object:
    """What was typed, as Python shows it in an error line."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float | None) else text
