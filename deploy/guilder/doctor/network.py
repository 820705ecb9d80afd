"""The way to the server, step by step: name, proxy, connection, TLS, clock.

Each step is tried for real and the first that fails is named; later ones would fail for
the same reason. It sends the handshake and one request's head, to a path that does not
exist, and reads the answer's head. No lease is taken and no study is touched.
"""

import email.utils
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

from cryptography import x509

from guilder.doctor import hops
from guilder.doctor.finding import Finding, fine, of, warning, wrong
from guilder.doctor.hops import NAME_DIFFERS, RAN_OUT, Place, StoppedError, place_of
from guilder_client.outage import AHEAD_S, OLDEST_HEADER_S
from guilder_client.settings import ProxyLines
from guilder_shared import tls
from guilder_shared.errors import GuilderError
from guilder_shared.plain_text import one_line

PATIENCE_S: Final = 5.0  # for each step
MOST_HEAD: Final = 32 << 10
UNEASY_S: Final = 3.0  # a clock so far off that it will soon be too far
AGAIN_S: Final = 1.0  # a busy server writes its date anew within this
HEAD: Final = (
    "HEAD /guilder-check HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
)


def check(
    url: str,
    keys: tls.KeyFiles,
    *,
    proxy: ProxyLines | None = None,
    patience_s: float = PATIENCE_S,
) -> list[Finding]:
    """Go to the server as the client would; one finding for each step."""
    found: list[Finding] = []
    try:
        for finding in _walk(place_of(url, proxy), keys, patience_s):
            found.append(finding)
    except GuilderError as error:  # a file of ours, or the proxy's password
        found.append(of("keys", error))
    except StoppedError as stopped:
        found.append(stopped.finding)
    return found


def _walk(place: Place, keys: tls.KeyFiles, patience_s: float) -> Iterator[Finding]:
    yield hops.look_up(place)
    began_s = time.monotonic()
    with ExitStack() as opened:
        plain = opened.enter_context(hops.connect(place, patience_s))
        trip_ms = 1000 * (time.monotonic() - began_s)
        own = plain.getsockname()[0]
        yield fine(
            "network", f"TCP from {own} to {place.next_name} in {trip_ms:.0f} ms"
        )
        if place.proxy_speaks_tls:
            yield hops.shake_hands(place, plain)
            plain = opened.enter_context(hops.behind_tls(place, patience_s))
        if place.proxy:
            hops.ask_proxy(place, plain)
            told = f"the proxy {place.next_name} lets {place.name} through"
            yield fine("network", told)
        yield from _behind(place, plain, keys, patience_s)


def _behind(
    place: Place, plain: socket.socket, keys: tls.KeyFiles, patience_s: float
) -> Iterator[Finding]:
    """TLS with the server itself, and its clock."""
    context = tls.client_context(keys)
    with _secure(place, plain, context, patience_s) as secure:
        yield fine(
            "network",
            f"{secure.version()} to {place.name}: the certificate is our "
            "authority's, nobody in between opens it",
        )

        def again() -> float:
            with (
                hops.reach(place, patience_s) as anew,
                _secure(place, anew, context, patience_s) as another,
            ):
                return _ahead_s(place, another)

        yield _clock(place, secure, again)


def _secure(
    place: Place, plain: socket.socket, context: ssl.SSLContext, patience_s: float
) -> ssl.SSLSocket:
    try:
        return context.wrap_socket(plain, server_hostname=place.host)
    except ssl.SSLCertVerificationError as error:
        raise StoppedError(_not_ours(place, error, patience_s)) from None
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or "no answer"
        raise StoppedError(
            wrong(
                "network",
                "GLD-N094",
                f"{place.name} does not complete TLS 1.3 ({one_line(str(reason), 80)})",
                why="Another program listens there, or something in between cuts "
                "connections with client certificates.",
                fix="Compare host and port with the operator's; ask IT to pass TLS 1.3 "
                "with client certificates through untouched.",
                exit_code=3,
            )
        ) from None


def _not_ours(
    place: Place, error: ssl.SSLCertVerificationError, patience_s: float
) -> Finding:
    if error.verify_code == RAN_OUT:
        return wrong(
            "network", "GLD-E012", f"the certificate of {place.name} has run out",
            why="The server's certificate was not renewed, or this clock is wrong.",
            fix="Tell the operator; compare this machine's clock.",
            exit_code=3,
        )  # fmt: skip
    if error.verify_code in NAME_DIFFERS:
        return wrong(
            "network", "GLD-E012",
            f"{place.name} shows a certificate of our authority for another name",
            why="[site] server names the server otherwise than its certificate does.",
            fix="Use the address that the operator gave to `guilder server init`.",
            exit_code=3,
        )  # fmt: skip
    issuer = _issuer(place, patience_s)
    return wrong(
        "network",
        "GLD-N093",
        f"TLS to {place.name} is opened on the way: the certificate comes from "
        f"{issuer!r} and not from this consortium",
        why="A proxy here inspects TLS, or the address is another server's.",
        fix=f"Ask IT to exempt {place.name} from TLS inspection "
        "(`guilder client check --firewall-request` writes the letter). Never go on "
        "without: the proxy would read what is sent.",
        exit_code=3,
    )


def _issuer(place: Place, patience_s: float) -> str:
    """Who signed what the other side shows; believed in nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            hops.reach(place, patience_s) as plain,
            context.wrap_socket(plain, server_hostname=place.host) as secure,
        ):
            shown = secure.getpeercert(binary_form=True) or b""
    except (OSError, StoppedError):
        return "an authority that it does not name"
    issuer = x509.load_der_x509_certificate(shown).issuer
    return one_line(issuer.rfc4514_string(), 120)


def _clock(place: Place, secure: ssl.SSLSocket, again: Callable[[], float]) -> Finding:
    """Compare clocks by the `Date` header, which has whole seconds.

    A busy server's header is some seconds old: a difference is asked for again.
    """
    try:
        ahead_s = _ahead_s(place, secure)
        if not -OLDEST_HEADER_S / 2 < ahead_s < UNEASY_S:
            time.sleep(AGAIN_S)
            ahead_s = min(ahead_s, again(), key=abs)
    except (OSError, KeyError, ValueError):
        return wrong(
            "time", "GLD-N097", f"{place.name} answers otherwise than a Guilder server",
            why="Its answer has no Date, or there was none.",
            fix="Ask the operator whether something stands before the server.",
            exit_code=3,
        )  # fmt: skip
    word = "ahead of" if ahead_s > 0 else "behind"
    told = f"this machine's clock is {abs(ahead_s):.0f} s {word} the server's"
    fix = "Set the clock, best by NTP (`timedatectl set-ntp true`)."
    if not -OLDEST_HEADER_S < ahead_s < AHEAD_S:
        why = "The server takes no request signed at another time than its own."
        return wrong("time", "GLD-N010", told, why=why, fix=fix, exit_code=3)
    if not -OLDEST_HEADER_S / 2 < ahead_s < UNEASY_S:
        why = "It drifts; from 5 s ahead or 300 s behind the server refuses."
        return warning("time", "GLD-N096", told, why=why, fix=fix)
    return fine("time", "this machine's clock agrees with the server's")


def _ahead_s(place: Place, secure: ssl.SSLSocket) -> float:
    """Seconds that this clock is ahead; KeyError or ValueError without a date."""
    secure.sendall(HEAD.format(host=place.name).encode())
    head = _read_head(secure)
    now_s = time.time()
    fields = dict(
        line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line
    )
    return now_s - email.utils.parsedate_to_datetime(fields["date"]).timestamp()


def _read_head(stream: socket.socket) -> str:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MOST_HEAD:
        piece = stream.recv(4096)
        if not piece:
            break
        head += piece
    return head.decode("latin-1")
