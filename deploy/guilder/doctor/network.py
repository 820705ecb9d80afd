"""The way to the server, step by step: name, proxy, connection, TLS, clock.

Each step is tried for real and the first that fails is named; later ones would fail for
the same reason. It sends the handshake and one request's head, to a path that does not
exist, and reads the answer's head. No lease is taken and no study is touched.
"""

import email.utils
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509

from guilder.doctor.finding import Finding, fine, of, skipped, warning, wrong
from guilder_client.outage import AHEAD_S, OLDEST_HEADER_S, is_loopback
from guilder_client.outbound import with_login
from guilder_client.settings import ProxyLines
from guilder_shared import tls, tunnel
from guilder_shared.errors import GuilderError
from guilder_shared.plain_text import one_line

PATIENCE_S: Final = 5.0  # for each step
MOST_HEAD: Final = 32 << 10
UNEASY_S: Final = 3.0  # a clock so far off that it will soon be too far
AGAIN_S: Final = 1.0  # a busy server writes its date anew within this
HEAD: Final = (
    "HEAD /guilder-check HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
)
NAME_DIFFERS: Final = (62, 64)  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH, IP_ADDRESS
RAN_OUT: Final = 10  # and X509_V_ERR_CERT_HAS_EXPIRED


@dataclass(frozen=True)
class Place:
    """Where the server is, and what stands before it.

    Attributes:
        host: Its public name or address.
        port: Its port.
        proxy: URL of the proxy that this machine's environment names; or empty.
    """

    host: str
    port: int
    proxy: str = ""

    @property
    def name(self) -> str:
        """`host:port`, brackets around an IPv6 address."""
        return tunnel.address(self.host, self.port)

    @property
    def next_hop(self) -> tuple[str, int]:
        """Where the first connection goes: the proxy, or the server."""
        if not self.proxy:
            return self.host, self.port
        parts = urlsplit(self.proxy)
        return parts.hostname or "", parts.port or 3128


class StoppedError(Exception):
    """A step failed; what comes after it is not tried."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.what)
        self.finding = finding


def place_of(url: str, proxy: ProxyLines | None = None) -> Place:
    """Where `url` leads from here; loopback never goes by a proxy.

    Args:
        url: Of the server.
        proxy: `[proxy]` of site.toml; None: what HTTPS_PROXY and NO_PROXY say.

    Raises:
        EnrolmentError: The proxy's password cannot be read.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    if is_loopback(url):
        return Place(host, port)
    if proxy is not None:
        return Place(host, port, with_login(proxy))
    if urllib.request.proxy_bypass(host):
        return Place(host, port)
    return Place(host, port, urllib.request.getproxies().get("https", ""))


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
    except GuilderError as error:  # the proxy's password
        found.append(of("keys", error))
    except StoppedError as stopped:
        found.append(stopped.finding)
    return found


def _walk(place: Place, keys: tls.KeyFiles, patience_s: float) -> Iterator[Finding]:
    yield _look_up(place)
    began_s = time.monotonic()
    with _connect(place, patience_s) as plain:
        trip_ms = 1000 * (time.monotonic() - began_s)
        own = plain.getsockname()[0]
        host, port = place.next_hop
        yield fine("network", f"TCP from {own} to {host}:{port} in {trip_ms:.0f} ms")
        if place.proxy:
            if place.proxy.startswith("https:"):
                what = "the proxy is reached by TLS; what lies behind it was not tried"
                raise StoppedError(skipped("network", what))
            _ask_proxy(place, plain)
            yield fine("network", f"the proxy {host}:{port} lets {place.name} through")
        try:
            context = tls.client_context(keys)
        except GuilderError as error:
            raise StoppedError(of("keys", error)) from None
        with _secure(place, plain, context, patience_s) as secure:
            yield fine(
                "network",
                f"{secure.version()} to {place.name}: the certificate is our "
                "authority's, nobody in between opens it",
            )

            def again() -> float:
                with _connect(place, patience_s) as anew:
                    if place.proxy:
                        _ask_proxy(place, anew)
                    with _secure(place, anew, context, patience_s) as another:
                        return _ahead_s(place, another)

            yield _clock(place, secure, again)


def _look_up(place: Place) -> Finding:
    host, port = place.next_hop
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no name"
        raise StoppedError(
            wrong(
                "network",
                "GLD-N090",
                f"the name {host!r} cannot be resolved ({reason})",
                why="DNS here does not know the name, or it is misspelt.",
                fix="Compare [site] server with what the operator told you; ask IT to "
                "resolve the name, or to name the proxy (HTTPS_PROXY).",
                exit_code=3,
            )
        ) from None
    addresses = sorted({str(each[4][0]) for each in found})
    return fine("network", f"DNS {host} is {', '.join(addresses)}")


def _connect(place: Place, patience_s: float) -> socket.socket:
    host, port = place.next_hop
    whose = "the proxy " if place.proxy else ""
    try:
        plain = socket.create_connection((host, port), patience_s)
    except TimeoutError:
        raise StoppedError(
            wrong(
                "network",
                "GLD-N092",
                f"{whose}{host}:{port} does not answer within {patience_s:g} s",
                why="A firewall drops the packets, or no machine has this address.",
                fix="Send IT what `guilder client check --firewall-request` writes.",
                exit_code=3,
            )
        ) from None
    except OSError as error:
        raise StoppedError(
            wrong(
                "network",
                "GLD-N091",
                f"{whose}{host}:{port} refuses the connection "
                f"({error.strerror or type(error).__name__})",
                why="Nothing listens there, or a firewall rejects it.",
                fix="Ask the operator whether the server runs and which port is its; "
                "if it runs, send IT `guilder client check --firewall-request`.",
                exit_code=3,
            )
        ) from None
    plain.settimeout(patience_s)
    return plain


def _ask_proxy(place: Place, plain: socket.socket) -> None:
    """CONNECT, with Basic authentication where the proxy's URL has a name."""
    parts = urlsplit(place.proxy)
    try:
        tunnel.ask(plain, place.name, parts)
    except tunnel.TunnelRefusedError as refused:
        said = refused.strerror
    except OSError:
        said = "no answer"
    else:
        return
    raise StoppedError(
        wrong(
            "network",
            "GLD-N095",
            f"the proxy {parts.hostname}:{parts.port} does not let {place.name} "
            f"through ({said})",
            why="407: it wants a name and password; 403: the address is not allowed; "
            "no answer: it is no HTTP proxy.",
            fix="See to [proxy] in site.toml, or HTTPS_PROXY, or ask IT to allow "
            f"CONNECT to {place.name}.",
            exit_code=3,
        )
    )


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
        with _connect(place, patience_s) as plain:
            if place.proxy:
                _ask_proxy(place, plain)
            with context.wrap_socket(plain, server_hostname=place.host) as secure:
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
