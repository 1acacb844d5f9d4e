"""The page itself: sections of escaped text and figures, in one file that fetches nothing."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

# Nothing may be fetched; scripts and styles are those of the page.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)
RELOAD_SECONDS = 5
LONGEST_LABEL = 40
LONGEST_TITLE = 90
SHORT_CELL = 26  # characters that stay in one line of a table


@dataclass(frozen=True, slots=True)
class Html:
    """Text that is HTML already; everything that came from a run has been escaped."""

    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure with a caption in plain text, `height` pixels high."""

    figure: go.Figure
    caption: str
    height: int = 420


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report.

    Attributes:
        anchor: its name in links.
        topic: what it is about, two or three words.
        finding: what it found, a sentence in plain text.
        body: blocks, top to bottom.
    """

    anchor: str
    topic: str
    finding: str
    body: Sequence[Html | Plot] = ()


def escaped(value: object) -> str:
    """Return text in which no character means anything to HTML."""
    return html.escape(str(value), quote=True)


def label(value: object, most: int = LONGEST_LABEL) -> str:
    """Return text, cut to a length, in which nothing means anything to the labels of plotly.

    They know a few tags of HTML, and of its entities those of `<`, `>` and `&`.
    """
    return html.escape(cut(value, most), quote=False)


def cut(value: object, most: int) -> str:
    """Return a text of at most `most` characters, and a sign where something is missing."""
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def paragraph(text: str, kind: str = "caption") -> Html:
    """Return plain text as a paragraph; `kind` is a class of the style sheet."""
    return Html(f'<p class="{kind}">{escaped(text)}</p>')


def code(text: str) -> Html:
    """Return plain text as a block of code."""
    return Html(f"<pre>{escaped(text)}</pre>")


def cards(pairs: Iterable[tuple[str, str]]) -> Html:
    """Return figures with what they are, side by side."""
    inner = "".join(
        f'<div class="card"><b>{escaped(cut(value, LONGEST_LABEL))}</b>'
        f"<span>{escaped(name)}</span></div>"
        for value, name in pairs
    )
    return Html(f'<div class="cards">{inner}</div>')


def chips(pairs: Iterable[tuple[str, str]]) -> Html:
    """Return names with what they may be, one after the other."""
    inner = "".join(
        f"<span><b>{escaped(name)}</b> {escaped(value)}</span>" for name, value in pairs
    )
    return Html(f'<div class="chips">{inner}</div>')


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Sequence[int] = (),
    marked: Sequence[int] = (),
) -> Html:
    """Return a table of plain text.

    Args:
        header: names of the columns.
        rows: cells of each row.
        numbers: columns that are aligned to the right.
        marked: rows that stand out.
    """

    def cell(value: object, place: int, tag: str) -> str:
        length = len(str(value))
        kind = "number" if place in numbers else "short" if length <= SHORT_CELL else "long"
        return f"<{tag} class={kind}>{escaped(value)}</{tag}>"

    def row(cells: Sequence[object], tag: str) -> str:
        return "".join(cell(value, place, tag) for place, value in enumerate(cells))

    body = "".join(
        f"<tr{' class=mark' if place in marked else ''}>{row(cells, 'td')}</tr>"
        for place, cells in enumerate(rows)
    )
    head = row(header, "th")
    return Html(
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def folded(summary: str, *blocks: Html) -> Html:
    """Return blocks that a click opens."""
    inner = "".join(block.text for block in blocks)
    return Html(f"<details><summary>{escaped(summary)}</summary>{inner}</details>")


def page(title: str, lead: str, sections: Sequence[Section], *, foot: str, live: bool) -> str:
    """Return the whole page.

    Args:
        title: plain text, as `lead` and `foot`.
        lead: what the run found, in a sentence or two.
        sections: top to bottom.
        foot: who made it, and when.
        live: the page loads itself again every few seconds.
    """
    reload = f'<meta http-equiv="refresh" content="{RELOAD_SECONDS}">' if live else ""
    links = "".join(f'<a href="#{s.anchor}">{escaped(s.topic)}</a>' for s in sections)
    body = "".join(_section(section) for section in sections)
    mark = '<span class="live">live</span>' if live else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
{reload}<title>{escaped(title)}</title>
<link rel="icon" href="data:,">
<style>{_resource("style.css")}</style>
</head>
<body>
<header><p class="eyebrow">evometa report{mark}</p><h1>{escaped(title)}</h1>
<p class="lead">{escaped(lead)}</p></header>
<nav><div>{links}</div></nav>
<main>{body}</main>
<footer>{escaped(foot)}</footer>
<noscript>The plots need JavaScript; none of it is fetched from anywhere.</noscript>
<script>{get_plotlyjs()}</script>
<script>{_resource("page.js")}</script>
</body>
</html>
"""


def _section(section: Section) -> str:
    blocks = []
    for number, block in enumerate(section.body):
        if isinstance(block, Html):
            blocks.append(block.text)
        else:
            blocks.append(_figure(block, f"plot-{section.anchor}-{number}"))
    return (
        f'<section id="{section.anchor}"><p class="eyebrow">{escaped(section.topic)}</p>'
        f"<h2>{escaped(section.finding)}</h2>{''.join(blocks)}</section>"
    )


def _figure(plot: Plot, name: str) -> str:
    # plotly escapes nothing that could end a script, so this does
    data = plot.figure.to_json(engine="json", pretty=False)
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return (
        f'<figure><div class="plot" id="{name}" style="height:{plot.height}px"></div>'
        f'<script type="application/json" id="{name}-data">{data}</script>'
        f"<figcaption>{escaped(plot.caption)}</figcaption></figure>"
    )


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
