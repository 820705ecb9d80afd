"""Every error a user can meet, as one tree; ids are stable and documented.

GuilderError                      exit code
├── StudyError         GLD-C…     2   a study, site or server file is wrong
├── DataError          GLD-D…     2   rows or columns do not fit the contract
├── PlanError          GLD-P…     2   a privacy plan cannot be met or is unsound
├── DeviceError        GLD-G…     2   the accelerator or memory does not fit
├── EnrolmentError     GLD-E…     3   keys or certificates are refused
├── NetworkError       GLD-N…     3   the other side cannot be reached
├── PolicyRefused      GLD-S…     4   a site's policy says no
├── BudgetSpent        GLD-B…     4   a site's privacy budget says no
├── IntegrityError     GLD-I…     5   a record was changed, lost or forged
└── RunFailed          GLD-R…     1   a run ended without its result

This module raises nothing and imports nothing of Guilder.
"""

import traceback
from pathlib import Path
from typing import ClassVar


class GuilderError(Exception):
    """An error with an id, an exit code and a next step.

    Args:
        error_id: `GLD-` + letter + three digits; `docs/errors/` has its page.
        what: What happened, with the numbers, in one line. Never a cell value.
        why: The reason, if `what` does not already say it.
        fix: What to do next, best a command.
    """

    letter: ClassVar[str] = ""
    exit_code: ClassVar[int] = 1

    def __init__(
        self, error_id: str, what: str, *, why: str = "", fix: str = ""
    ) -> None:
        assert error_id.startswith(f"GLD-{self.letter}"), error_id
        super().__init__(what)
        self.error_id = error_id
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        lines = [f"{self.error_id} {self.what}"]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)

    def brief(self) -> str:
        """Id and what, in one line: what one side tells the other."""
        return f"{self.error_id}: {self.what}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.error_id, self.what, self.why, self.fix)


def _rebuild(
    kind: type[GuilderError], error_id: str, what: str, why: str, fix: str
) -> GuilderError:
    return kind(error_id, what, why=why, fix=fix)


def without_values(error: BaseException) -> str:
    """What went wrong and where, without a text that may hold a value from a row.

    Returns:
        A GuilderError whole, for by contract it holds none; of any other error its
        type and the last places it passed.
    """
    if isinstance(error, GuilderError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{Path(f.filename).name}:{f.lineno}" for f in frames[-4:]]
    return f"{type(error).__name__} at {' > '.join(places)}"


class StudyError(GuilderError):
    """A study, site or server file is wrong; nothing was started."""

    letter = "C"
    exit_code = 2


class DataError(GuilderError):
    """Rows or columns do not fit the contract. The message holds no cell value."""

    letter = "D"
    exit_code = 2


class PlanError(GuilderError):
    """A privacy plan cannot be met, or would not mean what it says."""

    letter = "P"
    exit_code = 2


class DeviceError(GuilderError):
    """The device does not fit the work."""

    letter = "G"
    exit_code = 2


class EnrolmentError(GuilderError):
    """A key or certificate is missing, expired, or not from this consortium."""

    letter = "E"
    exit_code = 3


class NetworkError(GuilderError):
    """The other side cannot be reached, or does not speak our protocol."""

    letter = "N"
    exit_code = 3


class PolicyRefused(GuilderError):
    """The site's policy refuses; nothing was read and nothing was sent."""

    letter = "S"
    exit_code = 4


class BudgetSpent(GuilderError):
    """The site's budget has no room; nothing was read and nothing was sent."""

    letter = "B"
    exit_code = 4


class IntegrityError(GuilderError):
    """A ledger, report, reply or message is not what was written."""

    letter = "I"
    exit_code = 5


class RunFailed(GuilderError):
    """A run ended without its result."""

    letter = "R"
    exit_code = 1
