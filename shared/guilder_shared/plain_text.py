"""Text from the other side, made fit for a terminal, a log and a report.

A site's reason, a server's error and a run's events are written by somebody who may be
hostile. This module knows neither of them and decides nothing: it only takes away what
moves a cursor, starts a line or fills a disk.
"""

from typing import Final

LONGEST_REASON: Final = 1000  # characters of a refusal's reason, or of an error's part
LONGEST_NAME: Final = 200  # characters of a name or an id


def one_line(text: str, longest: int = LONGEST_REASON) -> str:
    """The text on one line, at most `longest` characters, all of them printable.

    White space of any kind becomes a space; a control character, a mark that turns the
    direction of writing, or a lone surrogate becomes a question mark.
    """
    head = text[: longest + 1]
    clean = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in head)
    return clean if len(clean) <= longest else f"{clean[: longest - 1]}…"


def is_name(text: str) -> bool:
    """Whether the text may stand for a name or an id as it is: short and printable."""
    return len(text) <= LONGEST_NAME and text.isprintable()
