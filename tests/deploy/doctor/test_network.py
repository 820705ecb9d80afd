"""The doctor on the way to a server: real sockets, each broken in one way."""

import datetime
import email.utils
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guilder.doctor import network
from guilder.doctor.finding import Finding, exit_code
from guilder_shared import tls
from guilder_shared.certificates import init_local_sites

Serve = Callable[..., int]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of a consortium whose server is localhost."""
    folder = tmp_path_factory.mktemp("ours")
    init_local_sites(folder, ["north"], ["localhost"])
    return folder


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Accept connections on loopback and hand each to a function, in a thread."""
    listeners: list[socket.socket] = []

    def start(handle: Callable[[socket.socket], None], host: str = "127.0.0.1") -> int:
        listener = socket.create_server((host, 0))
        listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=_one, args=(plain,), daemon=True).start()

        def _one(plain: socket.socket) -> None:
            with plain:
                try:
                    handle(plain)
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.close()


def answering(keys: Path, shift_s: float = 0.0, *, dated: bool = True) -> Any:
    """A TLS server with a consortium's keys and a clock of its own."""
    context = tls.server_context(keys / "server")

    def handle(plain: socket.socket) -> None:
        with context.wrap_socket(plain, server_side=True) as secure:
            secure.recv(4096)
            now = datetime.datetime.now(datetime.UTC)
            stamp = email.utils.format_datetime(
                now + datetime.timedelta(seconds=shift_s), usegmt=False
            )
            date = f"Date: {stamp}\r\n" if dated else ""
            secure.sendall(f"HTTP/1.1 404 Not Found\r\n{date}\r\n".encode())

    return handle


def look(
    port: int, keys: Path, host: str = "localhost", patience_s: float = 30.0
) -> list[Finding]:
    own = tls.KeyFiles.in_folder(keys / "sites" / "north", "site")
    return network.check(f"https://{host}:{port}", own, patience_s=patience_s)


def last(found: list[Finding]) -> tuple[str, str, int]:
    assert all(each.why and each.fix for each in found if each.state != "ok")
    return found[-1].id, found[-1].state, exit_code(found)


def test_a_good_way_is_told_step_by_step(ours: Path, serve: Serve) -> None:
    found = look(serve(answering(ours)), ours)

    assert [each.state for each in found] == ["ok"] * 4
    assert found[0].what.startswith("DNS localhost is ")
    assert found[1].what.startswith("TCP from 127.0.0.1 to localhost:")
    assert found[2].what.startswith("TLSv1.3 to localhost:")
    assert found[3].part == "time"


def test_a_real_server_is_found_good(consortium: Any) -> None:
    hub = consortium.hub()
    own = tls.KeyFiles.in_folder(consortium.site("alder"), "site")

    found = network.check(f"https://127.0.0.1:{hub.port}", own)

    assert [each.state for each in found] == ["ok"] * 4, found


def test_a_name_that_nobody_knows_is_named(ours: Path) -> None:
    found = look(1, ours, host="no-such-host.invalid")

    assert last(found) == ("GLD-N090", "wrong", 3)
    assert "'no-such-host.invalid'" in found[-1].what


def test_a_closed_port_is_refused(ours: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    assert last(look(port, ours)) == ("GLD-N091", "wrong", 3)


def test_a_port_whose_packets_are_dropped_is_silent(ours: Path) -> None:
    """A full backlog: the kernel answers no further handshake, as a firewall would."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(address)
            waiting.append(one)

        found = look(address[1], ours, "127.0.0.1", patience_s=1.0)

        for one in waiting:
            one.close()
    assert last(found) == ("GLD-N092", "wrong", 3)


def test_a_port_that_accepts_and_says_nothing_is_no_server(
    ours: Path, serve: Serve
) -> None:
    silent = serve(lambda plain: threading.Event().wait(5))

    found = look(silent, ours, patience_s=1.0)

    assert last(found) == ("GLD-N094", "wrong", 3)


def test_a_server_that_speaks_no_tls_is_no_server(ours: Path, serve: Serve) -> None:
    found = look(serve(lambda plain: plain.sendall(b"SSH-2.0-OpenSSH_9\r\n")), ours)

    assert last(found) == ("GLD-N094", "wrong", 3)


def test_an_inspecting_proxy_is_named_by_its_issuer(
    ours: Path, serve: Serve, tmp_path: Path
) -> None:
    init_local_sites(tmp_path, ["north"], ["localhost"])

    found = look(serve(answering(tmp_path)), ours)

    assert last(found) == ("GLD-N093", "wrong", 3)
    assert "CN=" in found[-1].what
    assert "inspection" in found[-1].fix


def test_our_servers_certificate_under_another_name_is_told_apart(
    ours: Path, serve: Serve
) -> None:
    found = look(serve(answering(ours), "127.0.0.2"), ours, host="127.0.0.2")

    assert last(found) == ("GLD-E012", "wrong", 3)


@pytest.mark.parametrize(
    ("shift_s", "error_id", "state", "code"),
    [
        (-60.0, "GLD-N010", "wrong", 3),  # the server is behind: we are ahead
        (400.0, "GLD-N010", "wrong", 3),
        (200.0, "GLD-N096", "warning", 0),
    ],
)
def test_a_clock_that_differs_is_told_with_its_seconds(
    ours: Path, serve: Serve, shift_s: float, error_id: str, state: str, code: int
) -> None:
    found = look(serve(answering(ours, shift_s)), ours)

    assert last(found) == (error_id, state, code)
    said = int(found[-1].what.split(" is ")[1].split(" s ")[0])
    assert abs(said - abs(shift_s)) <= 2
    assert ("ahead of" if shift_s < 0 else "behind") in found[-1].what


def test_an_answer_without_a_date_is_no_guilder_server(
    ours: Path, serve: Serve
) -> None:
    found = look(serve(answering(ours, dated=False)), ours)

    assert last(found) == ("GLD-N097", "wrong", 3)


def test_without_its_keys_the_handshake_is_not_tried(
    ours: Path, serve: Serve, tmp_path: Path
) -> None:
    port = serve(answering(ours))
    own = tls.KeyFiles.in_folder(tmp_path, "site")

    found = network.check(f"https://localhost:{port}", own)

    assert last(found) == ("GLD-E001", "wrong", 3)


def test_the_issuer_is_asked_for_without_believing_it(ours: Path) -> None:
    """Only the function that names an issuer may speak TLS without checking."""
    source = Path(network.__file__).read_text()

    assert source.count("CERT_NONE") == 1
    assert ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).verify_mode == ssl.CERT_REQUIRED
