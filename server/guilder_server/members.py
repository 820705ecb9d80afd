"""Who belongs to the consortium, as the entries of its log say.

Data only: `apply` reads one entry after another, and the same entries always give the
same members. Entries are written by `register.py`. Nothing here opens a file.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from guilder_shared.chain import Entry

MOST_WRONG: Final = 5  # wrong secrets, then an invitation is locked
Body = dict[str, Any]


@dataclass(frozen=True)
class Invitation:
    """One invitation, good for one request.

    Attributes:
        invitation_id: As the token names it.
        name: Of the site or person.
        role: "site", "operator", "officer" or "admin".
        secret_sha256: Of the secret, which is kept nowhere.
        expires: Seconds since 1970, by the server's clock alone.
        needs_approval: A person looks at the request before it is signed.
        num_wrong: Wrong secrets so far.
        request_sha256: The one request it is bound to, from the first good one on.
        request: That request, PEM.
        signing_hex: The Ed25519 key shown with it.
        state: "open", "requested", "used", "refused" or "withdrawn".
        is_tried_twice: Another request came with its secret.
    """

    invitation_id: str
    name: str
    role: str
    secret_sha256: str
    expires: int
    needs_approval: bool
    num_wrong: int = 0
    request_sha256: str = ""
    request: str = ""
    signing_hex: str = ""
    state: str = "open"
    is_tried_twice: bool = False

    @property
    def is_locked(self) -> bool:
        """Whether too many wrong secrets were tried."""
        return self.num_wrong >= MOST_WRONG


@dataclass(frozen=True)
class Member:
    """One site or person, and the certificate that counts now.

    Attributes:
        name: Unique over all roles.
        role: "site", "operator", "officer" or "admin".
        state: "active", "revoked", "left" or "removed".
        certificate: PEM.
        key_sha256: Of its public key, by which a caller is known; renewal keeps it.
        signing_hex: A site's Ed25519 key.
        request_sha256: Of the request that the first certificate answered.
        since: When its state was entered, as the log has it.
    """

    name: str
    role: str
    state: str
    certificate: str
    key_sha256: str
    signing_hex: str
    request_sha256: str
    since: str


@dataclass
class Members:
    """Everybody, by name, and every invitation, by id.

    Attributes:
        owners: Whose every key is or was, by its SHA-256 or as Ed25519 key.
        revoked_keys: TLS keys that were revoked; none of them comes back by joining.
    """

    members: dict[str, Member] = field(default_factory=dict)
    invitations: dict[str, Invitation] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    revoked_keys: set[str] = field(default_factory=set)

    def apply(self, entry: Entry) -> None:
        """Take one entry of the log into account; unknown kinds change nothing."""
        change = CHANGES.get(entry.kind)
        if change is not None:
            change(self, entry.content())

    def by_key(self, key_sha256: str) -> Member | None:
        """Whose key this is now."""
        found = (m for m in self.members.values() if m.key_sha256 == key_sha256)
        return next(found, None)

    def is_strange(self, name: str, key_sha256: str, signing_hex: str) -> bool:
        """Whether a key is not `name`'s to use: another's, or one that was revoked."""
        if key_sha256 in self.revoked_keys:
            return True
        owners = {self.owners.get(key_sha256), self.owners.get(signing_hex or "-")}
        return bool(owners - {None, name})

    def pending(self, name: str) -> Invitation | None:
        """The request that waits for a person, if there is one."""
        for each in self.invitations.values():
            if each.name == name and each.state == "requested":
                return each
        return None

    def open_invitations(self) -> list[Invitation]:
        """Those that were not used, withdrawn or refused."""
        each = self.invitations.values()
        return [i for i in each if i.state in ("open", "requested")]

    def _set(self, invitation_id: str, **changes: Any) -> None:
        old = self.invitations[invitation_id]
        self.invitations[invitation_id] = replace(old, **changes)


def _invited(all_: Members, body: Body) -> None:
    for each in list(all_.invitations.values()):
        if each.name == body["name"] and each.state in ("open", "requested"):
            all_._set(each.invitation_id, state="withdrawn")
    all_.invitations[body["invitation"]] = Invitation(
        body["invitation"],
        body["name"],
        body["role"],
        body["secret_sha256"],
        body["expires"],
        body["needs_approval"],
    )


def _wrong(all_: Members, body: Body) -> None:
    old = all_.invitations[body["invitation"]]
    all_._set(old.invitation_id, num_wrong=old.num_wrong + 1)


def _used_twice(all_: Members, body: Body) -> None:
    all_._set(body["invitation"], is_tried_twice=True)


def _requested(all_: Members, body: Body) -> None:
    all_._set(
        body["invitation"],
        state="requested",
        request_sha256=body["request_sha256"],
        request=body["request"],
        signing_hex=body["signing_key"],
    )


def _refused(all_: Members, body: Body) -> None:
    all_._set(body["invitation"], state="refused")


def _issued(all_: Members, body: Body) -> None:
    if body["invitation"]:
        all_._set(
            body["invitation"], state="used", request_sha256=body["request_sha256"]
        )
    all_.owners[body["key_sha256"]] = body["name"]
    if body["signing_key"]:
        all_.owners[body["signing_key"]] = body["name"]
    all_.members[body["name"]] = Member(
        body["name"],
        body["role"],
        "active",
        body["certificate"],
        body["key_sha256"],
        body["signing_key"],
        body["request_sha256"],
        body["time"],
    )


def _renewed(all_: Members, body: Body) -> None:
    all_.members[body["name"]] = replace(
        all_.members[body["name"]], certificate=body["certificate"]
    )


def _enters(state: str) -> Callable[[Members, Body], None]:
    def enter(all_: Members, body: Body) -> None:
        old = all_.members[body["name"]]
        all_.members[old.name] = replace(old, state=state, since=body["time"])
        if state == "revoked":
            all_.revoked_keys.add(old.key_sha256)
        elif state == "active":
            all_.revoked_keys.discard(old.key_sha256)

    return enter


CHANGES: Final[dict[str, Callable[[Members, Body], None]]] = {
    "invited": _invited,
    "wrong-secret": _wrong,
    "used-twice": _used_twice,
    "requested": _requested,
    "refused": _refused,
    "issued": _issued,
    "renewed": _renewed,
    "revoked": _enters("revoked"),
    "reinstated": _enters("active"),
    "removed": _enters("removed"),
    "left": _enters("left"),
}
