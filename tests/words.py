"""Words that plain technical English avoids: `python -m tests.words` names each line with one.

Lint runs it over every .py, .sh and .md file. A line where the word is meant stands in
tests/words_allowed.txt as `PATH: LINE`, without the spaces around the line.
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from rfxray.command_line import ArgumentParser

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = Path(__file__).with_name("words_allowed.txt")
INSTEAD = {
    "alone": "only",
    "anew": "again",
    "but for": "except",
    "is none of": "must be one of",
    "told": "known, requested or conditioned on",
    "whose": "which has",
}
WORD = re.compile(rf"\b({'|'.join(INSTEAD)})\b", re.IGNORECASE)
ITSELF = ("tests/words.py", "tests/words_allowed.txt", "tests/test_words.py")


def files(root: Path) -> list[str]:
    """Paths of the texts that git knows or would add, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.sh", "*.md"],
        cwd=root,
        capture_output=True,
        check=True,
        text=True,
    )
    names = set(listed.stdout.splitlines()) - set(ITSELF)
    return sorted(name for name in names if (root / name).is_file())


def found(name: str, text: str, allowed: set[str] = frozenset()) -> list[tuple[int, str]]:
    """Number of each line that holds such a word and is not allowed, and the word in lower case."""
    hits = []
    for number, line in enumerate(text.splitlines(), 1):
        if f"{name}: {line.strip()}" not in allowed:
            hits.extend((number, match.lower()) for match in WORD.findall(line))
    return hits


def main() -> int:
    ArgumentParser(prog="python -m tests.words", description=__doc__).parse_args()
    allowed = set(ALLOWED.read_text().splitlines())
    counts: Counter[str] = Counter()
    for name in files(ROOT):
        for number, word in found(name, (ROOT / name).read_text(), allowed):
            print(f"{name}:{number}: {word!r}; say {INSTEAD[word]!r}")
            counts["/".join(name.split("/")[:2])] += 1
    for folder, count in sorted(counts.items()):
        print(f"{count:5d} {folder}", file=sys.stderr)
    return min(1, len(counts))


if __name__ == "__main__":
    sys.exit(main())
