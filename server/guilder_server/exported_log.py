"""An exported log of members, checked on any computer: no server, no key of ours.

`guilder server log --json` writes an entry a line and a signed end. Checked are each
line's form, the chain from entry 1, every signature, the end, and that nobody did what
was not theirs to do: roles, invitations, states and certificates, replayed in order.

What a file cannot show by itself: which key is the consortium's (compare it with one
that came another way), and what was entered after it was written.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import rfc8785
from cryptography import x509

from guilder_server.chronicle import END, SCHEMA
from guilder_server.members import Member, Members
from guilder_server.register import FROM_STATES
from guilder_shared import authority
from guilder_shared.authority import PERSON_URI
from guilder_shared.certificates import ROLE_URI, SITE_URI, uris
from guilder_shared.chain import Entry, check_chain, end_bytes
from guilder_shared.errors import IntegrityError
from guilder_shared.identity import unhex, verify

FIELDS: Final = {
    "seq": int,
    "kind": str,
    "body": dict,
    "prev": str,
    "hash": str,
    "signature": str,
}
ADMINS: Final = ("admin",)
OPERATORS: Final = ("admin", "operator")
FIX: Final = "Keep the file as evidence; ask for the log anew, and compare."


@dataclass(frozen=True)
class Checked:
    """What a sound file holds.

    Attributes:
        num_entries: Entries from the first to the newest.
        key: Public half of the key that signed all of them.
        pin: By which the consortium is known, as entry 1 says.
        moment: When the file was written; UTC, ISO 8601.
        members: Everybody, by name, as the entries say.
    """

    num_entries: int
    key: str
    pin: str
    moment: str
    members: tuple[Member, ...]


def check(text: str, key: str | None = None) -> Checked:
    """Check a file of entries from the first to the newest.

    Args:
        text: As `guilder server log --json` printed it.
        key: The public key that must have signed; None: the one that entry 1 names.

    Raises:
        IntegrityError: A line is none (GLD-I002), an entry was changed, is missing,
            moved, or says what nobody could enter (GLD-I001), another key signed
            (GLD-I003), or the end is missing or not the signed one (GLD-I103).
    """
    lines = [_line(number, each) for number, each in enumerate(text.splitlines(), 1)]
    if not lines or lines[-1]["kind"] != END:
        raise _cut(len(lines), "the file has no signed end")
    *rows, end = lines
    entries = [_entry(row) for row in rows]
    if not entries or entries[0].kind != "opened":
        raise _untrue(1, "a log begins with its opening")
    opened = entries[0].content()
    signed_by = key or str(opened.get("public_key", ""))
    if opened.get("schema") != SCHEMA:
        raise _untrue(1, "the file is no log of members")
    members = Members()
    for entry in check_chain(entries, signed_by):
        _demand_allowed(members, entry)
        members.apply(entry)
    moment = str(end["body"].get("time", ""))
    newest = entries[-1]
    said = end_bytes(newest.seq, newest.hash, moment)
    is_newest = (end["seq"], end["hash"]) == (newest.seq, newest.hash)
    if not is_newest or not verify(signed_by, said, unhex(end["signature"])):
        raise _cut(newest.seq, "its end is another file's, or was not signed")
    everybody = sorted(members.members.values(), key=lambda member: member.name)
    return Checked(
        len(entries), signed_by, str(opened.get("pin", "")), moment, tuple(everybody)
    )


def _line(number: int, text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
        if {name: type(value) for name, value in row.items()} != FIELDS:
            raise ValueError("other fields than an entry has")
    except (ValueError, AttributeError, RecursionError) as error:
        raise IntegrityError(
            "GLD-I002",
            f"line {number} is no entry of a log ({type(error).__name__})",
            why="The file was cut, or is not what `guilder server log --json` printed.",
            fix=FIX,
        ) from None
    return dict(row)


def _entry(row: dict[str, Any]) -> Entry:
    """The entry of a line; a body that has no canonical form has another hash."""
    try:
        body = rfc8785.dumps(row["body"])
    except (ValueError, RecursionError):
        body = b""
    return Entry(**{**row, "body": body})


def _demand_allowed(members: Members, entry: Entry) -> None:
    """Raise unless somebody could have had this entered just then."""
    body = entry.content()
    try:
        wrong = next(_objections(members, entry.kind, body), "")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        wrong = f"it lacks what it should say ({type(error).__name__})"
    if wrong:
        raise _untrue(entry.seq, wrong)


def _objections(members: Members, kind: str, body: dict[str, Any]) -> Iterator[str]:
    """Why nobody could have had this entered; nothing if somebody could."""
    name = body.get("name", "")
    member = members.members.get(name)
    if kind == "issued":
        yield from _about_issued(members, body)
    if kind == "renewed":
        if member is None or member.state != "active":
            yield f"{name!r} is no active member, and was renewed"
        else:
            yield from _about_certificate(body, member.role, member.key_sha256)
    if kind in ("requested", "wrong-secret", "used-twice", "refused"):
        invitation = members.invitations.get(body["invitation"])
        if invitation is None or invitation.name != name:
            yield f"{name!r} has no such invitation"
    if kind == "left" and body["by"] != name:
        yield f"{name!r} left by the word of {body['by']!r}"
    if kind in FROM_STATES and (
        member is None or member.state not in FROM_STATES[kind]
    ):
        yield f"{name!r} was {kind}, from a state that this does not follow"
    if kind in ("invited", "refused", "revoked", "reinstated", "removed"):
        yield from _about_role(members, body["by"], ADMINS)
    if kind == "asked":
        yield from _about_role(members, body["by"], OPERATORS)


def _about_issued(members: Members, body: dict[str, Any]) -> Iterator[str]:
    name, role, by = body["name"], body["role"], body["by"]
    held = members.members.get(name)
    if held is not None and held.state == "active":
        yield f"{name!r} is a member already, and was certified anew"
    yield from _about_certificate(body, role, body["key_sha256"])
    if by == "init":
        if role != "admin" or members.members:
            yield f"{name!r} was certified without an invitation"
        return
    invitation = members.invitations.get(body["invitation"])
    if invitation is None or (invitation.name, invitation.role) != (name, role):
        yield f"{name!r} was certified as {role!r} without an invitation to that"
    elif invitation.state not in ("open", "requested"):
        yield f"{name!r} was certified by an invitation that is {invitation.state}"
    elif invitation.needs_approval:
        yield from _about_role(members, by, ADMINS)


def _about_certificate(
    body: dict[str, Any], role: str, key_sha256: str
) -> Iterator[str]:
    name = body["name"]
    certificate = x509.load_pem_x509_certificate(body["certificate"].encode())
    person = {ROLE_URI + role, PERSON_URI + name}
    if not ({SITE_URI + name} if role == "site" else person) <= set(uris(certificate)):
        yield f"the certificate of {name!r} is for another name or role"
    if authority.key_sha256(certificate.public_key()) != key_sha256:
        yield f"the certificate of {name!r} is for another key"


def _about_role(members: Members, by: str, roles: tuple[str, ...]) -> Iterator[str]:
    """A call that was under way when its caller was shut out still counts."""
    member = members.members.get(by)
    if member is None or member.role not in roles:
        yield f"{by!r} was no {' or '.join(roles)}"


def _untrue(number: int, what: str) -> IntegrityError:
    return IntegrityError(
        "GLD-I001",
        f"entry {number} is not what a server enters: {what}",
        why="It was forged, moved, or made with a server's log key outside of it.",
        fix=FIX,
    )


def _cut(number: int, what: str) -> IntegrityError:
    return IntegrityError(
        "GLD-I103",
        f"entries after {number} may be missing: {what}",
        why="The newest were cut off, or the file was put together from two.",
        fix=FIX,
    )
