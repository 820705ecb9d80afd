"""Who may make which call: one table, looked at before every call.

A caller is the key of its TLS certificate. Where sites enrol, the log says whose key
that is and whether it counts now; elsewhere the certificate's own names are believed.
This module speaks no protocol and answers no call.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from guilder_server.members import Member
from guilder_server.register import Register
from guilder_shared import authority, certificates
from guilder_shared.errors import EnrolmentError

ADMIN, OPERATOR, OFFICER, SITE = "admin", "operator", "officer", "site"
MAY: Final[Mapping[str, frozenset[str]]] = {
    "Submit": frozenset({ADMIN, OPERATOR}),
    "Resume": frozenset({ADMIN, OPERATOR}),
    "Stop": frozenset({ADMIN, OPERATOR}),
    "Watch": frozenset({ADMIN, OPERATOR, OFFICER}),
    "List": frozenset({ADMIN, OPERATOR, OFFICER}),
    "Invite": frozenset({ADMIN}),
    "Decide": frozenset({ADMIN}),
    "Members": frozenset({ADMIN, OPERATOR, OFFICER}),
    "Log": frozenset({ADMIN, OFFICER}),
    "Renew": frozenset({ADMIN, OPERATOR, OFFICER, SITE}),
    "Leave": frozenset({SITE}),
    "Attend": frozenset({SITE}),
}
CHANGES_RUNS: Final = frozenset({"Submit", "Resume", "Stop"})  # entered into the log
Peer = Mapping[str, Sequence[bytes]]


@dataclass(frozen=True)
class Caller:
    """Who makes a call.

    Attributes:
        name: As invited.
        role: "admin", "operator", "officer", "site", or "" for none of these.
        member: From the log; None where there is no enrolment.
    """

    name: str
    role: str
    member: Member | None = None


class Door:
    """Lets callers in, and ends what they have open when they are shut out.

    Args:
        register: The members; None where there is no enrolment.
    """

    def __init__(self, register: Register | None = None) -> None:
        self._register = register
        self._open: dict[str, set[Callable[[], None]]] = {}
        self._lock = threading.Lock()
        if register is not None:
            register.listen(self._hear)

    def let_in(self, peer: Peer, call: str, about: str = "") -> Caller:
        """Say who calls, if they may.

        Args:
            peer: gRPC's authentication context.
            call: The call's name.
            about: The run or the study's digest, for the log.

        Raises:
            EnrolmentError: The certificate counts no more (GLD-E060), or its role
                may not make this call (GLD-E030).
        """
        caller = self._caller(peer)
        if caller.role not in MAY[call]:
            raise EnrolmentError(
                "GLD-E030",
                f"the certificate of {caller.name!r} may not do this: {call} is for "
                + " or ".join(sorted(MAY[call])),
                fix="Use a key and certificate made for that role.",
            )
        if self._register is not None and call in CHANGES_RUNS:
            self._register.note(caller.name, call, about)
        return caller

    @contextlib.contextmanager
    def holding(self, caller: Caller, cut: Callable[[], None]) -> Iterator[None]:
        """Have `cut` called, from any thread, when the caller is shut out meanwhile.

        Raises:
            EnrolmentError: It was shut out since it was let in (GLD-E060).
        """
        with self._lock:
            self._open.setdefault(caller.name, set()).add(cut)
        try:
            if self._register is not None and caller.member is not None:
                self._register.standing(caller.member.key_sha256)
            yield
        finally:
            with self._lock:
                self._open[caller.name].discard(cut)

    def _hear(self, kind: str, name: str, member: Member) -> None:
        if member.state == "active":
            return
        with self._lock:
            cuts = list(self._open.get(name, ()))
        for cut in cuts:
            cut()

    def _caller(self, peer: Peer) -> Caller:
        if self._register is not None:
            shown = x509.load_pem_x509_certificate(peer["x509_pem_cert"][0])
            key = authority.key_sha256(shown.public_key())
            member = self._register.standing(key)
            return Caller(member.name, member.role, member)
        names = {n.decode() for n in peer.get("x509_subject_alternative_name", ())}
        who = ", ".join(name.decode() for name in peer.get("x509_common_name", ()))
        for role in (ADMIN, OPERATOR):
            if certificates.ROLE_URI + role in names:
                return Caller(who, role)
        is_site = any(name.startswith(certificates.SITE_URI) for name in names)
        return Caller(who, SITE if is_site else "")
