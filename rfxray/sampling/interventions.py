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

    What No Finding and the 12 pathologies say of each other holds before and after. A change of No
    Finding changes the pathologies that `shown` does not name: if it becomes present, they are
    absent; if it is no longer present, those that were absent because of it become unknown.

    Args:
      shown: What the radiograph shows, as far as it is known.
      change: What it is to show instead.

    Raises:
      ConfigError: For a wrong name or value, or findings that contradict each other.
    """
    source = vocabulary.encode(shown)
    settled = vocabulary.decode(source)
    change = {_name(given): value for given, value in change.items()}
    target = {**settled, **change}
    if "no_finding" not in change:
        if _unsettled(settled, change):
            target.pop("no_finding", None)
    elif vocabulary.encode_value("no_finding", change["no_finding"]) == (1.0, True):
        given = {*map(_name, shown), *change}
        target |= {name: "absent" for name in PATHOLOGY_NAMES if name not in given}
    else:
        for name in set(PATHOLOGY_NAMES) - {*map(_name, shown), *change}:
            target.pop(name, None)
    return vocabulary.stack([source]), vocabulary.stack([vocabulary.encode(target)])


def _name(given: str) -> str:
    return vocabulary.lookup(given).name


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
