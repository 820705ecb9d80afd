"""An exported log of members, checked with nothing but the file; some are forged."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from guilder.cli import app
from guilder_server import exported_log
from guilder_server.chronicle import Chronicle
from guilder_server.register import Register
from guilder_shared import authority
from guilder_shared.certificates import load_certificate
from guilder_shared.errors import IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.invitation import proof_text
from guilder_shared.journal import Journal

Rows = list[dict[str, Any]]


class Office:
    """A register in memory, with an admin; what it exports can be forged."""

    def __init__(self, folder: Path) -> None:
        authority.make_authority(folder, ["localhost"])
        self._issuing = authority.load_issuing(
            folder / "issuing.key", folder / "issuing.pem", None
        )
        self._root = load_certificate(folder / "ca.pem")
        self.key = SigningKey.generate()
        self.log = Chronicle(Journal.open(None, self.key), lambda: 1_800_000_000.0)
        self.register = Register(self.log, self._issuing, self._root)
        self.log.enter(
            "opened",
            schema="guilder-members-1",
            public_key=self.key.public_hex,
            pin=self.register.pin,
        )
        self.register.appoint("ada", "admin", request("ada"))

    def join(self, name: str, role: str = "site") -> None:
        token = self.register.invite(
            "ada", name, role=role, hours=1, needs_approval=False,
            place=("fl.example.org", 9443),
        )  # fmt: skip
        signing = SigningKey.generate()
        pem = request(name, signing.public_hex if role == "site" else "")
        proof = signing.sign(
            proof_text(token.invitation_id, authority.read_request(pem).sha256)
        )
        self.register.join(token.invitation_id, token.secret, pem, proof)

    def export(self) -> Rows:
        return list(self.register.export())


def request(name: str, signing_hex: str = "") -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return authority.make_request(key, name, signing_hex)


def text(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path)
    office.join("bank-a")
    office.join("jo", "operator")
    office.register.note("jo", "Submit", "a study")
    yield office
    office.register.close()


def test_a_whole_log_is_sound_and_says_who_belongs_here(office: Office) -> None:
    office.register.change("revoked", "ada", "bank-a")

    found = exported_log.check(text(office.export()), office.key.public_hex)

    assert (found.num_entries, found.key) == (8, office.key.public_hex)
    assert found.pin == office.register.pin
    assert {m.name: (m.role, m.state) for m in found.members} == {
        "ada": ("admin", "active"),
        "bank-a": ("site", "revoked"),
        "jo": ("operator", "active"),
    }


def edited(rows: Rows) -> Rows:
    rows[-2]["body"]["by"] = "ada"
    return rows


def renumbered(rows: Rows) -> Rows:
    rows[2]["seq"], rows[3]["seq"] = 4, 3
    return rows


FORGERIES: dict[str, tuple[Callable[[Rows], Rows], str]] = {
    "edited": (edited, "GLD-I001"),
    "renumbered": (renumbered, "GLD-I001"),
    "two entries changed places": (
        lambda rows: [*rows[:2], rows[3], rows[2], *rows[4:]], "GLD-I001",
    ),
    "one is missing": (lambda rows: rows[:3] + rows[4:], "GLD-I001"),
    "the first is missing": (lambda rows: rows[1:], "GLD-I001"),
    "one is there twice": (lambda rows: [*rows[:3], *rows[2:]], "GLD-I001"),
    "cut off without its end": (lambda rows: rows[:-1], "GLD-I103"),
    "cut off before its end": (lambda rows: [*rows[:-2], rows[-1]], "GLD-I103"),
    "another moment": (
        lambda rows: [*rows[:-1], rows[-1] | {"body": {"time": "later"}}], "GLD-I103",
    ),
    "its end as an entry": (lambda rows: [*rows, rows[-1]], "GLD-I001"),
    "nothing": (lambda rows: [], "GLD-I103"),
    "a field more": (
        lambda rows: [rows[0] | {"x": 1}, *rows[1:]], "GLD-I002",
    ),
    "a number as text": (
        lambda rows: [rows[0] | {"seq": "1"}, *rows[1:]], "GLD-I002",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_a_file_that_is_not_what_was_exported_is_found(
    office: Office, name: str
) -> None:
    forge, error_id = FORGERIES[name]

    with pytest.raises(IntegrityError) as caught:
        exported_log.check(text(forge(office.export())))

    assert caught.value.error_id == error_id


def test_a_file_cut_at_any_byte_of_its_last_lines_is_found(office: Office) -> None:
    whole = text(office.export())
    start = whole.rindex("\n", 0, whole.rindex("\n")) - 40

    for cut in range(start, len(whole) - 1, 7):
        with pytest.raises(IntegrityError):
            exported_log.check(whole[:cut])


def test_a_log_of_another_key_is_found_by_who_knows_the_true_one(
    office: Office,
) -> None:
    with pytest.raises(IntegrityError) as caught:
        exported_log.check(text(office.export()), SigningKey.generate().public_hex)

    assert caught.value.error_id == "GLD-I003"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("revoked", {"by": "jo", "name": "bank-a"}),
        ("removed", {"by": "nobody", "name": "bank-a"}),
        ("reinstated", {"by": "ada", "name": "bank-a"}),
        ("left", {"by": "ada", "name": "bank-a"}),
        ("asked", {"by": "bank-a", "call": "Submit", "about": ""}),
        ("wrong-secret", {"name": "bank-a", "invitation": "none"}),
        ("invited", {"name": "bank-b"}),
    ],
)
def test_an_entry_of_what_its_author_may_not_do_is_found_though_it_is_signed(
    office: Office, kind: str, body: dict[str, str]
) -> None:
    """As of a thief of the log's key, or a server that was changed."""
    office.log._journal.append(kind, {"time": "2027-01-15T08:00:00Z", **body})

    with pytest.raises(IntegrityError) as caught:
        exported_log.check(text(office.export()))

    assert caught.value.error_id == "GLD-I001"
    assert "not what a server enters" in caught.value.what


@pytest.mark.parametrize("changes", [{"role": "admin"}, {"name": "bank-b"}])
def test_a_certificate_for_more_than_the_invitation_is_found(
    office: Office, changes: dict[str, str]
) -> None:
    issued = next(row["body"] for row in office.export()[3:] if row["kind"] == "issued")
    office.log._journal.append("issued", issued | changes)

    with pytest.raises(IntegrityError) as caught:
        exported_log.check(text(office.export()))

    assert caught.value.error_id == "GLD-I001"


def test_the_command_ends_with_five_for_a_changed_file_and_asks_no_server(
    office: Office, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.log", tmp_path / "bad.log"
    rows = office.export()
    good.write_text(text(rows))
    bad.write_text(text(edited(rows)))
    words = ["server", "log", "--key", office.key.public_hex, "--check"]

    sound = CliRunner().invoke(app, [*words, str(good)])
    changed = CliRunner().invoke(app, [*words, str(bad)])

    assert sound.exit_code == 0, sound.output
    assert "bank-a                site      active" in sound.stdout
    assert isinstance(changed.exception, IntegrityError)
    assert changed.exception.exit_code == 5
