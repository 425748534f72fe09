"""Which file each row of a table means.

A row means the file at the path that it says, with or without its extension. Only if no row of
the table finds a file that way may its leading folders be rewritten, by one rule for all rows:
folders that all rows share are removed from the front of the table's paths (`SET/train/a.jpg` for
`train/a.jpg`), or the same number of folders from the front of the files' (`train/a.jpg` for
`PNG/train/a.jpg`). The rule is what the most rows prove; a row proves one if all files that end
like it agree on it. So no row takes the file of another one: two rows that differ still differ
without the folders that all of them share.

What the publisher of a set is known to have renamed, its `Layout` says.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data_prep.sources.files import FileIndex, bare, normal, plain
from data_prep.sources.layout import Layout
from rfxray.data.radiograph import EXTENSIONS

# Rows that must agree before folders are replaced by others. One patient's few images may well have
# the names of another's; that so many have, and none of theirs is there, does not happen.
PROOF = 10
OTHER_CASE = "differs in case from"


class Found(NamedTuple):
    """What a row's path led to.

    Attributes:
      path: Path of the file; empty if there is none.
      rank: How well it fits: 0 for its path, 1 for its path with the extension of another format,
        2 and 3 likewise for its name in whatever folder.
      reason, detail: Reason and detail for the ledger if there is no file.
    """

    path: str
    rank: int = 0
    reason: str = ""
    detail: str = ""


class _Rule(NamedTuple):
    """Where to look: what is known by a key, and the keys that a path may have."""

    find: Callable[[str], Sequence[str]]
    known: Mapping[str, Sequence[str]]
    keys: Callable[[str], Sequence[str]]

    def __call__(self, path: str) -> Sequence[str]:
        found = [at for key in self.keys(path) if (at := self.find(key))]
        if len(found) < 2:
            return found[0] if found else ()
        return list(dict.fromkeys(file for at in found for file in at))


def find_files(
    cells: Sequence[str], files: FileIndex, layout: Layout | None = None
) -> Iterator[Found]:
    """What each row of one table means, its path being as the table says it."""
    layout = layout or Layout()
    paths = [bare(cell) for cell in cells]
    rule = _as_written(files, layout)
    found = [rule(path) for path in paths]
    if not any("/" in path and files_ for path, files_ in zip(paths, found, strict=True)):
        proven = _proven(paths, files)
        if proven:
            rule = _rewritten(files, *proven)
            found = [f or rule(path) for path, f in zip(paths, found, strict=True)]
    folded: dict[str, str] = {}
    for cell, path, at in zip(cells, paths, found, strict=True):
        rank = 0
        exact = _exact(cell, at)
        if not exact and ("/" not in path or layout.unique_names):
            elsewhere = files.by_name.get(path.rpartition("/")[2], ())
            exact = _exact(cell, elsewhere)
            if not at or exact:
                at, rank = elsewhere, 2
        if not cell.strip():
            yield Found("", reason="a row that names no image")
        elif at:
            yield _chosen(path, at, exact, rank, files)
        else:
            folded = folded or {key.casefold(): key for key in (*files.by_name, *rule.known)}
            yield _missing(cell, rule.keys(path), files, folded, rule)


def _chosen(
    path: str, at: Sequence[str], exact: Sequence[str], rank: int, files: FileIndex
) -> Found:
    """The one file of several that differ in their extension; the row's own decides."""
    fit = exact or at
    files.name(*fit)
    if len(fit) > 1:
        return Found("", reason="several files", detail=f"{fit[0]} and {fit[1]}")
    (file,) = fit
    if kind := files.special.get(file):
        return Found("", reason="not a regular file", detail=f"{file} is {kind}")
    return Found(file, rank if exact else rank + 1)


def _exact(cell: str, at: Sequence[str]) -> Sequence[str]:
    """The files with the very name that a cell ends in; all of them if it has no extension."""
    if not at:
        return ()
    name = plain(cell.replace("\\", "/")).rpartition("/")[2]
    if not name.lower().endswith(EXTENSIONS):
        return at
    return [file for file in at if plain(file).rpartition("/")[2] == name]


def _missing(
    cell: str, keys: Sequence[str], files: FileIndex, folded: Mapping[str, str], rule: _Rule
) -> Found:
    image = normal(cell)
    inside = not image.startswith(("/", "../"))
    if inside and (files.folder / image).is_file():
        extension = Path(image).suffix or image.rpartition("/")[2]
        return Found("", reason="a format that is not read", detail=extension)
    for key in keys:
        other = folded.get(key.casefold())
        if other is not None:
            file = (rule.find(other) or files.by_name[other])[0]
            files.name(file)
            return Found("", reason="no file", detail=f"{OTHER_CASE} {file}")
    return Found("", reason="no file")


# ---------------------------------------------------------------------------------------------
# Rules


def _as_written(files: FileIndex, layout: Layout) -> _Rule:
    there = {
        head: [folder for folder in folders if (files.folder / folder).is_dir()]
        for head, folders in layout.folders.items()
    }
    heads = [(f"{head}/" if head else "", folders) for head, folders in there.items() if folders]

    def keys(path: str) -> list[str]:
        found = [path]
        for head, folders in heads:
            if path.startswith(head):
                rest = path[len(head) :]
                found += [f"{folder}/{rest}" if folder else rest for folder in folders]
        return found

    return _Rule(files.at, files.by_path, keys)


def _rewritten(files: FileIndex, head: str, depth: int) -> _Rule:
    index = files.below(depth) if depth else files.by_path
    return _Rule(
        lambda key: index.get(key, ()),
        index,
        lambda path: [path[len(head) :]] if path.startswith(head) else [],
    )


def _proven(paths: Sequence[str], files: FileIndex) -> tuple[str, int] | None:
    """The rule that most rows prove: what to cut from the tables' paths, how many folders from the
    files'; None if there is none, or two are proven by as many rows.
    """
    wanted = {path for path in paths if "/" in path}
    if not wanted:
        return None
    shared = _shared_folders(paths)
    heads = ["", *("/".join(shared[:cut]) + "/" for cut in range(1, len(shared) + 1))]
    said: dict[str, tuple[int, int] | None] = {}
    for file in files.by_path:
        for cut, depth, row in _alignments(file, shared, heads, files.own_name):
            if row in wanted and said.setdefault(row, (cut, depth)) != (cut, depth):
                said[row] = None  # its files disagree, so it proves nothing
    counts = Counter(rule for rule in said.values() if rule)
    if not counts:
        return None
    (best, count), *others = counts.most_common(2)
    if others and others[0][1] == count:
        return None
    cut, depth = best
    if cut and depth and (count < PROOF or 2 * count < len(wanted)):
        return None
    return heads[cut], depth


def _alignments(
    file: str, shared: Sequence[str], heads: Sequence[str], own_name: str
) -> Iterator[tuple[int, int, str]]:
    """Each way in which rows may mean a file: folders cut of the row's path, of the file's, and
    the path of that row. What is cut must end in different folders, else less would do.
    """
    start, depth, above = 0, 0, None
    while True:
        rest, slash = file[start:], file.find("/", start)
        for cut, head in enumerate(heads):
            if cut and above == shared[cut - 1]:
                continue
            # a folder is kept, for a name says too little, unless the last one cut is our own
            if slash >= 0 or (cut and not depth and shared[cut - 1] == own_name):
                yield cut, depth, head + rest
        if slash < 0:
            return
        start, depth, above = slash + 1, depth + 1, file[start:slash]


def _shared_folders(paths: Sequence[str]) -> list[str]:
    first, last = min(paths).split("/")[:-1], max(paths).split("/")[:-1]
    shared = []
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        shared.append(one)
    return shared
