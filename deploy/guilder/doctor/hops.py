"""From here to the server's port: name, connection, and the proxy that stands between.

A proxy is gone through for real: TLS to it where it speaks TLS, then CONNECT with the
login of site.toml. What comes back is a connection to the server's port, for the
caller's own TLS. No request to the server is made here.
"""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guilder.doctor.finding import Finding, fine, wrong
from guilder_client.outbound import proxy_of, trusting
from guilder_client.relay import door
from guilder_client.settings import ProxyLines
from guilder_shared import tunnel
from guilder_shared.plain_text import one_line

NAME_DIFFERS: Final = (62, 64)  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH, IP_ADDRESS
RAN_OUT: Final = 10  # and X509_V_ERR_CERT_HAS_EXPIRED


@dataclass(frozen=True)
class Place:
    """Where the server is, and what stands before it.

    Attributes:
        host: Its public name or address.
        port: Its port.
        proxy: URL of the proxy on the way, login and all; or empty.
        authority: Who signed the proxy's own certificate; None: whom this machine
            trusts.
    """

    host: str
    port: int
    proxy: str = ""
    authority: Path | None = None

    @property
    def name(self) -> str:
        """`host:port`, brackets around an IPv6 address."""
        return tunnel.address(self.host, self.port)

    @property
    def next_hop(self) -> tuple[str, int]:
        """Where the first connection goes: the proxy, or the server."""
        return tunnel.place_of(self.proxy) if self.proxy else (self.host, self.port)

    @property
    def next_name(self) -> str:
        """Of the next hop, `host:port`; never a login."""
        return tunnel.address(*self.next_hop)

    @property
    def proxy_speaks_tls(self) -> bool:
        """Whether the proxy itself is reached by TLS."""
        return bool(self.proxy) and tunnel.parts_of(self.proxy).scheme == "https"


class StoppedError(Exception):
    """A step failed; what comes after it is not tried."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.what)
        self.finding = finding


def place_of(url: str, proxy: ProxyLines | None = None) -> Place:
    """Where `url` leads from here, by the client's own rules.

    Args:
        url: Of the server.
        proxy: `[proxy]` of site.toml; None: what HTTPS_PROXY and NO_PROXY say.

    Raises:
        EnrolmentError: The proxy's password cannot be read.
    """
    host, port = tunnel.place_of(url)
    way = proxy_of(url, proxy)
    return Place(host, port, way, proxy.authority if proxy else None)


def look_up(place: Place) -> Finding:
    """Ask DNS for the next hop."""
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
                fix=f"Compare {_named_by(place)} with what you were told; ask IT to "
                "resolve the name, or to name the proxy (HTTPS_PROXY).",
                exit_code=3,
            )
        ) from None
    addresses = sorted({str(each[4][0]) for each in found})
    return fine("network", f"DNS {host} is {', '.join(addresses)}")


def connect(place: Place, patience_s: float) -> socket.socket:
    """Connect to the next hop; each step of what follows has as long."""
    whose = "the proxy " if place.proxy else ""
    try:
        plain = socket.create_connection(place.next_hop, patience_s)
    except TimeoutError:
        raise StoppedError(
            wrong(
                "network",
                "GLD-N092",
                f"{whose}{place.next_name} does not answer within {patience_s:g} s",
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
                f"{whose}{place.next_name} refuses the connection "
                f"({error.strerror or type(error).__name__})",
                why="Nothing listens there, or a firewall rejects it.",
                fix="Ask IT for the proxy's address and port."
                if place.proxy
                else "Ask the operator whether the server runs and which port is its; "
                "if it runs, send IT `guilder client check --firewall-request`.",
                exit_code=3,
            )
        ) from None
    plain.settimeout(patience_s)
    return plain


def reach(place: Place, patience_s: float) -> socket.socket:
    """A connection to the server's port, through the proxy where there is one."""
    plain = behind_tls(place, patience_s) if place.proxy_speaks_tls else None
    plain = plain or connect(place, patience_s)
    if place.proxy:
        try:
            ask_proxy(place, plain)
        except StoppedError:
            plain.close()
            raise
    return plain


def shake_hands(place: Place, plain: socket.socket) -> Finding:
    """TLS with the proxy itself, whose certificate its own authority must have made.

    Args:
        place: Its proxy speaks TLS.
        plain: Connected to the proxy; not to be used afterwards.

    Raises:
        EnrolmentError: The proxy's authority cannot be read.
    """
    host, _ = place.next_hop
    context = trusting(place.authority) if place.authority else None
    context = context or ssl.create_default_context()
    try:
        with context.wrap_socket(plain, server_hostname=host) as secure:
            version = secure.version()
    except ssl.SSLCertVerificationError as error:
        raise StoppedError(_not_trusted(place, error)) from None
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or "no answer"
        raise StoppedError(
            wrong(
                "network",
                "GLD-N131",
                f"the proxy {place.next_name} does not complete TLS "
                f"({one_line(str(reason), 80)})",
                why="It speaks plain HTTP, or another program listens there.",
                fix=f"Write http:// instead of https:// in {_named_by(place)}, or ask "
                "IT for the proxy's address and port.",
                exit_code=3,
            )
        ) from None
    return fine("network", f"{version} to the proxy {place.next_name}")


def behind_tls(place: Place, patience_s: float) -> socket.socket:
    """A connection that goes to the proxy inside TLS, as the running client's does."""
    port = door(place.proxy, place.authority)
    plain = socket.create_connection(("127.0.0.1", port), patience_s)
    plain.settimeout(patience_s)
    return plain


def ask_proxy(place: Place, plain: socket.socket) -> None:
    """CONNECT, with Basic authentication where the proxy's URL has a name."""
    parts = tunnel.parts_of(place.proxy)
    try:
        tunnel.ask(plain, place.name, parts)
    except tunnel.TunnelRefusedError as refused:
        said = refused.strerror or ""
    except OSError:
        said = tunnel.NO_ANSWER
    else:
        return
    if said == tunnel.NO_ANSWER:
        raise StoppedError(_no_proxy(place))
    if said.split()[1:2] == ["407"]:
        raise StoppedError(_wants_login(place, said, parts.username))
    raise StoppedError(
        wrong(
            "network",
            "GLD-N095",
            f"the proxy {place.next_name} does not let {place.name} through ({said})",
            why="403: the address or port is not on its list; 502 to 504: the proxy "
            "itself cannot reach the server.",
            fix=f"Ask IT to allow CONNECT to {place.name} "
            "(`guilder client check --firewall-request` writes the letter).",
            exit_code=3,
        )
    )


def _wants_login(place: Place, said: str, user: str | None) -> Finding:
    why = "It knows no such name, or the password is another."
    if not user:
        why = "It wants a name and password, and none was sent."
    return wrong(
        "network",
        "GLD-N100",
        f"the proxy {place.next_name} refuses the login ({said})",
        why=why,
        fix="See to user and password under [proxy] in site.toml (or "
        "HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT, special characters as %XX).",
        exit_code=3,
    )


def _no_proxy(place: Place) -> Finding:
    return wrong(
        "network",
        "GLD-N132",
        f"the proxy {place.next_name} gives no answer to CONNECT",
        why="It is no HTTP proxy (a SOCKS proxy, another program), or wants TLS first.",
        fix=f"Compare {_named_by(place)} with what IT says: http:// or https://, host "
        "and port; SOCKS is not spoken.",
        exit_code=3,
    )


def _not_trusted(place: Place, error: ssl.SSLCertVerificationError) -> Finding:
    if error.verify_code == RAN_OUT:
        why = "The proxy's certificate was not renewed, or this machine's clock is off."
        fix = "Tell IT; compare this machine's clock."
    elif error.verify_code in NAME_DIFFERS:
        why = f"{_named_by(place)} names the proxy otherwise than its certificate does."
        fix = "Ask IT for the proxy's name as it stands in its certificate."
    else:
        signed = f"by {place.authority}" if place.authority else "by whom we trust here"
        why = f"It is not signed {signed}: another authority's, or another machine's."
        fix = (
            "Ask IT for the CA certificate that signed the proxy's, as PEM, and name "
            "the file under [proxy] authority (for `client join`: SSL_CERT_FILE)."
        )
    return wrong(
        "network",
        "GLD-N130",
        f"the certificate of the proxy {place.next_name} is not trusted "
        f"({one_line(error.verify_message, 80)}); no login was sent",
        why=why,
        fix=fix,
        exit_code=3,
    )


def _named_by(place: Place) -> str:
    """Which setting says where the next hop is."""
    return "[proxy] url or HTTPS_PROXY" if place.proxy else "[site] server"
