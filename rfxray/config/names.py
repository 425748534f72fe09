"""The key that a person meant by a name that no key has."""

import difflib
from collections.abc import Collection

LIST_THEM = "--config.help lists all"


def hint(name: str, keys: Collection[str]) -> str:
    """End of an error line: the keys of a section of this name, the nearest keys, or where to look.

    Keys are compared without regard to case and to `-` or `_`. A key with the same last word, or
    with initials that are that word (`optim.lr`), is nearer than one that is spelt alike.
    """
    wanted = name.lower().replace("-", "_")
    inside = [key for key in keys if key.startswith(f"{wanted}.")]
    if inside:
        names = ", ".join(key.removeprefix(f"{wanted}.") for key in inside)
        return (
            f"; it is a section, write --config.{inside[0]}=VALUE or another of its keys: {names}"
        )
    section, _, last = wanted.rpartition(".")
    same = [key for key in keys if last and last in (_last(key), _initials(key))]
    near = [key for key in same if key.startswith(f"{section}.")] if section else []
    alike = sorted(same, key=lambda key: -difflib.SequenceMatcher(None, wanted, key).ratio())
    near = near or alike or difflib.get_close_matches(wanted, list(keys), n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(near[:2])}?" if near else f"; {LIST_THEM}"


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _initials(key: str) -> str:
    words = _last(key).split("_")
    return "".join(word[:1] for word in words) if len(words) > 1 else ""
