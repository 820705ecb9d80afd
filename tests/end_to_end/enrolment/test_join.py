"""Joining by a token over real TLS: what it gives, and what a kill leaves."""

import hashlib
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guilder_client import join as joining
from guilder_client.node import Node
from guilder_server.console.control import ControlClient
from guilder_shared import durable, tls
from guilder_shared.certificates import load_certificate, read_site
from guilder_shared.errors import EnrolmentError, NetworkError
from guilder_shared.identity import SigningKey
from guilder_shared.invitation import Token

Office = Any  # the fixture `office`; see conftest.py


def test_one_token_makes_a_site_that_the_server_takes_in(
    office: Office, eventually: Callable[..., Any]
) -> None:
    from flwr.clientapp import ClientApp

    folder = office.join(office.invite())

    url, stop = f"https://127.0.0.1:{office.hub.port}", threading.Event()
    node = Node(url, folder, ClientApp(), {})
    threading.Thread(target=node.run_forever, args=(stop,), daemon=True).start()
    eventually(lambda: office.hub.grid("run-1").get_node_ids())
    stop.set()
    site = read_site(load_certificate(folder / "site.pem"))
    assert site.name == "bank-a"
    assert site.signing_hex == SigningKey.load(folder / "signing.key").public_hex


def test_every_key_is_its_owners_alone_and_none_is_at_the_server(
    office: Office,
) -> None:
    folder = office.join(office.invite())

    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.glob("*.key")}
    assert modes == {"site.key": 0o600, "signing.key": 0o600}
    at_server = b"".join(
        path.read_bytes()
        for path in (office.folder / "server").rglob("*")
        if path.is_file()
    )
    key_lines = (folder / "site.key").read_bytes().splitlines()[1:-1]
    assert not any(line in at_server for line in key_lines)


def test_the_settings_it_writes_say_what_comes_next(office: Office) -> None:
    folder = office.join(office.invite())

    text = (folder / "site.toml").read_text()

    assert 'name = "bank-a"' in text
    assert f"https://127.0.0.1:{office.settings.server.port}" in text
    assert all(part in text for part in ("[data.", "[policy]", "[budget."))
    assert "guilder config check" in text


def test_a_filled_in_skeleton_is_a_site_file(office: Office) -> None:
    from guilder_client.settings import SiteFile

    path = office.join(office.invite()) / "site.toml"
    lines = path.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("# [data."))
    filled = [
        line.removeprefix("# ") if i >= start and "What may ever" not in line else line
        for i, line in enumerate(lines)
    ]
    path.write_text("\n".join(filled))

    settings = SiteFile.load(path)

    assert settings.site.server == f"https://127.0.0.1:{office.settings.server.port}"
    assert settings.site.control is None  # the same port


def test_settings_that_are_there_are_not_written_over(office: Office) -> None:
    folder = office.folder / "joined" / "bank-a"
    folder.mkdir(parents=True)
    (folder / "site.toml").write_text("mine")

    office.join(office.invite())

    assert (folder / "site.toml").read_text() == "mine"


def test_joining_twice_changes_nothing(office: Office) -> None:
    token = office.invite()
    folder = office.join(token)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    office.join(token)

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert office.kinds().count("issued") == 2  # the admin, and this site


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


STEPS = [
    (joining, "write_private"),
    (durable, "write"),
    (SigningKey, "save"),
    (joining, "_ask"),
    (joining, "_demand_ours"),
]


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
def test_killed_at_any_step_the_same_command_goes_on(
    office: Office, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    for nth in range(8):
        token = office.invite(f"bank-{nth}")
        with monkeypatch.context() as patched:
            deadly(patched, nth, is_done)
            with pytest.raises(Killed):
                office.join(token)

        folder = office.join(token)

        tls.client_context(folder)
        assert office.kinds().count("issued") == 2 + nth  # the admin, and each site
    assert "used-twice" not in office.kinds()


def deadly(patched: pytest.MonkeyPatch, nth: int, is_done: bool) -> None:
    """Let the nth step of joining kill, before or after it is done."""
    taken = 0

    def dying(step: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **named: Any) -> Any:
            nonlocal taken
            taken += 1
            mine = taken
            if mine == nth + 1 and not is_done:
                raise Killed
            result = step(*args, **named)
            if mine == nth + 1:
                raise Killed
            return result

        return act

    for owner, name in STEPS:
        patched.setattr(owner, name, dying(getattr(owner, name)))


def test_a_request_waits_for_a_person_and_the_same_command_goes_on(
    office: Office,
) -> None:
    token = office.invite(needs_approval=True)

    with pytest.raises(EnrolmentError) as caught:
        office.join(token, wait_s=0)

    assert caught.value.error_id == "GLD-E064"
    with office.admin() as admin:
        (waiting,) = [row for row in admin.members() if "waits" in row["state"]]
        assert waiting["code"] in office.lines[-1]
        admin.decide("bank-a", "approve")
    tls.client_context(office.join(token))


def test_a_server_that_is_away_leaves_the_token_good(office: Office) -> None:
    token = office.invite()
    office.stop()

    with pytest.raises(NetworkError) as caught:
        office.join(token, wait_s=0)

    assert caught.value.error_id == "GLD-N080"
    office.start()
    tls.client_context(office.join(token))


def test_a_folder_of_another_member_is_refused(office: Office) -> None:
    office.join(office.invite())
    other = office.invite("bank-b")

    with pytest.raises(EnrolmentError) as caught:
        joining.join(
            other, office.folder / "joined" / "bank-a", wait_s=1, tell=lambda _: None
        )

    assert caught.value.error_id == "GLD-E066"


def test_a_site_shut_out_comes_back_with_new_tls_keys_and_its_old_ledger_key(
    office: Office,
) -> None:
    folder = office.join(office.invite())
    names = ("site.key", "signing.key")
    before = [(folder / name).read_bytes() for name in names]
    with office.admin() as admin:
        admin.decide("bank-a", "revoke")

    office.join(office.invite())

    after = [(folder / name).read_bytes() for name in names]
    assert (after[0] != before[0], after[1] == before[1]) == (True, True)
    tls.client_context(folder)


def test_an_operator_joins_from_another_computer(office: Office) -> None:
    with office.person("jo", "operator") as jo:
        assert jo.list() == [{"run_id": "run-1"}]
        assert jo.submit(b"{}") == "run-1"
        jo.stop("run-1")

    asked = [e.content() for e in office.register.entries() if e.kind == "asked"]
    digest = hashlib.sha256(b"{}").hexdigest()
    assert [(each["by"], each["call"], each["about"]) for each in asked] == [
        ("jo", "Submit", digest),
        ("jo", "Stop", "run-1"),
    ]


def test_the_operators_file_names_the_server_and_the_key(
    office: Office, tmp_path: Path
) -> None:
    folder = office.join(office.invite("jo", "operator"))

    assert sorted(p.name for p in folder.iterdir()) == [
        "ca.pem",
        "jo.key",
        "jo.pem",
        "joining.json",
        "operator.toml",
    ]
    assert isinstance(office.admin(), ControlClient)


@pytest.fixture
def far_token(far_office: Office) -> Token:
    token: Token = far_office.register.invite(
        "root",
        "bank-a",
        role="site",
        hours=1.0,
        needs_approval=False,
        place=("fl.example.test", far_office.hub.port),
    )
    return token


def test_a_site_joins_through_a_proxy_that_learns_only_where_to(
    far_office: Office,
    far_token: Token,
    connect_proxy: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = connect_proxy("fl.example.test", far_office.hub.port)
    url = f"http://ward-3:s3cret@127.0.0.1:{proxy.port}"
    monkeypatch.setenv("HTTPS_PROXY", url)

    folder = far_office.join(far_token)

    assert (folder / "site.pem").exists()
    place = f"fl.example.test:{far_office.hub.port}"
    assert set(proxy.asked) == {f"CONNECT {place} HTTP/1.1"}


def test_what_a_proxy_answers_is_told_without_its_password(
    far_office: Office,
    far_token: Token,
    connect_proxy: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = connect_proxy("fl.example.test", far_office.hub.port)
    url = f"http://ward-3:wr0ng@127.0.0.1:{proxy.port}"
    monkeypatch.setenv("HTTPS_PROXY", url)

    with pytest.raises(NetworkError, match="407") as caught:
        far_office.join(far_token)

    assert caught.value.error_id == "GLD-N080"
    assert "wr0ng" not in str(caught.value)
