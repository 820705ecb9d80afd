"""Joining a consortium by one token: keys made here, the server known by its pin.

The secret leaves only after the server has proved, in the same TLS handshake that
carries it, that it belongs to the root whose key the token pins. Private keys never
leave. Used by sites and, for a person's certificate, on an operator's computer.

Crash order: keys, then the request and the invitation it answers (`joining.json`), are
durable before anything is sent; the certificate is written last. Killed anywhere, the
same command goes on with the same keys and gets the same certificate.
"""

import json
import os
import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from guilder_client import relay, skeleton
from guilder_client.settings import ProxyLines, SiteFile
from guilder_shared import authority, clocks, drafts, durable, tunnel
from guilder_shared.certificates import load_certificate, load_tls_key
from guilder_shared.errors import EnrolmentError, GuilderError, NetworkError
from guilder_shared.identity import SigningKey, read_private, write_private
from guilder_shared.invitation import JOIN_NAME, Token, proof_text, short_code
from guilder_shared.plain_text import one_line
from guilder_shared.proto import control_pb2 as messages
from guilder_shared.proto import control_pb2_grpc
from guilder_shared.telling import ERROR_KEY, unpack
from guilder_shared.tls import KeyFiles, client_context

stubs: Any = control_pb2_grpc  # generated without types

STATE = "joining.json"
CONNECT_S = 10.0
REPLY_S = 60.0
RETRY_S = 1.0
LOOK_AGAIN_S = 2.0  # while a person has not approved
LARGEST_REPLY = 64 << 10
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Keys:
    """What is ready on disk before the first byte is sent."""

    who: str
    tls: ec.EllipticCurvePrivateKey
    request: bytes
    proof: bytes


def join(token: Token, folder: Path, *, wait_s: float, tell: Tell) -> Path:
    """Join by an invitation; the files it writes are in `skeleton.py`'s text.

    Args:
        token: The invitation.
        folder: Made if missing, for its owner alone.
        wait_s: How long to wait for the server, and for a person's approval.
        tell: Called with one line for each step.

    Returns:
        The settings file to go on with.

    Raises:
        EnrolmentError: The server is not the token's (GLD-E051), the folder is
            another member's (GLD-E066), approval did not come (GLD-E064), or what
            the server says: GLD-E010, E052 to E058, E063.
        NetworkError: The server cannot be reached (GLD-N080), or its certificate is of
            another time than this machine's clock (GLD-N135).
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    root = _root(token)
    tell(f"server   {token.host}:{token.port} is the one that the token pins")
    keys = _prepare(token, folder)
    tell(f"keys     made here, they never leave: {folder / f'{keys.who}.key'}")
    reply = _ask(token, root, keys, wait_s, tell)
    chain = [x509.load_pem_x509_certificate(pem) for pem in reply.chain]
    _demand_ours(chain, root, keys.tls.public_key())
    authority.write_pem(folder / "ca.pem", [root])
    path = skeleton.write(folder, token, reply.server_url, reply.control_url)
    authority.write_pem(folder / f"{keys.who}.pem", chain)
    until = chain[0].not_valid_after_utc
    tell(f"member   {token.name!r} ({token.role}), certificate until {until:%Y-%m-%d}")
    return path


def renew(settings: SiteFile) -> bool:
    """Ask for a new certificate for the same keys, when half of its life is over.

    The file is replaced whole; killed before that, the old certificate still counts
    and the next call asks again.

    Returns:
        Whether there is a new one on disk.

    Raises:
        EnrolmentError: The site counts no more (GLD-E060), or a file is wrong.
        NetworkError: The server cannot be asked (GLD-N081).
    """
    keys = settings.keys
    own, root = load_certificate(keys.certificate), load_certificate(keys.authority)
    if time.time() < authority.half_life(own):
        return False
    reply = _ask_as_member(settings, "Renew", messages.RenewRequest())
    chain = [x509.load_pem_x509_certificate(pem) for pem in reply.chain]
    _demand_ours(chain, root, load_tls_key(keys.key).public_key())
    if chain[0] == own:
        return False
    authority.write_pem(keys.certificate, chain)
    return True


def resign(settings: SiteFile) -> None:
    """Tell the server that this site takes no further part. Twice is harmless.

    Raises:
        EnrolmentError, NetworkError: As `renew`, without GLD-E060.
    """
    try:
        _ask_as_member(settings, "Leave", messages.LeaveRequest())
    except EnrolmentError as error:
        if error.error_id != "GLD-E060":
            raise


def _ask_as_member(settings: SiteFile, call: str, request: Any) -> Any:
    """One call to the server, by this site's certificate."""
    keys, url = settings.keys, settings.site.control or settings.site.server
    place = urlsplit(url)
    host, port = place.hostname or "", place.port or 443
    client_context(KeyFiles(keys.key, keys.certificate, keys.authority))  # checks them
    credentials = grpc.ssl_channel_credentials(
        keys.authority.read_bytes(),
        read_private(keys.key),
        keys.certificate.read_bytes(),
    )
    options = _options(settings.site.server, settings.proxy)
    with grpc.secure_channel(
        tunnel.address(host, port), credentials, options
    ) as channel:
        try:
            return getattr(stubs.MembershipStub(channel), call)(
                request, timeout=REPLY_S
            )
        except grpc.RpcError as error:
            failed: Any = error
            sent = dict(failed.trailing_metadata() or ()).get(ERROR_KEY)
            if sent is not None:
                raise unpack(sent) from None
            raise NetworkError(
                "GLD-N081",
                f"{url} gave no answer to a member's call ({failed.code().name})",
                fix="See `guilder client check`; the same command asks again.",
            ) from None


def _root(token: Token) -> x509.Certificate:
    """The consortium's root, shown by the server and known by the token's pin.

    A second handshake checks that the server has what the root vouches for.
    """
    strangers = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    strangers.check_hostname = False
    strangers.verify_mode = ssl.CERT_NONE  # nothing is believed yet, nothing is sent
    shown = _shake_hands(token, strangers)
    root = next((each for each in shown if _is_pinned(each, token.pin)), None)
    if root is None:
        raise _another_server(token, "it shows no such root")
    believing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    believing.verify_flags |= ssl.VERIFY_X509_STRICT
    believing.load_verify_locations(cadata=root.public_bytes(Encoding.DER))
    own = _shake_hands(token, believing)[0]
    names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if drafts.host_name(token.host) not in list(names):
        raise _another_server(token, "its certificate is for another address")
    return root


def _shake_hands(token: Token, context: ssl.SSLContext) -> list[x509.Certificate]:
    """Connect, shake hands, hang up; what the server showed."""
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    url = f"https://{tunnel.address(token.host, token.port)}"
    try:
        proxy = relay.plain_proxy(url, None)
        with (
            tunnel.connect(token.host, token.port, CONNECT_S, proxy) as plain,
            context.wrap_socket(plain, server_hostname=JOIN_NAME) as secure,
        ):
            return [x509.load_der_x509_certificate(der) for der in _shown(secure)]
    except ssl.SSLCertVerificationError as error:
        by_our_clock = clocks.other_time(error, f"{token.host}:{token.port}")
        if by_our_clock is not None:
            raise by_our_clock from None
        raise _another_server(token, error.verify_message) from None
    except (OSError, ValueError) as error:
        raise NetworkError(
            "GLD-N080",
            f"no server to join at {token.host}:{token.port} "
            f"({one_line(_reason(error), 200)})",
            fix="Is it started, and is the port open towards it? HTTPS_PROXY names a "
            "proxy, if there is one. Try again later: the token stays good.",
        ) from None


def _reason(error: Exception) -> str:
    told = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return str(told or error)


def _shown(secure: ssl.SSLSocket) -> list[bytes]:
    """All certificates that the other side showed, DER; none of them is checked."""
    if hasattr(secure, "get_unverified_chain"):  # from Python 3.13 on
        return list(secure.get_unverified_chain())
    inner: Any = secure._sslobj  # type: ignore[attr-defined]
    return [
        ssl.PEM_cert_to_DER_cert(each.public_bytes())
        for each in inner.get_unverified_chain() or ()
    ]


def _is_pinned(certificate: x509.Certificate, pin: str) -> bool:
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return authority.pin(certificate) == pin


def _prepare(token: Token, folder: Path) -> Keys:
    """Keys and request on disk: those of this invitation, or new ones."""
    who = "site" if token.role == "site" else token.name
    state = _state(folder)
    if state and (state["name"], state["role"]) != (token.name, token.role):
        raise EnrolmentError(
            "GLD-E066",
            f"{folder} holds the keys of {state['name']!r}; the token is for "
            f"{token.name!r}",
            fix="Join in another folder: --dir.",
        )
    key_path, signing = folder / f"{who}.key", None
    if state and state["invitation_id"] != token.invitation_id:
        _put_away(key_path)  # an earlier membership's; its ledger key stays
    if not key_path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(key_path, drafts.pem_key(key))
        state = None
    key = load_tls_key(key_path)
    if token.role == "site":
        if not (folder / "signing.key").exists():
            SigningKey.generate().save(folder / "signing.key")
        signing = SigningKey.load(folder / "signing.key")
    if state is None or state["invitation_id"] != token.invitation_id:
        public_hex = signing.public_hex if signing else ""
        request = authority.make_request(key, token.name, public_hex)
        state = {
            "invitation_id": token.invitation_id,
            "name": token.name,
            "role": token.role,
            "request": request.decode(),
        }
        durable.write(folder / STATE, json.dumps(state).encode(), mode=0o600)
    request = state["request"].encode()
    digest = authority.read_request(request).sha256
    proof = signing.sign(proof_text(token.invitation_id, digest)) if signing else b""
    return Keys(who, key, request, proof)


def _state(folder: Path) -> dict[str, str] | None:
    """Which invitation was answered here last; None before the first."""
    try:
        found: dict[str, str] = json.loads((folder / STATE).read_bytes())
    except FileNotFoundError:
        return None
    return found


def _put_away(key_path: Path) -> None:
    if key_path.exists():
        key_path.rename(key_path.with_name(f"{key_path.name}.{secrets.token_hex(4)}"))


def _ask(
    token: Token, root: x509.Certificate, keys: Keys, wait_s: float, tell: Tell
) -> Any:
    """Show invitation and request until there is an answer."""
    credentials = grpc.ssl_channel_credentials(root.public_bytes(Encoding.PEM))
    place = tunnel.address(token.host, token.port)
    # The root was pinned and the host's name checked; this name finds the listener.
    options = _options(f"https://{place}", None)
    options.append(("grpc.ssl_target_name_override", JOIN_NAME))
    request = messages.JoinRequest(
        invitation_id=token.invitation_id,
        secret=token.secret,
        request=keys.request,
        proof=keys.proof,
    )
    deadline, is_told = time.monotonic() + wait_s, False
    with grpc.secure_channel(place, credentials, options) as channel:
        call = stubs.EnrolmentStub(channel).Join
        while True:
            reply = _try(call, request, token, time.monotonic() > deadline)
            if reply is not None and not reply.is_pending:
                return reply
            if reply is not None and not is_told:
                code = short_code(authority.read_request(keys.request).sha256)
                tell(f"waiting  for the operator's approval; the code is {code}")
                is_told = True
            if time.monotonic() > deadline:
                raise EnrolmentError(
                    "GLD-E064",
                    "the operator has not approved this request yet",
                    fix="The same command asks again; the token stays good for it.",
                )
            time.sleep(RETRY_S if reply is None else LOOK_AGAIN_S)


def _try(call: Any, request: Any, token: Token, is_last: bool) -> Any:
    """One call; None if the server was away and there is time to try again."""
    try:
        return call(request, timeout=REPLY_S)
    except grpc.RpcError as error:
        failed: Any = error
        sent = dict(failed.trailing_metadata() or ()).get(ERROR_KEY)
        if sent is not None:
            raise unpack(sent) from None
        code = failed.code()
        if code is grpc.StatusCode.UNAVAILABLE and not is_last:
            return None
        raise NetworkError(
            "GLD-N080",
            f"{token.host}:{token.port} gave no answer ({code.name})",
            fix="The same command asks again; the token stays good for it.",
        ) from None


def _demand_ours(
    chain: list[x509.Certificate],
    root: x509.Certificate,
    public_key: ec.EllipticCurvePublicKey,
) -> None:
    """Demand a certificate for our key, signed up to the pinned root."""
    try:
        if chain[0].public_key() != public_key:
            raise ValueError("another key")
        for below, above in zip(chain, [*chain[1:], root], strict=True):
            below.verify_directly_issued_by(above)
    except (IndexError, ValueError, TypeError, InvalidSignature):
        raise EnrolmentError(
            "GLD-E067",
            "the server answered with a certificate that is not for our key",
            fix="Nothing was written. Tell the operator.",
        ) from None


def _another_server(token: Token, reason: str) -> GuilderError:
    return EnrolmentError(
        "GLD-E051",
        f"{token.host}:{token.port} is not the server that the token pins ({reason})",
        why="Somebody may stand in between. The secret was not sent.",
        fix="Ask the operator whether address and token are right; do not go on.",
    )


def _options(url: str, proxy: ProxyLines | None) -> list[tuple[str, int | str]]:
    largest = ("grpc.max_receive_message_length", LARGEST_REPLY)
    return [largest, *relay.grpc_way(url, proxy)]
