"""Checking a report on any computer, offline: every number follows from its entries.

Needs the report alone; with the site's public key, which the reader must have from
elsewhere, also that this site signed it. Loads no torch, opens no connection.
"""

import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rfc8785

from guilder_shared.chain import Entry, check_chain, unhex
from guilder_shared.errors import GuilderError, IntegrityError
from guilder_shared.identity import verify as verify_signature
from guilder_shared.messages import Plan, sha256
from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger.book import Book
from guilder_shared.privacy.ledger.filters import MOST_RENYI, ORDERS
from guilder_shared.privacy.ledger.grants import Grant, asked_by
from guilder_shared.reports import export, words
from guilder_shared.reports.approvals import fingerprint
from guilder_shared.reports.build import SCHEMA, Report, compose, signed_bytes
from guilder_shared.study import Study

TOLERANCE = 1e-5  # between two machines' arithmetic on the same events
INEXACT = re.compile(
    r"\.(recomputed_epsilon|prefix\.epsilon|renyi_used\.\d+|composed|at_most"
    r"|curve\[\d+\]\.epsilon)$"
)
SENTENCES = ("sentence", "caveat", "covers", "against", "scope", "not_protected")
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, RecursionError)


@dataclass(frozen=True)
class VerifiedStudy:
    """One study of a verified report.

    Attributes:
        name: Of the study.
        digest: SHA-256 of the study.
        protected: False where no noise was added.
        simulated: True where the noise came from a seed: no guarantee.
        unit: Whose presence is hidden.
        epsilon: As accepted, over all declared turns; None if unprotected.
        recomputed_epsilon: From the events, by this computer.
        delta: Of the study.
        num_turns: Declared, spare turns included.
        num_turns_spent: Charged.
    """

    name: str
    digest: str
    protected: bool
    simulated: bool
    unit: str
    epsilon: float | None
    recomputed_epsilon: float | None
    delta: float
    num_turns: int
    num_turns_spent: int


@dataclass(frozen=True)
class Verification:
    """What a verified report says. There is none for a report that is not sound.

    Attributes:
        site: The site's name.
        public_key: The key that signed report and entries, 64 hex digits.
        key_confirmed: True if the reader gave this key.
        as_of: Time of the newest entry.
        num_entries: In the ledger.
        studies: All of them, oldest first.
    """

    site: str
    public_key: str
    key_confirmed: bool
    as_of: str
    num_entries: int
    studies: tuple[VerifiedStudy, ...]

    @property
    def ok(self) -> bool:
        """True: what is not sound raises instead."""
        return True

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {"ok": self.ok, **asdict(self)}

    def to_text(self) -> str:
        """For people."""
        lines = [
            f"{self.site}: {self.num_entries} ledger entries, chain and signatures "
            f"hold, as of {self.as_of}",
            f"signed by {self.public_key} (fingerprint {fingerprint(self.public_key)})",
        ]
        if not self.key_confirmed:
            lines.append("compare this key with the one the site gave you")
        return "\n".join([*lines, *(_line(study) for study in self.studies)])


def verify(
    path: Path, *, public_key: str | None = None, ledger: Path | None = None
) -> Verification:
    """Check everything a report claims; about one second a distinct study.

    Checked: the file's exact bytes, each entry's hash and signature, the report's
    signature, every figure against a replay of the entries, each study's epsilon
    against its events, each study's digest and events against the study itself.

    Args:
        path: `SITE.report.json`.
        public_key: The site's key as the reader knows it, 64 hex digits. Without
            it a report that somebody else made and signed whole also verifies; the
            answer then names the key to compare.
        ledger: An export of the site's ledger (`export.py`), which must hold the
            report's entries.

    Raises:
        IntegrityError: Not a report (GLD-I011), not signed (GLD-I012, GLD-I003), an
            entry changed (GLD-I001, GLD-I007), a figure that does not follow from
            the entries (GLD-I013), or events that cost more than was accepted
            (GLD-I014); or what `export.compare` raises.
    """
    report = _parse(path)
    entries = _entries(report)
    key = public_key or str(report["site"]["public_key"])
    book = Book()
    for entry in check_chain(entries, key):
        book.apply(entry)
    unsigned = {name: part for name, part in report.items() if name != "signature"}
    signature = unhex(str(report["signature"]))
    if not verify_signature(key, signed_bytes(unsigned), signature):
        raise IntegrityError(
            "GLD-I012",
            f"{path.name}: the report's signature is not of the key {key[:16]}…",
            why="The entries hold; something beside them was changed, or the key.",
            fix="Ask the site for the report again; keep this one as evidence.",
        )
    _check_claims(book, unsigned)
    if ledger is not None:
        export.compare(entries, key, ledger)
    return Verification(
        site=book.site,
        public_key=key,
        key_confirmed=public_key is not None,
        as_of=book.time,
        num_entries=book.seq,
        studies=tuple(_verified(study) for study in report["studies"]),
    )


def _parse(path: Path) -> Report:
    """The report, if the file is exactly its canonical JSON and one newline."""
    try:
        raw = path.read_bytes()
        report = json.loads(raw)
        canonical = rfc8785.dumps(report) + b"\n"
    except OSError as error:
        raise _no_report(path, str(error.strerror)) from None
    except (ValueError, RecursionError, rfc8785.CanonicalizationError):
        raise _no_report(path, "it is no canonical JSON") from None
    if raw != canonical:
        raise _no_report(path, "its bytes are not those that were signed")
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise _no_report(path, f"its schema is not {SCHEMA!r}")
    return report


def _no_report(path: Path, reason: str) -> IntegrityError:
    return IntegrityError(
        "GLD-I011",
        f"{path.name} is not a report as Guilder wrote it: {reason}",
        fix="Ask the site for the report again; copy it as a file, never as text.",
    )


def _entries(report: Report) -> list[Entry]:
    try:
        _ = report["site"]["public_key"], report["signature"], report["studies"]
        return [_entry(**row) for row in report["ledger"]["entries"]]
    except (KeyError, TypeError):
        raise IntegrityError(
            "GLD-I011",
            "a part of the report is missing or is of another kind",
            fix="Ask the site for the report again.",
        ) from None


def _entry(  # exactly these members, or a TypeError
    seq: int, kind: str, body: Any, prev: str, hash: str, signature: str
) -> Entry:
    return Entry(seq, kind, rfc8785.dumps(body), prev, hash, signature)


def _check_claims(book: Book, claimed: Report) -> None:
    """Compute everything anew from entries that are signed but not trusted."""
    try:
        _compare(compose(book, claimed["ledger"]["entries"]), claimed)
        for grant in book.grants.values():
            _check_study(grant)
        for study in claimed["studies"]:
            _check_cost(study)
    except IntegrityError:
        raise
    except (GuilderError, ArithmeticError, *MALFORMED):
        raise _disagrees("a part that cannot even be computed") from None


def _compare(true: Any, claimed: Any, where: str = "report") -> None:
    """Raise unless both are equal; `INEXACT` numbers nearly, sentences not at all.

    Sentences are signed, but a later Guilder may word them better.
    """
    name = where.rpartition(".")[2]
    if name in SENTENCES or true is claimed:
        return
    if isinstance(true, dict) and isinstance(claimed, dict):
        if true.keys() != claimed.keys():
            raise _disagrees(where)
        for part in true:
            _compare(true[part], claimed[part], f"{where}.{part}")
    elif isinstance(true, list) and isinstance(claimed, list):
        if len(true) != len(claimed):
            raise _disagrees(where)
        for number, (one, other) in enumerate(zip(true, claimed, strict=True), 1):
            _compare(one, other, f"{where}[{number}]")
    elif true != claimed and not (INEXACT.search(where) and _near(true, claimed)):
        raise _disagrees(where)


def _near(true: Any, claimed: Any) -> bool:
    numbers = isinstance(true, (int, float)) and isinstance(claimed, (int, float))
    return numbers and math.isclose(true, claimed, rel_tol=TOLERANCE)


def _disagrees(where: str) -> IntegrityError:
    return IntegrityError(
        "GLD-I013",
        f"{where} does not follow from the report's own entries",
        why="It was signed by the site, but no correct Guilder wrote it.",
        fix="Ask the site how this report was made.",
    )


def _check_study(grant: Grant) -> None:
    """The study carried along must be the one accepted, and must have this event."""
    _check_renyi(grant)
    text = grant.meta.get("study")
    if text is None:
        return
    where = f"study {grant.study_name!r}"
    if sha256(str(text).encode()) != grant.study_digest:
        raise _disagrees(f"the digest of {where}")
    try:
        study = Study.from_canonical(str(text).encode())
        event = accounting.turn_event(study, Plan(**grant.meta["plan"]))
    except (GuilderError, KeyError, ValueError, TypeError):
        raise _disagrees(f"the plan of {where}") from None
    if asked_by(study) != grant.asked():
        raise _disagrees(f"the promise of {where}")
    if event != grant.turn_event:
        raise _disagrees(f"the event of {where}")


def _check_renyi(grant: Grant) -> None:
    """What the budget's filters were charged must be what the event costs."""
    if not grant.is_protected:
        return
    true = accounting.renyi(grant.turn_event, ORDERS)
    for charged, cost in zip(grant.renyi, true, strict=True):
        if charged < min(cost, MOST_RENYI) * (1 - TOLERANCE):
            raise _disagrees(f"the Rényi cost of study {grant.study_name!r}")


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


def _verified(study: Report) -> VerifiedStudy:
    guarantee, figures, (event,) = study["guarantee"], study["totals"], study["events"]
    return VerifiedStudy(
        name=study["name"],
        digest=study["digest"],
        protected=guarantee["protected"],
        simulated=guarantee["simulated"],
        unit=guarantee["unit"],
        epsilon=figures["epsilon"],
        recomputed_epsilon=figures["recomputed_epsilon"],
        delta=figures["delta"],
        num_turns=event["num_turns"],
        num_turns_spent=event["num_turns_spent"],
    )


def _line(study: VerifiedStudy) -> str:
    turns = f"{study.num_turns_spent} of {study.num_turns} turns spent"
    if not study.protected:
        return f"{study.name}: {words.UNPROTECTED} {turns}"
    stamp = f" {words.SIMULATED}" if study.simulated else ""
    return (
        f"{study.name}: epsilon {study.epsilon:g} (recomputed "
        f"{study.recomputed_epsilon:.4f}) at delta {study.delta:g}, unit "
        f"{study.unit}, {words.adjacency(study.unit)}; {turns}.{stamp}"
    )
