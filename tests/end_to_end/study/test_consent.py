"""A study that waits for people: seen at the site, previewed, accepted, and the wire.

The preview's list of fields is compared with what a tap on the site's TLS connection
captured of a real turn.
"""

import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h11
import pytest

from guilder_client.disclosure import Sent, fields
from guilder_shared.models import registry

Founding = Any  # the fixture `found`; see conftest.py


class Tap:
    """Between one site and the server: two TLS connections, and a copy of requests.

    It holds the server's and the site's keys, as nobody on a real wire does.
    """

    def __init__(self, folder: Path, site: str, port: int) -> None:
        keys, own = folder / "server", folder / "sites" / site
        self._inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._inside.load_cert_chain(keys / "server.pem", keys / "server.key")
        self._outside = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._outside.load_verify_locations(own / "ca.pem")
        self._outside.load_cert_chain(own / "site.pem", own / "site.key")
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._copies: list[bytearray] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            site = self._inside.wrap_socket(plain, server_side=True)
            server = self._outside.wrap_socket(
                socket.create_connection(self._server), server_hostname="127.0.0.1"
            )
        except OSError:
            plain.close()
            return
        copy = bytearray()
        self._copies.append(copy)
        back = threading.Thread(target=_pump, args=(server, site, None), daemon=True)
        back.start()
        _pump(site, server, copy)

    def sent(self) -> Iterator[Sent]:
        """Every whole request that the site made, connection by connection."""
        for copy in self._copies:
            yield from _requests(bytes(copy))

    def close(self) -> None:
        self._listener.close()


def _pump(source: ssl.SSLSocket, sink: ssl.SSLSocket, copy: bytearray | None) -> None:
    try:
        while data := source.recv(1 << 16):
            if copy is not None:
                copy += data
            sink.sendall(data)
    except (OSError, ValueError):
        pass
    for each in (source, sink):
        each.close()


def _requests(stream: bytes) -> Iterator[Sent]:
    """Read HTTP requests as their receiver does; a last one cut off is left out."""
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    reader.receive_data(stream)
    while True:
        head = reader.next_event()
        if not isinstance(head, h11.Request):
            return
        body = bytearray()
        while isinstance(event := reader.next_event(), h11.Data):
            body += event.data
        if not isinstance(event, h11.EndOfMessage):
            return
        names = tuple(name.decode() for name, _ in head.headers)
        yield Sent(head.target.decode(), names, bytes(body))
        reader.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        reader.send(h11.EndOfMessage())
        reader.start_next_cycle()


def guilder(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "guilder", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow  # a dozen processes: about 20 seconds
def test_a_study_waits_is_previewed_accepted_and_sends_what_the_preview_listed(
    found: Founding,
) -> None:
    hospitals = found()
    file = hospitals.site_file("site-1")
    text = file.read_text()
    port = int(text.split("https://127.0.0.1:")[1].split('"')[0])
    tap = Tap(hospitals.folder, "site-1", port)
    text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{tap.port}")
    file.write_text(text.replace('accept = "auto"', 'accept = "ask"'))
    site = ("--site", str(file))
    hospitals.start_all()

    run_id = hospitals.run()
    with hospitals.control() as control:
        events = control.watch(run_id)
        waits = next(event for event in events if event["kind"] == "site-waits")
        listed = json.loads(guilder("client", "studies", "list", "--json", *site))
        digest = listed[0]["digest"]
        shown = guilder("client", "studies", "show", digest[:8], *site)
        previewed = json.loads(
            guilder("client", "studies", "preview", digest[:8], "--json", *site)
        )
        charged = [grant.turns for grant in hospitals.grants("site-1")]
        guilder("client", "studies", "accept", digest[:8], *site)
        last = list(events)[-1]
    hospitals.stop("site-1")  # and says that it leaves
    tap.close()

    assert waits["site"] == "site-1"
    assert waits["why"].startswith("GLD-S006")
    assert [each["digest"] for each in listed] == [hospitals.study.digest()]
    assert listed[0]["state"].startswith("waits")
    assert "takes epsilon 3" in shown
    assert charged == []  # neither the offer nor the preview
    assert last["kind"] == "run-finished", last
    captured = {(f.where, f.name, f.kind) for f in fields(tap.sent())}
    listed_fields = {(f["where"], f["name"], f["kind"]) for f in previewed["fields"]}
    # a heartbeat leaves every 10 to 13 s, so perhaps none did
    beat = {each for each in listed_fields if each[0] == "send-node-heartbeat"}
    assert len(beat) == 2
    assert captured | beat == listed_fields
    names = {(where, name) for where, name, _ in captured}
    assert ("reply to train", "verdict") in names
    for tensor in registry.shapes(hospitals.study):
        assert ("reply to train", f"update.{tensor}") in names


@pytest.mark.slow  # two studies over real processes: about 30 seconds
def test_a_study_of_others_runs_while_one_waits_for_a_persons_consent(
    found: Founding,
) -> None:
    hospitals = found()
    other = hospitals.study_with("study.name=other", "privacy.epsilon=1.0")
    file = hospitals.site_file("site-1")
    asks = f'accept = "ask"\naccepted = ["{other.digest()}"]'
    file.write_text(file.read_text().replace('accept = "auto"', asks))
    hospitals.start_all()
    server = ("--server", str(hospitals.server_file))

    waiting = hospitals.run()
    with hospitals.control() as control:
        events = control.watch(waiting)
        next(e for e in events if e["kind"] == "run-waits-for-consent")
        second = control.submit(other.canonical(), [])
        outcome = list(control.watch(second))[-1]
        listed = guilder("run", "list", *server).splitlines()
        awaited = next(e for e in events if e["kind"] == "awaiting")
        digest = hospitals.study.digest()
        guilder("client", "studies", "accept", digest[:8], "--site", str(file))
        last = list(events)[-1]

    assert outcome["kind"] == "run-finished", outcome
    (line,) = [line for line in listed if line.startswith(waiting)]
    assert line.split()[1:] == ["waits-for-consent", "round", "0/6", "site-1"]
    assert awaited["sites"]["site-1"].startswith("GLD-S006")
    assert last["kind"] == "run-finished", last
    assert all(grant.closed for grant in hospitals.grants("site-1"))
