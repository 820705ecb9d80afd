"""Why a server cannot be reached: each cause by a real socket."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import SHUT_RDWR, create_server, socket

import pytest

from guilder_server import diagnosis
from guilder_shared import certificates, tls, tunnel


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    certificates.init_local_sites(tmp_path, ["bank-a"], ["localhost"])
    return tmp_path / "server"


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    certificates.init_local_sites(tmp_path / "other", ["bank-a"])
    return tmp_path / "other" / "server"


def context(mine: Path, authority: Path) -> ssl.SSLContext:
    return diagnosis.operator_context(
        mine / "operator.key", mine / "operator.pem", authority / "ca.pem"
    )


@contextmanager
def answering(answer: Callable[[socket], None]) -> Iterator[int]:
    """A server that gives each connection to `answer`; yields its port."""
    with create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(SHUT_RDWR)
        thread.join(10)


def greeting(folder: Path) -> Callable[[socket], None]:
    """What a healthy server does: mutual TLS, then it speaks first."""
    theirs = tls.server_context(folder)

    def answer(connection: socket) -> None:
        try:
            with theirs.wrap_socket(connection, server_side=True) as secure:
                secure.sendall(b"x")
                secure.recv(1)
        except OSError:
            pass

    return answer


def test_a_healthy_server_was_away_and_is_back(keys: Path) -> None:
    with answering(greeting(keys)) as port:
        error = diagnosis.unreachable("localhost", port, context(keys, keys))

    assert error.error_id == "GLD-N056"


def test_a_server_of_another_authority_is_not_believed(
    keys: Path, stranger: Path
) -> None:
    with answering(greeting(stranger)) as port:
        error = diagnosis.unreachable("localhost", port, context(keys, keys))

    assert error.error_id == "GLD-N051"


def test_a_server_under_a_name_not_in_its_certificate_is_not_believed(
    keys: Path,
) -> None:
    with answering(greeting(keys)) as port:
        error = diagnosis.unreachable("127.1", port, context(keys, keys))

    assert error.error_id == "GLD-N051"


def test_a_certificate_of_another_authority_is_refused_by_the_server(
    keys: Path, stranger: Path
) -> None:
    with answering(greeting(keys)) as port:
        error = diagnosis.unreachable("localhost", port, context(stranger, keys))

    assert error.error_id == "GLD-N052"


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_speaks_no_tls_is_told(keys: Path, words: bytes) -> None:
    with answering(lambda connection: connection.sendall(words)) as port:
        error = diagnosis.unreachable("localhost", port, context(keys, keys))

    assert error.error_id == "GLD-N052"


def test_nobody_at_a_port_is_told_with_the_address(keys: Path) -> None:
    with create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    error = diagnosis.unreachable("127.0.0.1", port, context(keys, keys))

    assert error.error_id == "GLD-N050"
    assert f"127.0.0.1:{port}" in error.what


@pytest.mark.parametrize(
    ("host", "shown", "is_loopback"),
    [
        ("127.0.0.1", "127.0.0.1:1", True),
        ("::1", "[::1]:1", True),
        ("localhost", "localhost:1", True),
        ("localhost.example.org", "localhost.example.org:1", False),
        ("10.0.0.1", "10.0.0.1:1", False),
    ],
)
def test_loopback_is_known_by_its_address(
    host: str, shown: str, is_loopback: bool
) -> None:
    assert tunnel.address(host, 1) == shown
    assert tunnel.is_this_machine(host) is is_loopback
