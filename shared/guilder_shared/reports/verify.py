"""Checking a report or an exported ledger on any computer, offline.

Every number must follow from entries that the site signed. Needs the file alone; with
the site's public key, which the reader must have from elsewhere, also that this site
signed it. Loads no torch, opens no connection.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from guilder_shared.chain import Entry
from guilder_shared.errors import IntegrityError
from guilder_shared.privacy.ledger.book import Book
from guilder_shared.reports import claims, files, shapes, silences, words
from guilder_shared.reports.approvals import fingerprint
from guilder_shared.reports.build import SCHEMA, Report, row
from guilder_shared.reports.crosscheck import Accountants, cross_check
from guilder_shared.reports.files import SignedFile


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
    """What a verified file says. There is none for a file that is not sound.

    Attributes:
        schema: Of the file.
        site: The site's name.
        public_key: The key that signed report and entries, 64 hex digits.
        key_confirmed: True if the reader gave this key.
        officer_confirmed: True if the reader gave the officer's first key.
        ledger_compared: True if the reader gave an export that holds its entries.
        as_of: Time of the newest entry.
        num_entries: In the ledger.
        studies: All of them, oldest first.
        accountants: What three of them say of each study; empty unless asked for.
        silences: Servers that were excused or forgot (`silences.py`).
    """

    schema: str
    site: str
    public_key: str
    key_confirmed: bool
    officer_confirmed: bool
    ledger_compared: bool
    as_of: str
    num_entries: int
    studies: tuple[VerifiedStudy, ...]
    accountants: tuple[Accountants, ...] = ()
    silences: tuple[Report, ...] = ()

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
        lines += [_line(study) for study in self.studies]
        lines += silences.lines(self.silences)
        return "\n".join([*lines, *(each.to_text() for each in self.accountants)])


def verify(
    path: Path,
    *,
    public_key: str | None = None,
    ledger: Path | None = None,
    keys: Collection[str] = (),
    officers: Collection[str] = (),
    cross: bool = False,
) -> Verification:
    """Check everything a report claims; about one second a distinct study.

    Checked: the file's exact bytes, each entry's hash and signature, the report's
    signature, every figure against a replay of the entries, each study's epsilon
    against its events, each study's digest and events against the study itself.

    Args:
        path: `SITE.report.json`, or an export of a ledger.
        public_key: The site's key as the reader knows it, 64 hex digits. Without it a
            report that somebody else made and signed whole also verifies; the answer
            then names the key to compare.
        ledger: An export of the site's ledger, which must hold the file's entries.
        keys: Several sites' keys, of which this site's must be one.
        officers: Officers' keys as the reader knows them; the one that the ledger
            began with must be one of them. Later ones follow from it, signed.
        cross: Also ask two other accountants (`crosscheck.py`).

    Raises:
        IntegrityError: The file is not as Guilder wrote it (as `files.read`); an entry
            cannot be (GLD-I007, GLD-I060, GLD-I061); a figure does not follow
            (GLD-I013, GLD-I091) or events cost more than was accepted (GLD-I014); the
            ledger is another one (GLD-I073) or does not hold these entries
            (GLD-I074); the officer is another one (GLD-I092); accountants disagree
            (GLD-I095).
    """
    keys = keys if public_key is None else (public_key,)
    return verify_bytes(files.load(path), keys, officers, ledger, cross=cross)


def verify_bytes(
    raw: bytes,
    keys: Collection[str] = (),
    officers: Collection[str] = (),
    ledger: Path | None = None,
    *,
    cross: bool = False,
) -> Verification:
    """`verify` of a file's bytes; all else as there."""
    signed = files.read(raw, keys)
    found = check(signed, officers)
    if ledger is not None:
        other = files.read(files.load(ledger), keys)
        _compare(signed, other)
        replay(other.entries)
    told = verification(signed, found, keys, officers, ledger is not None)
    return replace(told, accountants=cross_check(found)) if cross else told


def check(signed: SignedFile, officers: Collection[str] = ()) -> Report:
    """Hold a file's figures against its entries; the true report, unsigned.

    Raises:
        IntegrityError: As `verify`, from GLD-I007 on; GLD-I092 the ledger began with
            another officer's key.
    """
    book = replay(signed.entries)
    _check_officer(signed.entries[0], officers)
    rows = [row(entry) for entry in signed.entries]
    if signed.schema == SCHEMA:
        claimed = {k: part for k, part in signed.content.items() if k != "signature"}
        return claims.check(book, rows, claimed)
    site = {"name": book.site, "public_key": book.public_hex}
    claims.compare(site, signed.content["site"], "site")
    return claims.check(book, rows)


def replay(entries: Sequence[Entry]) -> Book:
    """Everything that entries say, which are chained and signed.

    Raises:
        IntegrityError: One cannot follow those before it (GLD-I007), or the ledger
            has another format (GLD-I060, GLD-I061).
    """
    book = Book()
    for entry in entries:
        if entry.kind != "ledger":  # whose format is looked at first
            shapes.check(entry)
        book.apply(entry)
        if entry.kind == "ledger":
            shapes.check(entry)
    for grant in book.grants.values():
        claims.check_study(grant)
    return book


def _check_officer(first: Entry, officers: Collection[str]) -> None:
    key = str(first.content()["officer"])
    if officers and key not in officers:
        raise IntegrityError(
            "GLD-I092",
            f"the ledger began with the officer's key {key[:16]}…, not one you gave",
            why="Its orders are another officer's, or the site's own.",
            fix="Give the key that the ledger began with; later ones follow from it.",
        )


def _compare(one: SignedFile, other: SignedFile) -> None:
    """Both of one ledger, and the first the beginning of the second."""
    if one.public_key != other.public_key or one.entries[0] != other.entries[0]:
        raise _differs("GLD-I073", "report and ledger are of different ledgers")
    for mine, theirs in zip(one.entries, other.entries, strict=False):
        if mine != theirs:
            what = f"report and ledger differ from entry {mine.seq} on"
            raise _differs("GLD-I074", what)
    if len(other.entries) < len(one.entries):
        raise _differs(
            "GLD-I074",
            f"the ledger ends at entry {len(other.entries)}, the report at "
            f"{len(one.entries)}",
        )


def _differs(error_id: str, what: str) -> IntegrityError:
    return IntegrityError(error_id, what, fix="Ask the site for both files again.")


def verification(
    signed: SignedFile,
    found: Report,
    keys: Collection[str],
    officers: Collection[str],
    compared: bool = False,
) -> Verification:
    """What there is to say of a file that is sound."""
    return Verification(
        schema=signed.schema,
        site=found["site"]["name"],
        public_key=signed.public_key,
        key_confirmed=bool(keys),
        officer_confirmed=bool(officers),
        ledger_compared=compared,
        as_of=found["as_of"],
        num_entries=len(signed.entries),
        studies=tuple(_verified(study) for study in found["studies"]),
        silences=tuple(found.get("silences", ())),
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
