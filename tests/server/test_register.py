"""The book of members: who is let in, what is attacked, what a crash leaves."""

import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from guilder_server import roster
from guilder_server.chronicle import FILE
from guilder_server.members import MOST_WRONG
from guilder_server.register import Register
from guilder_server.settings import Enrolment
from guilder_shared import authority, certificates
from guilder_shared.chain import check_chain
from guilder_shared.errors import EnrolmentError, IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.invitation import Token, proof_text

HOUR_S = 3600


class Applicant:
    """A site that wants to join, with keys of its own."""

    def __init__(self, name: str = "bank-a") -> None:
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.signing = SigningKey.generate()
        self.request = authority.make_request(self.key, name, self.signing.public_hex)

    def proof(self, token: Token) -> bytes:
        digest = authority.read_request(self.request).sha256
        return self.signing.sign(proof_text(token.invitation_id, digest))


class Office:
    """A register on disk, whose clock the test sets."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.now = folder, 1_800_000_000.0
        authority.make_authority(folder, ["localhost"])
        SigningKey.generate().save(folder / "log.key")
        self.settings = Enrolment(
            port=0,
            issuing_key=folder / "issuing.key",
            issuing_certificate=folder / "issuing.pem",
            log_key=folder / "log.key",
        )
        self.register = self.open()

    def open(self) -> Register:
        return Register.open(
            self.folder, self.settings, self.folder / "ca.pem", clock=lambda: self.now
        )

    def reopen(self) -> None:
        """As after kill -9: nothing but the file is left."""
        self.register.close()
        self.register = self.open()

    def invite(self, name: str = "bank-a", **changes: Any) -> Token:
        terms: dict[str, Any] = {
            "role": "site",
            "hours": 24,
            "needs_approval": False,
            "place": ("fl.example.org", 9445),
        }
        return self.register.invite("admin", name, **terms | changes)

    def join(self, token: Token, who: Applicant, **changes: Any) -> list[bytes] | None:
        said = {
            "invitation_id": token.invitation_id,
            "secret": token.secret,
            "request_pem": who.request,
            "proof": who.proof(token),
        }
        return self.register.join(**said | changes)

    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.register.entries()]


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path / "server")
    yield office
    office.register.close()


def refused(act: Callable[[], Any]) -> str:
    with pytest.raises(EnrolmentError) as caught:
        act()
    return caught.value.error_id


def test_who_is_invited_gets_a_certificate_for_its_own_keys(office: Office) -> None:
    site = Applicant()

    chain = office.join(office.invite(), site)

    assert chain is not None
    shown, issuing, root = (x509.load_pem_x509_certificate(pem) for pem in chain)
    shown.verify_directly_issued_by(issuing)
    issuing.verify_directly_issued_by(root)
    found = certificates.read_site(shown)
    assert (found.name, found.signing_hex) == ("bank-a", site.signing.public_hex)
    assert shown.public_key() == site.key.public_key()


def test_the_log_holds_no_secret(office: Office) -> None:
    token = office.invite()
    office.join(token, Applicant())

    written = b"".join(entry.body for entry in office.register.entries())
    files = b"".join(path.read_bytes() for path in office.folder.glob("members.db*"))

    assert token.secret.encode() not in written + files
    assert token.secret not in repr(token)


def test_asked_again_the_same_request_gets_the_same_certificate(office: Office) -> None:
    token, site = office.invite(), Applicant()

    first = office.join(token, site)
    office.now += 10 * 24 * HOUR_S  # long after it expired
    second = office.join(token, site)
    office.reopen()
    third = office.join(token, site)

    assert first == second == third
    assert office.kinds().count("issued") == 1


def test_a_token_is_good_for_one_computer(office: Office) -> None:
    token = office.invite()
    office.join(token, Applicant())

    thief = refused(lambda: office.join(token, Applicant()))
    again = refused(lambda: office.join(token, Applicant()))

    assert thief == again == "GLD-E055"
    assert office.kinds().count("used-twice") == 1  # and the log cannot be filled


@pytest.mark.parametrize("late_s", [0, 1, 600])
@pytest.mark.attack("a stranger", "an expired token", "GLD-E053")
def test_an_expired_token_opens_nothing(office: Office, late_s: int) -> None:
    token = office.invite(hours=1)
    office.now += HOUR_S + late_s

    assert refused(lambda: office.join(token, Applicant())) == "GLD-E053"


def test_a_sites_wrong_clock_changes_no_expiry_and_no_certificate(
    office: Office,
) -> None:
    chain = office.join(office.invite(hours=1), Applicant())

    assert chain is not None
    shown = x509.load_pem_x509_certificate(chain[0])
    now = datetime.datetime.now(datetime.UTC)
    minutes = datetime.timedelta(minutes=30)
    assert shown.not_valid_before_utc < now - minutes
    assert shown.not_valid_after_utc > now + minutes


def test_an_invitation_is_locked_after_some_wrong_secrets(office: Office) -> None:
    token, site = office.invite(), Applicant()

    for _ in range(MOST_WRONG):
        wrong = Token.make("h", 1, role="site", name="x", pin="").secret
        assert refused(lambda: office.join(token, site, secret=wrong)) == "GLD-E052"  # noqa: B023

    office.reopen()  # a restart gives no new tries
    assert refused(lambda: office.join(token, site)) == "GLD-E054"
    assert office.kinds().count("wrong-secret") == MOST_WRONG


def test_an_unknown_invitation_is_told_nothing_more_and_writes_nothing(
    office: Office,
) -> None:
    token, site = office.invite(), Applicant()
    before = office.kinds()

    unknown = refused(lambda: office.join(token, site, invitation_id="a" * 16))

    assert unknown == "GLD-E052"
    assert office.kinds() == before


def test_a_request_in_anothers_name_is_refused(office: Office) -> None:
    token = office.invite("bank-a")

    assert refused(lambda: office.join(token, Applicant("bank-b"))) == "GLD-E057"
    assert office.join(token, Applicant("bank-a")) is not None  # it is not used up


def test_a_token_for_another_site_does_not_give_this_name(office: Office) -> None:
    office.invite("bank-a")
    token = office.invite("bank-b")

    assert refused(lambda: office.join(token, Applicant("bank-a"))) == "GLD-E057"


@pytest.mark.attack("a site", "a signing key that is another's", "GLD-E056")
def test_a_signing_key_that_one_does_not_have_is_not_bound(office: Office) -> None:
    token, victim = office.invite(), Applicant()
    thief = Applicant()
    thief.request = authority.make_request(
        thief.key, "bank-a", victim.signing.public_hex
    )

    assert refused(lambda: office.join(token, thief)) == "GLD-E056"
    assert refused(lambda: office.join(token, thief, proof=b"")) == "GLD-E056"


def test_a_proof_for_one_invitation_is_none_for_another(office: Office) -> None:
    first, site = office.invite(), Applicant()
    old = site.proof(first)
    second = office.invite()  # the first is withdrawn

    assert refused(lambda: office.join(second, site, proof=old)) == "GLD-E056"
    assert refused(lambda: office.join(first, site)) == "GLD-E053"


@pytest.mark.parametrize("name", ["../x", "a/b", "A", "", "a" * 64, "role:admin", "é"])
@pytest.mark.attack("an operator", "path tricks in a site's name", "GLD-E005")
def test_a_name_with_tricks_is_not_invited(office: Office, name: str) -> None:
    assert refused(lambda: office.invite(name)) == "GLD-E005"


@pytest.mark.parametrize(
    "changes", [{"role": "root"}, {"hours": 0}, {"hours": -1}, {"hours": 10_000}]
)
def test_an_invitation_without_sense_is_refused(
    office: Office, changes: dict[str, Any]
) -> None:
    assert refused(lambda: office.invite(**changes)) == "GLD-E059"


def test_a_member_is_not_invited_a_second_time(office: Office) -> None:
    office.join(office.invite(), Applicant())

    assert refused(office.invite) == "GLD-E058"


@pytest.mark.attack("a site", "joining under a second name with one key", "GLD-E010")
def test_a_key_of_another_member_is_not_taken(office: Office) -> None:
    site, other = Applicant(), Applicant("bank-b")
    office.join(office.invite(), site)
    other.signing = site.signing
    other.request = authority.make_request(other.key, "bank-b", site.signing.public_hex)

    assert refused(lambda: office.join(office.invite("bank-b"), other)) == "GLD-E010"


def test_a_revoked_key_does_not_come_back_by_joining(office: Office) -> None:
    site = Applicant()
    office.join(office.invite(), site)
    office.register.change("revoked", "admin", "bank-a")

    token = office.invite()

    assert refused(lambda: office.join(token, site)) == "GLD-E010"
    assert office.join(token, Applicant()) is not None


def test_an_old_token_does_not_bring_a_removed_site_back(office: Office) -> None:
    token, site = office.invite(), Applicant()
    office.join(token, site)
    office.register.change("removed", "admin", "bank-a")

    assert refused(lambda: office.join(token, site)) == "GLD-E053"
    assert office.join(office.invite(), Applicant()) is not None


def test_a_revocation_can_be_taken_back_and_a_removal_not(office: Office) -> None:
    site = Applicant()
    office.join(office.invite(), site)
    key = authority.key_sha256(site.key.public_key())

    office.register.change("revoked", "admin", "bank-a")
    assert refused(lambda: office.register.standing(key)) == "GLD-E060"
    office.register.change("reinstated", "admin", "bank-a")
    assert office.register.standing(key).name == "bank-a"
    office.register.change("removed", "admin", "bank-a")

    reinstate = refused(lambda: office.register.change("reinstated", "a", "bank-a"))
    assert reinstate == "GLD-E059"


def test_a_request_waits_for_a_person_where_that_is_wanted(office: Office) -> None:
    token, site = office.invite(needs_approval=True), Applicant()

    assert office.join(token, site) is None
    assert refused(lambda: office.join(token, Applicant())) == "GLD-E055"
    office.now += 100 * HOUR_S
    assert office.join(token, site) is None
    office.reopen()
    office.register.approve("admin", "bank-a")

    assert office.join(token, site) is not None


def test_a_refused_request_is_told_so(office: Office) -> None:
    token, site = office.invite(needs_approval=True), Applicant()
    office.join(token, site)

    office.register.refuse("admin", "bank-a")

    assert refused(lambda: office.join(token, site)) == "GLD-E063"
    assert refused(lambda: office.register.approve("admin", "bank-a")) == "GLD-E059"


def test_a_certificate_is_renewed_after_half_its_life_for_the_same_keys(
    office: Office,
) -> None:
    office.now = datetime.datetime.now(datetime.UTC).timestamp()
    site = Applicant()
    first = office.join(office.invite(), site)
    member = office.register.standing(authority.key_sha256(site.key.public_key()))

    early = office.register.renew(member)
    office.now += 46 * 24 * HOUR_S
    late = office.register.renew(member)

    assert first is not None
    assert early == first
    old, new = (x509.load_pem_x509_certificate(c[0]) for c in (first, late))
    assert new.serial_number != old.serial_number
    assert new.public_key() == old.public_key()
    office.register.change("revoked", "admin", "bank-a")
    assert refused(lambda: office.register.renew(member)) == "GLD-E060"


@pytest.mark.attack(
    "who has the server's disk", "a member renamed in the log", "GLD-I001"
)
def test_a_changed_log_opens_no_more(office: Office) -> None:
    import sqlite3

    office.join(office.invite(), Applicant())
    office.register.close()
    database = sqlite3.connect(office.folder / FILE)
    database.executescript(
        "DROP TRIGGER entries_never_change;"
        "UPDATE entries SET body = CAST(replace(body, 'bank-a', 'bank-b') AS BLOB);"
    )
    database.close()

    with pytest.raises(IntegrityError) as caught:
        office.open()

    assert caught.value.error_id == "GLD-I001"


def test_the_log_is_signed_and_chained_from_its_first_entry(office: Office) -> None:
    office.join(office.invite(), Applicant())
    entries = list(office.register.entries())
    public_hex = json.loads(entries[0].body)["public_key"]

    assert len(list(check_chain(entries, public_hex))) == 3
    assert office.kinds() == ["opened", "invited", "issued"]


def test_the_roster_shows_active_sites_and_no_person(office: Office) -> None:
    folder = office.folder / "sites"
    office.join(office.invite(), Applicant())
    office.join(office.invite("bank-b"), Applicant("bank-b"))
    person = Applicant("jo")
    office.join(office.invite("jo", role="operator"), person)

    roster.write(folder, office.register.members())
    assert sorted(certificates.roster(folder)) == ["bank-a", "bank-b"]
    office.register.change("revoked", "admin", "bank-a")
    roster.write(folder, office.register.members())

    assert sorted(certificates.roster(folder)) == ["bank-b"]
