"""The book of who belongs here: invites, lets join, renews, revokes, removes.

Every decision is one entry of the log (`chronicle.py`), which is the only truth: after
any stop the members are what the entries say. This module opens no socket; who may ask
for what is `door.py`'s.

Crash order: an entry is durable before its answer leaves or anybody is shut out. A
certificate is signed, then entered whole, then sent: killed in between, the same
request gets the same certificate; an invitation is used by that one entry.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

from cryptography import x509

from guilder_server import admission
from guilder_server.chronicle import Chronicle
from guilder_server.members import Invitation, Member
from guilder_server.settings import Enrolment
from guilder_shared import authority
from guilder_shared.certificates import check_site_name, load_certificate
from guilder_shared.chain import Entry
from guilder_shared.drafts import Authority
from guilder_shared.errors import EnrolmentError
from guilder_shared.invitation import ROLES, Token, secret_sha256
from guilder_shared.plain_text import one_line

HOUR_S: Final = 3600
LONGEST_HOURS: Final = 24 * 30
FROM_STATES: Final = {
    "revoked": ("active",),
    "reinstated": ("revoked",),
    "removed": ("active", "revoked", "left"),
    "left": ("active",),
}
Listener = Callable[[str, str, Member], None]


class Register:
    """The members and invitations of one consortium; safe to use from many threads.

    Args:
        log: The log, open for writing; its clock alone says whether something expired.
        issuing: Who signs certificates.
        root: Whom the members believe.
    """

    def __init__(
        self, log: Chronicle, issuing: Authority, root: x509.Certificate
    ) -> None:
        self._log = log
        self._issuing = issuing
        self._root = root
        self._lock = log.lock
        self._members = log.members
        self._listeners: list[Listener] = []

    @classmethod
    def open(
        cls,
        storage: Path,
        settings: Enrolment,
        root: Path,
        passphrase: bytes | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open the log in `storage`, make it if there is none, and check all of it.

        Raises:
            IntegrityError: The log was changed, or another process writes it.
            EnrolmentError: A key is missing, open to others, or encrypted and the
                passphrase is not its own (GLD-E062).
        """
        issuing = authority.load_issuing(
            settings.issuing_key, settings.issuing_certificate, passphrase
        )
        believed = load_certificate(root)
        pin = authority.pin(believed)
        log = Chronicle.open(storage, settings.log_key, pin, clock)
        return cls(log, issuing, believed)

    @property
    def pin(self) -> str:
        """What the invited know the consortium by."""
        return authority.pin(self._root)

    def listen(self, listener: Listener) -> None:
        """Call `listener(kind, name, member)` after each change to a member."""
        self._listeners.append(listener)

    def appoint(self, name: str, role: str, request_pem: bytes) -> list[bytes]:
        """Certify somebody without an invitation: the first admin, at `init`."""
        with self._lock:
            request = authority.read_request(request_pem)
            self._issue(None, name, role, request, "", by="init")
            return self._chain(self._members.members[name])

    def invite(
        self,
        by: str,
        name: str,
        *,
        role: str,
        hours: float,
        needs_approval: bool,
        place: tuple[str, int],
    ) -> Token:
        """Invite a site or a person; an earlier invitation of that name ends.

        Args:
            by: Who invites.
            name: Of the invited.
            role: "site", "operator", "officer" or "admin".
            hours: How long it is good, from now on.
            needs_approval: Whether a person looks before a certificate is signed.
            place: Host and port where the invited will find the server.

        Returns:
            The token. Its secret is kept nowhere.

        Raises:
            EnrolmentError: The name is malformed (GLD-E005) or belongs to an active
                member (GLD-E058), or the terms make no sense (GLD-E059).
        """
        check_site_name(name)
        if role not in ROLES or not 0 < hours <= LONGEST_HOURS:
            raise EnrolmentError(
                "GLD-E059",
                f"no such invitation: role {role!r} for {hours} hours",
                fix=f"A role of {', '.join(ROLES)}, and up to {LONGEST_HOURS} hours.",
            )
        token = Token.make(*place, role=role, name=name, pin=self.pin)
        with self._lock:
            admission.demand_free(self._members, name)
            self._log.enter(
                "invited",
                by=by,
                name=name,
                role=role,
                invitation=token.invitation_id,
                secret_sha256=secret_sha256(token.secret),
                expires=int(self._log.now() + hours * HOUR_S),
                needs_approval=needs_approval,
            )
        return token

    def join(
        self, invitation_id: str, secret: str, request_pem: bytes, proof: bytes
    ) -> list[bytes] | None:
        """Answer somebody who shows an invitation.

        Args:
            invitation_id: From the token.
            secret: From the token.
            request_pem: What shall be certified.
            proof: A site's signature over `invitation.proof_text`; empty for persons.

        Returns:
            The certificate, its issuer's and the root's, PEM each; None while a
            person's approval is awaited. The same request gets the same answer.

        Raises:
            EnrolmentError: No such invitation or another secret (GLD-E052), expired
                (GLD-E053), locked (GLD-E054), used for another request (GLD-E055),
                the request is none (GLD-E056) or names another (GLD-E057), a key is
                somebody else's (GLD-E010), or a person refused (GLD-E063).
        """
        with self._lock:
            invitation = self._shown(invitation_id, secret)
            request = authority.read_request(request_pem)
            if invitation.request_sha256:
                return self._again(invitation, request)
            if invitation.state != "open" or self._log.now() >= invitation.expires:
                raise admission.expired(invitation.name)
            signing = admission.signing_key(self._members, invitation, request)
            admission.demand_proof(invitation, request, proof)
            admission.demand_free(self._members, invitation.name)
            if invitation.needs_approval:
                self._log.enter(
                    "requested",
                    name=invitation.name,
                    invitation=invitation_id,
                    request_sha256=request.sha256,
                    request=request.pem,
                    signing_key=signing,
                )
                return None
            self._issue(invitation, invitation.name, invitation.role, request, signing)
            return self._chain(self._members.members[invitation.name])

    def approve(self, by: str, name: str) -> Member:
        """Sign what `name` requested and somebody looked at.

        Raises:
            EnrolmentError: Nothing of that name waits (GLD-E059).
        """
        with self._lock:
            waits = self._waiting(name)
            request = authority.read_request(waits.request.encode())
            admission.demand_free(self._members, name)
            self._issue(waits, name, waits.role, request, waits.signing_hex, by=by)
            return self._members.members[name]

    def refuse(self, by: str, name: str) -> None:
        """Refuse what `name` requested; errors as in `approve`."""
        waits = self._waiting(name)
        self._log.enter("refused", by=by, name=name, invitation=waits.invitation_id)

    def renew(self, member: Member) -> list[bytes]:
        """A new certificate for the same name and the same keys (decision 044).

        Returns:
            As `join`.

        Raises:
            EnrolmentError: The member is not active (GLD-E060).
        """
        with self._lock:
            now = self.standing(member.key_sha256)
            old = x509.load_pem_x509_certificate(now.certificate.encode())
            is_current = old.issuer == self._issuing.certificate.subject
            if is_current and self._log.now() < authority.half_life(old):
                return self._chain(now)  # asked twice, it is the same one
            key: Any = old.public_key()
            fresh = authority.certify(
                self._issuing,
                key,
                name=now.name,
                role=now.role,
                signing_hex=now.signing_hex,
            )
            self._log.enter(
                "renewed", name=now.name, certificate=authority.to_pem([fresh]).decode()
            )
            return self._chain(self._members.members[now.name])

    def change(self, kind: str, by: str, name: str) -> Member:
        """Enter another state of a member; listeners hear of it at once.

        Args:
            kind: "revoked" (shut out), "reinstated" (that taken back), "removed" (only
                a new invitation brings the name back) or "left" (by its own word).
            by: Who wants it.
            name: The member.

        Raises:
            EnrolmentError: No member of that name is in a state for it (GLD-E059).
        """
        with self._lock:
            member = self._members.members.get(name)
            if member is None or member.state not in FROM_STATES[kind]:
                is_now = f"is {member.state}" if member else "is no member"
                raise EnrolmentError(
                    "GLD-E059",
                    f"{name!r} {is_now}: it cannot be {kind}",
                    fix="guilder server sites",
                )
            self._log.enter(kind, by=by, name=name)
            self._tell(kind, name)
            return self._members.members[name]

    def renew_server(self, path: Path) -> bool:
        """Renew what the server itself shows, if it is time; whether it was."""
        if is_time := authority.renew_server(self._issuing, path):
            self._log.enter("server-renewed")
        return is_time

    def note(self, by: str, call: str, about: str) -> None:
        """Enter what an operator asked for: which call, about which run or study."""
        self._log.enter("asked", by=by, call=call, about=one_line(about, 200))

    def standing(self, key_sha256: str) -> Member:
        """The active member with this key.

        Raises:
            EnrolmentError: Nobody's key, or that of somebody who is not active any
                more (GLD-E060).
        """
        member = self._members.by_key(key_sha256)
        if member is None or member.state != "active":
            what = f"{member.name!r} was {member.state}" if member else "unknown"
            raise EnrolmentError(
                "GLD-E060",
                f"this certificate counts no more here: {what}",
                fix="Ask the operator for an invitation, and join again.",
            )
        return member

    def members(self) -> list[Member]:
        """Everybody, by name."""
        return sorted(self._members.members.values(), key=lambda m: m.name)

    def invitations(self) -> list[Invitation]:
        """Those that are open or wait for approval."""
        return self._members.open_invitations()

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """The log."""
        return self._log.entries(after)

    def export(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """The log as JSON, with a signed end; see `Chronicle.export`."""
        return self._log.export(after)

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def _shown(self, invitation_id: str, secret: str) -> Invitation:
        """The invitation, if the secret is its own; a wrong one is counted."""
        found = self._members.invitations.get(invitation_id)
        if found is None:
            raise admission.wrong_secret()
        if not admission.is_secret(found, secret):
            self._log.enter("wrong-secret", name=found.name, invitation=invitation_id)
            raise admission.wrong_secret()
        return found

    def _again(
        self, invitation: Invitation, request: authority.Request
    ) -> list[bytes] | None:
        """Answer a request whose invitation is bound already."""
        if request.sha256 != invitation.request_sha256:
            if not invitation.is_tried_twice:  # once; a stranger shall not fill the log
                self._log.enter(
                    "used-twice",
                    name=invitation.name,
                    invitation=invitation.invitation_id,
                )
            raise admission.used_twice()
        member = self._members.members.get(invitation.name)
        admission.demand_same(invitation, member, request)
        if invitation.state == "requested" or member is None:
            return None
        return self._chain(member)

    def _waiting(self, name: str) -> Invitation:
        waits = self._members.pending(name)
        if waits is None:
            raise EnrolmentError(
                "GLD-E059",
                f"nothing of {name!r} waits for approval",
                fix="guilder server sites",
            )
        return waits

    def _issue(
        self,
        invitation: Invitation | None,
        name: str,
        role: str,
        request: authority.Request,
        signing_hex: str,
        by: str = "",
    ) -> None:
        certificate = authority.certify(
            self._issuing, request.key, name=name, role=role, signing_hex=signing_hex
        )
        self._log.enter(
            "issued",
            by=by,
            name=name,
            role=role,
            invitation=invitation.invitation_id if invitation else "",
            request_sha256=request.sha256,
            key_sha256=request.key_sha256,
            signing_key=signing_hex,
            certificate=authority.to_pem([certificate]).decode(),
        )
        self._tell("issued", name)

    def _tell(self, kind: str, name: str) -> None:
        for listener in self._listeners:
            listener(kind, name, self._members.members[name])

    def _chain(self, member: Member) -> list[bytes]:
        above = [self._issuing.certificate, self._root]
        return [member.certificate.encode(), *(authority.to_pem([c]) for c in above)]
