"""Whether somebody who shows an invitation is let in: the checks, one by one.

Each looks at what the log says and at what came, and raises. Nothing is written and
nothing signed here; `register.py` does both. The secret is checked before the request
is read, the request before anything is said about members.
"""

import hmac
import re

from guilder_server.members import MOST_WRONG, Invitation, Member, Members
from guilder_shared import identity
from guilder_shared.authority import Request
from guilder_shared.errors import EnrolmentError
from guilder_shared.invitation import proof_text, secret_sha256

MOST_OPEN = 1000  # invitations that wait
SIGNING_HEX = re.compile(r"[0-9a-f]{64}")


def demand_free(members: Members, name: str) -> None:
    """Demand that nobody active has the name, and that invitations do not pile up.

    Raises:
        EnrolmentError: GLD-E058; GLD-E059 too many invitations wait.
    """
    member = members.members.get(name)
    if member is not None and member.state == "active":
        raise EnrolmentError(
            "GLD-E058",
            f"{name!r} is a member already",
            fix=f"`guilder server remove {name}` first, or choose another name.",
        )
    if len(members.open_invitations()) > MOST_OPEN:
        raise EnrolmentError(
            "GLD-E059",
            f"{MOST_OPEN} invitations wait",
            fix="Remove names that nobody uses: `guilder server sites`.",
        )


def is_secret(invitation: Invitation, secret: str) -> bool:
    """Whether this is the invitation's secret; takes the same time for all that differ.

    Raises:
        EnrolmentError: Too many wrong ones were tried (GLD-E054).
    """
    if invitation.is_locked:
        raise EnrolmentError(
            "GLD-E054",
            f"this invitation is locked after {MOST_WRONG} wrong secrets",
            fix="Ask the operator for a new one.",
        )
    return hmac.compare_digest(secret_sha256(secret), invitation.secret_sha256)


def signing_key(members: Members, invitation: Invitation, request: Request) -> str:
    """The signing key to bind to the certificate: a site's, or none.

    Raises:
        EnrolmentError: The request names another (GLD-E057), or a key in it is
            another member's or was revoked (GLD-E010).
    """
    if request.name != invitation.name:
        raise EnrolmentError(
            "GLD-E057",
            f"the invitation is for {invitation.name!r}, the request for another",
            fix="Join with the token as it was given.",
        )
    signing = request.signing_hex if invitation.role == "site" else ""
    if members.is_strange(invitation.name, request.key_sha256, signing):
        raise EnrolmentError(
            "GLD-E010",
            f"a key of this request is another member's, or was revoked; "
            f"{invitation.name!r} needs keys of its own",
            fix="Join in an empty folder.",
        )
    return signing


def demand_proof(invitation: Invitation, request: Request, proof: bytes) -> None:
    """Demand that a site has the signing key that its request names.

    Raises:
        EnrolmentError: GLD-E056.
    """
    if invitation.role != "site":
        return
    text = proof_text(invitation.invitation_id, request.sha256)
    signing = request.signing_hex
    if SIGNING_HEX.fullmatch(signing) and identity.verify(signing, text, proof):
        return
    raise EnrolmentError(
        "GLD-E056",
        "the request names a signing key and does not show that it has it",
        fix="Join with `guilder client join`, which makes both.",
    )


def demand_same(
    invitation: Invitation, member: Member | None, request: Request
) -> None:
    """Demand that who comes again is still let in: `request` is the bound one.

    Raises:
        EnrolmentError: A person refused it (GLD-E063), or it counts no more (GLD-E053).
    """
    if invitation.state == "refused":
        raise EnrolmentError(
            "GLD-E063",
            "the operator refused this request",
            fix="Ask the operator why.",
        )
    is_same = (
        invitation.state == "used"
        and member is not None
        and member.state == "active"
        and member.request_sha256 == request.sha256
    )
    if not is_same and invitation.state != "requested":
        raise expired(invitation.name)


def used_twice() -> EnrolmentError:
    """What another request with a used invitation is told."""
    return EnrolmentError(
        "GLD-E055",
        "this invitation was used already, for another request",
        why="An invitation is good for one computer. If nobody of yours used it, "
        "somebody else did.",
        fix="Tell the operator: `guilder server remove`, then a new invitation.",
    )


def wrong_secret() -> EnrolmentError:
    """The one answer to an unknown invitation and to a wrong secret."""
    return EnrolmentError(
        "GLD-E052",
        "the server knows no such invitation, or the secret is another",
        fix="Ask the operator for a new one: `guilder server invite`.",
    )


def expired(name: str) -> EnrolmentError:
    """What an invitation that is over is told."""
    return EnrolmentError(
        "GLD-E053",
        f"the invitation of {name!r} has expired or was withdrawn",
        fix=f"Ask the operator for `guilder server invite {name}`.",
    )
