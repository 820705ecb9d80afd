"""What the doctor found: one line each, with an id, a cause and a way out if it is bad.

It looks at nothing itself.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from guilder_shared.errors import GuilderError

State = Literal["ok", "warning", "wrong", "skipped"]
MARKS: Final = {"ok": "  ok", "warning": "WARN", "wrong": "FAIL", "skipped": "   -"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        part: Of what: "network", "time", "keys", "machine", "versions", "data",
            "privacy", "storage".
        state: "wrong" stops studies, "warning" will one day.
        what: What is so, with numbers; never a cell value.
        id: Of the error, with a page in docs/errors; empty where all is well.
        why: The cause; empty where all is well.
        fix: What to do; empty where all is well.
        exit_code: What the command ends with for this; 0 unless "wrong".
    """

    part: str
    state: State
    what: str
    id: str = ""
    why: str = ""
    fix: str = ""
    exit_code: int = 0


def fine(part: str, what: str) -> Finding:
    """All is well."""
    return Finding(part, "ok", what)


def skipped(part: str, what: str) -> Finding:
    """It was not looked at, and why not."""
    return Finding(part, "skipped", what)


def warning(part: str, error_id: str, what: str, *, why: str, fix: str) -> Finding:
    """It works, and somebody should act."""
    return Finding(part, "warning", what, error_id, why, fix)


def wrong(
    part: str, error_id: str, what: str, *, why: str, fix: str, exit_code: int
) -> Finding:
    """It does not work."""
    assert exit_code > 0, "what is wrong ends the command honestly"
    return Finding(part, "wrong", what, error_id, why, fix, exit_code)


def of(part: str, error: GuilderError) -> Finding:
    """What an error of ours says."""
    page = f"docs/errors/{error.error_id}.md"
    why, fix = error.why or f"see {page}", error.fix or f"see {page}"
    return Finding(part, "wrong", error.what, error.error_id, why, fix, error.exit_code)


def exit_code(found: Iterable[Finding], *, strict: bool = False) -> int:
    """The gravest code: 5 integrity, 4 refused, 3 network and keys, 2 the rest.

    With `strict`, 1 where there are warnings alone.
    """
    kept = list(found)
    gravest = max((each.exit_code for each in kept), default=0)
    if not gravest and strict and any(each.state == "warning" for each in kept):
        return 1
    return gravest


def lines(found: Iterable[Finding]) -> Iterator[str]:
    """The report for people; the last line is the outcome."""
    kept = list(found)
    for each in kept:
        name = f"{each.id} " if each.id else ""
        yield f"{MARKS[each.state]}  {each.part:<9} {name}{each.what}"
        if each.id:
            yield f"      why: {each.why}"
            yield f"      fix: {each.fix}"
    num_wrong = sum(each.state == "wrong" for each in kept)
    num_warnings = sum(each.state == "warning" for each in kept)
    word = "READY" if not num_wrong else "NOT READY"
    yield f"{word}: {num_wrong} wrong, {num_warnings} warnings, of {len(kept)} findings"


def as_json(found: Iterable[Finding], *, code: int) -> dict[str, Any]:
    """The report for machines."""
    kept = list(found)
    return {
        "ready": not any(each.state == "wrong" for each in kept),
        "exit_code": code,
        "findings": [asdict(each) for each in kept],
    }
