"""A clock wrong by days is told from a wrong server: by whom, and with its time."""

import datetime
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from flwr.clientapp import ClientApp

from guilder_client.join import join
from guilder_client.node import Node
from guilder_server.console.control import ControlClient
from guilder_shared import authority, certificates
from guilder_shared.errors import NetworkError

Office = Any  # the fixture `office`; see conftest.py
DAY = datetime.timedelta(days=1)


def of_another_time(folder: Path, start: int, end: int) -> Path:
    """The server's own certificate, as it would be some days from now, and its chain.

    Seen by a right clock this is what a clock that is wrong by so much sees.
    """
    chain = certificates.load_chain(folder / "server.pem")
    old = chain[0]
    issuing = authority.load_issuing(
        folder / "issuing.key", folder / "issuing.pem", None
    )
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start * DAY)
        .not_valid_after(now + end * DAY)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    leaf = builder.sign(issuing.key, hashes.SHA256())
    path = folder.parent / "other-time.pem"
    authority.write_pem(path, [leaf, *chain[1:]])
    return path


class Listener:
    """Shakes hands as the server would, and takes no word."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._context.set_alpn_protocols(["h2", "http/1.1"])
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port, self.heard = self._socket.getsockname()[1], b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
                with plain, self._context.wrap_socket(plain, server_side=True) as up:
                    self.heard += up.recv(65536)
            except ssl.SSLError:
                continue
            except OSError:
                return

    def close(self) -> None:
        self._socket.close()


TIMES = [((3, 30), "not yet valid"), ((-30, -3), "has expired")]


@pytest.fixture(params=TIMES, ids=["behind", "ahead"])
def seen(office: Office, request: Any) -> Iterator[tuple[Listener, str]]:
    """What a client sees whose clock is three days behind, or ahead."""
    folder = office.folder / "server"
    (start, end), word = request.param
    listener = Listener(of_another_time(folder, start, end), folder / "server.key")
    yield listener, word
    listener.close()


def test_a_machine_with_a_wrong_clock_is_not_told_of_somebody_in_between(
    office: Office, seen: tuple[Listener, str], tmp_path: Path
) -> None:
    listener, word = seen
    token = replace(office.invite(), port=listener.port)

    with pytest.raises(NetworkError) as caught:
        join(token, tmp_path / "bank", wait_s=0, tell=lambda _: None)

    assert caught.value.error_id == "GLD-N135"
    assert word in caught.value.what
    assert re.search(r"this machine says 20\d\d-\d\d-\d\d", caught.value.what)
    assert listener.heard == b""
    assert not list((tmp_path / "bank").iterdir())  # not even a key was made


def test_a_running_client_with_a_wrong_clock_says_so(
    office: Office, seen: tuple[Listener, str]
) -> None:
    listener, word = seen
    folder = office.join(office.invite())
    node = Node(f"https://127.0.0.1:{listener.port}", folder, ClientApp(), {})

    with pytest.raises(NetworkError) as caught:
        node.run_forever(threading.Event())

    assert caught.value.error_id == "GLD-N135"
    assert word in caught.value.what
    assert listener.heard == b""


def test_an_operator_at_a_machine_with_a_wrong_clock_is_told_so(
    office: Office, seen: tuple[Listener, str]
) -> None:
    listener, word = seen
    keys, authority_file = office.settings.operator, office.settings.keys.authority
    console = ControlClient(
        "127.0.0.1",
        listener.port,
        key=keys.key,
        certificate=keys.certificate,
        authority=authority_file,
    )

    with console, pytest.raises(NetworkError) as caught:
        console.members()

    assert caught.value.error_id == "GLD-N135"
    assert word in caught.value.what
    assert "Set the clock" in caught.value.fix
    assert listener.heard == b""
