"""Mistakes in a file a person edits, all of them at once.

Each names the file, the line, the key, what is wrong and what to do. This module
reads no file and knows no field; `files.py` finds the mistakes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from guilder_shared.errors import StudyError

LONGEST_SHOWN = 60  # characters of anything a stranger may have written


@dataclass(frozen=True)
class Mistake:
    """One mistake, told in two lines.

    Attributes:
        error_id: `GLD-C0…`; `docs/errors/` has its page.
        where: `study.toml:14`, `--set a.b=1`, or what else was read.
        key: The dotted key; empty for the file as a whole.
        what: What is wrong, in one line.
        fix: What to write instead.
    """

    error_id: str
    where: str
    key: str
    what: str
    fix: str

    @property
    def headline(self) -> str:
        """Place, key and what is wrong, without the id."""
        return (
            f"{self.where} {self.key}: {self.what}"
            if self.key
            else (f"{self.where}: {self.what}")
        )

    def __str__(self) -> str:
        return f"{self.error_id} {self.headline}\n  fix: {self.fix}"


class FileError(StudyError):
    """A study, site or server file has mistakes; its text lists every one.

    `error_id`, `what` and `fix` are those of the first mistake, so that this error
    can be shown, stored and sent like any other.

    Args:
        mistakes: At least one, in the order of the file.
    """

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        first = mistakes[0]
        more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        super().__init__(first.error_id, first.headline + more, fix=first.fix)
        self.mistakes = tuple(mistakes)

    def __str__(self) -> str:
        return "\n".join(str(mistake) for mistake in self.mistakes)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.mistakes,)


class Contradiction(NamedTuple):
    """Two keys that are right alone and wrong together.

    Attributes:
        key: Path of the key to change, from the table that was checked.
        what: What is wrong, in one line.
        fix: What to write instead.
        error_id: Its page; GLD-C013 unless a rule has one of its own.
    """

    key: tuple[str | int, ...]
    what: str
    fix: str
    error_id: str = "GLD-C013"


class ContradictionError(ValueError):
    """What a model's own check raises; `checking.py` turns it into mistakes."""

    def __init__(self, found: Sequence[Contradiction]) -> None:
        super().__init__("; ".join(each.what for each in found))
        self.found = tuple(found)


def shown(value: object) -> str:
    """A value as it may stand in an error: short, and no control character.

    A study may come from a stranger, whose text must not move the reader's cursor.
    """
    text = json.dumps(value) if isinstance(value, str | bool) else ascii(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"


def dotted(path: Sequence[str | int]) -> str:
    """A path as one dotted key; parts that are no bare TOML keys are quoted."""
    return ".".join(str(part) if _is_bare(part) else shown(part) for part in path)


def _is_bare(part: str | int) -> bool:
    text = str(part)
    return len(text) <= LONGEST_SHOWN and all(
        each.isascii() and (each.isalnum() or each in "_-") for each in text
    )
