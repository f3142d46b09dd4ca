"""Pages of results that open in any browser: one file, pictures inside, no script and nothing from elsewhere."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from .codec import frozen
from .errors import InputError

# Light paper and dark screens; cards as wide as a phone, as many beside each other as fit.
_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8883; --bad: #c0392b; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; padding: 1.2rem; max-width: 90rem; }
h1 { font-size: 1.35rem; margin: 0 0 .3rem; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
.note { opacity: .75; margin: 0 0 1rem; }
.cards { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); }
.card { border: 1px solid var(--line); border-radius: .4rem; overflow: hidden; break-inside: avoid; }
.card img, .picture { width: 100%; display: block; background: #000; }
.card > div { padding: .5rem .7rem .6rem; overflow-wrap: anywhere; }
.card b { display: block; } .failed { border-color: var(--bad); } .failed b { color: var(--bad); }
.wide { overflow-x: auto; margin-bottom: .4rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--soft); vertical-align: top; }
.card table { font-size: .85rem; } td + td, th + th { text-align: right; padding-left: .6rem; }
.facts td + td, .facts th + th { text-align: left; } .facts td { overflow-wrap: anywhere; }
.facts td:first-child { white-space: nowrap; }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border: 1px solid var(--line); }
.picture { border-radius: .4rem; margin: .4rem 0; }
@media print { body { padding: 0; max-width: none; font-size: 12px; } a { color: inherit; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .cards { grid-template-columns: repeat(3, 1fr); } h2 { break-after: avoid; } tr, .picture { break-inside: avoid; } }
"""
THUMBNAIL_PX = (640, 480)


@frozen
class Card:
    """A case on a contact sheet.

    Attributes:
        title: the case.
        rows: lines of two or more cells: a segment and its volume, a label and its score.
        picture: a PNG or JPEG; empty without one.
        error: why there is no result; empty where there is one.
        note: a short line below.
    """

    title: str
    rows: Sequence[Sequence[str]] = ()
    picture: bytes = b""
    error: str = ""
    note: str = ""


def contact_sheet(title: str, note: str, cards: Sequence[Card]) -> str:
    """Return a page with a picture and the numbers of every case, in the order given."""
    return html_page(title, html_note(note) + html_cards(cards))


def html_cards(cards: Sequence[Card]) -> str:
    """Return cards beside each other; empty without one."""
    return f'<div class="cards">{"".join(map(_card, cards))}</div>' if cards else ""


def html_note(text: str) -> str:
    """Return a paragraph of less weight; empty without a text."""
    return f'<p class="note">{escape(text)}</p>' if text else ""


def html_section(title: str, *parts: str) -> str:
    """Return parts below a heading; empty where all of them are."""
    return f"<h2>{escape(title)}</h2>{''.join(parts)}" if any(parts) else ""


def html_picture(picture: bytes, title: str) -> str:
    """Return a picture as wide as the page."""
    return f'<img class="picture" src="{picture_source(picture)}" alt="{escape(title)}">'


def _card(card: Card) -> str:
    picture = f'<img src="{picture_source(card.picture)}" alt="{escape(card.title)}">' if card.picture else ""
    error = f"<p>{escape(card.error)}</p>" if card.error else ""
    failed = " failed" if card.error else ""
    body = f"<b>{escape(card.title)}</b>{error}{html_table((), card.rows)}{html_note(card.note)}"
    return f'<section class="card{failed}">{picture}<div>{body}</div></section>'


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], style: str = "", colours: Sequence[str] = ()) -> str:
    """Return a table; empty without a row.

    Args:
        head: the titles of the columns; empty for none.
        rows: the cells of each line.
        style: ``"facts"`` for texts, which stand at the left; empty for numbers.
        colours: a swatch before the first cell of each line, such as ``"#ff8000"``; empty for none.
    """
    if not rows:
        return ""
    top = f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>" if head else ""
    swatches = [f'<i class="swatch" style="background:{escape(colour)}"></i>' for colour in colours] or [""] * len(rows)
    lines = (
        f"<tr>{''.join(f'<td>{swatch * (n == 0)}{escape(cell)}</td>' for n, cell in enumerate(row))}</tr>"
        for row, swatch in zip(rows, swatches, strict=True)
    )
    return f'<div class="wide"><table class="{style}">{top}{"".join(lines)}</table></div>'


def html_page(title: str, body: str) -> str:
    """Return a whole page around a body of HTML."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    name = escape(title)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<title>{name}</title><style>{_STYLE}</style></head>'
        f"<body><h1>{name}</h1>{body}</body></html>\n"
    )


def picture_source(picture: bytes) -> str:
    """Return a picture as the source of an image element."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def thumbnail(path: Path) -> bytes:
    """Return a picture file as a small JPEG; empty where there is none.

    Raises:
        InputError: the file is no picture.
    """
    import io

    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        return b""
    buffer = io.BytesIO()
    try:
        with Image.open(path) as picture:
            picture.thumbnail(THUMBNAIL_PX)
            picture.convert("RGB").save(buffer, "JPEG", quality=82)
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path.name} is no picture that can be read") from error
    return buffer.getvalue()
