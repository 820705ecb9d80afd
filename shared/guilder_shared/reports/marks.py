"""Pieces of HTML that the parts of a page share; every value is escaped here."""

from collections.abc import Iterable, Sequence
from html import escape

from guilder_shared.reports.texts import Texts

DASH = "\N{EN DASH}"


def text(value: object) -> str:
    """A value as text of a page."""
    return escape(DASH if value is None else str(value))


def code(value: object) -> str:
    """A value to be compared or typed letter by letter."""
    return f"<code>{text(value)}</code>"


def bullets(sentences: Iterable[str]) -> str:
    """A list of sentences."""
    return "<ul>" + "".join(f"<li>{text(each)}</li>" for each in sentences) + "</ul>"


def number(value: float | None, say: Texts) -> str:
    """A number, or that there is none because nothing is protected."""
    return say("none") if value is None else f"{value:g}"


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], label: str = ""
) -> str:
    """A table; without a head the first cell of each row names the row."""
    named = f' aria-label="{text(label)}"' if label else ""
    if not head:
        body = "".join(
            f'<tr><th scope="row">{text(row[0])}</th>'
            + "".join(f"<td>{text(cell)}</td>" for cell in row[1:])
            + "</tr>"
            for row in rows
        )
        return f"<table{named}><tbody>{body}</tbody></table>"
    top = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table{named}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
