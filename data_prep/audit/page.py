"""The audit page: numbers and pictures as one HTML file."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from data_prep.sources.sets import raw_set
from rfxray.attributes.vocabulary import ATTRIBUTES, FINDING_NAMES, INDEX

THUMBNAIL = 112  # pixels
_NONE = '<p class="note">None.</p>'

_STATES = {
    "positive": "#b5402f",
    "positive_closed_vocabulary": "#d98a7c",
    "uncertain": "#e3a23a",
    "negative": "#2f6d8a",
    "negative_closed_vocabulary": "#9cc3d5",
    "unlabelled": "#e4e2dc",
}

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;background:#faf9f6;max-width:1180px;
  margin:2rem auto;padding:0 1.5rem}
h1{font-size:1.7rem;margin-bottom:.2rem}h2{margin-top:2.6rem;border-bottom:1px solid #ccc}
table{border-collapse:collapse;margin:.6rem 0}td,th{padding:.18rem .7rem;text-align:right;
  border-bottom:1px solid #e8e6e0;font-variant-numeric:tabular-nums}
td:first-child,th:first-child{text-align:left}th{font-weight:600;vertical-align:bottom}
.flag{background:#fbe3dd;color:#8c2413}.good{color:#2c6e3f}.note{color:#666;font-size:.9rem}
.bars td,.bars th{text-align:left;white-space:nowrap}
.bar{display:flex;height:16px;width:96px;border-radius:2px;overflow:hidden}
.sheet{margin:.7rem 0}.sheet img{display:block;border-radius:3px}
.text td,.text th{text-align:left;vertical-align:top;overflow-wrap:anywhere}
svg{background:#fff;border:1px solid #e8e6e0}
.key span{display:inline-block;width:12px;height:12px;margin:0 .3rem 0 1rem}
"""


def render(manifest: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The page, from the manifest and `audit.gather`."""
    sections = [
        ("Sets", _sets(manifest, found)),
        ("Odd prevalences", _flags(found)),
        ("Views, sex, race", _categories(found)),
        ("Age", _ages(found)),
        ("Prevalence", _prevalence(found)),
        ("How labels are known", _states(found)),
        ("Leakage", _leakage(found)),
        ("Duplicates", _duplicates(manifest)),
        ("What was dropped", _dropped(manifest)),
        ("Intensities", _intensities(found)),
        ("Pictures by set and view", _sheets(found["sheets"]["view"])),
        ("Pictures by label", _sheets(found["sheets"]["label"])),
        ("Text in the pictures", _text(found)),
        ("Terms", _terms(found)),
    ]
    body = "".join(f"<h2>{html.escape(title)}</h2>\n{content}\n" for title, content in sections)
    versions = ", ".join(f"{name} {v}" for name, v in manifest["versions"].items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Audit of '
        f"{html.escape(manifest['name'])}</title><style>{_STYLE}</style>"
        f"<h1>Audit of {html.escape(manifest['name'])}</h1>"
        f'<p class="note">{sum(found["kept"].values()):,} radiographs of {manifest["size"]}² from '
        f"{found['rows']:,} rows. Fingerprint <code>{manifest['fingerprint']}</code>.<br>"
        f"{html.escape(versions)}</p>\n{body}</html>\n"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Cells are HTML; text in them must be escaped by the caller."""
    if not rows:
        return _NONE
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in rows)
    return f'<table class="{kind}"><tr>{head}</tr>{body}</table>'


def _sets(manifest, found) -> str:
    rows = []
    for name, counts in manifest["notes"]["sets"].items():
        kept, published = found["kept"].get(name, 0), counts["published"]
        splits = found["splits"].get(name, {})
        rows.append(
            [
                html.escape(raw_set(name).title),
                *(f"{n:,}" for n in (counts["rows"], counts["matched"], kept)),
                *((f"{published:,}", f"{100 * kept / published:.1f}%") if published else "––"),
                *(f"{splits.get(split, 0):,}" for split in ("train", "validation", "test")),
            ]
        )
    header = ("set", "rows", "with a file", "kept", "RadiT kept", "of RadiT's")
    return _table((*header, "train", "validation", "test"), rows)


def _flags(found) -> str:
    if not found["judged"]:
        return f'<p class="note">None was judged: it takes {found["rule"]}.</p>'
    if not found["flags"]:
        return f'<p class="good">None of {found["judged"]}, judged by {found["rule"]}.</p>'
    lines = "".join(f'<li class="flag">{html.escape(line)}</li>' for line in found["flags"])
    return f"<p>Of {found['judged']}, judged by {found['rule']}:</p><ul>{lines}</ul>"


def _categories(found) -> str:
    tables = []
    for name, crossed in found["categories"].items():
        values = (*ATTRIBUTES[INDEX[name]].values, "unknown")
        rows = [
            [source, *(_share(counts.get(v, 0), sum(counts.values())) for v in values)]
            for source, counts in crossed.items()
        ]
        total = [sum(counts.get(v, 0) for counts in crossed.values()) for v in values]
        rows.append(["<b>all</b>", *(_share(n, sum(total)) for n in total)])
        tables.append(_table((name, *values), rows))
    return "".join(tables)


def _share(count: int, total: int) -> str:
    return f"{count:,} <span class='note'>{100 * count / max(total, 1):.0f}%</span>"


def _ages(found) -> str:
    """A small histogram a set, five years a bar from 0 to 100."""
    drawn = []
    for name, counts in found["ages"].items():
        highest = max(*counts, 1)
        bars = "".join(
            f'<rect x="{i * 11 + 4}" y="{74 - 66 * n / highest:.1f}" width="10" '
            f'height="{66 * n / highest:.1f}" fill="#2f6d8a"><title>{i * 5} to {i * 5 + 4}: '
            f"{n:,}</title></rect>"
            for i, n in enumerate(counts)
        )
        ticks = "".join(
            f'<text x="{i * 11 + 4}" y="88" font-size="10">{i * 5}</text>' for i in range(0, 20, 4)
        )
        drawn.append(
            f'<figure style="display:inline-block;margin:.4rem"><svg width="228" height="94">'
            f"{bars}{ticks}</svg><figcaption>{name}: {sum(counts):,} known</figcaption></figure>"
        )
    return "".join(drawn)


def _prevalence(found) -> str:
    sources = list(found["prevalence"])
    if not sources:
        return _NONE
    rows = []
    for name in FINDING_NAMES:
        cells = []
        for source in sources:
            share, published = found["prevalence"][source].get(name, (None, None))
            if share is None:
                cells.append('<span class="note">–</span>')
                continue
            label = ATTRIBUTES[INDEX[name]].label
            odd = any(flag.startswith(f"{source}: {label} ") for flag in found["flags"])
            beside = "" if published is None else f" <span class='note'>{published:.1f}</span>"
            cells.append(f"<span class='{'flag' if odd else ''}'>{share:.1f}</span>{beside}")
        rows.append([ATTRIBUTES[INDEX[name]].label, *cells])
    note = "Percent of all kept rows that are positive; in grey what the published table gives."
    return f'<p class="note">{note}</p>' + _table(("label", *sources), rows)


def _states(found) -> str:
    key = "".join(
        f'<span style="background:{colour}"></span>{state.replace("_", " ")}'
        for state, colour in _STATES.items()
    )
    sources = list(found["kept"])
    rows = []
    for name in FINDING_NAMES:
        bars = []
        for source in sources:
            counts = found["states"][name][source]
            total = sum(counts.values())
            parts = "".join(
                f'<div style="width:{100 * counts.get(state, 0) / total:.2f}%;'
                f'background:{colour}" title="{state}: {counts.get(state, 0):,}"></div>'
                for state, colour in _STATES.items()
            )
            bars.append(f'<div class="bar">{parts}</div>')
        rows.append([ATTRIBUTES[INDEX[name]].label, *bars])
    return f'<p class="key">{key}</p>' + _table(("label", *sources), rows, "bars")


def _leakage(found) -> str:
    lines = [_verdict(found["divided_patients"], "patients stand in more than one split")]
    if found["divided_pictures"] is None:
        lines.append('<p class="note">survey/ was deleted: pictures were not compared again.</p>')
    else:
        what = "pictures stand, pixel for pixel, in more than one split"
        lines.append(_verdict(found["divided_pictures"], what))
    return "".join(lines)


def _verdict(count: int, what: str) -> str:
    return f'<p class="{"flag" if count else "good"}">{count:,} {what}.</p>'


def _duplicates(manifest) -> str:
    told = manifest["notes"]["duplicates"]
    rows = [
        ["equal pixels", f"{told['exact_duplicates']:,}"],
        ["alike by hash, of different patients", f"{told['near_candidates_between_patients']:,}"],
        ["of these confirmed by registered correlation", f"{told['near_duplicates']:,}"],
        ["patients tied by a picture", f"{told['patients_tied']:,}"],
        ["of these tied into one person at most", f"{told['most_tied_together']:,}"],
        [
            "dropped, because their patient is held out",
            f"{told['dropped_for_a_held_out_patient']:,}",
        ],
    ]
    pairs = [
        [html.escape(one), html.escape(other), f"{correlation:.3f}"]
        for one, other, correlation in told["pairs"][:20]
    ]
    listed = _table(("kept", "dropped", "correlation"), pairs, "text") if pairs else ""
    return _table(("", "pictures"), rows) + listed


def _dropped(manifest) -> str:
    rows = [
        [name, html.escape(reason), f"{count:,}"]
        for name, counts in manifest["notes"]["sets"].items()
        for reason, count in counts["dropped"].items()
    ]
    return _table(("set", "reason", "images"), rows, "text")


def _intensities(found) -> str:
    drawn = []
    for name, shares in found["histograms"].items():
        highest = max(*shares, 1e-9)
        points = " ".join(
            f"{4 + i * 3.5:.1f},{74 - 66 * share / highest:.1f}" for i, share in enumerate(shares)
        )
        drawn.append(
            f'<figure style="display:inline-block;margin:.4rem"><svg width="232" height="80">'
            f'<polyline points="{points}" fill="none" stroke="#b5402f" stroke-width="1.5"/></svg>'
            f"<figcaption>{name}</figcaption></figure>"
        )
    note = "Share of the pixels in each grey from black to white, padding left out; a sample."
    return f'<p class="note">{note}</p>' + "".join(drawn)


def _sheets(sheets: Mapping[str, Sequence[np.ndarray]]) -> str:
    if not sheets:
        return _NONE
    return "".join(
        f'<div class="sheet"><b>{html.escape(name)}</b><img alt="{html.escape(name)}" '
        f'src="data:image/png;base64,{_sheet(images)}"></div>'
        for name, images in sheets.items()
    )


def _text(found) -> str:
    if found["text"] is None:
        return '<p class="note">Not looked for: run data_prep.audit with --audit-text.</p>'
    rows = [[name, f"{count:,}"] for name, count in found["text"].items()]
    note = (
        "Pictures with a likely line of text, around that line; text.csv has them all. A word may "
        "be harmless, a plate may look like one, and text may be missed: most of it below 512²."
    )
    table = _table(("set", "pictures"), rows)
    return f'<p class="note">{note}</p>{table}{_sheets(found["sheets"]["text"])}'


def _sheet(images: Sequence[np.ndarray]) -> str:
    """Rows of ten thumbnails as base64 of a PNG."""
    step, across = THUMBNAIL + 4, min(10, len(images))
    down = -(-len(images) // 10)
    sheet = Image.new("L", (across * step - 4, down * step - 4), 250)
    for i, image in enumerate(images):
        small = Image.fromarray(image.astype(np.uint8)).resize((THUMBNAIL, THUMBNAIL))
        sheet.paste(small, (i % 10 * step, i // 10 * step))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _terms(found) -> str:
    rows = [
        [
            html.escape(cell)
            for cell in (s.title, s.terms, s.redistribute, s.train, s.publish_weights)
        ]
        for s in map(raw_set, found["kept"])
    ]
    note = "A reading to plan by, not advice: who downloads a set agrees to its own text."
    header = ("set", "terms", "may redistribute?", "may train?", "may publish weights?")
    return f'<p class="note">{note}</p>' + _table(header, rows, "text")
