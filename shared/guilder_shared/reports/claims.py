"""Figures held against entries: everything in a report computed anew, and compared.

The entries are signed by the site, but not believed: each must be possible, each study
must be the one accepted, and must cost what was charged. Opens no file, loads no torch.

Review, mathematics: figures are recomputed by the accountants that charged them, to a
part in 100,000; sums of decimals exactly. Review, crash order: reads only.
"""

import math
import re
from typing import Any

from guilder_shared.errors import GuilderError, IntegrityError
from guilder_shared.messages import Plan, sha256
from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger.book import Book
from guilder_shared.privacy.ledger.filters import MOST_RENYI, ORDERS
from guilder_shared.privacy.ledger.grants import Grant, asked_by
from guilder_shared.reports import words
from guilder_shared.reports.build import Report, compose
from guilder_shared.study import Study

TOLERANCE = 1e-5  # between two machines' arithmetic on the same events
INEXACT = re.compile(
    r"\.(recomputed_epsilon|prefix\.epsilon|renyi_used\.\d+|composed|at_most"
    r"|curve\[\d+\]\.epsilon)$"
)
SENTENCES = ("sentence", "caveat", "covers", "against", "scope", "not_protected")
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, RecursionError)


def check(book: Book, rows: list[Report], claimed: Report | None = None) -> Report:
    """Compute a report anew from its entries; compare the one that was claimed.

    Args:
        book: Of all entries.
        rows: The entries, as reports hold them.
        claimed: All of a report but its signature; None: of an export, which claims
            nothing beside its entries.

    Returns:
        The true report, without a signature.

    Raises:
        IntegrityError: A figure does not follow (GLD-I013), or events cost more than
            was accepted (GLD-I014).
    """
    try:
        true = compose(book, rows)
        if claimed is not None:
            compare(true, claimed)
        for study in true["studies"]:
            _check_cost(study)
    except IntegrityError:
        raise
    except (GuilderError, ArithmeticError, *MALFORMED):
        raise disagrees("a part that cannot even be computed") from None
    return true


def compare(true: Any, claimed: Any, where: str = "report") -> None:
    """Raise unless both are equal: `INEXACT` numbers nearly, sentences in numbers.

    A later Guilder may word a sentence better, but never with other figures or
    another adjacency, and it calls the same studies unprotected or simulated.
    """
    name = where.rpartition(".")[2]
    if true is claimed:
        return
    if name in SENTENCES:
        _compare_wording(true, claimed, where)
    elif isinstance(true, dict) and isinstance(claimed, dict):
        added = sorted(claimed.keys() - true.keys())
        if added:
            raise IntegrityError(
                "GLD-I091",
                f"{where} has a member {added[0]!r:.60} that no such report has",
                why="A newer Guilder wrote it, or somebody who signs added it.",
                fix="Verify it with the newest Guilder; else ask the site.",
            )
        if true.keys() != claimed.keys():
            raise disagrees(where)
        for part in true:
            compare(true[part], claimed[part], f"{where}.{part}")
    elif isinstance(true, list) and isinstance(claimed, list):
        if len(true) != len(claimed):
            raise disagrees(where)
        for number, (one, other) in enumerate(zip(true, claimed, strict=True), 1):
            compare(one, other, f"{where}[{number}]")
    elif isinstance(true, bool) != isinstance(claimed, bool) or (
        true != claimed and not (INEXACT.search(where) and _near(true, claimed))
    ):
        raise disagrees(where)


def _compare_wording(true: Any, claimed: Any, where: str) -> None:
    if type(true) is not type(claimed):
        raise disagrees(where)
    if isinstance(claimed, list) and not all(isinstance(t, str) for t in claimed):
        raise disagrees(where)
    if where.endswith(".sentence") and _figures(true) != _figures(claimed):
        raise disagrees(where)
    if where.endswith(".sentence"):
        for phrase in ("SIMULATED", "UNPROTECTED", *words.ADJACENCY.values()):
            if (phrase in true) != (phrase in claimed):
                raise disagrees(where)


def _figures(sentence: str) -> list[str]:
    return sorted(NUMBER.findall(sentence))


def _near(true: Any, claimed: Any) -> bool:
    numbers = isinstance(true, (int, float)) and isinstance(claimed, (int, float))
    return numbers and math.isclose(true, claimed, rel_tol=TOLERANCE)


def disagrees(where: str) -> IntegrityError:
    """What to say of a figure that does not follow from signed entries (GLD-I013)."""
    return IntegrityError(
        "GLD-I013",
        f"{where} does not follow from the file's own entries",
        why="It was signed by the site, but no correct Guilder wrote it.",
        fix="Ask the site how this file was made.",
    )


def check_study(grant: Grant) -> None:
    """Raise unless a grant was charged what its event costs, for the study accepted.

    Raises:
        IntegrityError: GLD-I013, with what of it differs.
    """
    try:
        _check_study(grant)
    except (GuilderError, ArithmeticError, *MALFORMED) as error:
        if isinstance(error, IntegrityError):
            raise
        raise disagrees(f"the cost of study {grant.study_name!r}") from None


def _check_study(grant: Grant) -> None:
    _check_renyi(grant)
    text = grant.meta.get("study")
    if text is None:
        return
    where = f"study {grant.study_name!r}"
    if sha256(str(text).encode()) != grant.study_digest:
        raise disagrees(f"the digest of {where}")
    try:
        study = Study.from_canonical(str(text).encode())
        plan = Plan(**grant.meta["plan"])
        event = accounting.turn_event(study, plan)
    except (GuilderError, KeyError, ValueError, TypeError):
        raise disagrees(f"the plan of {where}") from None
    if asked_by(study) != grant.asked():
        raise disagrees(f"the promise of {where}")
    is_number = not isinstance(plan.sensitivity_slack, bool)
    if event != grant.turn_event or (plan.num_turns, is_number) != (
        grant.num_turns,
        True,
    ):
        raise disagrees(f"the event of {where}")


def _check_renyi(grant: Grant) -> None:
    """What the budget's filters were charged must be what the event costs."""
    if not grant.is_protected:
        return
    true = accounting.renyi(grant.turn_event, ORDERS)
    for charged, cost in zip(grant.renyi, true, strict=True):
        if charged < min(cost, MOST_RENYI) * (1 - TOLERANCE):
            raise disagrees(f"the Rényi cost of study {grant.study_name!r}")


def _check_cost(study: Report) -> None:
    accepted, cost = study["totals"]["epsilon"], study["totals"]["recomputed_epsilon"]
    if accepted is not None and cost > accepted * (1 + TOLERANCE):
        raise IntegrityError(
            "GLD-I014",
            f"the events of study {study['name']!r} cost epsilon {cost:g}, more than "
            f"the {accepted:g} that were accepted",
            why="The site charged its budget less than it released.",
            fix="Count this study with the larger figure.",
        )
