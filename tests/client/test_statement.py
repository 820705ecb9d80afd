"""A signed word for a person who objected: true, checkable, and without ids."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import rfc8785
from typer.testing import CliRunner

from guilder.privacy_commands import app
from guilder_client import statement
from guilder_client.site import Site
from guilder_shared.errors import PolicyRefused
from guilder_shared.identity import verify

SiteAt = Callable[..., Site]


@pytest.fixture
def site(site_at: SiteAt, tmp_path: Path) -> Site:
    (tmp_path / "data.csv").write_text("who,x,y\nsecret-1,0.5,1\n")
    (tmp_path / "gone.csv").write_text("secret-1\n")

    def edit(text: str) -> str:
        return text.replace("public_size", 'exclude = "gone.csv"\npublic_size')

    return site_at(tmp_path, edit)


def test_the_word_is_signed_by_the_site_and_names_its_entry(
    site: Site, tmp_path: Path
) -> None:
    site.hear_exclusions()
    command = ["exclusion", "d", "--site", str(tmp_path / "site.toml")]

    printed = CliRunner().invoke(app, command)
    written = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "word.json")])

    assert (printed.exit_code, written.exit_code) == (0, 0), printed.output
    assert (tmp_path / "word.json").read_text() == printed.output
    told = json.loads(printed.output)
    signature = bytes.fromhex(told.pop("signature"))
    signed = b"guilder-exclusion-1\n" + rfc8785.dumps(told)
    begun, entry = site.ledger.entries()[0], site.ledger.entries()[-1]
    assert verify(begun.content()["public_key"], signed, signature)
    assert not verify(begun.content()["public_key"], signed + b" ", signature)
    assert (told["entry"]["hash"], told["in_force"]) == (entry.hash, True)
    assert "secret" not in printed.output


def test_there_is_no_word_before_the_ledger_has_one(site: Site) -> None:
    with pytest.raises(PolicyRefused) as raised:
        statement.state(site.ledger, "d")

    assert raised.value.error_id == "GLD-S041"
