"""Where in a TOML text each key stands, so that a mistake can name its line.

It reads text that `tomllib` has already accepted, and finds keys only: values are
`tomllib`'s. A key it cannot place is left out; the caller then names its parent.
"""

import re
from collections.abc import Iterator, Mapping

KeyPath = tuple[str | int, ...]

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""'  # multi-line strings first: they hold anything
    r"|'''.*?'''"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[\n\[\]{}=.,]"
    r"|[^\s\[\]{}=.,\#\"']+"
    r"|.",
    re.DOTALL,
)


def find(text: str) -> dict[KeyPath, int]:
    """Map each table and key of a TOML text to its line, counted from 1.

    Args:
        text: Valid TOML; of other text the answer is some part of its keys.

    Returns:
        Dotted paths as tuples. An array of tables adds its index to the path. Keys
        inside an inline table are not listed: they stand on their parent's line.
    """
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    for line, statement in _statements(text):
        if statement[0] == "[":
            table = _parts([part for part in statement if part not in "[]"])
            if statement[1:2] == ["["]:
                number = counts[table] = counts.get(table, -1) + 1
                table = (*table, number)
            _note(lines, table, line)
        elif "=" in statement:
            key = _parts(statement[: statement.index("=")])
            _note(lines, (*table, *key), line)
    return lines


def nearest(lines: Mapping[KeyPath, int], path: KeyPath) -> int | None:
    """The line of `path`, else of its closest parent that has one, else None."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path)


def _note(lines: dict[KeyPath, int], path: KeyPath, line: int) -> None:
    """Note a path and, where they are new, the parents a dotted key makes."""
    for length in range(1, len(path) + 1):
        lines.setdefault(path[:length], line)


def _statements(text: str) -> Iterator[tuple[int, list[str]]]:
    """Cut the text into statements: a table header, or a key with its value."""
    line = start = 1
    depth = 0
    statement: list[str] = []
    for word in _TOKEN.findall(f"{text}\n"):
        if word == "\n" and depth == 0:
            if statement:
                yield start, statement
            statement = []
        elif not word.isspace() and not word.startswith("#"):
            if not statement:
                start = line
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(word, 0)
            statement.append(word)
        line += word.count("\n")


def _parts(words: list[str]) -> KeyPath:
    """The parts of a dotted key, quotes taken off (escapes stay as written)."""
    return tuple(
        word[1:-1] if word[0] in "\"'" else word for word in words if word != "."
    )
