"""What an edit changes: the attributes of a radiograph before and after."""

from jaxtyping import Bool

from rfxray.arrays import AnyArray
from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import PATHOLOGY_NAMES, Attributes, Values


def changed(source: Attributes, target: Attributes) -> Bool[AnyArray, "... 19"]:
    """Which attributes differ before and after, bool [n, 19] from attributes [n, 19]."""
    return (source.known != target.known) | (
        source.known & target.known & (source.values != target.values)
    )


def before_and_after(shown: Values, change: Values) -> tuple[Attributes, Attributes]:
    """The attributes [1, 19] of a radiograph, and those after a change.

    No Finding follows from the other findings if they settle it.

    Args:
      shown: What the radiograph shows, as far as it is known.
      change: What it is to show instead.

    Raises:
      ConfigError: for a wrong name or value, or findings that contradict each other.
    """
    both = {**shown, **change}
    if "no_finding" not in change and _unsettled(shown, change):
        both.pop("no_finding", None)
    target = vocabulary.derive_no_finding(vocabulary.encode(both))
    return vocabulary.stack([vocabulary.encode(shown)]), vocabulary.stack([target])


def _unsettled(shown: Values, change: Values) -> bool:
    """Whether a change can alter No Finding.

    If it is present, every pathology is absent already, so setting one absent alters nothing; if it
    is absent, it stays so when a pathology is set present.
    """
    allowed = (1 - vocabulary.encode_value("no_finding", shown.get("no_finding"))[0], True)
    return any(
        vocabulary.encode_value(name, value)
        not in (allowed, vocabulary.encode_value(name, shown.get(name)))
        for name, value in change.items()
        if name in PATHOLOGY_NAMES
    )
