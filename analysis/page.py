"""One HTML page that needs nothing else: pictures inside, no network, no scripts, fits a phone.

Equal content gives equal bytes.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
       max-width: 60rem; padding: 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
p.about, figcaption { color: #555; font-size: .9rem; margin: .2rem 0 .8rem; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd;
         white-space: nowrap; }
th { border-bottom: 2px solid #888; } th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
.side { display: flex; flex-wrap: wrap; gap: 1rem; } .side figure { margin: 0; flex: 0 1 16rem; }
.side img { image-rendering: pixelated; width: 16rem; }
pre { background: #f4f4f4; padding: .7rem; overflow-x: auto; font-size: .8rem; }
li { margin: .2rem 0; }
@media print { body { max-width: none; } h2 { break-after: avoid; } }
"""


@dataclass(frozen=True)
class Section:
    """A heading, what its numbers are, and HTML made by the functions below."""

    title: str
    about: str
    parts: tuple[str, ...]


def page(title: str, lead: str, sections: Iterable[Section]) -> str:
    """Return the whole document.

    Args:
        title: of the page.
        lead: a sentence below it.
        sections: in their order; those without parts are left out.
    """
    body = [f"<h1>{html.escape(title)}</h1>", f'<p class="about">{html.escape(lead)}</p>']
    for section in sections:
        if section.parts:
            about = f'<p class="about">{html.escape(section.about)}</p>' if section.about else ""
            body += [f"<h2>{html.escape(section.title)}</h2>", about, *section.parts]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table that scrolls on a narrow screen; None is a dash."""
    head = "".join(f"<th>{html.escape(header)}</th>" for header in headers)
    lines = [
        "<tr>" + "".join(f"<td>{html.escape(_shown(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    ]
    return f'<div class="scroll"><table><tr>{head}</tr>\n' + "\n".join(lines) + "</table></div>"


def picture(data: bytes, kind: str, caption: str) -> str:
    """Return a figure with its picture inside.

    Args:
        data: the file.
        kind: svg+xml, png or gif.
        caption: what is seen, with units and n; also what a screen reader says.
    """
    encoded = base64.b64encode(data).decode()
    said = html.escape(caption)
    return (
        f'<figure><img alt="{said}" src="data:image/{kind};base64,{encoded}">'
        f"<figcaption>{said}</figcaption></figure>"
    )


def beside(figures: Iterable[str]) -> str:
    """Return figures side by side, where there is room."""
    return f'<div class="side">{"".join(figures)}</div>'


def listed(sentences: Iterable[str]) -> str:
    """Return a list of sentences."""
    return "<ul>" + "".join(f"<li>{html.escape(one)}</li>" for one in sentences) + "</ul>"


def code(text: str) -> str:
    """Return something to type, or to compare letter by letter."""
    return f"<pre>{html.escape(text)}</pre>"


def _shown(cell: object) -> str:
    return "–" if cell is None else str(cell)
