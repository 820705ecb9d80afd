"""Attacks on enrolment, each refused: strangers, thieves, men in the middle."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from guilder_client import join as joining
from guilder_client import skeleton
from guilder_client.join import join
from guilder_server.console.control import ControlClient
from guilder_shared import authority, certificates
from guilder_shared.errors import EnrolmentError, GuilderError, NetworkError
from guilder_shared.invitation import Token
from guilder_shared.proto import control_pb2 as messages

Office = Any  # the fixture `office`; see conftest.py
GOAWAY = 7
JOIN = "/guilder.control.v1.Enrolment/Join"


class Middleman:
    """A TLS server that notes every byte that comes after the handshake."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._context.set_alpn_protocols(["h2"])
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.heard = b""
        self.num_handshakes = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), plain:
                plain.settimeout(5)
                secure = self._context.wrap_socket(plain, server_side=True)
                self.num_handshakes += 1
                while got := secure.recv(65536):
                    self.heard += got

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another consortium's server folder."""
    folder = tmp_path / "other"
    folder.mkdir()
    authority.make_authority(folder, ["127.0.0.1"])
    return folder


def refused(token: Token, folder: Path, **changes: Any) -> GuilderError:
    with pytest.raises(GuilderError) as caught:
        join(replace(token, **changes), folder, wait_s=0, tell=lambda _: None)
    return caught.value


@pytest.mark.attack(
    "a server", "another authority's server asks for a token's secret", "GLD-E051"
)
def test_a_server_of_another_authority_gets_no_secret(
    office: Office, other: Path, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    token = office.invite()
    middle = Middleman(other / "server.pem", other / "server.key")

    error = refused(token, tmp_path / "bank", port=middle.port)
    eventually(lambda: middle.num_handshakes)
    middle.close()

    assert error.error_id == "GLD-E051"
    assert middle.heard == b""
    assert not list((tmp_path / "bank").iterdir())  # not even a key was made


@pytest.mark.attack(
    "a man in the middle", "the true root shown beside his own certificate", "GLD-E051"
)
def test_a_middleman_who_shows_the_true_root_beside_his_own_gets_no_secret(
    office: Office, other: Path, tmp_path: Path
) -> None:
    true_root = (office.folder / "server" / "ca.pem").read_bytes()
    mixed = tmp_path / "mixed.pem"
    mixed.write_bytes((other / "server.pem").read_bytes() + true_root)
    middle = Middleman(mixed, other / "server.key")

    error = refused(office.invite(), tmp_path / "bank", port=middle.port)
    middle.close()

    assert error.error_id == "GLD-E051"
    assert middle.heard == b""


@pytest.mark.attack("a site", "playing the server for who joins", "GLD-E051")
def test_a_site_of_the_consortium_cannot_play_the_server(
    office: Office, tmp_path: Path
) -> None:
    rogue = office.join(office.invite("rogue"))
    middle = Middleman(rogue / "site.pem", rogue / "site.key")

    error = refused(office.invite(), tmp_path / "bank", port=middle.port)
    middle.close()

    assert error.error_id == "GLD-E051"
    assert middle.heard == b""


@pytest.mark.attack("a server", "a wrong pin", "GLD-E051")
def test_a_token_with_another_pin_is_not_answered(
    office: Office, tmp_path: Path
) -> None:
    error = refused(office.invite(), tmp_path / "bank", pin="0" * 64)

    assert error.error_id == "GLD-E051"


@pytest.mark.attack("a stranger", "a wrong secret", "GLD-E052")
@pytest.mark.attack("a stranger", "a token used twice", "GLD-E055")
@pytest.mark.attack("a site", "the old token of a site that was removed", "GLD-E053")
def test_a_wrong_secret_a_used_token_and_an_old_one_are_refused(
    office: Office, tmp_path: Path
) -> None:
    token, thief = office.invite(), tmp_path / "thief"
    wrong = Token.make("h", 1, role="site", name="x", pin="").secret

    assert refused(token, thief, secret=wrong).error_id == "GLD-E052"
    assert refused(token, thief, invitation_id="a" * 16).error_id == "GLD-E052"
    office.join(token)
    assert refused(token, thief).error_id == "GLD-E055"
    with office.admin() as admin:
        admin.decide("bank-a", "remove")
    with pytest.raises(EnrolmentError) as caught:
        office.join(token)
    assert caught.value.error_id == "GLD-E053"


@pytest.mark.attack("a stranger", "guessing a token's secret", "GLD-E054")
def test_guessing_secrets_locks_the_invitation(office: Office, tmp_path: Path) -> None:
    token = office.invite()
    tries = [
        refused(
            token,
            tmp_path / "thief",
            secret=Token.make("h", 1, role="site", name="x", pin="").secret,
        ).error_id
        for _ in range(7)
    ]

    assert tries == ["GLD-E052"] * 5 + ["GLD-E054"] * 2
    assert refused(token, tmp_path / "owner").error_id == "GLD-E054"


@pytest.mark.attack("a site", "a token renamed for another site", "GLD-E057")
def test_a_token_renamed_for_another_site_is_refused(
    office: Office, tmp_path: Path
) -> None:
    token = office.invite("bank-a")

    error = refused(token, tmp_path / "bank-b", name="bank-b")

    assert error.error_id == "GLD-E057"


def test_a_sites_token_makes_no_admin(office: Office, tmp_path: Path) -> None:
    folder = tmp_path / "thief"
    join(
        replace(office.invite("bank-a", "operator"), role="admin"),
        folder,
        wait_s=0,
        tell=lambda _: None,
    )

    with client(office, folder, "bank-a") as thief, pytest.raises(EnrolmentError):
        thief.invite("more", role="admin", hours=1, needs_approval=False)


def client(office: Office, folder: Path, who: str) -> ControlClient:
    return ControlClient(
        "127.0.0.1",
        office.settings.server.port,
        key=folder / f"{who}.key",
        certificate=folder / f"{who}.pem",
        authority=folder / "ca.pem",
    )


@pytest.fixture
def stranger(office: Office) -> Iterator[grpc.Channel]:
    """A gRPC channel to the port for joining, without any certificate."""
    root = (office.folder / "server" / "ca.pem").read_bytes()
    credentials = grpc.ssl_channel_credentials(root)
    place = f"127.0.0.1:{office.control.enrolment_port}"
    with grpc.secure_channel(place, credentials) as channel:
        yield channel


@pytest.mark.parametrize(
    "call",
    ["Register/Invite", "Register/Members", "Control/Submit", "Membership/Renew"],
)
def test_a_stranger_may_join_and_nothing_else(
    stranger: grpc.Channel, call: str
) -> None:
    method = stranger.unary_unary(f"/guilder.control.v1.{call}")

    with pytest.raises(grpc.RpcError) as caught:
        method(b"", timeout=10)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_an_oversized_message_is_refused_unread(stranger: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stranger.unary_unary(JOIN)(b"\x1a" * (1 << 20), timeout=10)

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "noise", [b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"GET /"]
)
def test_noise_in_place_of_a_message_is_refused(
    office: Office, stranger: grpc.Channel, noise: bytes
) -> None:
    with pytest.raises(grpc.RpcError):
        stranger.unary_unary(JOIN)(noise, timeout=10)

    office.join(office.invite())  # and the server is well


def test_a_recorded_request_sent_again_gives_no_second_certificate(
    office: Office, stranger: grpc.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[bytes] = []
    ask = joining._try

    def record(call: Any, request: Any, *rest: Any) -> Any:
        recorded.append(request.SerializeToString())
        return ask(call, request, *rest)

    monkeypatch.setattr(joining, "_try", record)
    folder = office.join(office.invite())

    again = messages.JoinReply.FromString(
        stranger.unary_unary(JOIN)(recorded[0], timeout=10)
    )

    shown = x509.load_pem_x509_certificate(again.chain[0])
    assert shown == certificates.load_certificate(folder / "site.pem")
    assert office.kinds().count("issued") == 2


def test_callers_who_say_nothing_keep_nobody_from_joining(office: Office) -> None:
    """Half a handshake, a handshake and no more, a call without a body: 100 of them."""
    place = ("127.0.0.1", office.control.enrolment_port)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with contextlib.ExitStack() as held:
        for _ in range(40):
            held.enter_context(socket.create_connection(place, 10)).send(
                b"\x16\x03\x01"
            )
        for _ in range(30):
            plain = held.enter_context(socket.create_connection(place, 10))
            held.enter_context(context.wrap_socket(plain, server_hostname="x"))
        for _ in range(30):
            plain = held.enter_context(socket.create_connection(place, 10))
            secure = context.wrap_socket(plain, server_hostname="x")
            held.enter_context(secure).sendall(call_without_a_body())
            assert GOAWAY not in frames(secure)  # the call is open

        folder = office.join(office.invite())

    assert (folder / "site.pem").exists()


def frames(secure: ssl.SSLSocket) -> set[int]:
    """Types of the HTTP/2 frames that come within a moment."""
    secure.settimeout(0.03)
    got = b""
    with contextlib.suppress(TimeoutError):
        while piece := secure.recv(65536):
            got += piece
    found = set()
    while len(got) >= 9:
        found.add(got[3])
        got = got[9 + int.from_bytes(got[:3], "big") :]
    return found


def call_without_a_body() -> bytes:
    """HTTP/2: a preface, empty settings, and the head of a call to Join."""
    fields = {
        ":method": "POST",
        ":scheme": "https",
        ":path": JOIN,
        ":authority": "x",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(
        b"\x00" + bytes([len(k)]) + k.encode() + bytes([len(v)]) + v.encode()
        for k, v in fields.items()
    )
    head = len(block).to_bytes(3, "big") + b"\x01\x04" + (1).to_bytes(4, "big")
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + head + block


@pytest.mark.attack(
    "a stranger", "an admin's certificate of another authority", "GLD-N052"
)
def test_a_certificate_of_another_authority_calls_nothing(
    office: Office, other: Path
) -> None:
    issuing = authority.load_issuing(other / "issuing.key", other / "issuing.pem", None)
    key = certificates.load_tls_key(other / "server.key")
    forged = authority.certify(issuing, key.public_key(), name="admin", role="admin")
    authority.write_pem(other / "admin.pem", [forged, issuing.certificate])
    (other / "admin.key").write_bytes((other / "server.key").read_bytes())
    (other / "admin.key").chmod(0o600)
    (other / "ca.pem").write_bytes((office.folder / "server/ca.pem").read_bytes())

    with client(office, other, "admin") as thief, pytest.raises(NetworkError) as caught:
        thief.list()

    assert caught.value.error_id == "GLD-N052"


@pytest.mark.attack(
    "a thief of the issuing key", "a certificate that was never issued", "GLD-E060"
)
def test_a_certificate_that_the_log_does_not_know_counts_nothing(
    office: Office, tmp_path: Path
) -> None:
    """As from a thief of the issuing key, or a log that was put back."""
    server = office.folder / "server"
    issuing = authority.load_issuing(
        server / "issuing.key", server / "issuing.pem", None
    )
    key = certificates.load_tls_key(server / "server.key")
    forged = authority.certify(issuing, key.public_key(), name="admin", role="admin")
    authority.write_pem(tmp_path / "admin.pem", [forged, issuing.certificate])
    (tmp_path / "admin.key").write_bytes((server / "server.key").read_bytes())
    (tmp_path / "admin.key").chmod(0o600)
    (tmp_path / "ca.pem").write_bytes((server / "ca.pem").read_bytes())

    with (
        client(office, tmp_path, "admin") as thief,
        pytest.raises(EnrolmentError) as caught,
    ):
        thief.list()

    assert caught.value.error_id == "GLD-E060"


@pytest.mark.parametrize(
    "url",
    ['https://x"\n[policy]\naccept = "auto', "https://x{name}", "https://x\x1b[2J\\"],
)
def test_an_address_with_tricks_stays_inside_its_quotes(
    tmp_path: Path, url: str
) -> None:
    import tomllib

    token = Token.make("h", 1, role="site", name="bank-a", pin="")

    path = skeleton.write(tmp_path, token, url, url)

    parsed = tomllib.loads(path.read_text())
    assert parsed["policy"]["accept"] == "ask"
    assert parsed["site"]["server"].startswith("https://x")
