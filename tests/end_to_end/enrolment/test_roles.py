"""Who may make which call, and that whoever is shut out is out at once."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guilder_client.node import Node
from guilder_server.console.control import ControlClient
from guilder_server.door import MAY
from guilder_shared.chain import Entry, check_chain
from guilder_shared.errors import EnrolmentError

Office = Any  # the fixture `office`; see conftest.py

CALLS: dict[str, Callable[[ControlClient], Any]] = {
    "Submit": lambda c: c.submit(b"{}"),
    "Resume": lambda c: c.resume("run-1"),
    "Stop": lambda c: c.stop("run-1"),
    "Watch": lambda c: next(c.watch("run-1")),
    "List": lambda c: c.list(),
    "Invite": lambda c: c.invite("new", role="site", hours=1, needs_approval=False),
    "Decide": lambda c: c.decide("nobody", "revoke"),
    "Members": lambda c: c.members(),
    "Log": lambda c: c.log(),
}


@pytest.mark.parametrize("role", ["admin", "operator", "officer"])
def test_a_person_may_what_the_role_may_and_nothing_else(
    office: Office, role: str
) -> None:
    refused = set()
    with office.person("jo", role) as jo:
        for name, call in CALLS.items():
            try:
                call(jo)
            except EnrolmentError as error:
                if error.error_id == "GLD-E030":
                    refused.add(name)

    assert refused == {name for name in CALLS if role not in MAY[name]}


@pytest.mark.attack("a site", "controlling runs and members", "GLD-E030")
def test_a_site_may_not_control_runs_or_members(office: Office) -> None:
    folder = office.join(office.invite())
    refused = set()
    with site_client(office, folder) as site:
        for call in CALLS.values():
            with pytest.raises(EnrolmentError) as caught:
                call(site)
            refused.add(caught.value.error_id)

    assert refused == {"GLD-E030"}


def site_client(office: Office, folder: Path) -> ControlClient:
    return ControlClient(
        "127.0.0.1",
        office.settings.server.port,
        key=folder / "site.key",
        certificate=folder / "site.pem",
        authority=folder / "ca.pem",
    )


@pytest.mark.parametrize("decision", ["revoke", "remove"])
def test_a_watch_that_is_open_ends_when_its_operator_is_shut_out(
    office: Office, decision: str
) -> None:
    with office.person("jo", "operator") as jo, office.admin() as admin:
        watch = jo.watch("run-1")
        next(watch)
        admin.decide("jo", decision)

        with pytest.raises(EnrolmentError) as caught:
            next(watch)  # else it would go on for 30 s, and then end without error

        assert caught.value.error_id == "GLD-E060"
        with pytest.raises(EnrolmentError):
            jo.list()


@pytest.mark.attack("a site", "a revoked certificate, on open connections", "GLD-E013")
def test_a_site_that_is_online_is_cut_off_and_not_taken_in_again(
    office: Office, eventually: Callable[..., Any]
) -> None:
    from flwr.clientapp import ClientApp

    folder = office.join(office.invite())
    ended: list[BaseException] = []

    def serve() -> None:
        node = Node(f"https://127.0.0.1:{office.hub.port}", folder, ClientApp(), {})
        try:
            node.run_forever(threading.Event())
        except EnrolmentError as error:
            ended.append(error)

    threading.Thread(target=serve, daemon=True).start()
    eventually(lambda: office.hub.grid("run-1").get_node_ids())
    with office.admin() as admin:
        (there,) = [m for m in admin.members() if m["online"]]
        assert there["name"] == "bank-a"
        assert abs(there["last_seen"] - time.time()) < 60
        admin.decide("bank-a", "revoke")
        assert office.hub.site_names() == {}  # before the command is told it is done

        (error,) = eventually(lambda: ended)
        assert error.error_id == "GLD-E013"
        admin.decide("bank-a", "reinstate")

    assert list(office.hub.site_names().values()) == ["bank-a"]


def test_the_log_that_is_printed_verifies_by_itself(office: Office) -> None:
    import rfc8785

    office.join(office.invite())
    with office.admin() as admin:
        admin.decide("bank-a", "revoke")
        *printed, end = admin.log()

    assert end["kind"] == "end"
    entries = [
        Entry(**{**entry, "body": rfc8785.dumps(entry["body"])}) for entry in printed
    ]
    public_hex = printed[0]["body"]["public_key"]
    assert len(list(check_chain(entries, public_hex))) == len(printed)
    kinds = [(e.kind, e.content().get("by", "")) for e in entries]
    assert kinds[-3:] == [("invited", "admin"), ("issued", ""), ("revoked", "admin")]


@pytest.mark.slow
def test_the_documented_commands_take_a_site_in_and_shut_it_out(tmp_path: Path) -> None:
    from guilder.consortium import free_ports

    port = str(free_ports(1)[0])
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    secret.chmod(0o400)
    server = ["--server", str(tmp_path / "c/server/server.toml")]

    def guilder(*words: str) -> str:
        command = [sys.executable, "-m", "guilder", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    folder = ["--dir", str(tmp_path / "c"), "--port", port]
    guilder("server", "init", *folder, "--passphrase-file", str(secret))
    start = ["server", "start", *server, "--passphrase-file", str(secret)]
    process = subprocess.Popen([sys.executable, "-m", "guilder", *start])
    try:
        wait_for(lambda: guilder("server", "sites", *server))
        token = guilder("server", "invite", "bank-a", *server)
        told = guilder("client", "join", token, "--dir", str(tmp_path / "bank-a"))
        assert "site.toml" in told
        assert "bank-a" in guilder("server", "sites", *server)
        guilder("server", "revoke", "bank-a", *server)
        assert "revoked" in guilder("server", "sites", *server)
        guilder("server", "remove", "bank-a", *server)
        assert "removed" in guilder("server", "log", *server)
    finally:
        process.kill()
        process.wait()


def wait_for(true: Callable[[], Any]) -> None:
    pause = threading.Event()
    for _ in range(60):
        try:
            true()
            return
        except AssertionError:
            pause.wait(0.5)
    true()
